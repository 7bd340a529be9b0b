"""Measure tokens: validation and exchange beside the bare signatures that they are made of, and beside other libraries.

All tokens are signed with Ed25519, and carry a chain of three actors. What is held beside each other is measured in
turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentauthz import Authorizer, PolicySet, Principal
from agentauthz.keys.jwk import KeySet
from agentauthz.keys.signing import SigningKey
from agentauthz.records import MemorySink
from agentauthz.sts.ceilings import Target
from agentauthz.sts.clients import Client, Clients, new_secret
from agentauthz.sts.service import SecurityTokenService
from agentauthz.tokens import jws
from agentauthz.tokens.claims import chain_from_claims
from agentauthz.tokens.dpop import DpopKey, DpopVerifier
from agentauthz.tokens.issuers import TrustedIssuer
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.types import ACCESS_TOKEN, TOKEN_EXCHANGE
from agentauthz.tokens.validator import Validator
from benchmarks import verifiers
from benchmarks.timing import Clock, Figure, loop

_STS: Final = "https://sts.example"
_PAY: Final = "https://pay.example/api"
_ACTORS: Final = ("planner", "researcher", "payer")
_PARTIES: Final[verifiers.Parties] = [(_STS, "alice"), *((_STS, name) for name in _ACTORS)]
_TOKENS: Final = 16

_POLICY: Final = """
permit exchanging
  on token.exchange
  when subject is user and actor is agent and not ("payroll" in args.scope)
"""


def measured(clock: Clock) -> dict[str, Figure]:
    """Return the figures of validation, of an exchange, and of reading `act`."""
    key = SigningKey.generate(key_id="2026-10")
    return {**_validated(clock, key), **_bound(clock, key), **_exchanged(clock, key), **_read(clock)}


def _validated(clock: Clock, key: SigningKey) -> dict[str, Figure]:
    older = SigningKey.from_pem(key.to_pem(), algorithm="EdDSA", key_id=key.key_id)  # the same key by its older name
    tokens, tokens_of_older = _tokens(key), _tokens(older)
    plain, caching = _validator(key), _validator(key, cache=_TOKENS)
    joserfc = verifiers.of_joserfc(key, _STS, _PAY)
    authlib = verifiers.of_authlib(older, _STS, _PAY)
    for name, verify, signer in (
        ("agentauthz", verifiers.of_agentauthz(plain), key),
        ("agentauthz with a cache", verifiers.of_agentauthz(caching), key),
        ("joserfc", joserfc, key),
        ("authlib", authlib, older),
    ):
        verifiers.agree(name, verify, tokens if signer is key else tokens_of_older, _PARTIES, _bad(signer))
    return clock.beside(
        {
            "bare verification": loop(_bare(key), [_parts(token) for token in tokens]),
            "verify": loop(plain.verify, tokens),
            "verify, cached": loop(caching.verify, tokens),
            "joserfc": loop(joserfc, tokens),
            "authlib": loop(authlib, tokens_of_older),
        },
        _TOKENS,
    )


def _bound(clock: Clock, key: SigningKey) -> dict[str, Figure]:
    """Measure tokens that are bound to a key, each time with a proof that wasn't used before."""
    prover = DpopKey(SigningKey.generate())

    def run(validator: Validator, token: str, rounds: int) -> float:
        proofs = [prover.proof("POST", _PAY, access_token=token) for _ in range(rounds * _TOKENS)]
        begin = time.process_time()
        for proof in proofs:
            validator.verify(token, method="POST", uri=_PAY, dpop=proof)
        return time.process_time() - begin

    plain, caching = (_validator(key, cache=size, dpop=DpopVerifier(MemoryOnce(1_000_000))) for size in (0, _TOKENS))
    (token,) = _tokens(key, 1, cnf={"jkt": prover.thumbprint})
    return clock.beside(
        {
            "bare verification, DPoP": loop(_bare(key), [_parts(token)] * _TOKENS),
            "verify, DPoP": lambda rounds: run(plain, token, rounds),
            "verify, DPoP, cached": lambda rounds: run(caching, token, rounds),
        },
        _TOKENS,
    )


def _exchanged(clock: Clock, key: SigningKey) -> dict[str, Figure]:
    """Measure an exchange of a token with two actors for one with three, decided and recorded in memory."""
    asker = Client("payer", secret=new_secret(), scopes=["pay", "read"], resources=[_PAY], serves=[_STS])
    plain, caching = (_service(key, asker, cache=size) for size in (0, 2 * _TOKENS))
    subjects = _tokens(key, aud="payer", act=_act(_ACTORS[:2]))
    actors = _tokens(key, sub="payer", client_id="payer", aud=_STS, act=None)
    asked = [_parameters(*pair) for pair in zip(subjects, actors, strict=True)]
    read = verifiers.of_agentauthz(_validator(key))
    if any(read(one.exchange(asked[0], asker).access_token) != _PARTIES for one in (plain, caching)):
        raise AssertionError("the exchange issues a token for other parties")
    parts = [_parts(token) for token in subjects]
    return clock.beside(
        {
            "bare verification, exchange": loop(_bare(key), parts),
            "bare signature": loop(key.sign, [signed for _, signed in parts]),
            "exchange": loop(lambda pairs: plain.exchange(pairs, asker), asked),
            "exchange, cached": loop(lambda pairs: caching.exchange(pairs, asker), asked),
        },
        _TOKENS,
    )


def _read(clock: Clock) -> dict[str, Figure]:
    alice = Principal.user("alice", issuer=_STS)
    claims = [{"act": cast(Any, _act(_ACTORS))} for _ in range(_TOKENS)]
    return {"act": clock.calls("chain_from_claims", lambda one: chain_from_claims(one, subject=alice), claims)}


# ---- what is measured with


def _validator(key: SigningKey, **options: Any) -> Validator:
    return Validator([TrustedIssuer(_STS, KeySet([key.public_key()]), [_PAY])], **options)


def _service(key: SigningKey, asker: Client, **options: Any) -> SecurityTokenService:
    return SecurityTokenService(
        _STS,
        key,
        {ACCESS_TOKEN: Validator([TrustedIssuer(_STS, KeySet([key.public_key()]), [_STS])], **options)},
        Clients([asker]),
        Authorizer(PolicySet.parse(_POLICY), sinks=[MemorySink(limit=1_000)]),
        targets=[Target(_PAY, by="resource", scopes=["pay", "read"])],
    )


def _bare(key: SigningKey) -> Callable[[tuple[bytes, bytes]], object]:
    verify = cast(Ed25519PublicKey, key.public_key().key).verify
    return lambda parts: verify(*parts)


def _parts(token: str) -> tuple[bytes, bytes]:
    found = jws.parse(token)
    return found.signature, found.signed


def _tokens(key: SigningKey, count: int = _TOKENS, /, *, typ: str = "at+jwt", **changed: Any) -> list[str]:
    """Return access tokens that are good for an hour; a claim given as None is left out."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": _STS, "sub": "alice", "aud": _PAY, "client_id": "payer", "scope": "pay read",
        "iat": now, "nbf": now, "exp": now + 3_600, "act": _act(_ACTORS), **changed,
    }  # fmt: skip
    several = [{"jti": f"token-{n}", **claims} for n in range(count)]
    return [jws.make({k: v for k, v in one.items() if v is not None}, key, typ=typ) for one in several]


def _act(names: Sequence[str]) -> dict[str, Any]:
    act: dict[str, Any] = {}
    for name in names:
        act = {"iss": _STS, "sub": name, "sub_profile": "ai_agent", **({"act": act} if act else {})}
    return act


def _parameters(subject_token: str, actor_token: str) -> list[tuple[str, str]]:
    return [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", subject_token),
        ("subject_token_type", ACCESS_TOKEN),
        ("actor_token", actor_token),
        ("actor_token_type", ACCESS_TOKEN),
        ("resource", _PAY),
        ("scope", "pay"),
    ]


def _bad(key: SigningKey) -> dict[str, str]:
    """Return tokens that nobody may take, by what is wrong with each."""
    now = int(time.time())
    stranger = SigningKey.generate(key.algorithm, key_id=key.key_id)

    def one(signer: SigningKey = key, **changed: Any) -> str:
        return _tokens(signer, 1, **changed)[0]

    return {
        "its signature": one(stranger),
        "its type": one(typ="JWT"),
        "its issuer": one(iss="https://other.example"),
        "its audience": one(aud="https://other.example"),
        "it has expired": one(iat=now - 3_600, nbf=now - 3_600, exp=now - 60),
        "it begins later": one(nbf=now + 60),
        "it was issued later": one(iat=now + 60),
        "it has no jti": one(jti=None),
        "an actor without a name": one(act={"iss": _STS}),
    }
