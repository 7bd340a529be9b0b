"""Test how a token is presented: the headers of a request, proofs of the key that it is bound to, certificates."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.dpop import DpopKey
from agentauthz.tokens.introspection import Introspector
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.revocation import RevokedTokens
from agentauthz.tokens.transport import HttpRequest, HttpResponse
from agentauthz.tokens.validator import Validator
from tests.issuing import (
    ACT,
    BOUND_KEY,
    GONE,
    KEYS,
    NOW,
    STRANGER,
    bound,
    claims,
    dpop_validator,
    reason,
    token,
    trusted,
    validator,
)
from tests.support import Clock
from tests.test_confirmation import BY_CERTIFICATE, DER, OTHER_DER, PEM

URI = "https://pay.example/refunds"


# ---- how a token is presented


def headers(scheme: str, text: str, *proofs: str) -> list[tuple[str, str]]:
    return [("Host", "pay.example"), ("authorization", f"{scheme} {text}"), *(("DPoP", proof) for proof in proofs)]


async def test_a_bearer_token_is_authenticated() -> None:
    """RFC 6750 §2.1: one header, whose scheme is written in any case."""
    for scheme in ("Bearer", "bearer", "BEARER"):
        given = headers(scheme, token())
        assert validator().authenticate(given, method="GET", uri=URI).jti == "token-1"
        assert (await validator().aauthenticate(given, method="GET", uri=URI)).jti == "token-1"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "missing"),
        ([("Authorization", "")], "request"),
        ([("Authorization", "Bearer")], "request"),
        ([("Authorization", "Basic YTpi")], "request"),
        ([("Authorization", "Bearer a b")], "request"),
        ([("Authorization", "Bearer a"), ("authorization", "Bearer a")], "request"),
        ([("Authorization", "Bearer a.b.c, Bearer d.e.f")], "request"),
        ([("Authorization", "Bearer\ta.b.c")], "request"),
        ([("Authorization", "Bearer x")], "malformed"),
    ],
)
async def test_what_presents_no_token_is_refused(given: list[tuple[str, str]], why: str) -> None:
    """No header, several, another scheme or anything but one token are refused."""
    assert reason(lambda: validator().authenticate(given, method="GET", uri=URI)) == why
    with pytest.raises(TokenError, match=why):
        await validator().aauthenticate(given, method="GET", uri=URI)


def test_a_bound_token_needs_its_proof() -> None:
    """RFC 9449 §7.1: a token with `cnf.jkt` is taken with a proof of that key for this request and this token."""
    text, key = bound()
    proof = key.proof("POST", URI, access_token=text)
    found = dpop_validator().authenticate(headers("DPoP", text, proof), method="POST", uri=URI)
    assert found.token_type == "DPoP"


def test_case_40_a_bound_token_without_proof_is_refused() -> None:
    """Case 40, RFC 9449 §7.2: as Bearer, with or without a proof, and as DPoP without one."""
    text, key = bound()
    for given in (
        headers("Bearer", text), headers("Bearer", text, key.proof("GET", URI, access_token=text)),
        headers("DPoP", text),
    ):  # fmt: skip
        assert reason(lambda g=given: dpop_validator().authenticate(g, method="GET", uri=URI)) == "dpop_missing"  # type: ignore[misc]
    assert reason(lambda: dpop_validator().verify(text)) == "dpop_missing"
    assert reason(lambda: validator().verify(text, dpop="x", method="GET", uri=URI)) == "dpop_missing"


def test_a_proof_with_an_unbound_token_is_refused() -> None:
    """A token that is bound to no key can't be presented as DPoP: its holder has proven nothing."""
    proof = DpopKey(BOUND_KEY, clock=Clock()).proof("GET", URI, access_token=token())
    for call in (
        lambda: dpop_validator().authenticate(headers("DPoP", token(), proof), method="GET", uri=URI),
        lambda: dpop_validator().authenticate(headers("Bearer", token(), proof), method="GET", uri=URI),
        lambda: dpop_validator().verify(token(), dpop=[proof], method="GET", uri=URI),
    ):
        assert reason(call) == "dpop_unbound"


def test_a_proof_of_another_key_is_refused() -> None:
    """Case 41: the proof has to be made by the key that the token names."""
    text, _ = bound()
    other = DpopKey(SigningKey.generate("ES256"), clock=Clock())
    given = headers("DPoP", text, other.proof("GET", URI, access_token=text))
    assert reason(lambda: dpop_validator().authenticate(given, method="GET", uri=URI)) == "dpop_proof"


def test_case_46_a_certificate_bound_token_needs_the_certificate() -> None:
    """Case 46, RFC 8705 §3: with the peer's certificate the token is taken; without it, or with another, it isn't."""
    text = token(cnf=BY_CERTIFICATE.claim())
    for certificate, why in ((None, "certificate_missing"), (OTHER_DER, "certificate"), (b"none", "certificate")):
        refused = partial(validator().authenticate, headers("Bearer", text), method="GET", uri=URI)
        assert reason(partial(refused, peer_cert=certificate)) == why
        assert reason(partial(validator().verify, text, peer_cert=certificate)) == why
    assert validator().authenticate(headers("Bearer", text), method="GET", uri=URI, peer_cert=DER).jti == "token-1"
    assert validator().verify(text, peer_cert=PEM).jti == "token-1"


def test_case_45_a_token_that_is_bound_twice_needs_both() -> None:
    """Case 45: with both `jkt` and `x5t#S256`, each has to be proven."""
    proving = DpopKey(BOUND_KEY, clock=Clock())
    text = token(cnf={"jkt": proving.thumbprint, **BY_CERTIFICATE.claim()})

    def present(certificate: bytes | None, *proofs: str) -> str | None:
        given = headers("DPoP", text, *proofs)
        return dpop_validator().authenticate(given, method="GET", uri=URI, peer_cert=certificate).jti

    proof = proving.proof("GET", URI, access_token=text)
    assert reason(lambda: present(None, proof)) == "certificate_missing"
    assert reason(lambda: present(OTHER_DER, proof)) == "certificate"
    assert reason(lambda: present(DER)) == "dpop_missing"
    assert present(DER, proof) == "token-1"


# ---- what a token service asks


async def test_genuine_leaves_audience_proof_and_replay_to_its_caller() -> None:
    """`genuine` checks all but what belongs to one presentation, and uses nothing up."""
    text = token(aud="https://other.example", cnf={"jkt": DpopKey(BOUND_KEY).thumbprint})
    asked = validator(replay=MemoryOnce(clock=Clock()))
    for _ in range(2):
        assert asked.genuine(text, kind="access").audience == ("https://other.example",)
        assert (await asked.agenuine(text, kind="access")).audience == ("https://other.example",)
    assert reason(lambda: asked.genuine(token(exp=NOW - 60, iat=NOW - 90), kind="access")) == "expired"
    assert reason(lambda: validator(revocation=lambda _: True).genuine(text, kind="access")) == "revoked"


# ---- tokens that the issuer is asked about


class Answering:
    """Be a transport that answers for the introspection endpoint, and counts how often it is asked."""

    def __init__(self, **changes: Any) -> None:
        self.asked = 0
        answer = {"active": True, "token_type": "Bearer", **claims(jti=GONE), **changes}
        self._body = json.dumps({name: value for name, value in answer.items() if value is not GONE}).encode()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.asked += 1
        return HttpResponse(200, (("Content-Type", "application/json"),), self._body)


def introspecting(transport: Answering, **options: Any) -> Validator:
    issuer = options.pop("issuer", trusted())
    asking = Introspector(
        "https://issuer.example/introspect", issuer, auth=("pay", "s"), transport=transport, clock=Clock()
    )
    return validator(issuer, introspection=asking, **options)


async def test_an_opaque_token_is_asked_about() -> None:
    """RFC 7662 §2.2: what the issuer says of an active token is checked as claims are, in both forms."""
    asked = introspecting(Answering(act=ACT))
    found = asked.verify("opaque-token")
    assert (found.subject.id, found.actor.id, found.jti) == ("maria", "worker", None)
    assert found.reveal() == "opaque-token"
    assert (await asked.averify("opaque-token")).scopes == found.scopes
    for said in ("bearer", GONE):  # RFC 6749 §5.1: in any case; RFC 7662 §2.2: it may be missing
        assert introspecting(Answering(token_type=said)).verify("opaque-token").token_type == "Bearer"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"active": False}, "inactive"),
        ({"exp": NOW - 60, "iat": NOW - 90}, "expired"),
        ({"exp": GONE}, "exp"),
        ({"aud": "https://other.example"}, "audience"),
        ({"aud": GONE}, "aud"),
        ({"iss": "https://other.example"}, "issuer"),
        ({"scope": ["a"]}, "scope"),
        ({"act": "worker"}, "act"),
        ({"cnf": {"jkt": "A" * 43}}, "dpop_missing"),
        ({"cnf": {"kid": "x"}}, "cnf"),
        ({"token_type": "DPoP"}, "token_type"),
        ({"token_type": "DPoP", "cnf": {"x5t#S256": "A" * 43}}, "token_type"),
        ({"token_type": "N_A"}, "token_type"),
        ({"token_type": "refresh_token"}, "token_type"),
        ({"token_type": ["Bearer"]}, "token_type"),
        ({"token_type": None}, "token_type"),
        ({"token_type": "DPoP", "cnf": {"jkt": "A" * 43}}, "dpop_missing"),
        ({"token_type": "bearer", "cnf": {"jkt": "A" * 43}}, "dpop_missing"),
    ],
)
async def test_what_an_issuer_says_is_checked_as_claims_are(changes: dict[str, Any], why: str) -> None:
    """An answer has no more authority than a signed token: dates, audience, scopes, actors and keys are checked."""
    asked = introspecting(Answering(**changes))
    assert reason(lambda: asked.verify("opaque-token")) == why
    with pytest.raises(TokenError, match=why):
        await asked.averify("opaque-token")


@pytest.mark.parametrize(
    "text",
    [
        token(key=STRANGER),
        token(exp=NOW - 60, iat=NOW - 90),
        token().rpartition(".")[0] + ".",
        "a.b.c",
        "a..c",
        token(more="x" * 20_000),
        "opaque token",
        "opaque\ntoken",
        "",
    ],
    ids=["forged", "expired", "unsigned", "no JSON", "detached", "too large", "a space", "a line end", "empty"],
)
def test_a_signed_token_is_never_asked_about(text: str) -> None:
    """What has the form of a signed token stands or falls by its signature, and what can't be a token is not sent."""
    transport = Answering()
    with pytest.raises(TokenError):
        introspecting(transport).verify(text)
    assert transport.asked == 0


def test_an_opaque_token_is_an_access_token_of_a_trusted_issuer() -> None:
    """Other kinds are never asked about, nor is an issuer that isn't trusted for access tokens believed."""
    transport = Answering()
    assert reason(lambda: introspecting(transport).verify("opaque-token", kind="id")) == "malformed"
    assert transport.asked == 0
    others = trusted(token_kinds=["id"])
    assert reason(lambda: introspecting(transport, issuer=others).verify("opaque-token")) == "kind"
    assert reason(lambda: validator().verify("opaque-token")) == "malformed"


def test_an_opaque_token_is_revoked_and_counted_by_its_text() -> None:
    """Where there is no `jti`, the hash of the token's text names it."""
    revoked = RevokedTokens(clock=Clock())
    asked = introspecting(Answering(), revocation=revoked, replay=MemoryOnce(clock=Clock()))
    found = asked.verify("opaque-token")
    assert reason(lambda: asked.verify("opaque-token")) == "replayed"
    assert asked.verify("another-token").revoked() is False
    revoked.revoke(found)
    assert found.revoked() is True
    assert reason(lambda: asked.verify("opaque-token")) == "revoked"


def test_introspection_is_for_an_issuer_of_the_validator() -> None:
    """A validator that would ask an issuer that it doesn't trust can't be made."""
    other = trusted(issuer="https://other.example")
    asking = Introspector("https://other.example/introspect", other, auth=("pay", "s"), transport=Answering())
    with pytest.raises(InvalidArgument, match="introspection"):
        validator(trusted(), introspection=asking)


async def test_the_async_form_blocks_on_nothing() -> None:
    """`averify` asks the async side of a key source and of introspection, and never the other."""

    class Loop:
        def keys(self, key_id: str | None) -> KeySet:
            raise AssertionError("this would block the loop")

        async def akeys(self, key_id: str | None) -> KeySet:
            return KEYS

    async def answering(request: HttpRequest) -> HttpResponse:
        return Answering()(request)

    issuer = trusted(keys=Loop())
    endpoint = f"{issuer.issuer}/introspect"
    asking = Introspector(endpoint, issuer, auth=("pay", "s"), async_transport=answering, clock=Clock())
    asked = validator(issuer, introspection=asking)
    assert (await asked.averify(token())).jti == "token-1"
    assert (await asked.averify("opaque-token")).jti is None
    with pytest.raises(InvalidArgument):
        asked.verify("another-token")
