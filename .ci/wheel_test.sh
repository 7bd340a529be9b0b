#!/bin/sh
# Build a wheel, install it in an empty environment outside the checkout, and decide with it.
# usage: wheel_test.sh PYTHON
set -eu
cd "$(dirname "$0")/.."

root=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_CONSTRAINT="$root/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1

"$1" -m pip wheel --quiet --no-deps --wheel-dir "$work/dist" .
"$1" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "$work"/dist/agentauthz-*.whl
cp .ci/wheel_smoke.py "$work/"
cd "$work"
"$work/venv/bin/python" -I -W error wheel_smoke.py "$root"
