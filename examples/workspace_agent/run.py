"""Run the workspace assistant's real calls, and those of a hijacked one, under `workspace.authz`.

python run.py [--records DIR]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from workspace import Workspace, load_data, open_workspace
from workspace_tools import CHANGING, TOOLS

from agentauthz import PolicySet, Principal
from agentauthz.approvals import Review

sys.path.append(str(Path(__file__).parents[1] / "shared"))
from replay import Replay, records_folder, report

POLICY: Final = Path(__file__).with_name("workspace.authz")
DATA: Final = load_data()
HIJACKED_BY: Final = [{"function": "search_emails", "args": {"query": "hiking trip"}}]  # as user_task_17 does


def person(own: Workspace) -> Principal:
    """Return the owner of a workspace, with whom she knows when the session begins."""
    home = own.address.split("@")[1]
    return Principal.user("emma", address=own.address, domain=home, written_to=own.written_to(), met=own.met())


EMMA: Final = person(Workspace.load(DATA["environment"]))
ASSISTANT: Final = Principal.agent("workspace-assistant")


def fresh(planted: str | None) -> None:
    """Give Emma a new workspace; `planted` is what an attacker has written wherever others can write."""
    own = Workspace.load(DATA["environment"])
    if planted is not None:
        own.plant(planted)
    open_workspace(EMMA.id, own)


def replay_into(folder: Path, consents: Callable[[Review], bool] = lambda review: False) -> Replay:
    """Return what makes Emma's calls, with its records in `folder`; `consents` says to what she says yes."""
    return Replay(POLICY, TOOLS, (EMMA, ASSISTANT), fresh, folder, consents)


def main() -> None:
    """Print every decision, then the figures."""
    PolicySet.load(POLICY).check(tools=TOOLS.values())
    with records_folder("Run a workspace assistant's calls under a policy set.") as folder:
        replay = replay_into(folder)
        report(replay, DATA, HIJACKED_BY, CHANGING)
        replay.authorizer.close()


if __name__ == "__main__":
    main()
