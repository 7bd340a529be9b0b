"""Ask policies what a record says that they were asked, and once only where the question is the same."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, cast, final

from attrs import evolve, frozen

from agentauthz.authorizer.case import Case
from agentauthz.authorizer.enforcing import asked, enforced
from agentauthz.decision import Basis, Budget, Decision, Obligation, Outcome, Reason, Spend
from agentauthz.errors import NotReplayable
from agentauthz.policy.decide import denied_by_limits
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import Principal
from agentauthz.records.draft import MAX_LISTED
from agentauthz.records.lines import name
from agentauthz.replay.decoding import Gaps, Hidden, decoded, moment, principal
from agentauthz.replay.question import Question, Tree, question, why
from agentauthz.replay.same import Sameness
from agentauthz.request import Request
from agentauthz.state.memory import MemoryState

MAX_KNOWN: Final = 100_000  # answers that are kept, before all are forgotten

_BEFORE_RULES: Final = frozenset({Basis.REVOKED, Basis.AUTHORITY})
_NOWHERE: Final = MemoryState()  # nothing is asked of it: what was remembered is in the record
_PROBLEM: Final = Reason("problem", "a look-up failed")


@final
@frozen
class Answer:
    """Be how a decision came out, as far as a record tells it: `more` counts the rules that it doesn't name."""

    outcome: str
    basis: str
    rules: tuple[str, ...] = ()
    more: int = 0

    @classmethod
    def recorded(cls, tree: Tree) -> Answer:
        """Return how a record says that its decision came out.

        Raises:
            NotReplayable: the record is damaged.
        """
        try:
            more = tree.get("meta", {}).get("more", {}).get("/rules", 0)
            rules = tuple(tree.get("rules", ()))
            "".join((tree["outcome"], tree["basis"], *rules)).encode()  # texts, and such as can be written again
            return cls(tree["outcome"], tree["basis"], rules, operator.index(more))
        except (LookupError, TypeError, ValueError, AttributeError) as cause:
            raise NotReplayable(f"the record is damaged ({type(cause).__name__})") from None

    @classmethod
    def of(cls, decision: Decision) -> Answer:
        """Return how a decision came out, with its rules named as a record would."""
        return cls(decision.outcome.value, decision.basis.value, *told(decision.rules))


def told(names: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Return what a record tells of a list of names: the first, and how many more there are."""
    return tuple(map(name, names[:MAX_LISTED])), max(0, len(names) - MAX_LISTED)


def of_policies(tree: Tree) -> bool:
    """Say whether a recorded outcome is the policies': else it is the same whatever they say."""
    cause = tree.get("cause")
    return cause in (None, "approval") or (cause == "problem" and tree.get("mode") == "observe")


def ensure_sound(tree: Tree) -> None:
    """Make sure that what the key of a record may leave out is of its type: else an equal record would hide damage.

    Raises:
        NotReplayable: it isn't.
    """
    try:
        moment(tree["ts"])
        names = [name for actor in tree["actors"] for name in (actor["sub"], actor.get("iss", "."))]
        resource = tree.get("resource", {"state": ""})
        texts = (*names, tree.get("session", ""), "" if "state" in resource else resource["id"])
        if "" in names or not all(type(text) is str for text in texts):
            raise TypeError
    except (LookupError, TypeError, ValueError, AttributeError) as cause:
        raise NotReplayable(f"the record is damaged ({type(cause).__name__})") from None


def decide(asking: Question, tree: Tree, policies: PolicySet) -> Decision:
    """Return the decision of `policies` on what a record says that was asked, as it would have been enforced.

    It can't be relied on where the question's gaps aren't empty afterwards: a rule reads what the record doesn't hold.

    Raises:
        NotReplayable: the policies can't be evaluated.
    """
    request = asking.inputs.request

    def judge(request: Request, *, undeclared: bool = False) -> tuple[Decision, Inputs]:
        assert request is asking.inputs.request
        return policies.judge_inputs(asking.inputs, undeclared=undeclared, approvers=approvers), asking.inputs

    try:
        approvers = _approvers(tree, asking.gaps)
        case = Case(
            policies, {}, _NOWHERE, None, None, request, tree.get("mode") == "observe",
            problem=_PROBLEM if tree.get("cause") == "problem" else None, carries_out=_carrier(tree, asking.gaps),
        )  # fmt: skip
        decision = _within_budgets(case, _answered(asked(case, judge)[0], tree), tree, asking.gaps)
        if decision.basis not in _BEFORE_RULES:
            # all that rules read, whether or not an answer hung on it: else it would depend on the evaluator
            policies.seen(asking.inputs)
        return decision
    except Exception as cause:  # as where a call is decided: never an answer
        raise NotReplayable(f"the policies couldn't be evaluated ({type(cause).__name__})") from cause


def _answered(decision: Decision, tree: Tree) -> Decision:
    """Return the decision with what a person's answer, or its lack, made of a review then."""
    if decision.outcome is not Outcome.REVIEW or not decision.enforced or tree.get("cause") != "approval":
        return decision
    return evolve(decision, outcome=Outcome.DENY)


def _approvers(tree: Tree, gaps: Gaps) -> list[Principal]:
    """Return those who consented then, of whom no more is known than was asked.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: the record is damaged, or doesn't name them all.
    """
    meta = tree.get("meta", {})
    if any(place.startswith("/consents") for place in (*meta.get("oversized", ()), *meta.get("more", ()))):
        gaps.add("who approved")
    return [_approver(each, gaps) for each in tree.get("consents", ())]


def _approver(told: Tree, gaps: Gaps) -> Principal:
    by = told["by"]
    who = principal(by["kind"], by["sub"], by.get("iss"), "approver", gaps)
    for attribute, held in told.get("attributes", {}).items():
        try:
            who.facts[attribute] = decoded(held, f"approver.{attribute}", gaps)
        except Hidden:
            continue  # it isn't there, so whoever reads it is noted
    return who


def _within_budgets(case: Case, decision: Decision, tree: Tree, gaps: Gaps) -> Decision:
    """Return the decision as the budgets stood then; of one that the record doesn't tell of, nobody knows."""
    if not decision.spends or decision.outcome is Outcome.DENY:
        return decision
    told = {each["key"]: each for each in tree.get("budgets", ())}
    full: list[Spend] = []
    for spend in decision.spends:
        place = f"what was used of `{spend.rule}`"
        if (known := told.get(name(spend.key))) is None:
            gaps.add(place)
        elif not Budget(spend.rule, spend.key, spend.amount, spend.bound, _used(known, place, gaps)).fits:
            full.append(spend)
    return enforced(case, denied_by_limits(decision, full, ())) if full else decision


def _used(known: Tree, place: str, gaps: Gaps) -> Decimal:
    return Decimal(cast("int | Decimal", decoded(known["used"], place, gaps)))


def _carrier(tree: Tree, gaps: Gaps) -> Callable[[Obligation], bool]:
    """Return what says whether an obligation can be carried out: as it was then, and unknown for another type."""
    left: dict[str, bool | None] = {}
    for one in tree.get("obligations", ()):  # of a type that was carried out once, and once not, nobody knows
        own = one.get("left", False)
        left[one["type"]] = own if left.get(one["type"], own) is own else None
    by_id = {(one["id"], one["type"]): one.get("left", False) for one in tree.get("obligations", ())}

    def carries_out(duty: Obligation) -> bool:
        found = by_id.get((name(duty.id), name(duty.type)), left.get(name(duty.type)))
        if found is None:
            gaps.add(f"whether `{duty.type}` can be carried out")
        return found is False

    return carries_out


@final
class Asker:
    """Ask a policy set about records; equal questions are asked once. `asked` counts the questions."""

    def __init__(self, policies: PolicySet) -> None:
        self.policies: Final = policies
        self.asked = 0
        self.sameness: Final = Sameness(policies)
        self._known: Final[dict[bytes, Answer | str]] = {}

    def answer(self, tree: Tree, key: bytes | None = None) -> Answer:
        """Return how the decision of a record, whose key may be known, comes out under the policies.

        Raises:
            NotReplayable: the record doesn't hold all that they read.
        """
        ensure_sound(tree)
        key = self.sameness.key(tree) if key is None else key
        found = self._known.get(key)
        if found is None:
            found = self._ask(tree)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = found
        if isinstance(found, str):
            raise NotReplayable(why(found, tree))
        return found

    def _ask(self, tree: Tree) -> Answer | str:
        """Return the answer, or the first place that the record doesn't hold."""
        self.asked += 1
        asking = question(self.sameness.only_read(tree), self.policies)
        found = Answer.of(decide(asking, tree, self.policies))
        return min(asking.gaps.found) if asking.gaps.found else found
