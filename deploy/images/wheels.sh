#!/bin/sh
# wheels.sh PYTHON FOLDER: build the wheels of all distributions for the images, with a
# PYTHON that has requirements/images.txt.
set -eu
python=$1 wheels=$2
"$python" -m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir "$wheels" ./libs/aimschema ./libs/aimbus ./libs/aimkube \
    ./libs/aimcontroller ./services/* ./jobs/*
