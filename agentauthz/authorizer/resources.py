"""Make a `Resource` of what the application has at hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, final

from attrs import evolve

from agentauthz.errors import InvalidArgument
from agentauthz.request import Resource, Unknown
from agentauthz.values import UNKNOWN, field_reader


@final
class Resources:
    """Know how objects become resources: by an adapter for their class, or by their own `id` field."""

    def __init__(self) -> None:
        self._adapters: dict[type, Callable[[Any], Resource]] = {}
        self._lock = threading.Lock()

    def adapt(self, cls: type, to_resource: Callable[[Any], Resource]) -> None:
        """Register an adapter for a class and its subclasses.

        Raises:
            InvalidArgument: `cls` is no class, or `to_resource` can't be called.
        """
        if not isinstance(cls, type):
            raise InvalidArgument("cls", "must be a class")
        if not callable(to_resource):
            raise InvalidArgument("to_resource", "must be a function from an object to a Resource")
        with self._lock:
            self._adapters = {**self._adapters, cls: to_resource}

    def of(self, given: object) -> Resource | Unknown | None:
        """Return the resource that `given` is, or stands for.

        Raises:
            InvalidArgument: an object without adapter that is no attrs, dataclass or pydantic object with
                an `id` field, or an adapter that returned something else. What an adapter raises, too.
        """
        if given is None or given is UNKNOWN or type(given) is Resource:
            return given
        adapters = self._adapters
        for cls in type(given).__mro__:
            if cls in adapters:
                made = adapters[cls](given)
                if type(made) is not Resource:
                    raise InvalidArgument("to_resource", f"must return a Resource, not {type(made).__name__}")
                return evolve(made, original=given)
        read = field_reader(given)
        if read is None or isinstance(given, Mapping) or (own_id := read("id")) is None:
            raise InvalidArgument(
                "resource",
                f"must be a Resource or an object with an `id` field, not {type(given).__name__}; see Authorizer.adapt",
            )
        return Resource(type(given).__name__, str(own_id), given, given)
