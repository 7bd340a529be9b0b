"""Run the bank assistant's real calls, and those of a hijacked one, under `bank.authz`.

python run.py [--records DIR]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bank import Bank, load_data, open_bank
from bank_tools import CHANGING, TOOLS

from agentauthz import PolicySet, Principal
from agentauthz.approvals import Review

sys.path.append(str(Path(__file__).parents[1] / "shared"))
from replay import Replay, records_folder, report

POLICY: Final = Path(__file__).with_name("bank.authz")
EMMA: Final = Principal.user("emma")
ASSISTANT: Final = Principal.agent("bank-assistant")
DATA: Final = load_data()
HIJACKED_BY: Final = DATA["user_tasks"][0]["calls"][:1]  # reads a bill, in which the attacker has written


def fresh(planted: str | None) -> None:
    """Give Emma a new bank; `planted` is what an attacker has written wherever others can write."""
    bank = Bank.load(DATA["environment"])
    if planted is not None:
        bank.plant(planted)
    open_bank(EMMA.id, bank)


def replay_into(folder: Path, consents: Callable[[Review], bool] = lambda review: False) -> Replay:
    """Return what makes Emma's calls, with its records in `folder`; `consents` says to what she says yes."""
    return Replay(POLICY, TOOLS, (EMMA, ASSISTANT), fresh, folder, consents)


def main() -> None:
    """Print every decision, then the figures."""
    PolicySet.load(POLICY).check(tools=TOOLS.values())
    with records_folder("Run a bank assistant's calls under a policy set.") as folder:
        replay = replay_into(folder)
        report(replay, DATA, HIJACKED_BY, CHANGING)
        replay.authorizer.close()


if __name__ == "__main__":
    main()
