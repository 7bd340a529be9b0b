"""Send one HTTP request and read the answer within bounds: over httpx, or whatever else a team uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, final

from attrs import field, frozen

Headers: TypeAlias = tuple[tuple[str, str], ...]


@final
@frozen(repr=False)
class HttpRequest:
    """Be a request; its headers and body may hold secrets, so they are never shown."""

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.url.partition('?')[0]})"


@final
@frozen(repr=False)
class HttpResponse:
    """Be an answer: status, headers as they came, and the whole body."""

    status: int
    headers: Headers = ()
    body: bytes = field(default=b"")

    def header(self, name: str) -> str | None:
        """Return the one header of that name, whatever its case; None where there is none, or more than one."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if len(found) == 1 else None

    def __repr__(self) -> str:
        return f"HttpResponse({self.status})"


Transport: TypeAlias = Callable[[HttpRequest], HttpResponse]
AsyncTransport: TypeAlias = Callable[[HttpRequest], Awaitable[HttpResponse]]
