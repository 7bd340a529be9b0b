"""Keep checkpoints where the owner of a log can't change them: witnesses for `FileSink(…, witness=…)`.

Each raises where it can't keep one; the log then goes on, counts and records the failure, and asks again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from agentauthz.errors import InvalidArgument
from agentauthz.records.sinks.extras import require
from agentauthz.urls import checked_url

if TYPE_CHECKING:
    import ssl

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_MAX_ANSWER: Final = 64 * 1024  # bytes


@final
class HttpWitness:
    """POST each checkpoint, the text of its signed note, to `url`, which belongs to somebody else (extra `http`).

    An answer 2xx says that it is kept; after any other, or none within `timeout` seconds, the newest checkpoint is
    sent later. Nothing is followed. `headers` may hold secrets, and are never shown. `tls` is for a private
    certificate authority or a client certificate.

    Raises:
        InvalidArgument: httpx is missing, an address that isn't https (with `loopback_http`, http on this machine),
            headers that can't be sent, a `tls` that verifies nothing, or a time-out that is no positive number.
    """

    __slots__ = ("_headers", "_timeout", "_tls", "_url")

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] = _NONE,
        timeout: float = 5.0,
        loopback_http: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        require("httpx", "http", "witness")
        self._url = checked_url("url", url, loopback_http=loopback_http)
        for name, value in headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise InvalidArgument("headers", "must be of printable ASCII characters")
        if not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise InvalidArgument("timeout", "must be a positive number")
        if tls is not None and not (tls.check_hostname and tls.verify_mode.name == "CERT_REQUIRED"):
            raise InvalidArgument("tls", "must verify certificates and host names")
        self._headers = {**headers, "content-type": "text/plain; charset=utf-8"}
        self._timeout, self._tls = float(timeout), tls

    def __call__(self, note: str) -> None:
        """Return once the other side keeps a checkpoint.

        Raises:
            ConnectionError, TimeoutError, httpx.HTTPError: it doesn't.
        """
        from agentauthz.records.web import ask

        ask(
            "POST", self._url, body=note.encode(), headers=self._headers, timeout=self._timeout, limit=_MAX_ANSWER,
            tls=self._tls,
        )  # fmt: skip


@final
class FileWitness:
    """Add each checkpoint to the file at `path`, and have it on the device: on a volume of somebody else, say.

    `verify` takes the file as its `checkpoint`. A file in the log's own folder protects nothing.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(os.path.abspath(path))  # a later chdir must not move it

    def __call__(self, note: str) -> None:
        """Return once a checkpoint is kept.

        Raises:
            OSError: it can't be written.
        """
        handle = os.open(self._path, _FLAGS, 0o600)
        try:
            line = f"{note}\n".encode()
            if os.write(handle, line) != len(line):
                raise OSError("the device took a part of a checkpoint only")
            os.fsync(handle)
        finally:
            os.close(handle)
