"""Compare what was decided with what other policies would have decided, and explain single records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, final

from attrs import define, evolve, field, frozen

from agentauthz.errors import InvalidArgument, NotReplayable
from agentauthz.policy.explain import Explanation
from agentauthz.policy.policyset import PolicySet
from agentauthz.records import DecisionRecord, Record
from agentauthz.records.openings import Openings, opened
from agentauthz.replay.answer import Answer, decide, of_policies
from agentauthz.replay.question import question, why
from agentauthz.replay.replayer import Replayer, Result, State

Kind: TypeAlias = Literal["newly allowed", "newly denied", "other"]
KINDS: Final[tuple[Kind, ...]] = ("newly allowed", "newly denied", "other")
NO_RULE: Final = "(no rule)"


@final
@frozen
class Replayed:
    """Be what came of one record: its answer then and now, or why there is none now."""

    id: str
    ts: str
    action: str
    state: State
    before: Answer | None
    after: Answer | None = None
    why: str | None = None

    @classmethod
    def of(cls, id: str, ts: str, result: Result) -> Replayed:
        """Return what came of the record that has this id and moment."""
        return cls(id, ts, result.action, result.state, result.before, result.after, result.why)

    @property
    def kind(self) -> Kind:
        """Return how a changed decision changed; a review is neither an allow nor a denial."""
        assert self.before is not None
        assert self.after is not None
        before, after = self.before.outcome, self.after.outcome
        if before != after and after == "allow":
            return "newly allowed"
        return "newly denied" if before != after and after == "deny" else "other"

    @property
    def rules(self) -> tuple[str, ...]:
        """Return the rules that make the difference: those that decide now, else those that decided then."""
        now = () if self.after is None else self.after.rules
        return now or (() if self.before is None else self.before.rules) or (NO_RULE,)


@final
@define
class Comparison:
    """Be what came of a replay: how many decisions stay the same, which change, which can't be replayed and why.

    `unasked` of the same weren't the policies' to decide (a closed session, a failed look-up): they come out so under
    any. `changed` has those newly allowed first, then those newly denied.
    """

    digest: str
    same: int = 0
    unasked: int = 0
    changed: list[Replayed] = field(factory=list)
    not_replayable: dict[str, list[str]] = field(factory=dict)  # reasons, with the ids of their records

    @property
    def total(self) -> int:
        """Return the number of decisions that were looked at."""
        return self.same + len(self.changed) + sum(map(len, self.not_replayable.values()))

    def by_rule(self, kind: Kind) -> dict[str, list[Replayed]]:
        """Return the changes of one kind by the rules that make the difference, those with most changes first."""
        found: dict[str, list[Replayed]] = {}
        for change in self.changed:
            if change.kind == kind:
                for rule in change.rules:
                    found.setdefault(rule, []).append(change)
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))

    def count(self, id: str, ts: str, result: Result) -> None:
        """Count one record."""
        if result.state == "not replayable":
            self.not_replayable.setdefault(result.why or "", []).append(id)
        elif result.state == "changed":
            self.changed.append(Replayed.of(id, ts, result))
        else:
            self.same += 1
            self.unasked += result.state == "unasked"

    def settle(self) -> Comparison:
        """Put the changes in their order, when all records are counted."""
        self.changed.sort(key=lambda change: KINDS.index(change.kind))
        return self


def replay(records: Iterable[Record | bytes], policies: PolicySet, *, openings: Openings | None = None) -> Comparison:
    """Return how the decisions among `records` (or lines of a log) would come out under `policies`.

    `openings` hold the values that records only commit to.

    Raises:
        InvalidArgument: `policies` is no PolicySet, or `openings` were written with another key.
        SinkError: `openings` can't be read.
    """
    if type(policies) is not PolicySet:
        raise InvalidArgument("policies", f"must be a PolicySet, not {type(policies).__name__}")
    replayer, found = Replayer(policies, openings), Comparison(policies.digest)
    for record in records:
        if (came := replayer.came(record if isinstance(record, bytes) else record.line())) is not None:
            found.count(*came)
    return found.settle()


def explain(record: DecisionRecord, policies: PolicySet, *, openings: Openings | None = None) -> Explanation:
    """Return why `policies` decide as they do on what a record says that was asked, clause by clause.

    With the policies of the record's own digest, that is why it came out as it did. `flips` has the smallest changes
    that would have turned it. `openings` hold the values that the record only commits to.

    Raises:
        NotReplayable: the record doesn't hold all that the policies read, no policy was asked, or its own policies
            come to something else than it says.
        InvalidArgument: `record` is no decision's, `policies` no PolicySet, or `openings` are another key's.
        SinkError: `openings` can't be read.
    """
    if type(record) is not DecisionRecord:
        raise InvalidArgument("record", f"must be a DecisionRecord, not {type(record).__name__}")
    if type(policies) is not PolicySet:
        raise InvalidArgument("policies", f"must be a PolicySet, not {type(policies).__name__}")
    tree = opened(record.as_dict(), openings)
    if not of_policies(tree):
        reasons = "; ".join(reason.text for reason in record.reasons)
        raise NotReplayable(f"it wasn't the policies that decided: {reasons}")
    asking = question(tree, policies)
    decision = decide(asking, tree, policies)
    explanation = policies.explanation(decision, asking.inputs)
    if asking.gaps.found:
        raise NotReplayable(why(min(asking.gaps.found), tree))
    come_to = (decision.outcome.value, decision.basis.value)
    if policies.digest == record.policy.digest and come_to != (record.outcome, record.basis):
        raise NotReplayable("derived again, it comes out in another way")
    turning = policies.flips(decision, asking.inputs)
    # with another fact, rules may read what the record doesn't hold: then nobody knows what would have come
    return explanation if asking.gaps.found else evolve(explanation, flips=turning)
