#!/bin/sh
# install.sh TARGET PYTHON WHEELS FOLDER: create the virtual environment FOLDER with one service and
# its requirements, and nothing else. Third-party packages are installed by pin and hash, and built with
# the tools of requirements/images.txt if there is no wheel. The rest is installed without an index, so a
# missing pin is an error. Run it at the top of the repository, with a PYTHON that has
# requirements/images.txt.
set -eu
target=$1 python=$2 wheels=$3 folder=$4
list=deploy/images/requirements/$target.txt
extras=$(sed -n 's/^# extra: //p' "$list")
fetched=$(mktemp -d)
trap 'rm -r "$fetched"' EXIT
"$python" -m pip wheel --quiet --require-hashes --no-deps --no-build-isolation --wheel-dir "$fetched" --requirement "$list"
python3 -m venv --without-pip "$folder"
# shellcheck disable=SC2086 (extras are several words)
"$python" -m pip --python "$folder" install --quiet --no-index --find-links "$fetched" --find-links "$wheels" "aim-$target" $extras
"$python" -m pip --python "$folder" check
mkdir -p "$folder/share/sbom"
"$python" -m cyclonedx_py environment --output-format JSON --output-file "$folder/share/sbom/aim-$target.cdx.json" "$folder/bin/python"
