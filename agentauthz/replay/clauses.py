"""Tell the why of a recorded decision, rule by rule and clause by clause: derived again, or as it was recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

from attrs import frozen

from agentauthz.canonical import class_name
from agentauthz.errors import NotReplayable
from agentauthz.policy.explain import Explanation, shown
from agentauthz.policy.policyset import PolicySet
from agentauthz.records import DecisionRecord, Openings, PolicyRecord
from agentauthz.records.words import value_words
from agentauthz.replay.compare import explain
from agentauthz.replay.policies import recorded_policies

MAX_RULES: Final = 40  # that one decision tells of
MAX_TEXT: Final = 1024 * 1024  # characters of policies that are read for one account, some 20 seconds' worth


@final
@frozen
class Clause:
    """Be one clause of a condition: what it says and where, how it came out, and the values that it saw."""

    expr: str
    result: str
    at: str
    saw: tuple[tuple[str, str], ...] = ()


@final
@frozen
class ToldRule:
    """Be one rule, and how it came out for the call of one party; `named`: the decision names it as its cause."""

    name: str
    actor: str
    named: bool
    clauses: tuple[Clause, ...]


@final
@frozen
class Why:
    """Be the account of one decision. `recorded` tells why it isn't derived again; None: it is.

    `more` counts the rules that are left out. `flips` says what would have turned it, as far as that is known.
    """

    rules: tuple[ToldRule, ...]
    recorded: str | None = None
    more: int = 0
    flips: tuple[str, ...] = ()


@final
class Accounts:
    """Give the why of decisions, by the policies whose text is among the records of their log.

    `openings` hold the values that the records only commit to.
    """

    def __init__(self, policies: Sequence[PolicyRecord], openings: Openings | None = None) -> None:
        self._records: dict[str, list[PolicyRecord]] = {}
        for each in policies:
            self._records.setdefault(each.digest, []).append(each)
        self._left = MAX_TEXT
        self._openings = openings
        self._known: dict[str, PolicySet | str] = {}

    def why(self, record: DecisionRecord) -> Why:
        """Return the why of a decision; where it can't be derived again, what was recorded then."""
        try:
            policies = self.policies(record.policy.digest)
            explanation = explain(record, policies, openings=self._openings)
            told, flips = _derived(explanation), tuple(flip.words() for flip in explanation.flips)
        except NotReplayable as cause:
            return _named(_recorded(record.explain), record, cause.reason)
        except Exception as cause:  # a record of any shape must not stop the account of the others
            return _named([], record, f"the record is damaged ({class_name(cause)})")
        return _named(told, record, None, flips)

    def policies(self, digest: str) -> PolicySet:
        """Return the policy set of `digest`, as `recorded_policies` does.

        Raises:
            NotReplayable: its text isn't there, or is another's, or so much has been read that no more is.
        """
        if digest not in self._known:
            try:
                self._known[digest] = self._read(digest)
            except NotReplayable as cause:
                self._known[digest] = cause.reason
        found = self._known[digest]
        if isinstance(found, str):
            raise NotReplayable(found)
        return found

    def _read(self, digest: str) -> PolicySet:
        records = self._records.get(digest, [])
        size = sum(len(one.text) for one in {(one.source, one.part): one for one in records}.values())
        if size > self._left:  # SECURITY: a forged log may hold any number of texts, and each costs time
            raise NotReplayable(f"of the policies in the log more than {MAX_TEXT:,} characters aren't read")
        self._left -= size
        return recorded_policies(records, digest)


def _derived(explanation: Explanation) -> list[Mapping[str, object]]:
    return [
        {**told, "clauses": [{**clause, "saw": _values(clause["saw"])} for clause in _list(told["clauses"])]}
        for told in explanation.clauses()
    ]


def _values(saw: object) -> dict[str, str]:
    return {path: shown(value) for path, value in saw.items()} if isinstance(saw, dict) else {}


def _recorded(part: object) -> list[Mapping[str, object]]:
    return [told for told in _list(part) if isinstance(told.get("rule"), str)]


def _named(
    told: Iterable[Mapping[str, object]], record: DecisionRecord, recorded: str | None, flips: tuple[str, ...] = ()
) -> Why:
    """Return the account with the rules that the decision names first."""
    named = {*record.rules, *record.undetermined}
    rules = [
        ToldRule(
            str(one["rule"]), str(one.get("actor", "")), one["rule"] in named,
            tuple(map(_clause, _list(one.get("clauses")))),
        )
        for one in told
    ]  # fmt: skip
    rules.sort(key=lambda rule: not rule.named)
    return Why(tuple(rules[:MAX_RULES]), recorded, max(0, len(rules) - MAX_RULES), flips)


def _clause(tree: Mapping[str, object]) -> Clause:
    saw = tree.get("saw")
    values = saw.items() if isinstance(saw, Mapping) else ()
    told = tuple((str(path), value if isinstance(value, str) else value_words(value)) for path, value in values)
    return Clause(str(tree.get("expr", "")), str(tree.get("result", "")), str(tree.get("at", "")), told)


def _list(part: object) -> list[Mapping[str, object]]:
    items = part if isinstance(part, list | tuple) else ()
    return [item for item in items if isinstance(item, Mapping)]
