#!/bin/sh
# build.sh [TARGET …]: build all images, or only these, with docker, podman or buildah, whichever works. Environment:
# REGISTRY (localhost), TAG (dev), ENGINE (one of the three), PYTHON_IMAGE (the base instead of the Dockerfile's).
set -eu
cd "$(dirname "$0")/../.."
registry=${REGISTRY:-localhost} tag=${TAG:-dev} revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)

works() {
    command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1
}

engine=${ENGINE:-}
for candidate in docker podman buildah; do
    [ -n "$engine" ] || ! works "$candidate" || engine=$candidate
done
if [ -z "$engine" ]; then
    echo "no image builder works here: install docker, podman or buildah, and start docker's daemon" >&2
    exit 1
fi
layers=
[ "${engine##*/}" != buildah ] || layers=--layers # without it, buildah builds the wheels for each target; the others cache layers by default
[ $# -gt 0 ] || set -- $(sed -n 's/^FROM runtime AS //p' deploy/images/Dockerfile)
# shellcheck disable=SC2086 (empty without layers)
for target; do
    echo "$registry/aim-$target:$tag, by $engine"
    "$engine" build --quiet $layers --file deploy/images/Dockerfile --target "$target" --tag "$registry/aim-$target:$tag" \
        --build-arg "VERSION=$tag" --build-arg "REVISION=$revision" ${PYTHON_IMAGE:+--build-arg "PYTHON=$PYTHON_IMAGE"} .
done
