#!/bin/sh
# install.sh TARGET PYTHON WHEELS FOLDER: create the virtual environment FOLDER with one service and
# its requirements, and nothing else. Third-party packages are installed by pin and hash, and built with
# the pinned tools of requirements/images.txt if there is no wheel. The rest is installed without an index, so a
# missing pin is an error. Run it at the top of the repository, with a PYTHON that has
# requirements/images.txt. Another index than PyPI: UV_DEFAULT_INDEX.
set -eu
target=$1 python=$2 wheels=$3 folder=$4
list=deploy/images/requirements/$target.txt
extras=$(sed -n 's/^# extra: //p' "$list")
python3 -m venv --without-pip "$folder"
pip() {
    command=$1
    shift
    "$python" -m uv pip "$command" --quiet --system-certs --python "$folder/bin/python" "$@"
}
pip install --require-hashes --no-deps --build-constraints requirements/images.txt --requirement "$list"
# shellcheck disable=SC2086 (extras are several words)
pip install --no-index --find-links "$wheels" "aim-$target" $extras
pip check
mkdir -p "$folder/share/sbom"
"$python" -m cyclonedx_py environment --no-validate --output-format JSON --output-file "$folder/share/sbom/aim-$target.cdx.json" "$folder/bin/python"
