"""Find decisions in a log: filters that a record meets or doesn't."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast, final

from attrs import frozen

from agentauthz.errors import InvalidArgument
from agentauthz.principals import matches, patterns
from agentauthz.records.reading import Tree, tree_of
from agentauthz.records.record import DecisionRecord, read_record
from agentauthz.values import utc

OUTCOMES: Final = ("allow", "deny", "review")
KINDS: Final = ("user", "agent", "service")


@final
@frozen(kw_only=True)
class Query:
    """Be what decisions must meet; what is None, doesn't count.

    `action` is a name or a pattern (`payments.*`); `subject` and `actor` are an id, or one behind its kind
    (`agent:bot`); `since` is the first moment, and `until` the first one that is too late. `holds` are keyed hashes as
    `correlation` makes them, one of which must stand among the inputs.

    Raises:
        InvalidArgument: another outcome, a malformed pattern, or a moment without a time zone.
    """

    outcome: str | None = None
    action: str | None = None
    subject: str | None = None
    actor: str | None = None
    session: str | None = None
    rule: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    holds: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.outcome is not None and self.outcome not in OUTCOMES:
            raise InvalidArgument("outcome", f"must be one of {', '.join(OUTCOMES)}")
        if self.action is not None:
            patterns("action", [self.action])
        for name in ("since", "until"):
            if getattr(self, name) is not None and utc(getattr(self, name)) is None:
                raise InvalidArgument(name, "must be a datetime with a time zone")

    def met_by(self, tree: Tree) -> bool:
        """Say whether the JSON tree of a record is a decision that meets all of it."""
        try:
            return tree.get("type") == "decision" and self._met_by(tree)
        except (TypeError, ValueError, LookupError, AttributeError):  # a damaged record is for `verify` to tell
            return False

    def _met_by(self, tree: Mapping[str, Any]) -> bool:
        return (
            self.outcome in (None, tree.get("outcome"))
            and self.session in (None, tree.get("session"))
            and (self.rule is None or self.rule in tree.get("rules", ()) or self.rule in tree.get("undetermined", ()))
            and (self.action is None or _named(self.action, tree["action"]["name"]))
            and (self.subject is None or _is(tree["actors"][0], self.subject))
            and (self.actor is None or _is(tree["actors"][-1], self.actor))
            and self._within(tree["ts"])
            and (not self.holds or _holds(tree.get("inputs", ()), self.holds))
        )

    def _within(self, ts: str) -> bool:
        if self.since is None and self.until is None:
            return True
        moment = dt.datetime.fromisoformat(ts)
        return (self.since is None or moment >= self.since) and (self.until is None or moment < self.until)


def query(lines: Iterable[bytes], wanted: Query) -> Iterator[DecisionRecord]:
    """Return the decisions among lines that meet `wanted`, in their order; lines that are no records are left out."""
    for line in lines:
        tree = tree_of(line)
        if tree is not None and wanted.met_by(tree):
            try:
                yield cast("DecisionRecord", read_record(line))
            except InvalidArgument:
                continue


def _holds(inputs: Any, wanted: Sequence[str]) -> bool:
    """Say whether one of the hashes stands anywhere in the inputs."""
    if isinstance(inputs, list | tuple):
        return any(_holds(each, wanted) for each in inputs)
    if not isinstance(inputs, Mapping):
        return False
    return inputs.get("$c") in wanted or any(_holds(each, wanted) for each in inputs.values())


def _named(pattern: str, action: str) -> bool:
    return pattern == action or matches(pattern, action)


def _is(party: Mapping[str, Any], wanted: str) -> bool:
    kind, colon, own = wanted.partition(":")
    if colon and kind in KINDS:
        return (party["kind"], party["sub"]) == (kind, own)
    return bool(party["sub"] == wanted)
