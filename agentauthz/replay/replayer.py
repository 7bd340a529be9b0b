"""Replay the lines of a log one by one; of lines that differ only in what policies don't read, one is decoded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, final

from attrs import frozen

from agentauthz.canonical import utf8
from agentauthz.errors import NotReplayable
from agentauthz.policy.policyset import PolicySet
from agentauthz.records.openings import Openings, opened
from agentauthz.records.reading import tree_of
from agentauthz.replay.answer import Answer, Asker, of_policies
from agentauthz.replay.cuts import Line, cut, decoded_cut, fill
from agentauthz.replay.question import Tree
from agentauthz.replay.same import Reads

MAX_LINES: Final = 20_000  # lines with cuts that are kept, before all are forgotten

State: TypeAlias = Literal["same", "unasked", "changed", "not replayable"]


@final
@frozen(eq=False)
class Result:
    """Be what comes of records that ask the same, whatever their ids and moments."""

    action: str
    state: State
    before: Answer | None
    after: Answer | None = None
    why: str | None = None


Came: TypeAlias = tuple[str, str, Result]  # with a record's id and its moment

_NO_RECORD: Final[Came] = ("", "", Result("", "not replayable", None, why="the line is no record"))


@final
class Replayer:
    """Replay lines under a policy set; `openings` hold the values that records only commit to."""

    def __init__(self, policies: PolicySet, openings: Openings | None = None) -> None:
        self.asker: Final = Asker(policies)
        self._openings: Final = openings
        self._known: Final[dict[bytes, Result | None]] = {}
        self._reads: Final[dict[bytes, Reads]] = {}

    def came(self, line: bytes) -> Came | None:
        """Return what comes of the decision of a line; None: it is of another record."""
        if (found := cut(line, self._asked)) is None:
            return self._slowly(line)
        own, ts, left, *_ = found
        if left in self._known:
            result = self._known[left]
        else:
            if len(self._known) >= MAX_LINES:
                self._known.clear()
            result = self._known[left] = self._learned(found)
        return self._slowly(line) if result is None else (own, ts, result)

    def _asked(self, action: bytes) -> Reads:
        """Return what is read for an action, by its JSON text; where it is handed off shows when the JSON is known."""
        reads = self._reads.get(action)
        if reads is None:
            if len(self._reads) >= MAX_LINES:
                self._reads.clear()
            reads = self._reads[action] = self.asker.sameness.reads(json.loads(action), False)
        return reads

    def _learned(self, line: Line) -> Result | None:
        """Return what comes of every line with the same cuts; None: something that was cut out makes a difference."""
        if (decoded := decoded_cut(line)) is None:
            return None
        tree, places = decoded
        try:
            key = self.asker.sameness.key(tree)  # INVARIANT: no key can be made of what was cut out
        except NotReplayable:
            return None
        fill(places, line)
        return self._result(tree, key)

    def _slowly(self, line: bytes) -> Came | None:
        if (tree := tree_of(line)) is None:
            return _NO_RECORD
        if tree.get("type") != "decision":
            return None
        return utf8(str(tree.get("id"))), utf8(str(tree.get("ts"))), self._result(tree)

    def _result(self, tree: Tree, key: bytes | None = None) -> Result:
        """Return what comes of one decision, whose key may be known."""
        action, before = _action(tree), None
        try:
            before = Answer.recorded(tree)
            if not of_policies(tree):
                return Result(action, "unasked", before, before)
            if self._openings is not None:
                tree, key = opened(tree, self._openings), None
            after = self.asker.answer(tree, key)
        except NotReplayable as cause:
            return Result(action, "not replayable", before, why=utf8(cause.reason))
        return Result(action, "same" if after == before else "changed", before, after)


def _action(tree: Tree) -> str:
    action: Any = tree.get("action")
    return utf8(str(action.get("name"))) if isinstance(action, Mapping) else ""
