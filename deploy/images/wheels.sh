#!/bin/sh
# wheels.sh PYTHON FOLDER: build the wheels of all distributions for the images, with a
# PYTHON that has requirements/images.txt.
set -eu
python=$1 wheels=$2
for project in libs/aimschema libs/aimbus libs/aimkube libs/aimcontroller services/* jobs/*; do
    "$python" -m uv build --quiet --wheel --python "$python" --no-build-isolation --no-create-gitignore --out-dir "$wheels" "$project"
done
