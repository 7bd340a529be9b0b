"""Keep requests and answers in a state store so that the store can neither read, make nor change one."""

from __future__ import annotations

import base64
import datetime as dt
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, final

from agentauthz.approvals.binding import bound
from agentauthz.approvals.review import Asking, Consent, Review
from agentauthz.approvals.stored import Tree, of_stored, stored
from agentauthz.canonical import Json, canonical, jsonable, stamp
from agentauthz.canonical.restore import members, restored
from agentauthz.errors import AgentAuthzError
from agentauthz.keys import InstanceKey
from agentauthz.principals import Principal
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.state.store import Approval

_SECRET: Final[dict[str, Json]] = {"$u": "secret"}
_VERSION: Final = 1

Answered: TypeAlias = Literal["pending", "approved", "rejected"]


@final
class Keeper:
    """Seal and open what is stored of approvals, under keys that are derived from the instance key.

    What isn't as it was sealed, row by row, counts as not being there.
    """

    def __init__(self, key: InstanceKey) -> None:
        self.key: Final = key

    def binding(self, request: Request, digest: str) -> str:
        """Return the keyed digest that ties an approval to a call under the policies with `digest`.

        Raises:
            Unbindable: something in the call is no value.
        """
        return self.key.digest("approval", bound(request, digest))

    def asked(
        self,
        binding: str,
        request: Request,
        seen: Mapping[str, object],
        asking: Sequence[Asking],
        *,
        digest: str,
        sensitive: frozenset[str],
        at: dt.datetime,
        within: dt.timedelta,
    ) -> Approval:
        """Return the row that asks for consent to a call from `at` on, for as long as `within` says."""
        own, session = secrets.token_hex(16), _session_of(request)
        row = Approval(own, binding, session, at, at + within, "")
        tree: dict[str, Json] = {
            "v": _VERSION,
            "call": stored(request, seen),
            "hidden": jsonable(sorted(sensitive)),
            "asking": [jsonable([each.rule, each.text, each.because, each.by]) for each in asking],
            "policy": digest,
            "token": _rests_on_token(request),
        }
        return Approval(own, binding, session, at, at + within, self._sealed("request", _context(row), tree))

    def answer(self, row: Approval, status: Answered, consents: Sequence[Consent]) -> str:
        """Return what is to be stored as the answer: those who approved, or the one who rejected, as the last."""
        tree = {"v": _VERSION, "status": status, "said": [_said(each) for each in consents]}
        return self._sealed("answer", _context(row), tree)

    def opened(self, row: Approval | None) -> Review | None:
        """Return the review that a row holds; None: there is no row, or it isn't as this library sealed it."""
        if row is None:
            return None
        try:
            tree = self._opened("request", _context(row), row.request)
            said = None if row.answer is None else self._opened("answer", _context(row), row.answer)
            return _review(row, tree, said)
        except (AgentAuthzError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
            return None

    def knows(self, row: Approval) -> bool:
        """Say whether a row says that it was sealed under this key."""
        return row.request.startswith(f"{self.key.epoch}:")

    # ---- sealing

    def _sealed(self, what: str, context: bytes, tree: Mapping[str, Any]) -> str:
        from agentauthz.keys.sealing import seal  # who is never asked doesn't load cryptography

        content = json.dumps(tree, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
        sealed = seal(self.key.derived(f"approval/{what}"), content, context)
        return f"{self.key.epoch}:{base64.b64encode(sealed).decode()}"

    def _opened(self, what: str, context: bytes, text: str) -> Tree:
        from agentauthz.keys.sealing import unseal

        epoch, _, sealed = text.partition(":")
        if epoch != self.key.epoch:
            raise ValueError(epoch)
        secret = self.key.derived(f"approval/{what}")
        content = unseal(secret, base64.b64decode(sealed, validate=True), context)
        tree: Tree = json.loads(content)
        if tree["v"] != _VERSION:
            raise ValueError(tree["v"])
        return tree


def _context(row: Approval) -> bytes:
    """Return what a sealed text belongs to: in another row, or beside other columns, it can't be opened."""
    return canonical([row.id, row.binding, row.session, stamp(row.at), stamp(row.expires)])


def _session_of(request: Request) -> str | None:
    return request.session.id if isinstance(request.session, SessionFacts) else None


def _rests_on_token(request: Request) -> bool:
    """Say whether a call's authority came by a token, which may be revoked."""
    facts = request.session
    by_token = any(hop.via == "token" for hop in request.chain.delegations)
    return by_token or (isinstance(facts, SessionFacts) and facts.ceiling is not None)


def _said(consent: Consent) -> Json:
    who = consent.by
    return {
        "kind": who.kind, "id": jsonable(who.id), "issuer": jsonable(who.issuer),
        "attributes": jsonable(dict(who.attributes)), "at": stamp(consent.at), "note": jsonable(consent.note),
    }  # fmt: skip


def _consent(tree: Tree) -> Consent:
    who = Principal(tree["kind"], restored(tree["id"]), restored(tree["issuer"]), members(tree["attributes"]))
    return Consent(who, dt.datetime.fromisoformat(tree["at"]), restored(tree["note"]))


def _review(row: Approval, tree: Tree, said: Tree | None) -> Review:
    """Return the review of a row, whose status must be what its answer says: that column isn't sealed."""
    status = "pending" if said is None else said["status"]
    if status != ("approved" if row.status == "used" else row.status):
        raise ValueError(status)
    request, call, hidden = of_stored(tree["call"]), tree["call"], frozenset(restored(tree["hidden"]))
    consents = tuple(map(_consent, () if said is None else said["said"]))
    rejected = row.status == "rejected"
    return Review(
        row.id, row.binding, row.status, request,
        {name: _SECRET if name in hidden else item for name, item in call["args"].items()},
        _shown_id(request, hidden), tuple(Asking(*restored(each)) for each in tree["asking"]), row.at, row.expires,
        tree["policy"], consents[:-1] if rejected else consents, consents[-1] if rejected else None, tree["token"],
        call["exact"],
    )  # fmt: skip


def _shown_id(request: Request, hidden: frozenset[str]) -> str | None:
    """Return the resource's id, unless it is a sensitive argument.

    SECURITY: arguments are hidden by their names alone: who chooses one could else hide another by repeating it.
    """
    if not isinstance(request.resource, Resource) or not isinstance(request.args, Mapping):
        return None
    own = request.resource.id
    return None if any(str(request.args.get(name)) == own for name in hidden) else own
