"""Test what was revoked: tokens, their descendants, parties, and events that say so."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agentauthz import Principal
from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.base64url import from_base64url, to_base64url
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.revocation import LINEAGE, SESSION_REVOKED, RevokedTokens, jti_hash, session_revoked
from agentauthz.tokens.verified import VerifiedToken
from tests.issuing import ACT, ED, ES, GONE, ISSUER, NOW, OTHER_ISSUER, SERVICE, reason, token, trusted, validator
from tests.support import NOON, Clock

PARENT = jti_hash(ISSUER, "parent")


def second_form(text: str) -> str:
    """Return a token of ES256 with the other signature that fits it, (r, n - s) instead of (r, s)."""
    covered, _, last = text.rpartition(".")
    signature = from_base64url(last)
    assert signature is not None
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = order - int.from_bytes(signature[32:])
    return f"{covered}.{to_base64url(signature[:32] + other.to_bytes(32))}"


def verified(**changes: Any) -> VerifiedToken:
    return validator().verify(token(**changes))


def test_a_jti_is_named_with_its_issuer() -> None:
    """Names differ by `jti`, by issuer, and by where one ends and the other begins."""
    names = {jti_hash("a", "b"), jti_hash("a", "c"), jti_hash("b", "b"), jti_hash("ab", "c"), jti_hash("a", "bc")}
    assert len(names) == 5
    assert all(len(name) == 64 for name in names)


def test_a_revoked_token_is_refused_and_others_stand() -> None:
    """By the token itself or by its hash, everywhere that the same memory is asked."""
    revoked = RevokedTokens(clock=Clock())
    asked = validator(revocation=revoked)
    first, second = asked.verify(token()), asked.verify(token(jti="token-2"))
    revoked.revoke(first)
    assert first.revoked() is True
    assert reason(lambda: asked.verify(token())) == "revoked"
    assert second.revoked() is False
    revoked.revoke(jti_hash(ISSUER, "token-2"), NOON + dt.timedelta(hours=1))
    assert reason(lambda: asked.verify(token(jti="token-2"))) == "revoked"


def test_a_token_may_be_revoked_for_ever() -> None:
    """The last moment that there is counts as any other."""
    revoked = RevokedTokens(clock=Clock())
    revoked.revoke(jti_hash(ISSUER, "token-1"), dt.datetime.max.replace(tzinfo=dt.UTC))
    assert revoked(verified()) is True


def test_a_second_form_of_a_signature_is_the_same_token() -> None:
    """Whoever has an ECDSA signature can write it as another, so that it names no token: `jti`, or the claims, do."""
    revoked = RevokedTokens(clock=Clock())
    asked = validator(trusted(token_kinds=["id"]), revocation=revoked, replay=MemoryOnce(clock=Clock()))
    text = token(key=ES, typ="JWT", jti=GONE, client_id=GONE, scope=GONE)
    other = second_form(text)
    assert validator(trusted(token_kinds=["id"])).verify(other, kind="id").subject.id == "maria"
    found = asked.verify(text, kind="id")
    assert reason(lambda: asked.verify(other, kind="id")) == "replayed"
    revoked.revoke(found)
    assert reason(lambda: asked.verify(other, kind="id")) == "revoked"
    assert reason(lambda: asked.verify(text, kind="id")) == "revoked"
    assert (
        asked.verify(token(key=ES, typ="JWT", jti=GONE, client_id=GONE, scope=GONE, sub="tom"), kind="id").subject.id
        == "tom"
    )


def test_revoking_a_parent_revokes_its_descendants() -> None:
    """A token whose lineage holds what was revoked is refused; one of another lineage stands."""
    revoked = RevokedTokens(clock=Clock())
    child, other = verified(**{LINEAGE: ["x", PARENT]}), verified(**{LINEAGE: ["x", "y"]})
    assert (revoked(child), revoked(other)) == (False, False)
    revoked.revoke(PARENT, NOON + dt.timedelta(hours=1))
    assert (revoked(child), revoked(other)) == (True, False)


@pytest.mark.parametrize("lineage", ["x", [7], None, {}])
def test_a_lineage_that_can_not_be_read_is_unknown(lineage: Any) -> None:
    """A lineage that is no list of texts is not known not to be revoked."""
    assert RevokedTokens(clock=Clock())(verified(**{LINEAGE: lineage})) is None


def test_a_party_is_refused_from_a_moment_on() -> None:
    """What was issued before to the subject, or to any actor, is revoked; what comes after stands."""
    revoked = RevokedTokens(clock=Clock())
    for party in ("maria", "worker", "planner"):
        revoked = RevokedTokens(clock=Clock())
        revoked.revoke_principal(Principal.agent(party, issuer=ISSUER), NOON)
        assert revoked(verified(iat=NOW - 1, act=ACT)) is True
        assert revoked(verified(iat=NOW, act=ACT)) is False
    revoked.revoke_principal(Principal.user("maria", issuer=OTHER_ISSUER), NOON)
    revoked.revoke_principal(Principal.user("planner", issuer=ISSUER), NOON - dt.timedelta(hours=1))
    assert revoked(verified(iat=NOW - 1, act={"sub": "x", "iss": ISSUER})) is False
    assert revoked(verified(iat=NOW - 1, act=ACT)) is True


def test_a_token_is_remembered_until_it_has_expired() -> None:
    """Places are freed by tokens that have expired, and by no others."""
    clock = Clock()
    revoked = RevokedTokens(1, clock=clock)
    first, second = verified(), verified(jti="token-2")
    revoked.revoke(first)
    clock.forward(minutes=8)
    revoked.revoke(jti_hash(ISSUER, "other"), clock() + dt.timedelta(hours=1))
    assert revoked(second) is False


def test_a_full_memory_knows_nothing_until_what_it_lost_has_expired() -> None:
    """What doesn't fit makes every answer "not known", for as long as it could still be used."""
    clock = Clock()
    revoked = RevokedTokens(1, clock=clock)
    revoked.revoke(verified())
    revoked.revoke(verified(jti="token-2"))
    assert revoked(verified()) is True
    assert revoked(verified(jti="token-3")) is None
    assert reason(lambda: validator(revocation=revoked).verify(token(jti="token-3"))) == "revocation_unavailable"
    clock.forward(minutes=8)
    assert revoked(verified(jti="token-3")) is False


def test_parties_that_do_not_fit_refuse_everything() -> None:
    """When a party can't be remembered, that raises, and every token is refused from then on."""
    revoked = RevokedTokens(1, clock=Clock())
    revoked.revoke_principal(Principal.user("a", issuer=ISSUER), NOON)
    with pytest.raises(InvalidArgument):
        revoked.revoke_principal(Principal.user("b", issuer=ISSUER), NOON)
    assert revoked(verified()) is None


def test_mistakes_are_told() -> None:
    """A hash without its end, and moments without a zone, can't be taken."""
    revoked = RevokedTokens()
    with pytest.raises(InvalidArgument, match="until"):
        revoked.revoke(PARENT)
    with pytest.raises(InvalidArgument, match="until"):
        revoked.revoke(PARENT, dt.datetime(2026, 1, 1))  # noqa: DTZ001
    nothing: list[Any] = ["", "token-1", token(), PARENT.upper(), PARENT + "\n", PARENT.encode(), None, 7]
    for wrong in nothing:  # what would be remembered, and revoke no token
        with pytest.raises(InvalidArgument, match="jti_hash"):
            revoked.revoke(wrong, NOON)
    with pytest.raises(InvalidArgument, match="before"):
        revoked.revoke_principal(Principal.user("a"), dt.datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidArgument, match="max_entries"):
        RevokedTokens(0)


# ---- events


MARIA = {"format": "iss_sub", "iss": OTHER_ISSUER, "sub": "maria"}


def event(*, key: SigningKey = ED, typ: str = "secevent+jwt", **changes: Any) -> str:
    given = {
        "iss": ISSUER, "iat": NOW, "jti": "event-1", "aud": SERVICE, "sub_id": MARIA,
        "events": {SESSION_REVOKED: {"event_timestamp": NOW - 60}}, **changes,
    }  # fmt: skip
    return token({name: value for name, value in given.items() if value is not GONE}, key=key, typ=typ)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": ["https://x.example", SERVICE]},
        {"sub_id": {"format": "complex", "user": MARIA, "session": {"format": "opaque", "id": "s"}}},
        {"sub_id": GONE, "events": {SESSION_REVOKED: {"subject": MARIA, "event_timestamp": NOW - 60}}},
    ],
)
def test_an_event_names_whose_sessions_ended_when(changes: dict[str, Any]) -> None:
    """CAEP 1.0 §3.1, RFC 9493 §3.2.4: the pair of `iss` and `sub`, alone or as the user, and the moment."""
    party, before = session_revoked(event(**changes), trusted(), clock=Clock())
    assert party == Principal.user("maria", issuer=OTHER_ISSUER)
    assert before == NOON - dt.timedelta(seconds=60)


def test_an_event_without_a_time_counts_from_its_making() -> None:
    """Where the event has no time of its own, it is when it was issued."""
    assert session_revoked(event(events={SESSION_REVOKED: {}}), trusted(), clock=Clock())[1] == NOON


def test_an_event_ends_what_was_issued_before() -> None:
    """The two that are returned are what `revoke_principal` takes."""
    revoked = RevokedTokens(clock=Clock())
    revoked.revoke_principal(*session_revoked(event(sub_id={**MARIA, "iss": ISSUER}), trusted(), clock=Clock()))
    assert revoked(verified(iat=NOW - 61)) is True
    assert revoked(verified(iat=NOW - 60)) is False


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"typ": "at+jwt"}, "event"),
        ({"typ": "JWT"}, "event"),
        ({"iss": OTHER_ISSUER}, "event"),
        ({"iss": GONE}, "event"),
        ({"aud": "https://other.example"}, "audience"),
        ({"aud": GONE}, "audience"),
        ({"key": SigningKey.generate(key_id="ed")}, "signature"),
        ({"events": {}}, "event"),
        ({"events": GONE}, "event"),
        ({"events": {SESSION_REVOKED: []}}, "event"),
        ({"events": {f"{SESSION_REVOKED}/x": {}}}, "event"),
        ({"sub_id": GONE}, "event"),
        ({"sub_id": {"format": "email", "email": "maria@example.com"}}, "event"),
        ({"sub_id": {"format": "iss_sub", "iss": ISSUER}}, "event"),
        ({"sub_id": {"format": "iss_sub", "iss": 7, "sub": "maria"}}, "event"),
        ({"events": {SESSION_REVOKED: {"event_timestamp": NOW * 1000}}}, "event"),
        ({"events": {SESSION_REVOKED: {"event_timestamp": "now"}}}, "event"),
        ({"events": {SESSION_REVOKED: {"event_timestamp": True}}}, "event"),
    ],
)
def test_what_is_no_such_event_is_refused(changes: dict[str, Any], why: str) -> None:
    """RFC 8417 §2.3, §4: another type, issuer, audience or key, and an event without subject or time, are refused."""
    with pytest.raises(TokenError) as caught:
        session_revoked(event(**changes), trusted(), clock=Clock())
    assert caught.value.reason == why
