"""No token, secret or key is in what others may read: records, logs, exceptions and reprs. And threads, and signers."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentauthz.errors import ExchangeRefused, InvalidArgument
from agentauthz.keys.signing import SigningKey
from agentauthz.sts.clients import Client, new_secret
from agentauthz.sts.issued import Issued
from agentauthz.tokens.dpop import DpopKey, DpopVerifier
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.revocation import RevokedTokens
from agentauthz.tokens.types import ID_JAG, ID_TOKEN, JWT_BEARER
from tests.sts_service import (
    ENDPOINT,
    EVIL,
    HELPER,
    IDP,
    KEYS,
    ORCHESTRATOR,
    STRANGER,
    STS,
    Service,
    actor_token,
    claims_of,
    client,
    granted,
    later,
    token,
)
from tests.support import Clock

CANARY = "canary-5d1f"  # in claims that nobody may see


def attempts(proof: str) -> list[tuple[Client, dict[str, Any]]]:
    """Return exchanges that succeed, and that fail at each step of the pipeline."""
    subject, actor = token(nonce=CANARY, email=CANARY, jti=CANARY), actor_token(jti=CANARY)
    good = {"subject_token": subject, "actor_token": actor, "audience": "helper", "scope": "read"}
    jag = token(ID_JAG, iss=IDP, aud=STS, client_id="orchestrator", jti=CANARY)
    return [
        (ORCHESTRATOR, good),
        (ORCHESTRATOR, {**good, "dpop": proof, "uri": ENDPOINT}),
        (ORCHESTRATOR, {**good, "dpop": proof + "x", "uri": ENDPOINT}),
        (ORCHESTRATOR, {**good, "subject_token": [subject, subject]}),
        (ORCHESTRATOR, {**good, "subject_token": subject + "x"}),
        (ORCHESTRATOR, {**good, "subject_token_type": ID_TOKEN}),
        (ORCHESTRATOR, {**good, "subject_token": token(iss=EVIL, jti=CANARY)}),
        (ORCHESTRATOR, {**good, "subject_token": token(exp=later(hours=-1), iat=later(hours=-2), jti=CANARY)}),
        (ORCHESTRATOR, {**good, "actor_token": token(act={"sub": CANARY}, jti=CANARY)}),
        (ORCHESTRATOR, {**good, "actor_token": subject}),
        (STRANGER, good),
        (ORCHESTRATOR, {**good, "scope": "payroll"}),
        (ORCHESTRATOR, {**good, "audience": "nowhere"}),
        (ORCHESTRATOR, {**good, "requested_token_type": subject}),
        (ORCHESTRATOR, {**good, "authorization_details": subject}),
        (ORCHESTRATOR, {**good, "audience": None, "resource": f"urn:{subject}#x"}),
        (ORCHESTRATOR, {"grant_type": JWT_BEARER, "assertion": jag, "audience": "helper"}),
        (ORCHESTRATOR, {"grant_type": subject}),
    ]


def test_89_nothing_shows_a_token_or_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Case 89: whatever comes of an exchange, no part of a token, a proof, a secret or a private key is shown."""
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    secret, signer = new_secret(), SigningKey.generate("ES256")
    service = Service(
        dpop=DpopVerifier(MemoryOnce(clock=clock), clock=clock), revoked=RevokedTokens(clock=clock),
        subject_mapper=lambda token: "user-1",
    )  # fmt: skip
    hidden = client("orchestrator", secret=secret)
    proof = DpopKey(signer, clock=clock).proof("POST", ENDPOINT)
    seen, secrets = [repr(service.service), repr(hidden), repr(service.service.keys)], [secret, CANARY]
    issued = 0
    for asker, given in attempts(proof):
        secrets += [part for value in given.values() for part in _parts(value)]
        try:
            found = service.exchange(asker, **given)
        except ExchangeRefused as refused:
            seen += [str(refused), repr(refused), "".join(_messages(refused))]
        else:
            issued += 1
            seen.append(repr(found))
            secrets += _parts(found.access_token)
    seen += [record.line().decode() for record in service.records] + [repr(record) for record in service.records]
    seen += [effect.line().decode() for effect in service.sink.effects]
    seen += [record.getMessage() for record in caplog.records]
    for key in (*KEYS.values(), signer):
        secrets += [line for line in key.to_pem().decode().splitlines() if not line.startswith("-")]
    assert issued == 3  # an exchange, one with a proof, and an assertion redeemed
    assert len(service.records) == len(attempts(proof))
    text = "\n".join(seen)
    assert [found for found in secrets if found in text] == []


def _parts(value: object) -> list[str]:
    """Return what must not be seen of a parameter: each long part of a token."""
    values = value if isinstance(value, list) else [value]
    return [
        part
        for one in values
        if isinstance(one, str) and one.count(".") == 2
        for part in one.split(".")[1:]
        if len(part) > 20
    ]


def _messages(error: BaseException) -> list[str]:
    return traceback.format_exception_only(error) + [
        line for cause in (error.__cause__, error.__context__) if cause is not None for line in _messages(cause)
    ]


def test_89_the_canary_is_alive() -> None:
    """What is looked for is really there: in the token that is issued, and in the one that is exchanged."""
    service = Service(transcribed=["email"])
    issued = service.exchange(subject_token=token(email=CANARY), audience="helper")
    assert claims_of(issued)["email"] == CANARY
    assert _parts(issued.access_token)
    assert issued.access_token in str(issued.body())


def test_an_issued_token_is_not_copied_or_pickled() -> None:
    """The token leaves the object by `access_token` and `body()` alone."""
    issued = Service().exchange(subject_token=token(), audience="helper")
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidArgument):
            way(issued)
    assert repr(issued) == "Issued(urn:ietf:params:oauth:token-type:access_token, Bearer, 600 s)"
    assert issued.is_access_token


class Broken:
    """Be a signer that fails when it is used."""

    algorithm, key_id = "Ed25519", "hsm"

    def public_jwk(self) -> Mapping[str, str]:
        return KEYS[STS].public_jwk()

    def sign(self, data: bytes) -> bytes:
        raise ConnectionError("hsm")


def test_a_signer_that_fails_issues_nothing() -> None:
    """What was decided stays on the record, once, and an effect says that it failed; no token is issued."""
    service = Service(signer=Broken())
    with pytest.raises(ExchangeRefused) as raised:
        service.exchange(subject_token=token(), audience="helper")
    assert (raised.value.error, raised.value.status) == ("server_error", 500)
    (record,) = service.records
    assert (record.outcome, record.id) == ("allow", raised.value.record_id)
    (effect,) = service.sink.effects
    assert (effect.of, effect.action, effect.status) == (record.id, "token.exchange", "failed")
    assert effect.error_type == "ConnectionError"
    assert "hsm" not in effect.line().decode()


def test_threads_exchange_side_by_side() -> None:
    """Many threads get tokens of their own, and one assertion is redeemed once among them."""
    service = Service(subject_mapper=lambda token: "user-1")
    subject = token()
    jag = {"grant_type": JWT_BEARER, "audience": "helper"}
    jag["assertion"] = token(ID_JAG, iss=IDP, aud=STS, client_id="orchestrator")

    def work(number: int) -> Issued | None:
        try:
            if number % 2:
                return service.exchange(**jag)
            return service.exchange(subject_token=subject, audience="helper")
        except ExchangeRefused:
            return None

    with ThreadPoolExecutor(8) as pool:
        issued = [one for one in pool.map(work, range(64)) if one is not None]
    assert len(issued) == 33
    assert len({claims_of(one)["jti"] for one in issued}) == 33
    assert len(service.records) == 64


def test_two_services_of_one_key_trust_each_others_chain() -> None:
    """A token of one service is exchanged at another that trusts its issuer: the chain goes on, under its issuers."""
    first = Service()
    issued = first.exchange(subject_token=token(), audience="helper", scope="read")
    second = Service()
    assert (
        granted(second, HELPER, subject_token=issued.access_token, audience="docs")["act"]["act"]["sub"]
        == "orchestrator"
    )
