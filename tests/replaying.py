"""Replay every record that tests write under the policies that it names, and tell where that disagrees."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from agentauthz.authorizer.recording import Recording
from agentauthz.errors import NotReplayable
from agentauthz.policy.policyset import PolicySet
from agentauthz.replay.answer import Answer, Asker, decide, of_policies, told
from agentauthz.replay.question import question

MOST: Final = 300  # records that one test has replayed, of those that differ in more than their ids
LISTS: Final = ("rules", "undetermined", "missing", "marks")
# what differs from one record of a kind to the next, and no policy reads
_COUNTED: Final = re.compile(rb'"(?:id|prev|args_digest)":"[^"]*"|"(?:seq|mono_ns)":[0-9]+')


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
    then = Answer.recorded(tree)
    if not asking.gaps.found and (now := Answer.of(decision)) != then:
        return f"{then} then, {now} now"
    if (known := Asker(policies).answer(tree)) != then:
        return f"{then} then, {known} where equal questions are asked once"
    for name in LISTS:
        if told(getattr(decision, name))[0] != tuple(tree.get(name, ())):
            return f"{name}: {tree.get(name)} then, {getattr(decision, name)} now"
    return None


def complaint(line: bytes, policies: PolicySet) -> str | None:
    """Return what is wrong with a record: it disagrees, or isn't replayable though it says that it holds all."""
    try:
        return disagreement(line, policies)
    except NotReplayable as cause:
        held_back = json.loads(line).get("meta", {})
        return None if held_back else f"not replayable: {cause.reason}"


class Written:
    """Keep the records that authorizers write, one of each kind, each with the policies in force."""

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, str], tuple[bytes, PolicySet]] = {}

    def watch(self) -> Any:
        """Return what `Recording._record` is to be while records are kept."""
        make = Recording._record

        def record(recording: Recording, case: Any, verdict: Any) -> Any:
            made = make(recording, case, verdict)
            if len(self._kept) < MOST:
                line = made.line()
                self._kept.setdefault((_COUNTED.sub(b"", line), case.policies.digest), (line, case.policies))
            return made

        return record

    def complaints(self) -> list[tuple[bytes, str]]:
        """Return the lines that don't replay as they were written, each with what is wrong."""
        found = ((line, complaint(line, policies)) for line, policies in self._kept.values())
        return [(line, wrong) for line, wrong in found if wrong is not None]


@contextmanager
def replayed_records() -> Iterator[None]:
    """Replay what is recorded while the block runs, at its end.

    Raises:
        AssertionError: a record comes out otherwise than it says.
    """
    written, make = Written(), Recording._record
    Recording._record = written.watch()  # type: ignore[method-assign]
    try:
        yield
    finally:
        Recording._record = make  # type: ignore[method-assign]
    found = written.complaints()
    assert found == [], found  # not a module of tests: without the text nothing would be told
