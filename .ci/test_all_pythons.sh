#!/bin/sh
# Run the tests on every Python that we promise; fail where one fails, and where one is missing.
set -u
cd "$(dirname "$0")/.."

failed="" missing="" passed=""
for version in 3.11 3.12 3.13; do
    if ! python=$(.ci/find_python.sh "$version" 2>/dev/null); then
        missing="$missing $version"
        continue
    fi
    echo "== $version: $("$python" --version) at $python"
    folder=.venvs/$version
    if .ci/make_venv.sh "$python" "$folder" test constraints.txt && "$folder/bin/python" -m pytest -q -n 2; then
        passed="$passed $version"
    else
        failed="$failed $version"
    fi
done

echo "passed:${passed:- none}; failed:${failed:- none}; not found on this machine:${missing:- none}"
[ -z "$failed" ] && [ -z "$missing" ] # a Python that wasn't there has proved nothing
