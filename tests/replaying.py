"""Replay records under their own policies, and tell where that disagrees."""

from __future__ import annotations

import json
from typing import Final

from agentauthz import PolicySet
from agentauthz.errors import NotReplayable
from agentauthz.replay.answer import Answer, Asker, decide, of_policies, told
from agentauthz.replay.question import question

LISTS: Final = ("rules", "undetermined", "missing", "marks")


def disagreement(line: bytes, policies: PolicySet) -> str | None:
    """Return how a decision's record, replayed under `policies`, its own, differs from itself; None: not at all.

    Raises:
        NotReplayable: the record doesn't hold all that its decision rested on.
    """
    tree = json.loads(line)
    assert tree["policy"]["digest"] == policies.digest
    if not of_policies(tree):
        return None
    asking = question(tree, policies)
    decision = decide(asking, tree, policies)
    if asking.gaps.found:
        raise NotReplayable(f"{sorted(asking.gaps.found)}")
    if (now := Answer.of(decision)) != (then := Answer.recorded(tree)):
        return f"{then} then, {now} now"
    if (known := Asker(policies).answer(tree)) != then:
        return f"{then} then, {known} where equal questions are asked once"
    for name in LISTS:
        if told(getattr(decision, name))[0] != tuple(tree.get(name, ())):
            return f"{name}: {tree.get(name)} then, {getattr(decision, name)} now"
    return None
