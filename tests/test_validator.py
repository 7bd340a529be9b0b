"""Test what a validator makes of a token: its claims, scopes, kinds and actors, and the musts of the RFCs."""

from __future__ import annotations

import copy
import datetime as dt
import hmac
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from agentauthz import Principal
from agentauthz.errors import InvalidArgument
from agentauthz.keys.jwk import KeySet, VerificationKey
from agentauthz.tokens.issuers import TokenLimits
from agentauthz.tokens.verified import TYPES, TokenKind
from tests.issuing import (
    ACT,
    ES,
    GONE,
    ISSUER,
    NOW,
    OTHER_ISSUER,
    SERVICE,
    claims,
    later,
    raw,
    reason,
    token,
    trusted,
    validator,
)
from tests.support import NOON, Recorded

ALL_KINDS = tuple(TYPES)


# ---- what a verified token says


def test_a_verified_token_says_what_its_claims_do() -> None:
    """Everything that RFC 9068 §2.2 names is there, with dates in UTC and the chain oldest first (RFC 8693 §4.1)."""
    found = validator().verify(token(act=ACT, aud=[SERVICE, "x"], authorization_details=[{"type": "t"}]))
    assert (found.kind, found.issuer, found.client_id, found.jti) == ("access", ISSUER, "worker", "token-1")
    assert found.subject == Principal.user("maria", issuer=ISSUER)
    assert [hop.to.id for hop in found.chain.delegations] == ["planner", "worker"]
    assert found.actor == Principal.agent("worker", issuer=ISSUER)
    assert all(hop.via == "token" for hop in found.chain.delegations)
    assert found.audience == (SERVICE, "x")
    assert found.scopes == found.actions == ("payments.read", "payments.refund")
    assert (found.issued_at, found.expires_at) == (NOON, NOON + dt.timedelta(minutes=5))
    assert found.authorization_details == ({"type": "t"},)
    assert found.confirmation is None
    assert found.token_type == "Bearer"
    assert found.revoked() is False
    assert found.claims["scope"] == "payments.read payments.refund"


def test_a_verified_token_can_be_neither_changed_nor_copied_nor_seen() -> None:
    """Its claims are read-only, it can't be pickled or copied, and nothing shows its text but `reveal`."""
    text = token()
    found = validator().verify(text)
    with pytest.raises(TypeError):
        found.claims["sub"] = "admin"  # type: ignore[index]
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidArgument):
            leak(found)
    assert text not in f"{found!r}{found}"
    assert found.reveal() == text


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "user"),
        ({"sub": "worker"}, "service"),
        ({"sub": "worker", "sub_profile": "user"}, "user"),
        ({"sub_profile": "ai_agent"}, "agent"),
        ({"sub_profile": "service"}, "service"),
    ],
)
def test_the_kind_of_the_subject(changes: dict[str, Any], kind: str) -> None:
    """RFC 9068 §2.2, §5: `sub_profile` says it; else it is a user, or a service where `sub` is the `client_id`."""
    assert validator().verify(token(**changes)).subject.kind == kind


def test_the_subjects_attributes_are_the_named_claims() -> None:
    """RFC 9068 §2.2.3.1: roles, groups and entitlements become attributes of the subject, and no other claim does."""
    given: dict[str, Any] = {"roles": ["support"], "groups": ["g"], "entitlements": ["e"], "department": "x"}
    assert dict(validator().verify(token(**given)).subject.attributes) == {
        "roles": ("support",), "groups": ("g",), "entitlements": ("e",),
    }  # fmt: skip
    asked = validator(trusted(attributes=["department"]))
    assert dict(asked.verify(token(**given)).subject.attributes) == {"department": "x"}


def test_rfc_9068_section_2_2_1_authentication_claims_pass_through() -> None:
    """RFC 9068 §2.2.1: `auth_time`, `acr` and `amr` are there for the service to read."""
    found = validator().verify(token(auth_time=NOW - 60, acr="2", amr=["hwk"]))
    assert (found.claims["auth_time"], found.claims["acr"], found.claims["amr"]) == (NOW - 60, "2", ["hwk"])


def test_an_inferred_issuer_is_marked() -> None:
    """An actor without `iss` is taken for one of the token's issuer, and marked as inferred."""
    (hop,) = validator().verify(token(act={"sub": "worker"})).chain.delegations
    assert hop.to == Principal.agent("worker", issuer=ISSUER)
    assert hop.to.attributes["inferred"] is True


def test_case_39_dates_and_audience_within_act_mean_nothing() -> None:
    """Case 39: an `exp` or `aud` within `act` neither prolongs nor opens a token (RFC 8693 §4.1)."""
    asked = validator(clock=later(minutes=10))
    assert reason(lambda: asked.verify(token(act={**ACT, "exp": NOW + 9_000}))) == "expired"
    assert reason(lambda: validator().verify(token(aud="x", act={**ACT, "aud": SERVICE}))) == "audience"
    assert "exp" not in validator().verify(token(act={**ACT, "exp": NOW + 9_000})).actor.attributes


# ---- scopes


def test_scopes_are_literal_without_a_mapper() -> None:
    """A star in a scope is a character: such a scope permits nothing, and no scopes are no actions."""
    found = validator().verify(token(scope="a.* * b b"))
    assert (found.scopes, found.actions) == (("a.*", "*", "b"), ("b",))
    bare = validator().verify(token(scope=GONE))
    assert (bare.scopes, bare.actions) == (None, ())


def test_a_mapper_says_what_a_scope_permits() -> None:
    """An issuer's mapper gives the actions of each scope, each action once."""
    table = {"pay": ["payments.*", "docs.read"], "read": ["docs.read"]}
    asked = validator(trusted(actions=lambda scope: table.get(scope, [])))
    found = asked.verify(token(scope="pay read other"))
    assert found.actions == ("payments.*", "docs.read")
    assert found.scopes == ("pay", "read", "other")


@pytest.mark.parametrize("mapper", [lambda s: s, lambda s: None, lambda s: [7], lambda s: 1 / 0, lambda: ["x"]])
def test_a_mapper_that_fails_refuses_the_token(mapper: Any) -> None:
    """A mapper that raises, or returns something other than lists of texts, makes the token refused."""
    assert reason(lambda: validator(trusted(actions=mapper)).verify(token())) == "scope_mapper"


# ---- kinds


GOOD: dict[TokenKind, Callable[..., str]] = {
    "access": lambda **more: token(**more),
    "jwt": lambda **more: token(typ="JWT", **more),
    "id": lambda **more: token(typ="JWT", **{"client_id": GONE, "scope": GONE, "jti": GONE, "nonce": "n", **more}),
    "id-jag": lambda **more: token(typ="oauth-id-jag+jwt", **more),
    "txn": lambda **more: token(typ="txntoken+jwt", **{"txn": "t-1", "client_id": GONE, **more}),
}


@pytest.mark.parametrize("asked_for", ALL_KINDS)
@pytest.mark.parametrize("given", ALL_KINDS)
def test_case_24_kinds_exclude_one_another(given: TokenKind, asked_for: TokenKind) -> None:
    """Case 24, RFC 8725 §3.12: a token of one kind is refused as any other kind, and taken as its own."""
    asked = validator(trusted(token_kinds=ALL_KINDS))
    text = GOOD[given]()
    if given == asked_for:
        assert asked.verify(text, kind=asked_for).kind == given
    else:
        assert reason(lambda: asked.verify(text, kind=asked_for)) in {"typ", "client_id", "kind", "txn", "jti"}


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_an_issuer_is_trusted_for_its_kinds_only(kind: TokenKind) -> None:
    """A kind that the issuer isn't trusted for is refused, however good the token."""
    others = [other for other in ALL_KINDS if other != kind]
    assert reason(lambda: validator(trusted(token_kinds=others)).verify(GOOD[kind](), kind=kind)) == "kind"


@pytest.mark.parametrize("name", ["client_id", "scope", "act", "authorization_details", "events"])
def test_an_id_token_is_no_access_token(name: str) -> None:
    """What only access tokens or events hold makes an ID token none; and its scopes are None."""
    asked = validator(trusted(token_kinds=["id"]))
    assert reason(lambda: asked.verify(GOOD["id"](**{name: "x"}), kind="id")) == "kind"
    assert asked.verify(GOOD["id"](), kind="id").scopes is None
    assert (
        asked.verify(raw({"alg": "Ed25519", "kid": "ed"}, claims(client_id=GONE, scope=GONE)), kind="id").kind == "id"
    )


@pytest.mark.parametrize("name", ["nonce", "at_hash", "c_hash", "events"])
def test_a_plain_jwt_with_claims_of_an_id_token_or_an_event_is_refused(name: str) -> None:
    """The kind `jwt` shares its `typ` with ID tokens, so that what marks one of those refuses it."""
    asked = validator(trusted(token_kinds=["jwt"]))
    assert reason(lambda: asked.verify(GOOD["jwt"](**{name: "x"}), kind="jwt")) == "kind"


@pytest.mark.parametrize("kind", ["id-jag", "txn"])
def test_grants_and_transactions_are_for_one_audience(kind: TokenKind) -> None:
    """An ID-JAG and a transaction token are for exactly one party."""
    asked = validator(trusted(token_kinds=[kind]))
    assert reason(lambda: asked.verify(GOOD[kind](aud=[SERVICE, "x"]), kind=kind)) == "aud"
    assert asked.verify(GOOD[kind](aud=[SERVICE]), kind=kind).audience == (SERVICE,)


def test_an_unknown_kind_is_a_mistake_of_the_caller() -> None:
    """A kind that isn't one raises `InvalidArgument`, before anything is read."""
    kinds: list[Any] = ["refresh", "", None, [], {}]
    for kind in kinds:
        with pytest.raises(InvalidArgument):
            validator(cache=10).verify(token(), kind=kind)


# ---- what is left open elsewhere, and closed here


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (lambda: token(exp=GONE), "exp"),
        (lambda: token(iat=GONE), "iat"),
        (lambda: token(jti=GONE), "jti"),
        (lambda: token(typ="anything"), "typ"),
        (lambda: raw(b'{"alg":"Ed25519","kid":"ed","typ":"at+jwt","typ":"at+jwt"}'), "malformed"),
        (lambda: token(exp=str(NOW + 300)), "exp"),
        (lambda: token() + "=", "malformed"),
        (lambda: raw({"alg": "Ed25519", "kid": "ed", "typ": "at+jwt"}, b"\xff\xfe{\x00}\x00"), "malformed"),
        (lambda: token(more="x" * 5_000_000), "too_large"),
        (lambda: token(header={"zip": "DEF"}), "header"),
        (lambda: token(iat=-1), "iat"),
        (lambda: token(iat=NOW - 90_000), "lifetime"),
        (lambda: token(sub=7), "sub"),
        (lambda: token() + "\n", "malformed"),
        (lambda: raw({"alg": "es256", "kid": "es", "typ": "at+jwt"}, sign=ES.sign), "algorithm"),
    ],
)
def test_what_the_library_below_leaves_open_is_closed(text: Callable[[], str], why: str) -> None:
    """Each probe that PyJWT alone would accept, or that it must go on refusing, is refused here."""
    assert reason(lambda: validator().verify(text())) == why


# ---- the musts of the RFCs that are about the whole


@pytest.mark.parametrize("name", ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"])
def test_rfc_9068_section_2_2_required_claims(name: str) -> None:
    """RFC 9068 §2.2: each of the required claims is; with all of them the token is good."""
    assert reason(lambda: validator().verify(token(**{name: GONE}))) == {"iss": "issuer"}.get(name, name)
    assert validator().verify(token()).jti == "token-1"


def test_rfc_9068_section_4_the_type() -> None:
    """RFC 9068 §4: `at+jwt` and `application/at+jwt` are taken, and nothing else."""
    for typ in ("at+jwt", "application/at+jwt"):
        assert validator().verify(token(typ=typ)).kind == "access"
    assert reason(lambda: validator().verify(token(typ="application/jwt"))) == "typ"


def test_rfc_7519_section_4_1_3_one_of_several_audiences() -> None:
    """RFC 7519 §4.1.3: a service with several names takes a token for any of them, and none where it has no name."""
    asked = validator(trusted(audiences=["https://a.example", SERVICE]))
    assert asked.verify(token(aud=["https://x.example", "https://a.example"])).audience[1] == "https://a.example"
    assert reason(lambda: validator(trusted(audiences=[])).verify(token())) == "audience"


def test_rfc_7519_section_4_1_4_the_end_itself_is_too_late() -> None:
    """RFC 7519 §4.1.4: a token must not be taken on or after its `exp`, but for the leeway."""
    strict = TokenLimits(leeway=dt.timedelta(0))
    assert validator(limits=strict, clock=later(seconds=299.9)).verify(token()).jti == "token-1"
    assert reason(lambda: validator(limits=strict, clock=later(seconds=300)).verify(token())) == "expired"


def test_rfc_8725_section_3_1_algorithms_belong_to_the_issuer() -> None:
    """RFC 8725 §3.1: an issuer's tokens are of its own algorithms, whatever keys it has."""
    asked = validator(trusted(algorithms=["ES256"]))
    assert asked.verify(token(key=ES)).jti == "token-1"
    assert reason(lambda: asked.verify(token())) == "algorithm"


def test_a_shared_secret_has_to_be_asked_for() -> None:
    """HS256 is for issuers of shared secrets only, and those take nothing else."""
    secret = KeySet([VerificationKey(bytes(32), "s", frozenset({"HS256"}))])
    asked = validator(trusted(keys=secret, algorithms=["HS256"]))
    signed = raw(
        {"alg": "HS256", "kid": "s", "typ": "at+jwt"}, sign=lambda data: hmac.digest(bytes(32), data, "sha256")
    )
    assert asked.verify(signed).jti == "token-1"
    assert reason(lambda: asked.verify(token())) == "algorithm"
    assert reason(lambda: validator().verify(signed)) == "algorithm"


# ---- actors, as policies see them


def _decided(text: str, policy: str) -> str:
    recorded = Recorded(policy)
    speaking = validator(trusted(actor_issuers=[OTHER_ISSUER]))
    with recorded.authorizer.session(token=speaking.verify(text)) as session:
        return str(session.decide("payments.refund").outcome.value)


PERMIT_X = f'permit x on payments.refund when actor == agent("x", issuer: "{ISSUER}")'
DENY_X = f"""
permit all on payments.refund when true
forbid x on payments.refund when actor == agent("x", issuer: "{ISSUER}")
"""
OUTER_X: dict[str, Any] = {"sub": "x", "iss": ISSUER, "act": {"sub": "y", "iss": ISSUER}}
INNER_X: dict[str, Any] = {"sub": "y", "iss": ISSUER, "act": {"sub": "x", "iss": ISSUER}}


def test_case_35_an_inner_actor_gives_no_permission() -> None:
    """Case 35, RFC 8693 §4.1: where only X may act, X as an earlier actor gives nothing."""
    assert _decided(token(act=INNER_X), PERMIT_X) == "deny"
    assert _decided(token(act=OUTER_X), PERMIT_X) == "allow"


def test_case_36_an_inner_actor_takes_no_permission() -> None:
    """Case 36, RFC 8693 §4.1: where X is forbidden, X as an earlier actor forbids nothing."""
    assert _decided(token(act=INNER_X), DENY_X) == "allow"
    assert _decided(token(act=OUTER_X), DENY_X) == "deny"


def test_case_37_the_same_sub_of_another_issuer_is_somebody_else() -> None:
    """Case 37: an actor is the pair of `iss` and `sub`."""
    assert _decided(token(act={**OUTER_X, "iss": OTHER_ISSUER}), PERMIT_X) == "deny"
    assert _decided(token(act=OUTER_X), PERMIT_X) == "allow"


def test_case_38_an_actor_is_never_inferred_from_the_client() -> None:
    """Case 38: a `client_id` that differs from `sub` makes no chain."""
    found = validator().verify(token(client_id="x"))
    assert found.chain.delegations == ()
    assert _decided(token(client_id="x"), PERMIT_X) == "deny"
