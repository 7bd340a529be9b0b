"""Keep the handlers that an authorizer was given, and hold policies to them when they are put in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

from agentauthz.decision import Obligation
from agentauthz.errors import InvalidArgument, PolicyCheckError
from agentauthz.obligations.expiring import expire
from agentauthz.obligations.handler import NONE_GIVEN, Given, Handler, Reach, handler_of
from agentauthz.obligations.masking import mask
from agentauthz.policy.policyset import PolicySet
from agentauthz.policy.source import Diagnostic
from agentauthz.policy.syntax import CheckedObligation

_STANDARD: Final[Mapping[str, Handler]] = {"mask": mask, "expire": expire}  # what needs nothing of the host
_NEEDS: Final = {
    Reach.AROUND: "acts around a call: make it with `perform`, or by a decorated function",
    Reach.RESULT: "acts on the result, which only a decorated function has",
    Reach.SERVICE: "is carried out by token services only",
}


@final
class Handlers:
    """Be the handlers of an authorizer, by the type of obligation.

    Raises:
        InvalidArgument: what was given is no mapping of names to functions or handlers.
    """

    def __init__(self, given: Given) -> None:
        if not isinstance(given, Mapping):
            raise InvalidArgument("obligations", "must be a mapping of names to functions or handlers")
        own = dict(_STANDARD)
        for name, handler in dict(given).items():
            if not isinstance(name, str) or not name:
                raise InvalidArgument("obligations", "must have names that are strings and not empty")
            own[str.__str__(name)] = handler_of(name, handler)
        self._own: Final = own

    def __getitem__(self, type: str) -> Handler:
        return self._own[type]

    def lacks(self, obligation: Obligation, reach: Reach, *, awaits: bool) -> str | None:
        """Say why an obligation can't be carried out by a call that holds `reach` in hand; None: it can."""
        handler = self._own.get(obligation.type)
        if handler is None:
            return "has no handler"
        if handler.reach > reach:
            return _NEEDS[handler.reach]
        if handler.awaits and not awaits:
            return "has a coroutine function for a handler, and this call is not async"
        return None

    def checked(self, policies: PolicySet) -> PolicySet:
        """Return the policies, all of whose obligations can be carried out somewhere.

        Raises:
            PolicyCheckError: one has no handler, or properties that its handler doesn't take.
        """
        found = [
            problem
            for rule in policies.rules
            for obligation in rule.obligations
            if (problem := self._problem(obligation, rule.name)) is not None
        ]
        if found:
            raise PolicyCheckError(found)
        return policies

    def _problem(self, obligation: CheckedObligation, rule: str) -> Diagnostic | None:
        handler = self._own.get(obligation.name)
        if handler is None:
            known = ", ".join(f"`{name}`" for name in sorted(self._own))
            message = f"the obligation `{obligation.name}` of the rule `{rule}` has no handler"
            tip = f"give one in `Authorizer(…, obligations={{…}})`; there are {known}"
            return Diagnostic("unhandled-obligation", message, obligation.span, tip)
        try:
            wrong = None if handler.check is None else handler.check(dict(obligation.properties))
        except Exception as error:
            message = f"the handler of the obligation `{obligation.name}` can't check it: {type(error).__name__}"
            return Diagnostic("malformed-obligation", message, obligation.span)
        if wrong is None:
            return None
        return Diagnostic("malformed-obligation", f"{wrong}, in the rule `{rule}`", obligation.span)


NONE: Final = Handlers(NONE_GIVEN)  # for those who only ask again what was recorded


def required(obligations: Iterable[Obligation]) -> str:
    """Return the types of obligations as a text names them."""
    return ", ".join(sorted({f"`{obligation.type}`" for obligation in obligations}))
