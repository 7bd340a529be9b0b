"""Let a support desk's agents work on four tickets, one of which gives orders of its own.

python run.py [--by-hand] [--folder DIR]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from desk import Desk
from telling import Story, Terminal, headline
from turns import broken_lamp, cracked_cup, hijacked, lost_table


def story(desk: Desk, terminal: Terminal) -> None:
    """Work on the tickets, then look at the records."""
    desk.set_up()
    with desk.authorizer([Story()]) as authorizer:
        for ticket in (broken_lamp, lost_table, hijacked, cracked_cup):
            ticket(authorizer, terminal)
    headline("THE DAY AFTER: what happened in ticket 3, and whether the records are all there.")
    terminal.records("auditor", "show", "ticket-3", str(desk.records))
    terminal.records("auditor", "verify", str(desk.records))


def main() -> None:
    """Run in a folder that is gone afterwards, unless one is named."""
    parser = argparse.ArgumentParser(description="Let a support desk's agents work on four tickets.")
    parser.add_argument("--by-hand", action="store_true", help="leave the other terminal's commands to you")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep state, key and records in this folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        desk = Desk((given.folder or Path(passing)).resolve())
        if desk.state.exists():
            parser.error(f"`{desk.folder}` remembers another run, with what was spent and revoked: take a new folder")
        story(desk, Terminal(desk, by_hand=given.by_hand))


if __name__ == "__main__":
    main()
