"""Test DPoP proofs: each must of RFC 9449 §4.3 by its number, its examples, nonces, and what a client's key makes."""

from __future__ import annotations

import datetime as dt
import hmac
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys import InstanceKey
from agentauthz.keys.base64url import from_base64url, to_base64url
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens import jws
from agentauthz.tokens.dpop import MAX_PROOF, DpopKey, Nonces, token_hash
from tests.proofs import (
    KEY,
    LEFT_OUT,
    METHOD,
    OTHER_KEY,
    TOKEN,
    URI,
    Seen,
    checked,
    claims_of,
    client,
    made,
    public,
    refused,
    signed,
)
from tests.proofs import verifier as verifier_of
from tests.support import NOON, Clock

RFC: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "rfc9449" / "proofs.json").read_text())


# ---- the examples of RFC 9449


@pytest.mark.parametrize("example", RFC["proofs"], ids=lambda example: f"figure {example['figure']}")
def test_the_proofs_of_the_rfc_are_genuine(example: dict[str, Any]) -> None:
    """Each whole proof that RFC 9449 prints (§4.1, §5, §7.1) is taken at its time, and tells the `jkt` of §6.1."""
    clock = Clock(dt.datetime.fromtimestamp(example["iat"], dt.UTC))
    token = RFC["access_token"] if example["token"] else None
    request = {"method": example["method"], "uri": example["uri"], "access_token": token}
    assert checked(example["proof"], verifier_of(clock=clock), **request) == RFC["jkt"]
    clock.forward(seconds=91)
    refused(example["proof"], verifier_of(clock=clock), **request)


def test_the_token_hash_of_the_rfc() -> None:
    """`ath` is the SHA-256 of the token's ASCII text in base64url (§4.2), as in Figure 14 of §7.1."""
    assert token_hash(RFC["access_token"]) == RFC["ath"]
    with pytest.raises(InvalidArgument, match="must be text in ASCII"):
        token_hash("tökén")


# ---- §4.3, by number


def test_1_one_header() -> None:
    """§4.3 (1): there is one `DPoP` header; none, two, and two proofs in one are refused."""
    assert checked(made()) == checked([made()]) == client().thumbprint
    refused(None, reason="dpop_missing")
    refused([], reason="dpop_missing")
    refused([made(), made(jti="another")])
    refused([made(), made()])
    refused(f"{made()}, {made()}")
    refused(f"{made()},{made()}")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda proof: "", lambda proof: "x", lambda proof: "a.b", lambda proof: "a.b.c", lambda proof: "a.b.c.d.e",
        lambda proof: proof[:-1], lambda proof: proof + "=", lambda proof: " " + proof, lambda proof: proof + "\n",
        lambda proof: proof.encode(), lambda proof: 7,
    ],
)  # fmt: skip
def test_2_one_well_formed_token(wrong: Callable[[str], Any]) -> None:
    """§4.3 (2): the header is one well-formed JWT."""
    refused([wrong(made())])


def test_2_members_once_and_json_objects() -> None:
    """§4.3 (2): a member twice, in header or claims, or claims that are no object, are no JWT."""
    head, claims = {"alg": "ES256", "typ": "dpop+jwt", "jwk": public(KEY)}, claims_of()
    assert checked(signed(head, claims))
    refused(signed(json.dumps(head).encode()[:-1] + b',"typ":"dpop+jwt"}', claims))
    refused(signed(head, json.dumps(claims).encode()[:-1] + b',"jti":"a-proof"}'))
    refused(signed(head, list(claims)))


def test_2_the_size_is_bounded() -> None:
    """§4.3 (2): a proof over its cap is refused before it is taken apart; one below isn't."""
    assert checked(made(more="x" * 4000))
    assert "longer than" in refused(made(more="x" * MAX_PROOF)).message


@pytest.mark.parametrize("name", ["jti", "htm", "htu", "iat", "ath"])
def test_3_all_claims(name: str) -> None:
    """§4.3 (3): each claim that §4.2 requires must be there, as text, or as a number for `iat`."""
    assert checked(made())
    for value in (LEFT_OUT, None, "", True, False, [], {}, ["POST"]):
        changed: dict[str, Any] = {name: value}
        refused(made(**changed))


def test_3_a_proof_without_a_token_needs_no_ath() -> None:
    """§4.2: `ath` is required where a token is presented, and only there."""
    assert checked(made(ath=LEFT_OUT), access_token=None)


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "DPOP+JWT", "dpop+jwt ", "application/dpop+jwt", "dpop"])
def test_4_the_type(typ: str) -> None:
    """§4.3 (4): `typ` is `dpop+jwt`, exactly."""
    assert checked(made())
    refused(made({"typ": typ}))


def test_4_a_token_is_no_proof() -> None:
    """§4.3 (4): a header without `typ`, and a token of another kind by the same key, are no proof."""
    refused(made({"typ": LEFT_OUT}))
    refused(jws.make({"sub": "maria"}, KEY, typ="at+jwt"))


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "es256", "ES256K", "RSA-OAEP", "ES384"])
def test_5_the_algorithm(algorithm: str) -> None:
    """§4.3 (5): `alg` is a known asymmetric one that fits the key; `none` and shared secrets never are."""
    refused(made({"alg": algorithm}))


def test_5_a_shared_secret() -> None:
    """§4.3 (5): HS256 is refused, whether its secret is in the header or is the public key's own text."""
    secret = json.dumps(public(KEY)).encode()
    for jwk in ({"kty": "oct", "k": to_base64url(secret)}, public(KEY)):
        head = {"alg": "HS256", "typ": "dpop+jwt", "jwk": jwk}
        refused(signed(head, claims_of(), lambda data: hmac.digest(secret, data, "sha256")))


def test_5_local_policy() -> None:
    """§4.3 (5): an algorithm that this verifier doesn't list is refused, and it lists no other than asymmetric ones."""
    assert checked(made(), verifier_of(algorithms=["ES256"]))
    refused(made(), verifier_of(algorithms=["Ed25519"]))
    for algorithms in ([], ["none"], ["HS256"], ["ES256", "HS256"], ["es256"]):
        with pytest.raises(InvalidArgument, match=r"^`algorithms` must be some of ES256,"):
            verifier_of(algorithms=algorithms)


def test_6_the_signature() -> None:
    """§4.3 (6): the signature is by the key in the header: not another's, none, an empty one, or of other claims."""
    assert checked(made()) == client().thumbprint
    refused(made(signer=OTHER_KEY))
    head, body, signature = made().split(".")
    refused(f"{head}.{made(jti='b').split('.')[1]}.{signature}")
    refused(f"{head}.{body}.")
    refused(f"{head}.{body}.{to_base64url(bytes(64))}")


@pytest.mark.parametrize("more", ["kid", "jku", "x5c", "x5u", "crit", "b64", "zip", "cty"])
def test_6_no_other_way_to_a_key(more: str) -> None:
    """§4.3 (6): a header holds `alg`, `typ` and `jwk`, and nothing that isn't understood."""
    refused(made({more: ["x"] if more in ("crit", "x5c") else "x"}))


def test_6_a_kid_only_repeats_that_of_the_key() -> None:
    """A `kid` in the header is taken where `jwk` has the same, as some clients write it, and chooses nothing."""
    named = {**public(KEY), "kid": "one"}
    assert checked(made({"jwk": named, "kid": "one"})) == checked(made({"jwk": named})) == client().thumbprint
    refused(made({"jwk": named, "kid": "another"}))


ODD: list[Any] = [[], {}, ["EC"], 7]


@pytest.mark.parametrize("jwk", [LEFT_OUT, None, "x", [], {}, {"kty": "EC"}, {**public(KEY), "crv": "P-384"},
                                 {**public(KEY), "x": public(KEY)["y"]}, {**public(KEY), "use": "enc"},
                                 {**public(KEY), "key_ops": ["encrypt"]}, {**public(KEY), "alg": "ES384"},
                                 *({**public(KEY), name: odd} for odd in ODD for name in public(KEY)),
                                 *({**public(KEY), name: odd} for odd in ODD
                                   for name in ("use", "key_ops", "kid", "alg"))])  # fmt: skip
def test_6_a_key_to_verify_with(jwk: object) -> None:
    """§4.3 (6): `jwk` is a whole public key, on its curve, and for signatures of this algorithm."""
    refused(made({"jwk": jwk}))


@pytest.mark.parametrize("member", ["d", "p", "k", "oth"])
def test_7_no_private_key(member: str) -> None:
    """§4.3 (7): a `jwk` with a private member is refused, and nothing of it is in the error."""
    private = {**public(KEY), member: "c2VjcmV0LXBhcnQ"}
    assert "c2VjcmV0LXBhcnQ" not in str(refused(made({"jwk": private})))


@pytest.mark.parametrize("method", ["GET", "post", "POST ", "", None])
def test_8_the_method(method: Any) -> None:
    """§4.3 (8): `htm` is the request's method, in its case (RFC 9110 §9.1)."""
    refused(made(htm=method))
    refused(made(), method=method)
    refused(made(htm=LEFT_OUT), method=None)


@pytest.mark.parametrize("uri", ["https://payments.example/other", "https://evil.example/transfers", URI + "/", "x", 7])
def test_9_the_uri(uri: Any) -> None:
    """§4.3 (9): `htu` is the request's URI."""
    refused(made(htu=uri))
    refused(made(), uri=uri)


@pytest.mark.parametrize("same", [URI + "?q=1", URI + "#f", "HTTPS://Payments.EXAMPLE:443/./transfers?q=1#f"])
def test_9_query_and_fragment_make_no_difference(same: str) -> None:
    """§4.3 (9): query and fragment are ignored on both sides, and syntax and scheme are normalised."""
    assert checked(made(htu=same)) == checked(made(), uri=same) == client().thumbprint


def test_10_the_nonce() -> None:
    """§4.3 (10): where nonces are given out, a proof without one, or with a stale or foreign one, wants a new one."""
    clock = Clock()
    nonces = Nonces(clock=clock)
    by = verifier_of(nonces=nonces, clock=clock)
    nonce = nonces.issue()
    for wrong in (LEFT_OUT, None, "", 7, [nonce], nonce + "x", Nonces(clock=clock).issue(), "ü"):
        refused(made(nonce=wrong), by, reason="dpop_nonce")
    refused(made(nonce="\ud800"), by, reason="dpop_proof")  # half of a surrogate pair: no text at all
    assert checked(made(nonce=nonce), by)
    clock.forward(minutes=6)
    now = clock().timestamp()
    refused(made(nonce=nonce, iat=now, jti="later"), by, reason="dpop_nonce")
    assert checked(made(nonce=nonces.issue(), iat=now, jti="later"), by)


@pytest.mark.parametrize("age", [-30, 0, 0.5, 60, 90])
def test_11_the_window(age: float) -> None:
    """§4.3 (11): a proof is taken from `leeway` before its `iat` to `max_age` and `leeway` after it."""
    assert checked(made(iat=NOON.timestamp() - age))


@pytest.mark.parametrize("age", [-31, 91, 3600, -3600, 1e12, -1e12, 10**17])
def test_11_outside_of_the_window(age: float) -> None:
    """§4.3 (11): older and younger proofs are refused."""
    refused(made(iat=NOON.timestamp() - age))


@pytest.mark.parametrize(("name", "seconds"), [("max_age", 0), ("max_age", 601), ("leeway", -1), ("leeway", 121)])
def test_11_the_window_is_bounded(name: str, seconds: int) -> None:
    """§11.1: nobody can open the window by more than minutes."""
    with pytest.raises(InvalidArgument, match="must be"):
        verifier_of(**{name: dt.timedelta(seconds=seconds)})


def test_12a_the_token() -> None:
    """§4.3 (12a): `ath` is the hash of the token that is presented."""
    assert checked(made())
    refused(made(ath=token_hash("another")))
    refused(made(), access_token="another")
    refused(made(), access_token="tökén")


def test_12b_the_key() -> None:
    """§4.3 (12b): the key of the proof is the one that the token is bound to; the proof isn't used up else."""
    by = verifier_of()
    refused(made(), by, thumbprint=client(OTHER_KEY).thumbprint)
    assert checked(made(), by, thumbprint=client().thumbprint)


# ---- §11.1, once


def test_a_proof_is_taken_once() -> None:
    """§11.1: the same `jti` at the same URI is refused, however the URI is written and whoever signed."""
    by = verifier_of()
    assert checked(made(), by)
    refused(made(), by, reason="dpop_replayed")
    refused(made(htu=URI + "?q=2"), by, reason="dpop_replayed")
    refused(made({"jwk": public(OTHER_KEY)}, signer=OTHER_KEY), by, reason="dpop_replayed")
    other = "https://payments.example/other"
    assert checked(made(jti="another"), by)
    assert checked(made(htu=other), by, uri=other)


def test_a_refused_proof_is_not_used_up() -> None:
    """What is wrong with a proof costs its maker no `jti`, and asks no store."""
    seen = Seen()
    by = verifier_of(once=seen)
    for wrong in (made(signer=OTHER_KEY), made(htm="GET"), made(iat=1), made(ath="x")):
        refused(wrong, by)
    assert not seen.keys
    assert checked(made(), by)


def test_what_is_remembered_is_short_and_outlives_the_proof() -> None:
    """A `jti` of any length up to its cap is kept as a hash, until no clock takes the proof any more."""
    seen = Seen()
    checked(made(jti="ü" * 256, iat=NOON.timestamp() + 30), verifier_of(once=seen))
    refused(made(jti="u" * 257))
    [(key, expires)] = seen.keys.items()
    assert len(key) == len("dpop:") + 64
    assert expires == NOON + dt.timedelta(seconds=30 + 60 + 30 + 30)


@pytest.mark.parametrize("answer", [None, 1, "yes", RuntimeError("full")])
def test_a_store_that_fails_grants_nothing(answer: object) -> None:
    """What a store raises, and anything but True, refuses the proof."""

    class Failing:
        def once(self, key: str, expires: dt.datetime) -> bool:
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[return-value]

    refused(made(), verifier_of(once=Failing()), reason="dpop_replayed")


def test_threads_take_a_proof_once() -> None:
    """Of many threads that present one proof at the same time, one is let in."""
    by, proof, start = verifier_of(), made(), threading.Barrier(8)

    def present(_: int) -> str:
        start.wait()
        try:
            return checked(proof, by)
        except TokenError as error:
            return error.reason

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(present, range(8)))
    assert sorted(outcomes) == sorted([client().thumbprint, *["dpop_replayed"] * 7])


# ---- nonces


def test_servers_that_share_a_key_know_each_others_nonces() -> None:
    """A nonce is known by every server with its key, until it is stale, and by none with another."""
    clock, key = Clock(), InstanceKey.random()
    nonce = Nonces(key, dt.timedelta(seconds=10), clock=clock).issue()
    twin, stranger = Nonces(key, dt.timedelta(seconds=10), clock=clock), Nonces(clock=clock)
    assert twin.valid(nonce)
    assert not stranger.valid(nonce)
    clock.forward(seconds=10)
    assert twin.valid(nonce)
    clock.forward(seconds=1)
    assert not twin.valid(nonce)


def test_a_nonce_is_of_the_characters_of_the_rfc_and_shows_no_key() -> None:
    """§8.1: a nonce is visible ASCII without quotes and backslashes; no time but its own can be put into it."""
    nonces = Nonces(InstanceKey.from_bytes(b"marker-marker-marker-marker-marker"), clock=Clock())
    nonce = nonces.issue()
    assert nonce.isascii()
    assert nonce.isprintable()
    assert not set(nonce) & set(' "\\')
    assert "marker" not in f"{nonce}{nonces!r}"
    moment, _, digest = nonce.partition(".")
    assert not nonces.valid(f"{int(moment) + 1}.{digest}")
    assert not nonces.valid(f"0{moment}.{digest}")


@pytest.mark.parametrize("lifetime", [dt.timedelta(0), dt.timedelta(seconds=-1), dt.timedelta(hours=2)])
def test_lifetimes_of_nonces_are_bounded(lifetime: dt.timedelta) -> None:
    """A nonce lives from a second to an hour."""
    with pytest.raises(InvalidArgument, match="must be from a second to an hour"):
        Nonces(lifetime=lifetime)


# ---- the client's key


@pytest.mark.parametrize("algorithm", ["Ed25519", "EdDSA", "ES256", "PS256", "RS256"])
def test_a_key_makes_proofs_that_are_taken(algorithm: str) -> None:
    """With each algorithm a proof holds what §4.2 asks for and no more, and is taken for its request."""
    key, nonces = client(SigningKey.generate(algorithm)), Nonces(clock=Clock())
    proof = key.proof(METHOD, URI + "?q=1#f", access_token=TOKEN, nonce=nonces.issue())
    found = jws.parse(proof, header=("alg", "typ", "jwk"))
    assert (found.algorithm, found.typ) == (algorithm, "dpop+jwt")
    assert found.header["jwk"] == public(key._signer)  # type: ignore[arg-type]
    assert found.claims().keys() == {"jti", "htm", "htu", "iat", "ath", "nonce"}
    assert found.claims()["htu"] == URI
    assert checked(proof, verifier_of(nonces=nonces)) == key.thumbprint


def test_proofs_differ() -> None:
    """Each proof has a `jti` of its own, of 128 random bits; without token and nonce it says nothing of them."""
    claims = [jws.parse(client().proof(METHOD, URI), header=("alg", "typ", "jwk")).claims() for _ in range(50)]
    assert len({one["jti"] for one in claims}) == 50
    assert len(from_base64url(str(claims[0]["jti"])) or b"") == 16
    assert claims[0].keys() == {"jti", "htm", "htu", "iat"}


def test_a_key_shows_no_private_part() -> None:
    """A signer whose JWK holds more than the public key gives no more than it into a proof; repr shows its name."""

    class Careless:
        algorithm, key_id, sign = KEY.algorithm, KEY.key_id, KEY.sign

        def public_jwk(self) -> dict[str, str]:
            return {**KEY.public_jwk(), "d": "c2VjcmV0"}

    proof = DpopKey(Careless()).proof(METHOD, URI)
    assert jws.parse(proof, header=("alg", "typ", "jwk")).header["jwk"] == public(KEY)
    assert repr(client()) == f"DpopKey(ES256, {KEY.key_id})"
    assert repr(verifier_of(algorithms=["ES256"])) == "DpopVerifier(ES256, nonces=False)"


def test_a_key_refuses_what_makes_no_proof() -> None:
    """A method, URI, token or nonce that no server would take is refused where the proof is made."""
    for arguments, more in [
        (("", URI), {}), (("GET", "/a"), {}), (("GET", "https://user:secret@host/"), {}), (("GET", "https://h/ä"), {}),
        (("GET", URI), {"access_token": "ä"}), (("GET", URI), {"nonce": 7}), (("GET\ud800", URI), {}),
    ]:  # fmt: skip
        with pytest.raises(InvalidArgument) as caught:
            client().proof(*arguments, **more)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)


def test_a_shared_secret_is_no_key() -> None:
    """A signer of HS256, or one whose algorithm is not its key's, makes no `DpopKey`."""

    class Secret:
        algorithm, key_id, sign = "HS256", "k", KEY.sign

        def public_jwk(self) -> dict[str, str]:
            return {"kty": "oct", "k": to_base64url(bytes(32))}

    class Mismatched:
        algorithm, key_id, sign, public_jwk = "RS256", KEY.key_id, KEY.sign, KEY.public_jwk

    for signer in (Secret(), Mismatched()):
        with pytest.raises(InvalidArgument, match="must sign with a public key's algorithm"):
            DpopKey(signer)
