"""Be what the processes share: their names, where keys and records lie, and how they listen and tell the story."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

from agentauthz import Authorizer
from agentauthz.records import DecisionRecord, FileSink, Record
from agentauthz.tokens import (
    DpopKey,
    FileKeys,
    HttpKeys,
    HttpxTransport,
    KeyRing,
    PrivateKeyJwt,
    SigningKey,
    TokenExchangeClient,
    TrustedIssuer,
    Validator,
    VerifiedToken,
)

HERE: Final = Path(__file__).parent
LOGIN: Final = "https://login.example"  # where people and agents log in
TOKENS: Final = "https://tokens.example"  # the token service as tokens name it, wherever it listens
MAX_SECONDS: Final = 240  # a process ends by itself, even where nobody is left to end it
HTTP: Final = HttpxTransport(timeout=30, loopback_http=True)  # patient, for machines that are busy


def set_up(folder: Path) -> None:
    """Give each party a key of its own, and everybody the public halves: what an operator does once."""
    for name in ("login", "token-service", "orchestrator", "sub-agent", "newsletter"):
        key = SigningKey.generate("ES256", key_id=name)
        _write(folder / name / "key.pem", key.to_pem())
        _write(folder / "public" / f"{name}.json", json.dumps(KeyRing(key).jwks()).encode())
    _write(folder / "payments" / "secret", secrets.token_urlsafe(32).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)


@dataclass(frozen=True)
class World:
    """Be where everything is: the folders of keys and of records, and each service's address."""

    folder: Path
    kept: Path
    addresses: Mapping[str, str]

    def key(self, name: str) -> SigningKey:
        """Return a party's private key, which its own process alone should be able to read."""
        return SigningKey.from_file(self.folder / name / "key.pem", key_id=name)

    def secret(self, name: str) -> str:
        """Return a party's secret, for where no key can be used."""
        return (self.folder / name / "secret").read_text()

    def public(self, name: str) -> Path:
        """Return the file of a party's public keys."""
        return self.folder / "public" / f"{name}.json"

    def login(self, *audiences: str) -> TrustedIssuer:
        """Return trust in the login's tokens for `audiences`."""
        return TrustedIssuer(LOGIN, FileKeys(self.public("login")), audiences)

    def token_service(self, *audiences: str) -> TrustedIssuer:
        """Return trust in the token service's tokens for `audiences`."""
        url = f"{self.addresses['token-service']}/jwks"
        return TrustedIssuer(TOKENS, HttpKeys(url, transport=HTTP, timeout=30, loopback_http=True), audiences)

    def token_client(self, name: str, dpop: DpopKey | None = None) -> TokenExchangeClient:
        """Return what asks the token service as `name`, and holds its answers to what was asked."""
        return TokenExchangeClient(
            f"{self.addresses['token-service']}/token",
            PrivateKeyJwt(name, self.key(name), audience=TOKENS),
            transport=HTTP,
            dpop=dpop,
            verify_with=Validator([self.token_service()]),
            loopback_http=True,
        )

    def records(self, name: str) -> Path:
        """Return the folder of a service's decision records."""
        return self.kept / name

    def authorizer(self, name: str) -> Authorizer:
        """Return what decides in one process, by its own policies, and records there; it tells the story too."""
        policies = HERE / f"{name.replace('-', '_')}.authz"
        return Authorizer(policies, sinks=[FileSink(self.records(name)), Story(name)])


def begin(ready: Barrier) -> None:
    """Wait until every process is ready, and see to it that this one ends."""
    timer = threading.Timer(MAX_SECONDS, os._exit, [1])
    timer.daemon = True
    timer.start()
    ready.wait(MAX_SECONDS)


def listen() -> socket.socket:
    """Return a socket that listens on loopback, at a port that was free."""
    return socket.create_server(("127.0.0.1", 0))


# ---- the story


def tell(name: str, *lines: str) -> None:
    """Print what happened at a service."""
    first, *others = lines
    print(f"  {name:<14} {first}", *(f"{'':<16} {line}" for line in others), sep="\n", flush=True)


def tell_answer(status: object, *texts: str) -> None:
    """Print what came back over HTTP."""
    print(f"{'':<16} ANSWER {status}", *(f"{'':<16} {text}" for text in texts), sep="\n", flush=True)


def tell_token(name: str, token: VerifiedToken) -> None:
    """Print what a service learns from a token."""
    parties = [token.subject.id, *(hop.to.id for hop in token.chain.delegations)]
    minutes = round((token.expires_at - token.issued_at).total_seconds() / 60)
    bound = "" if token.confirmation is None else ", bound to a key"
    tell(
        name,
        f"token  {' -> '.join(parties)}",
        f"for {' '.join(token.audience)}, {minutes} min, {' '.join(token.scopes or ())}{bound}",
    )


class Story:
    """Be a sink that prints decisions: who acts for whom, what came out, and why."""

    def __init__(self, name: str) -> None:
        self.name = name

    def append(self, line: bytes, record: Record) -> None:
        """Print a decision; all else is for the file alone."""
        if isinstance(record, DecisionRecord):
            [reason, *_] = record.reasons
            parties = " -> ".join(actor.sub for actor in record.actors)
            tell(
                self.name,
                f"{record.outcome.upper():<6} {record.action.name}  {parties}",
                f"{reason.rule or reason.code}: {reason.because or reason.text}",
            )

    def close(self) -> None:
        """Have nothing to close."""
