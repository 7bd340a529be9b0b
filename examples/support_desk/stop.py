"""Be the kill switch of the desk, for whoever is on duty: it works from any process that shares the desk's folder.

python stop.py DIR session ID REASON | halt REASON | resume REASON
"""

from __future__ import annotations

import argparse
from pathlib import Path

from desk import Desk


def main() -> None:
    """Give one order; it is recorded like everything else."""
    parser = argparse.ArgumentParser(description="Stop a session of the desk, or everything.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="the desk's folder")
    orders = parser.add_subparsers(dest="order", required=True)
    for name in ("session", "halt", "resume"):
        order = orders.add_parser(name)
        if name == "session":
            order.add_argument("id", metavar="ID", help="the session's id")
        order.add_argument("reason", metavar="REASON", help="why; denials tell it")
    given = parser.parse_args()
    with Desk(given.folder).authorizer() as authorizer:
        if given.order == "session":
            authorizer.revoke(session=given.id, reason=given.reason)
        elif given.order == "halt":
            authorizer.halt(given.reason)
        else:
            authorizer.resume(given.reason)
    print(f"done: {given.order}")


if __name__ == "__main__":
    main()
