"""Offer the library on the command line: `agentauthz GROUP COMMAND …`."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Final

from agentauthz.cli import approvals, state
from agentauthz.cli.command import USAGE, Command, Parser, mute
from agentauthz.cli.erase import erase
from agentauthz.cli.export import export
from agentauthz.cli.prove import prove
from agentauthz.cli.prune import prune
from agentauthz.cli.query import query
from agentauthz.cli.repair import repair
from agentauthz.cli.replaying import explain, replay
from agentauthz.cli.report import report
from agentauthz.cli.show import show
from agentauthz.cli.tail import tail
from agentauthz.cli.verify import verify
from agentauthz.errors import AgentAuthzError
from agentauthz.records.words import one_line, printable

# a command is one function: it tells the parser its arguments, and returns what carries it out
GROUPS: Final[Mapping[str, tuple[str, Mapping[str, Command]]]] = {
    "records": (
        "Verify, read, compare and explain decision records.",
        {
            "verify": verify,
            "show": show,
            "query": query,
            "report": report,
            "tail": tail,
            "export": export,
            "prove": prove,
            "prune": prune,
            "erase": erase,
            "repair": repair,
            "explain": explain,
            "replay": replay,
        },
    ),
    "approvals": (
        "List, show and answer the calls that wait for a person.",
        {
            "list": approvals.listing,
            "show": approvals.show,
            "approve": approvals.approve,
            "reject": approvals.reject,
            "wait": approvals.wait,
        },
    ),
    "state": (
        "Prepare the store that keeps what sessions remember, look at it, and stop what uses it.",
        {
            "init": state.init,
            "show": state.show,
            "revoke": state.revoke,
            "halt": state.halt,
            "resume": state.resume,
            "prune": state.prune,
        },
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code; 4 is a wrong call, for every command."""
    parser = Parser(
        prog="agentauthz", description="Decide, at the point of action, whether an AI agent's call may happen."
    )
    groups = parser.add_subparsers(metavar="GROUP", required=True)
    for name, (about, commands) in GROUPS.items():
        group = groups.add_parser(name, help=about, description=about)
        members = group.add_subparsers(metavar="COMMAND", required=True)
        for called, command in commands.items():
            told = (command.__doc__ or "").strip().partition("\n")[0]
            own = members.add_parser(called, help=told, description=told)
            own.set_defaults(run=command(own))
    _open_outputs()
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        mute()
        return 0
    except (AgentAuthzError, OSError) as error:
        sys.stderr.write(f"agentauthz: {printable(str(error))}\n")
        return USAGE
    except Exception:  # a mistake of ours: Python's own 1 would tell a script that the log was tampered with
        sys.stderr.writelines(f"{one_line(line)}\n" for line in traceback.format_exc().splitlines())
        return USAGE
    return code


def _open_outputs() -> None:
    """Let both outputs take any text: a closed one forgets it, and what an encoding lacks comes as an escape."""
    for name in ("stdout", "stderr"):
        output = getattr(sys, name)
        if output is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (open as long as the process)
        elif isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")
