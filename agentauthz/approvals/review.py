"""Define `Review`, what a person is asked to consent to, and `Answer` and `Consent`, what a person says."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, final

from attrs import evolve, field, frozen

from agentauthz.canonical import Json
from agentauthz.errors import InvalidArgument
from agentauthz.principals import Chain, Principal
from agentauthz.request import Request, Resource, SessionFacts

Standing: TypeAlias = Literal["pending", "approved", "rejected", "used", "expired"]

MAX_NOTE: Final = 1000  # characters


def _who(_: object, name: Any, value: Any) -> None:
    if type(value) is not Principal:
        raise InvalidArgument(name.name, "must be a Principal")


def _note(_: object, name: Any, value: Any) -> None:
    if not isinstance(value, str) or len(value) > MAX_NOTE:
        raise InvalidArgument(name.name, f"must be text of at most {MAX_NOTE} characters")


@final
@frozen
class Answer:
    """Be what an `approver=` callback says: who answers, and whether that is a yes.

    Raises:
        InvalidArgument: `by` is no Principal, `approved` no bool, or `note` no text of at most 1,000 characters.
    """

    by: Principal = field(validator=_who)
    approved: bool = field()
    note: str = field(default="", validator=_note)

    @approved.validator
    def _check_approved(self, _: object, value: object) -> None:
        if type(value) is not bool:  # what only looks like a yes isn't one
            raise InvalidArgument("approved", "must be True or False")


@final
@frozen
class Consent:
    """Be one person's answer as it is kept: who, when by the store's clock, and what was noted."""

    by: Principal
    at: dt.datetime
    note: str = ""


@final
@frozen
class Asking:
    """Be one review that asks: its name, what it says, why, and whose approval counts, as the policy writes it."""

    rule: str
    text: str
    because: str | None
    by: str


@final
@frozen(eq=False, repr=False)
class Review:
    """Be a request for a person's consent to one call: who asks for whom, for what, why, who may approve, until when.

    `binding` is the keyed digest that ties it to the call, and `request` the call as it was asked about. `args` are
    all its arguments as tagged JSON, those that are sensitive as ``{"$u": "secret"}``. `consents` are those who have
    approved so far; it is "approved" once they are enough.
    `rejection` is who said no. `at` and `expires` are by the store's clock. `by_token` says that its authority
    rests on a token, and `exact` that all arguments can be given back as they were.
    """

    id: str
    binding: str
    standing: Standing
    request: Request
    args: Mapping[str, Json]
    resource_id: str | None
    asking: tuple[Asking, ...]
    at: dt.datetime
    expires: dt.datetime
    policy_digest: str
    consents: tuple[Consent, ...] = ()
    rejection: Consent | None = None
    by_token: bool = False
    exact: bool = True
    _again: Callable[[str], Any] | None = None

    @property
    def action(self) -> str:
        """Return what is to be done."""
        return self.request.action

    @property
    def subject(self) -> Principal:
        """Return whose authority is used."""
        return self.request.subject

    @property
    def actor(self) -> Principal:
        """Return who makes the call."""
        return self.request.actor

    @property
    def chain(self) -> Chain:
        """Return the delegations from the subject to the actor."""
        return self.request.chain

    @property
    def resource(self) -> Resource | None:
        """Return what it is done to; its id may be a sensitive argument: `resource_id` is what may be shown."""
        return self.request.resource if isinstance(self.request.resource, Resource) else None

    @property
    def session(self) -> str | None:
        """Return the id of the session."""
        return self.request.session.id if isinstance(self.request.session, SessionFacts) else None

    @property
    def rules(self) -> tuple[str, ...]:
        """Return the names of the reviews that ask."""
        return tuple(each.rule for each in self.asking)

    @property
    def because(self) -> str | None:
        """Return why, as the first policy that says so puts it."""
        return next((each.because for each in self.asking if each.because), None)

    def retry(self) -> Any:
        """Make exactly this call again, in this process: return what it returns (of an async tool, a coroutine).

        It is decided from the start, and uses the approval up. An inline `authorize` returns the decision, a `perform`
        what is entered.

        Raises:
            Denied: it may not happen; the decision's reasons say what became of the approval.
            ReviewRequired: nobody has answered yet.
            InvalidArgument: the call wasn't made here: `authorizer.approvals.call(id, tool)` makes it.
        """
        if self._again is None:
            raise InvalidArgument("review", "isn't of a call that was made here: use `approvals.call(id, tool)`")
        return self._again(self.id)

    def repeated_by(self, again: Callable[[str], Any]) -> Review:
        """Return the same review, whose call `again` makes, given the approval's id."""
        return evolve(self, again=again)

    def at_moment(self, now: dt.datetime) -> Review:
        """Return the review as it stands at `now`."""
        over = self.standing in ("pending", "approved") and self.expires <= now
        return evolve(self, standing="expired") if over else self

    def __str__(self) -> str:
        from agentauthz.approvals.view import view  # who only raises it needn't load how it looks

        return view(self)

    def __repr__(self) -> str:
        return f"<Review {self.id} of `{self.request.action}`, {self.standing}>"  # values may be secret
