"""Refuse a subclass that overrides a decorated method with one that isn't: it would run undecided."""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
from typing import Any, Final, final

from agentauthz.errors import InvalidArgument

_NAME: Final = "__agentauthz_overrides__"
_OWN: Final = "__agentauthz_init_subclass__"  # the class's own, where attrs finds it when it makes the class anew


def watch_class_body(qualname: str, depth: int) -> None:
    """Watch the subclasses of the class whose body is being run `depth` or more frames up, if it is that of `qualname`.

    A decorator sees a function before its class exists; the class body's names are the one place where it
    can leave word. Decorators of the host's own may stand between.
    """
    owner = qualname.rpartition(".")[0]
    frame = sys._getframe(depth + 1) if owner and not owner.endswith("<locals>") else None
    while frame is not None:
        # only the bodies of classes and modules run without this flag
        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED and frame.f_locals.get("__qualname__") == owner:
            frame.f_locals.setdefault(_NAME, _Watch())
            return
        frame = frame.f_back


@final
class _Watch:
    def __set_name__(self, owner: Any, name: str) -> None:
        if _OWN not in owner.__dict__:  # else a class with slots is made anew, of what it held before
            setattr(owner, _OWN, owner.__dict__.get("__init_subclass__"))

        def __init_subclass__(cls: Any, /, **keywords: Any) -> None:  # noqa: N807  (it becomes the class's own)
            own = owner.__dict__[_OWN]
            if own is None:
                super(owner, cls).__init_subclass__(**keywords)
            else:
                own.__get__(None, cls)(**keywords)
            _check(cls)

        owner.__init_subclass__ = classmethod(__init_subclass__)


def _check(cls: type) -> None:
    overridden = {
        name
        for base in cls.__mro__[1:]
        if _NAME in base.__dict__
        for name, value in base.__dict__.items()
        if not _stands_in(inspect.getattr_static(cls, name), value)
    }
    for name in sorted(overridden):
        raise InvalidArgument(
            f"{cls.__qualname__}.{name}",
            "overrides a method that is decorated with @authorize, so its calls would not be decided: decorate it too",
        )


def _stands_in(value: object, base: object) -> bool:
    """Say whether `value` is decorated wherever `base`, which it overrides, is."""
    pairs = itertools.zip_longest(_functions(value), _functions(base))
    return all(_decides(mine, getattr(theirs, "__agentauthz__", None)) for mine, theirs in pairs)


def _decides(function: object, base: Any) -> bool:
    own = getattr(function, "__agentauthz__", None)
    if base is None or own is not base:
        return base is None or own is not None
    # `functools.wraps` of the overridden method copies this mark too, onto a function that decides nothing
    return getattr(function, "__wrapped__", None) is own.function


def _functions(value: object) -> tuple[object, ...]:
    """Return the functions that a class's attribute calls."""
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    if isinstance(value, classmethod | staticmethod):
        return (value.__func__,)
    return (value.func,) if isinstance(value, functools.cached_property | functools.partialmethod) else (value,)
