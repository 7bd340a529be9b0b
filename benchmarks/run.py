"""Run the benchmarks: `make bench`, or `python benchmarks/run.py [--quick] [--full] [--sizes 10,1000]`."""

from __future__ import annotations

import pathlib
import sys

# this file is run as a script: what it imports is the package that it lies in, and the checkout's own agentauthz
sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from benchmarks.main import main  # noqa: E402

if __name__ == "__main__":
    main(sys.argv[1:])
