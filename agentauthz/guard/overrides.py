"""Refuse a subclass that overrides a decorated method with one that isn't: it would run undecided."""

from __future__ import annotations

import inspect
import sys
from typing import Any, Final, final

from agentauthz.errors import InvalidArgument

_NAME: Final = "__agentauthz_overrides__"


def watch_class_body(qualname: str, depth: int) -> None:
    """Watch the subclasses of the class whose body is being run `depth` frames up, if it is that of `qualname`.

    A decorator sees a function before its class exists; the class body's names are the one place where it
    can leave word.
    """
    names = sys._getframe(depth + 1).f_locals
    if names.get("__qualname__") == qualname.rpartition(".")[0] and "__module__" in names:
        names.setdefault(_NAME, _Watch())


@final
class _Watch:
    def __set_name__(self, owner: Any, name: str) -> None:
        own = owner.__dict__.get("__init_subclass__")

        def __init_subclass__(cls: Any, /, **keywords: Any) -> None:  # noqa: N807
            if own is None:
                super(owner, cls).__init_subclass__(**keywords)
            else:
                own.__get__(None, cls)(**keywords)
            _check(cls)

        owner.__init_subclass__ = classmethod(__init_subclass__)


def _check(cls: type) -> None:
    guarded = {
        name
        for base in cls.__mro__[1:]
        if _NAME in base.__dict__
        for name, value in base.__dict__.items()
        if _is_guarded(value)
    }
    for name in sorted(guarded):
        if not _is_guarded(inspect.getattr_static(cls, name)):
            raise InvalidArgument(
                f"{cls.__qualname__}.{name}",
                "overrides a method that is decorated with @authorize, so its calls would not be decided: "
                "decorate it too",
            )


def _is_guarded(value: object) -> bool:
    if isinstance(value, classmethod | staticmethod):
        value = value.__func__
    return getattr(value, "__agentauthz__", None) is not None
