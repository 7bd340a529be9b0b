#!/bin/sh
# Make or bring up to date an environment with this project in it, editable.
# usage: make_venv.sh PYTHON FOLDER EXTRAS CONSTRAINTS     (EXTRAS: "", "test", "dev", "bench")
set -eu

python=$1 folder=$2 extras=$3 constraints=$4

if [ -z "$python" ]; then exit 1; fi # find_python.sh has said why
if ! "$folder/bin/python" -c 'import pip' >/dev/null 2>&1; then
    echo "making $folder with $("$python" --version) ($python)"
    "$python" -m venv --clear "$folder"
fi
# by variable, so that it binds the build's own environment too
PIP_CONSTRAINT=$constraints PIP_DISABLE_PIP_VERSION_CHECK=1 "$folder/bin/python" -m pip install --quiet --editable ".${extras:+[$extras]}"
