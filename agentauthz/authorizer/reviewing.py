"""Find out what people have said about a call that a review stops, or ask them."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final

from attrs import define, evolve

from agentauthz.approvals.binding import Unbindable
from agentauthz.approvals.heard import Heard
from agentauthz.approvals.keeper import Keeper
from agentauthz.approvals.review import Asking, Consent, Review
from agentauthz.decision import Decision, Outcome, Reason
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import Chain, Principal
from agentauthz.request import Request
from agentauthz.state.store import Approval, Intent, StateStore

if TYPE_CHECKING:
    from agentauthz.authorizer.revocations import Revocations
    from agentauthz.policy.inputs import Inputs

T = TypeVar("T")
_Steps: TypeAlias = Generator[Callable[[], object], Any, T]  # operations of a store: their answers are sent back

MAX_FORGED: Final = 16  # rows of one call that aren't as they were sealed, before asking is given up
WITHIN: Final = dt.timedelta(minutes=15)

_TEXTS: Final = {
    "unbindable": "no approval could be tied to this call: {} is no value, or isn't known",
    "approval_unknown": "there is no such approval under this key",
    "approval_void": "the approval was given under other policies",
    "out_of_scope": "the approval is for another call",
    "approval_expired": "the approval has expired",
    "approval_used": "the approval was used already",
    "approval_rejected": "the call was rejected",
    "approval_insufficient": "more is asked for by now than was approved",
}
_OVER: Final = {"used": "approval_used", "expired": "approval_expired", "rejected": "approval_rejected"}


@final
@define(eq=False)
class Consulting:
    """Be what one call needs to find consent: the policies, the store, the keeper, and which approval it names."""

    policies: PolicySet
    store: StateStore
    keeper: Keeper
    request: Request
    sensitive: frozenset[str] = frozenset()
    approval: str | None = None
    revoked: Revocations | None = None

    def heard(self, decision: Decision, inputs: Inputs) -> _Steps[Heard]:
        """Find what people have said about a call that reviews stop."""
        try:
            binding = self.keeper.binding(self.request, self.policies.digest)
        except Unbindable as part:
            return _refused(decision, "unbindable", str(part))
        named = self.approval is not None
        review = yield from (self._named(binding) if named else self._latest(binding))
        if isinstance(review, str):
            return _refused(decision, review)
        if review is not None and review.standing == "approved":
            consents = tuple(each for each in fitting(review.chain, review.consents) if self._stands(each.by))
            after = self.policies.judge_inputs(inputs, approvers=[consent.by for consent in consents])
            if after.outcome is not Outcome.REVIEW:
                return Heard(after, review, review.id, consents)
            if named:
                return _refused(decision, "approval_insufficient")
            return Heard(decision, binding=binding, outdated=review.id)
        if review is not None and review.standing == "pending":
            return Heard(evolve(decision, approval=review.id), review)
        lapsed = review if review is not None and review.standing == "expired" else None
        if review is not None and (named or review.standing == "rejected"):
            heard = over(decision, review)
            heard.lapsed = lapsed
            return heard
        return Heard(_noting(decision, review), binding=binding, lapsed=lapsed)

    def _stands(self, person: Principal) -> bool:
        """Say whether somebody's consent still counts: it doesn't once they were revoked."""
        return self.revoked is None or self.revoked.against(0, None, Chain(person)) is None

    def _named(self, binding: str) -> _Steps[Review | str]:
        """Return the review that the call names, or the code of why it isn't for this call."""
        row: Approval | None = yield functools.partial(self.store.approval, self.approval or "")
        review = self.keeper.opened(row)
        if review is None or row is None:
            return "approval_unknown"
        if row.binding != binding:
            return "out_of_scope" if review.policy_digest == self.policies.digest else "approval_void"
        return review.at_moment((yield self.store.now))

    def _latest(self, binding: str) -> _Steps[Review | None]:
        """Return the review of this call that was rejected, until its end, else the open one, else the latest."""
        rows: Sequence[Approval] = yield functools.partial(self.store.approvals, binding=binding)
        now: dt.datetime = yield self.store.now
        # SECURITY: a store is not believed that these rows are this call's
        own = [row for row in rows if row.binding == binding]
        found = [opened for row in own if (opened := self.keeper.opened(row)) is not None]
        found = [each.at_moment(now) for each in found if each.standing != "rejected" or each.expires > now]
        for standings in (("rejected",), ("approved", "pending"), ("used", "expired")):
            if such := [one for one in found if one.standing in standings]:
                return such[-1]
        return None

    def asked(
        self, decision: Decision, inputs: Inputs, binding: str, outdated: str | None
    ) -> _Steps[tuple[Review, bool] | None]:
        """Ask for consent, where nobody else has by now; return what waits, and whether it is new.

        Where somebody has said no meanwhile, what was rejected is returned.
        `outdated` is used up. None: rows that nobody here has sealed are in the way, or the store gives another call's.
        """
        if outdated is not None:
            yield functools.partial(self.store.commit, Intent(None, approvals=(outdated,)))
        self.policies.seen(inputs)  # all that `by` may ask is read now
        seen = {name: getattr(inputs, name) for name in ("resource", "session", "context")}
        now: dt.datetime = yield self.store.now
        rules = asking(self.policies, decision)
        row = self.keeper.asked(
            binding, self.request, seen, asking_words(rules, decision), digest=self.policies.digest,
            sensitive=self.sensitive, at=now, within=min((rule.within or WITHIN for rule in rules), default=WITHIN),
        )  # fmt: skip
        for _ in range(MAX_FORGED):
            kept: Approval = yield functools.partial(self.store.ask, row)
            if kept.binding != binding:  # another call's, whose request isn't ours to put away
                return None
            if (review := self.keeper.opened(kept)) is not None:
                # SECURITY: many calls at once would else be as many questions, until somebody gives in
                if (latest := (yield from self._latest(binding))) is not None and latest.standing == "rejected":
                    said = () if latest.rejection is None else (latest.rejection,)
                    yield from self._put_away(kept, self.keeper.answer(kept, "rejected", said))
                    return latest, False
                return review.at_moment(now), kept.id == row.id
            yield from self._put_away(kept)
        return None

    def _put_away(self, row: Approval, answer: str = "") -> _Steps[None]:
        """Close a row that may not stand: one that isn't as it was sealed, or asks what was answered already."""
        yield functools.partial(self.store.answer, row.id, "rejected", answer, known=row.answer)
        yield functools.partial(self.store.commit, Intent(None, approvals=(row.id,)))


def fitting(chain: Chain, consents: Sequence[Consent]) -> tuple[Consent, ...]:
    """Return the consents of those who may consent at all: users who don't act in the chain themselves."""
    return tuple(consent for consent in consents if may_consent(chain, consent.by))


def may_consent(chain: Chain, who: Principal) -> bool:
    """Say whether somebody may consent to a call at all; the subject may, where `by` says so."""
    return who.kind == "user" and all(who != hop.to for hop in chain.delegations)


def asking(policies: PolicySet, decision: Decision) -> tuple[Any, ...]:
    """Return the reviews that ask for consent, also those that only can't be ruled out."""
    names = sorted({*decision.rules, *decision.undetermined})
    return tuple(rule for rule in map(policies.rule, names) if rule.effect == "review")


def asking_words(rules: Sequence[Any], decision: Decision) -> tuple[Asking, ...]:
    """Return what is told of the reviews that ask."""
    from agentauthz.policy.format import format_expr

    texts = {reason.rule: reason.text for reason in decision.reasons}
    return tuple(
        Asking(rule.name, texts.get(rule.name, f"`{rule.name}` asks"), rule.because, format_expr(rule.by))
        for rule in rules
    )


def over(decision: Decision, review: Review) -> Heard:
    """Return what is heard of a call whose review was used, rejected or has expired: it is denied."""
    return _refused(decision, _OVER[review.standing])


def _refused(decision: Decision, code: str, *about: str) -> Heard:
    reason = Reason(code, _TEXTS[code].format(*about))
    return Heard(evolve(decision, outcome=Outcome.DENY, reasons=(reason, *decision.reasons)), refused=True)


def _noting(decision: Decision, before: Review | None) -> Decision:
    """Return the decision with a word on the approval that the call had before."""
    if before is None:
        return decision
    code = _OVER[before.standing]
    return evolve(decision, reasons=(*decision.reasons, Reason(code, _TEXTS[code])))
