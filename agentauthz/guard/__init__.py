"""Enforce at the function: the decorator `authorize`, and what it does around a call."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

from attrs import evolve

from agentauthz.active import ACTIVE
from agentauthz.calls import NOTHING, Call, Verdict, allowed, repeatable
from agentauthz.decision import Reason
from agentauthz.errors import InvalidArgument, NoSession
from agentauthz.guard.binding import Binder, binder
from agentauthz.guard.overrides import watch_class_body
from agentauthz.guard.resolving import mapping_resolver, resource_resolver
from agentauthz.guard.running import runner_of
from agentauthz.guard.signature import Injected, Sensitive, hints, marked, policy_types
from agentauthz.obligations.handler import Reach
from agentauthz.principals import OWN_NAMESPACES
from agentauthz.request import Unknown
from agentauthz.session import Session
from agentauthz.values import UNKNOWN, copy_plain

if TYPE_CHECKING:
    from agentauthz.policy.check import ToolSignature

F = TypeVar("F", bound=Callable[..., Any])
Lookup = str | Callable[..., Any] | object
_RECEIVERS: Final = frozenset({"self", "cls", "mcs"})


def authorize(
    action: str | None = None,
    *,
    resource: Lookup | None = None,
    args: Callable[..., Any] | Mapping[str, object] | None = None,
    context: Callable[..., Any] | Mapping[str, object] | None = None,
    sensitive: Iterable[str] = (),
    injected: Iterable[str] = (),
    release_on_error: bool = False,
    cancel_on_revoke: bool = False,
) -> Decorator:
    """Return a decorator that lets a function run only where its call is allowed.

    It goes next to the ``def``, below a framework's own decorators and ``@classmethod``. Without a name the
    action is ``module.qualname``. `resource` names an argument, or is a value, or a function (for async
    tools also a coroutine function) of some of the arguments; `args` and `context` are mappings, or
    functions that return them, and add facts. `sensitive` arguments stay out of records and messages;
    `injected` ones, like ``self`` and ``cls``, are no arguments for policies. With `release_on_error`, what limits
    took for a call comes back where the function raises: say so only where it then has had no effect. With
    `cancel_on_revoke`, a coroutine that is running when its session is revoked, or everything is halted, is cancelled,
    and who waits for it gets Stopped.

    A call raises Denied, NoSession or ReviewRequired where it may not run.

    Raises:
        InvalidArgument: at once where that is possible, else when the function is decorated: an empty
            name, an unknown parameter, an async look-up for a function that isn't async, or something
            that is no function.
    """
    if action is not None and (not isinstance(action, str) or not action):
        raise InvalidArgument("action", 'must be the action\'s name: write @authorize() or @authorize("name")')
    for name, names in (("sensitive", sensitive), ("injected", injected)):
        if isinstance(names, str) or not all(isinstance(one, str) for one in names):
            raise InvalidArgument(name, "must be a list of parameter names")
    if type(release_on_error) is not bool:
        raise InvalidArgument("release_on_error", "must be True or False")
    if type(cancel_on_revoke) is not bool:
        raise InvalidArgument("cancel_on_revoke", "must be True or False")
    return Decorator(
        action, resource, args, context, frozenset(sensitive), frozenset(injected), release_on_error, cancel_on_revoke
    )


@final
class Decorator:
    """Wait for the function; made by `authorize`. It is no check, and has no truth value."""

    def __init__(
        self,
        action: str | None,
        resource: object,
        args: object,
        context: object,
        sensitive: frozenset[str],
        injected: frozenset[str],
        releasable: bool,
        cancelled: bool,
    ) -> None:
        self._given: Final = (action, resource, args, context, sensitive, injected, releasable, cancelled)
        self._session = None if (here := ACTIVE.get()) is None else here.session

    def __call__(self, function: F) -> F:
        self._session = None
        _require_function(function)
        guarded = Guarded(function, *self._given)
        watch_class_body(function.__qualname__, depth=1)
        return cast(F, guarded.wrap(None))

    def __bool__(self) -> bool:
        raise InvalidArgument("authorize", "is a decorator: for a check inside a function use session.authorize(…)")

    def __del__(self) -> None:
        # SECURITY: `authorize("x")` inside a tool looks like a check, and would check nothing
        session = getattr(self, "_session", None)
        if session is not None:
            session.close()
            warnings.warn(
                "authorize(…) was called inside a session but decorates nothing, so it checked nothing; "
                "the session is closed: use session.authorize(…) for a check inside a function",
                stacklevel=2,
            )


def _require_function(function: object) -> None:
    if isinstance(function, staticmethod | classmethod):
        raise InvalidArgument("function", "is a static or class method: put @authorize below that decorator")
    if not inspect.isfunction(function):
        kind = type(function).__name__
        raise InvalidArgument("function", f"must be a plain function, not {kind}: put @authorize next to the `def`")
    if getattr(function, "__agentauthz__", None) is not None:
        raise InvalidArgument("function", "is decorated with @authorize already")


@final
class Guarded:
    """Be what is known about one decorated function; its wrappers carry it as ``__agentauthz__``."""

    def __init__(
        self,
        function: Callable[..., Any],
        action: str | None,
        resource: object,
        args: object,
        context: object,
        sensitive: frozenset[str],
        injected: frozenset[str],
        releasable: bool,
        cancelled: bool,
    ) -> None:
        if cancelled and not inspect.iscoroutinefunction(function):
            raise InvalidArgument("cancel_on_revoke", "is for coroutine functions: others stop at a `checkpoint()`")
        if action is None and "<locals>" in function.__qualname__:
            raise InvalidArgument("action", "must be named for a function that is defined inside another")
        self.function: Final = function
        self.action: Final = str.__str__(action) if action else f"{function.__module__}.{function.__qualname__}"
        if self.action.startswith(OWN_NAMESPACES):
            raise InvalidArgument(
                "action", f"is `{self.action}`, and such names are the library's own: every delegation passes them on"
            )
        self.route: Final = f"python:{function.__module__}.{function.__qualname__}"
        self.binder: Final[Binder] = binder(function)
        parameters = frozenset(self.binder.names)
        for name, names in (("sensitive", sensitive), ("injected", injected)):
            if unknown := sorted(names - parameters):
                raise InvalidArgument(name, f"names `{unknown[0]}`, but the function has no such parameter")
        self._releasable: Final = releasable
        self.cancelled: Final = cancelled
        self._approval: str | None = None
        self._sensitive: Final = sensitive
        self._injected: Final = injected | self._receiver()
        looked_up = (
            resource_resolver(resource, parameters),
            mapping_resolver("args", args, parameters),
            mapping_resolver("context", context, parameters),
        )
        self._resolvers: Final = tuple(found for found in looked_up if found is not None)
        self.looks_up: Final = len(self._resolvers) > 0
        self._adds_args: Final = looked_up[1] is not None
        self._refuse_async_lookups()

    def _receiver(self) -> frozenset[str]:
        """Return the name of ``self`` or ``cls``, for a function that is defined in a class."""
        owner = self.function.__qualname__.rpartition(".")[0]
        in_class = owner != "" and not owner.endswith("<locals>")
        first = self.binder.names[:1]
        return frozenset(first) & _RECEIVERS if in_class else frozenset()

    def _refuse_async_lookups(self) -> None:
        is_async = inspect.iscoroutinefunction(self.function) or inspect.isasyncgenfunction(self.function)
        for resolver in self._resolvers:
            if resolver.is_async and not is_async:
                raise InvalidArgument(resolver.name, "is a coroutine function, so the decorated function must be async")

    @functools.cached_property
    def hidden(self) -> frozenset[str]:
        """Return the parameters that are no arguments for policies."""
        return self._injected | marked(hints(self.function), Injected)

    @functools.cached_property
    def sensitive(self) -> frozenset[str]:
        """Return the arguments whose values stay out of records and messages."""
        return self._sensitive | marked(hints(self.function), Sensitive)

    def signature(self) -> ToolSignature:
        """Return what a policy set is checked against: the action, and its arguments with their types."""
        from agentauthz.policy.check import ToolSignature

        declared = policy_types(self.binder.signature, hints(self.function))
        params = {name: kind for name, kind in declared.items() if name not in self.hidden}
        return ToolSignature(
            self.action, params, open=self.binder.named_rest is not None or self._adds_args, resource_type=None
        )

    # ---- wrapping

    def wrap(self, session: Session | None) -> Callable[..., Any]:
        """Return the function, decided before it runs: in `session`, or in the one that is current then."""
        run = runner_of(self.function)
        wrapper = functools.wraps(self.function)(run(self, session))
        wrapper.__agentauthz__ = self  # type: ignore[attr-defined]  # a function takes any attribute
        return wrapper

    def bind(self, tool: object, session: Session) -> object:
        """Return the same tool, fixed to `session`; a bound method keeps its object.

        Raises:
            InvalidArgument: `tool` is what another decorator made of a decorated function.
        """
        if getattr(tool, "__wrapped__", None) is not self.function:
            raise InvalidArgument(
                "tools", "holds what another decorator made of a decorated function: bind the function below that one"
            )
        bound = self.wrap(session)
        receiver = getattr(tool, "__self__", None)
        return bound if receiver is None else types.MethodType(bound, receiver)

    # ---- one call

    def session_for(self, bound: Session | None) -> Session:
        """Return the session that a call belongs to.

        Raises:
            NoSession: none is current; that is logged, since no authorizer is there to record it.
        """
        if bound is not None:
            return bound
        here = ACTIVE.get()
        if here is not None:
            return here.session
        text = f"`{self.action}` is denied (no_session). It runs only inside a session: `with authorizer.session(…):`."
        logging.getLogger("agentauthz.decisions").warning(text, extra={"actors": [], "action": self.action})
        raise NoSession(text)

    def taken(self, values: tuple[Any, ...]) -> tuple[tuple[Any, ...], Call]:
        """Return the values that the function will get, its own copies, and the call to decide.

        Raises nothing: what can't be bound makes a call with a problem, which is denied.
        """
        hidden = self.hidden
        own = values
        facts: Mapping[str, object] | Unknown = UNKNOWN
        problem: Reason | None = None
        cause: BaseException | None = None
        try:
            own = self.binder.copied(values, hidden)
            facts = self.binder.facts(own, hidden)
        except Exception as error:  # too deep, or a container that changes while it is copied
            own, problem, cause = values, Reason("arguments_failed", "the arguments can't be read"), error
        # by position: at every call, names cost as much again
        return own, Call(
            self.action, facts, None, NOTHING, self.route, self._secret(own), problem, cause, self._releasable,
            Reach.RESULT, None, self._approval,
        )  # fmt: skip

    def _secret(self, values: tuple[Any, ...]) -> frozenset[str]:
        """Return the sensitive facts of a call: where `**kwargs` is sensitive, all that it holds."""
        rest = self.binder.named_rest
        if rest is None or self.binder.names[rest] not in self.sensitive:
            return self.sensitive
        return self.sensitive.union(values[rest])

    def let(self, session: Session, verdict: Verdict, values: tuple[Any, ...]) -> None:
        """Raise unless the call may happen; what a person is asked can then repeat it.

        Raises:
            Denied, ReviewRequired: it may not happen (yet).
        """
        if verdict.decision.allowed:
            return
        again = functools.partial(self._made_again, session, values)
        allowed(repeatable(verdict, again))

    def _made_again(self, session: Session, values: tuple[Any, ...], approval: str) -> Any:
        return self.binder.call(self._approved(approval).wrap(session), values)

    def repeat(
        self, tool: object, session: Session, approval: str, args: Mapping[str, object], injected: Mapping[str, object]
    ) -> Any:
        """Make a call again in `session` that was approved: with the arguments as policies saw them, and `injected`.

        Raises:
            InvalidArgument: an injected argument is missing, or nobody can tell which arguments were the call's own.
            Denied, ReviewRequired: it may not happen (yet).
        """
        if self._adds_args and self.binder.named_rest is not None:
            raise InvalidArgument("tool", "takes any further arguments, and `args=` adds some: use `review.retry()`")
        bound: Any = self._approved(approval).bind(tool, session)
        receiver = self.binder.names[:1] if isinstance(bound, types.MethodType) else ()
        return self.binder.again(bound, args, injected, self.hidden, left_out=receiver)

    def _approved(self, approval: str) -> Guarded:
        """Return the same function, whose calls are made with an approval."""
        made = copy.copy(self)
        made._approval = approval
        return made

    def resolved(self, call: Call, values: tuple[Any, ...]) -> Call:
        """Return the call with what its look-ups gave; one that raises makes it a call with a problem."""
        if call.problem is not None:
            return call
        named = dict(zip(self.binder.names, values, strict=True))
        try:
            found = {resolver.name: resolver.resolve(named) for resolver in self._resolvers}
            return _with_facts(call, found)
        except Exception as error:
            return self._unresolved(call, error)

    async def aresolved(self, call: Call, values: tuple[Any, ...]) -> Call:
        """Do what `resolved` does, and await look-ups that are coroutine functions."""
        if call.problem is not None:
            return call
        named = dict(zip(self.binder.names, values, strict=True))
        try:
            found = {resolver.name: await resolver.aresolve(named) for resolver in self._resolvers}
            return _with_facts(call, found)
        except Exception as error:
            return self._unresolved(call, error)

    def _unresolved(self, call: Call, error: BaseException) -> Call:
        """Return the call with a problem, and everything unknown that a look-up would have given."""
        names = {resolver.name for resolver in self._resolvers}
        return evolve(
            call,
            args=UNKNOWN if "args" in names else call.args,
            resource=UNKNOWN,
            context=UNKNOWN if "context" in names else call.context,
            problem=Reason("lookup_failed", "a look-up for this call failed"),
            cause=error,
        )


def _with_facts(call: Call, found: Mapping[str, object]) -> Call:
    args, context = found.get("args", {}), found.get("context", {})
    for name, facts in (("args", args), ("context", context)):
        if not isinstance(facts, Mapping):
            raise InvalidArgument(name, "must give a mapping of names to values")
    own = cast(Mapping[str, object], call.args)
    if clash := sorted(set(cast(Mapping[str, object], args)) & set(own)):
        raise InvalidArgument(
            "args", f"gives `{clash[0]}`, which is an argument already: what runs must be what is decided"
        )
    facts = {**own, **cast(Mapping[str, object], copy_plain(dict(cast(Mapping[str, object], args))))}
    # read here, where what raises denies the call
    return evolve(call, resource=found.get("resource"), args=facts, context=dict(cast(Mapping[str, object], context)))
