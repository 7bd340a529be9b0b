"""Publish records to NATS, whose JetStream keeps them: CloudEvents, the line as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, final

from agentauthz.errors import InvalidArgument
from agentauthz.records.sinks.extras import require
from agentauthz.records.sinks.loop import Loop
from agentauthz.records.sinks.row import Row, row_of
from agentauthz.records.sinks.shipped import Shipped
from agentauthz.records.sinks.waiting import ROOM, Delivery, Limits

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


@final
class NatsSink(Shipped):
    """Publish each record to `subject`, in a JetStream that keeps it: one must exist for that subject (extra `nats`).

    A message is a CloudEvent in binary mode: the line is its body, the rest is in headers. `Nats-Msg-Id` is
    `stream/seq`, so within its duplicate window the server keeps a record once; after that receivers tell by it.
    `options` (user, tls, credentials) are those of `nats.connect`; they may hold secrets, and are never shown.

    With `delivery` "acknowledged" an append returns once the stream has its record, or raises after `timeout` seconds;
    with "queued" once it is in the queue, which holds `room` bytes and where it is full lets wait; with "lossy" a
    full queue gives up the oldest allows and effects, counts them, and publishes a `stream.gap`.

    Raises:
        InvalidArgument: nats-py is missing, no server, a subject that can't be published to, or a bound that is no
            positive number.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        subject: str = "agentauthz.records",
        options: Mapping[str, Any] = _NONE,
        delivery: Delivery = "acknowledged",
        timeout: float = 5.0,
        room: int = ROOM,
        batch: int = 500,
    ) -> None:
        require("nats", "nats")
        if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
            raise InvalidArgument("subject", "must be words of letters, digits, `_` and `-`, with dots between them")
        named = [servers] if isinstance(servers, str) else list(servers)
        if not named or not all(isinstance(server, str) and server for server in named):
            raise InvalidArgument("servers", "must be the address of a server, or some of them")
        limits = Limits(delivery, timeout, room, batch)
        given = dict(options)
        super().__init__(lambda: _Wire(named, subject, given, timeout), limits, "process_crash")


@final
class _Wire:
    """Be one connection."""

    def __init__(self, servers: list[str], subject: str, options: dict[str, Any], timeout: float) -> None:
        from nats.aio.client import Client

        self._subject = subject
        self._timeout = timeout
        self._loop = Loop(timeout)
        self._client = Client()
        own = {"allow_reconnect": False, "error_cb": _quiet, "connect_timeout": max(1, int(timeout))}
        try:
            self._loop.run(self._client.connect(servers, **{**own, **options}))
        except BaseException:
            self._loop.close(self._client.close())
            raise

    def send(self, lines: Sequence[bytes]) -> None:
        self._loop.run(self._published([(row_of(line), line) for line in lines]))

    async def _published(self, rows: Sequence[tuple[Row, bytes]]) -> None:
        """Publish all lines at once, in their order, and wait until each is acknowledged."""
        import asyncio

        stream = self._client.jetstream()
        sent = (
            stream.publish(self._subject, line.rstrip(b"\n"), timeout=self._timeout, headers=_headers(row))
            for row, line in rows
        )
        await asyncio.gather(*sent)

    def close(self) -> None:
        self._loop.close(self._client.close())


def _headers(row: Row) -> dict[str, str]:
    """Return the attributes of a CloudEvent (CloudEvents 1.0.2 §3, NATS binding §3.1)."""
    return {
        "Nats-Msg-Id": f"{row.stream}/{row.seq}",
        "ce-specversion": "1.0",
        "ce-type": f"agentauthz.{row.type}",
        "ce-source": f"urn:agentauthz:{row.stream}",
        "ce-id": row.id,
        "ce-time": row.ts.isoformat(),
        "content-type": "application/json",
    }


async def _quiet(_: Exception) -> None:
    """Leave errors to whoever sends: the library would log them."""
