#!/bin/sh
# Print the path of a Python that can set this project up; with a version as argument (3.12), one of exactly that.
# A name on the PATH proves nothing (a pyenv shim may exist and fail), so each candidate is run.
set -u

wanted=${1:-}
versions=${wanted:-"3.13 3.12 3.11"}
no_venv=""

usable() { # usable COMMAND [VERSION]: runs, is at least 3.11 (exactly VERSION where given), makes environments
    "$1" -c 'import sys
wanted = sys.argv[1]
found = ".".join(map(str, sys.version_info[:2]))
sys.exit(sys.version_info < (3, 11) or bool(wanted) and wanted != found)' "${2:-}" >/dev/null 2>&1 || return 1
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 || { no_venv=$1; return 1; }
}

found() {
    "$1" -c 'import sys; print(sys.executable)'
    exit 0
}

for version in $versions; do
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version"*/bin/python "/usr/bin/python$version" "/usr/local/bin/python$version" "/opt/homebrew/bin/python$version"; do
        usable "$candidate" "$version" && found "$candidate"
    done
done
for candidate in python3 python /usr/bin/python3; do
    usable "$candidate" "$wanted" && found "$candidate"
done

if [ -n "$no_venv" ]; then
    echo "error: $no_venv can't make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
else
    echo "error: no Python ${wanted:-3.11 or newer} found that runs; install one, or name it: make PYTHON=/path/to/python ..." >&2
fi
exit 1
