"""Drive each package through one interface, set up as its own documentation says that a log should be."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

Write: TypeAlias = Callable[[str, Mapping[str, object]], object]  # an action's name, and its arguments
Verdict: TypeAlias = Literal["clean", "unsure", "bad", "none"]  # none: there is nothing that verifies
Verified: TypeAlias = tuple[Verdict, str]


class Logger(NamedTuple):
    """Be a package: how it opens a log in a folder, what somebody else may keep of it, and what it says of one.

    `secret` is 32 bytes, of which it makes its key, if it has any. What is kept stands beside the folder, not in it.
    """

    package: str
    open: Callable[[Path, bytes], Write]
    keep: Callable[[Path, bytes], None]  # called when writing has ended
    verify: Callable[[Path, bytes, bool], Verified]  # the last says whether what was kept is at hand


def nothing(folder: Path, secret: bytes) -> None:
    """Keep nothing: the package has nothing to keep."""


# ---- agentauthz


def _own_key(secret: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from agentauthz.keys.signing import SigningKey

    return SigningKey(Ed25519PrivateKey.from_private_bytes(secret), "Ed25519")


def _open_own(folder: Path, secret: bytes) -> Write:
    from agentauthz import Authorizer, PolicySet, Principal
    from agentauthz.records import FileSink

    def witness(note: str) -> None:
        with (folder.parent / "witness").open("a") as file:
            file.write(note + "\n")

    sink = FileSink(folder, key=_own_key(secret), witness=witness, checkpoint_every=5)
    authorizer = Authorizer(PolicySet.parse("permit all on call.* when true"), sinks=[sink])
    session = authorizer.session(Principal.user("maria"), Principal.agent("bot"))
    return lambda action, args: session.authorize(action, args=args)


def _verify_own(folder: Path, secret: bytes, kept: bool) -> Verified:
    from agentauthz.records.checkpoints import vkey
    from agentauthz.records.verify import Verdict as Found
    from agentauthz.records.verify import verify

    witness = (folder.parent / "witness").read_text() if kept else None
    report = verify(folder, keys=[vkey(_own_key(secret), "local")], checkpoint=witness)
    bad = report.verdict in (Found.TAMPERED, Found.INCOMPLETE)
    first = report.first
    what = "" if first is None else f": {first.kind}" + ("" if first.seq is None else f" at {first.seq}")
    return ("bad" if bad else "clean" if report.verdict is Found.OK else "unsure"), f"{report.verdict.value}{what}"


# ---- agent-governance-toolkit-core


def _open_agt(folder: Path, secret: bytes) -> Write:
    from agentmesh.governance.audit import AuditEntry
    from agentmesh.governance.audit_backends import FileAuditSink

    folder.mkdir(exist_ok=True)
    sink = FileAuditSink(folder / "audit.jsonl", secret)
    return lambda action, args: sink.write(
        AuditEntry(event_type="tool_invocation", agent_did="did:mesh:bot", action=action, data=dict(args))
    )


def _verify_agt(folder: Path, secret: bytes, kept: bool) -> Verified:
    from agentmesh.governance.audit_backends import FileAuditSink

    good, why = FileAuditSink(folder / "audit.jsonl", secret).verify_integrity()
    return ("clean" if good else "bad"), why or "valid"


# ---- auditchain


def _chain(folder: Path, secret: bytes) -> Any:
    from auditchain import AuditLog
    from auditchain.backends import JsonlBackend
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder.mkdir(exist_ok=True)
    return AuditLog(
        JsonlBackend(folder / "audit.jsonl"),
        seal_key=secret,
        signing_key=Ed25519PrivateKey.from_private_bytes(secret),
        lock_path=folder / "audit.lock",
    )


def _open_chain(folder: Path, secret: bytes) -> Write:
    log = _chain(folder, secret)
    asyncio.run(log.init())
    return lambda action, args: asyncio.run(log.append("bot", action, metadata=dict(args)))


def _keep_chain(folder: Path, secret: bytes) -> None:
    import pickle

    (folder.parent / "kept").write_bytes(pickle.dumps(asyncio.run(_chain(folder, secret).checkpoint())))


def _verify_chain(folder: Path, secret: bytes, kept: bool) -> Verified:
    import pickle

    checkpoint = pickle.loads((folder.parent / "kept").read_bytes()) if kept else None
    report = asyncio.run(_chain(folder, secret).verify(checkpoint=checkpoint))
    return ("clean" if report.ok else "bad"), str(report)


# ---- agentproofchain


def _open_proof(folder: Path, secret: bytes) -> Write:
    from agentproof import ProofChain

    chain = ProofChain(folder / "agent.log", signing_key=secret)
    return lambda action, args: chain.sign_event("tool_call", {"tool": action, "args": dict(args)})


def _verify_proof(folder: Path, secret: bytes, kept: bool) -> Verified:
    from agentproof import ProofChain

    good, why = ProofChain(folder / "agent.log", signing_key=secret).verify()
    return ("clean" if good else "bad"), why


# ---- aileron


def _open_aileron(folder: Path, secret: bytes) -> Write:
    from aileron.chainlog import ChainLog
    from aileron.events import new_event

    log = ChainLog(str(folder / "events.jsonl"))
    return lambda action, args: log.append(
        new_event("tool_call", "session", "bot", "own", tool={"name": action, "arguments": dict(args)})
    )


def _keep_aileron(folder: Path, secret: bytes) -> None:
    from aileron.signing import generate_keypair, sign_checkpoint

    generate_keypair(str(folder.parent / "keys"))
    sign_checkpoint(str(folder / "events.jsonl"), str(folder.parent / "keys" / "aileron_ed25519.key"))


def _verify_aileron(folder: Path, secret: bytes, kept: bool) -> Verified:
    from aileron.chainlog import verify
    from aileron.signing import verify_checkpoint

    log = str(folder / "events.jsonl")
    report = verify(log)
    if report.ok and kept and not verify_checkpoint(log, str(folder.parent / "keys" / "aileron_ed25519.pub")):
        return "bad", "the checkpoint doesn't verify"
    return ("clean" if report.ok else "bad"), report.errors[0] if report.errors else f"{report.count} events"


# ---- structlog, to a file that rotates


def _open_structlog(folder: Path, secret: bytes) -> Write:
    from logging.handlers import RotatingFileHandler

    import structlog

    folder.mkdir(exist_ok=True)
    handler = RotatingFileHandler(folder / "audit.log", maxBytes=64 << 20, backupCount=10, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    plain = logging.Logger("audit")
    plain.addHandler(handler)
    log = structlog.wrap_logger(
        plain, processors=[structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()]
    )
    return lambda action, args: log.info("tool_call", action=action, args=dict(args))


def _verify_structlog(folder: Path, secret: bytes, kept: bool) -> Verified:
    return "none", "nothing verifies it"


LOGGERS: Final = {
    logger.package: logger
    for logger in (
        Logger("agentauthz", _open_own, nothing, _verify_own),
        Logger("agent-governance-toolkit-core", _open_agt, nothing, _verify_agt),
        Logger("auditchain", _open_chain, _keep_chain, _verify_chain),
        Logger("agentproofchain", _open_proof, nothing, _verify_proof),
        Logger("aileron", _open_aileron, _keep_aileron, _verify_aileron),
        Logger("structlog", _open_structlog, nothing, _verify_structlog),
    )
}
SECRET: Final = bytes(range(32))
STRANGER: Final = os.urandom(32)
