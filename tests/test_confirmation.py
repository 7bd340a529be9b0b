"""Test what a token is bound to against what comes with it: DPoP proofs and certificates that must be refused."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.base64url import to_base64url
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens.claims import confirmation_of
from agentauthz.tokens.confirmation import MAX_CERTIFICATE, certificate_thumbprint, confirm
from agentauthz.tokens.dpop import Nonces
from agentauthz.tokens.verified import Confirmation
from tests.proofs import METHOD, OTHER_KEY, TOKEN, URI, client, made, verifier
from tests.support import NOON, Clock


def _certificate(name: str) -> x509.Certificate:
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    until = NOON + dt.timedelta(days=30)
    return builder.serial_number(1).not_valid_before(NOON).not_valid_after(until).sign(key, hashes.SHA256())


CERTIFICATE: Final = _certificate("client")
DER: Final = CERTIFICATE.public_bytes(serialization.Encoding.DER)
PEM: Final = CERTIFICATE.public_bytes(serialization.Encoding.PEM)
OTHER_DER: Final = _certificate("other").public_bytes(serialization.Encoding.DER)

BY_KEY: Final = Confirmation(jkt=client().thumbprint)
BY_CERTIFICATE: Final = Confirmation(x5t_s256=certificate_thumbprint(DER))
BY_BOTH: Final = Confirmation(client().thumbprint, certificate_thumbprint(DER))


def _confirm(confirmation: Confirmation | None, **given: Any) -> None:
    confirm(confirmation, TOKEN, **{"verifier": verifier(), "method": METHOD, "uri": URI, **given})


def _refused(reason: str, confirmation: Confirmation | None, **given: Any) -> TokenError:
    with pytest.raises(TokenError) as caught:
        _confirm(confirmation, **given)
    assert caught.value.reason == reason, caught.value
    return caught.value


def test_a_bearer_token_needs_nothing() -> None:
    """A token that is bound to nothing is taken as it is; a client's certificate beside it makes no difference."""
    _confirm(None)
    _confirm(None, proofs=[], verifier=None, method=None, uri=None)
    _confirm(None, peer_certificate=DER)


@pytest.mark.parametrize("proofs", [made(), [made()], "", [""], "x", [made(), made()]], ids=range(6))
def test_a_proof_with_a_token_that_is_not_bound_is_refused(proofs: Any) -> None:
    """Whoever sends a proof holds a bound token: with one that isn't, it was swapped (a downgrade)."""
    _refused("dpop_unbound", None, proofs=proofs)
    _refused("dpop_unbound", BY_CERTIFICATE, proofs=proofs, peer_certificate=DER)


def test_40_a_bound_token_without_a_proof() -> None:
    """A token that is bound to a DPoP key is refused without proof (RFC 9449 §7.1, §7.2)."""
    _confirm(BY_KEY, proofs=made())
    _refused("dpop_missing", BY_KEY)
    _refused("dpop_missing", BY_KEY, proofs=[])
    _refused("dpop_missing", BY_KEY, peer_certificate=DER)


@pytest.mark.parametrize("missing", ["verifier", "method", "uri"])
def test_40_a_bound_token_where_nobody_can_check_it(missing: str) -> None:
    """A bound token is refused where the service gave no verifier, method or URI: never taken as a bearer's."""
    _refused("dpop_missing", BY_KEY, proofs=made(), **{missing: None})


def test_41_a_proof_by_another_key_or_in_another_form() -> None:
    """Another's key, a private or symmetric `jwk`, and another `typ` are refused (RFC 9449 §4.3 (4)-(7), (12b))."""
    _confirm(BY_KEY, proofs=made())
    _refused("dpop_proof", BY_KEY, proofs=client(OTHER_KEY).proof(METHOD, URI, access_token=TOKEN))
    _refused("dpop_proof", BY_KEY, proofs=made({"jwk": {"kty": "oct", "k": to_base64url(bytes(32))}, "alg": "HS256"}))
    _refused("dpop_proof", BY_KEY, proofs=made({"jwk": {**SigningKey.generate("ES256").public_jwk(), "d": "AAAA"}}))
    _refused("dpop_proof", BY_KEY, proofs=made({"typ": "JWT"}))


def test_42_a_proof_for_another_request_or_time() -> None:
    """Another method, another URI, an old and a future `iat` are refused; a query makes no difference (§4.3)."""
    _confirm(BY_KEY, proofs=made(), uri=URI + "?page=2")
    _refused("dpop_proof", BY_KEY, proofs=made(), method="GET")
    _refused("dpop_proof", BY_KEY, proofs=made(), uri="https://payments.example/accounts")
    _refused("dpop_proof", BY_KEY, proofs=made(iat=NOON.timestamp() - 91))
    _refused("dpop_proof", BY_KEY, proofs=made(iat=NOON.timestamp() + 31))


def test_43_a_proof_for_another_token_or_without_a_nonce() -> None:
    """No `ath`, another token's, no nonce and a stale one are refused (§4.3 (10), (12a))."""
    clock = Clock()
    nonces = Nonces(clock=clock)
    stale = nonces.issue()
    clock.forward(minutes=6)
    now, wanting = clock().timestamp(), {"verifier": verifier(nonces=nonces, clock=clock)}
    _confirm(BY_KEY, proofs=made(iat=now, nonce=nonces.issue()), **wanting)
    _refused("dpop_nonce", BY_KEY, proofs=made(iat=now), **wanting)
    _refused("dpop_nonce", BY_KEY, proofs=made(iat=now, nonce=stale), **wanting)
    _refused("dpop_proof", BY_KEY, proofs=client().proof(METHOD, URI))
    _refused("dpop_proof", BY_KEY, proofs=client().proof(METHOD, URI, access_token="another"))


def test_44_a_proof_twice() -> None:
    """A proof that was used before, and two headers, are refused (§4.3 (1), §11.1)."""
    one = verifier()
    _confirm(BY_KEY, proofs=made(), verifier=one)
    _confirm(BY_KEY, proofs=made(jti="another"), verifier=one)
    _refused("dpop_replayed", BY_KEY, proofs=made(), verifier=one)
    _refused("dpop_proof", BY_KEY, proofs=[made(jti="b"), made(jti="c")], verifier=one)


def test_45_a_binding_that_is_not_understood() -> None:
    """A `cnf` of only unknown members is refused (RFC 7800 §3.1), and so is a confirmation of nothing."""
    assert confirmation_of({"cnf": {"jkt": client().thumbprint, "more": 1}}) == BY_KEY
    with pytest.raises(TokenError) as caught:
        confirmation_of({"cnf": {"jku": "https://keys.example", "kid": "1"}})
    assert caught.value.reason == "cnf"
    _refused("cnf", Confirmation(), proofs=made(), peer_certificate=DER)


def test_45_both_bindings_must_hold() -> None:
    """A token that is bound to a key and a certificate needs both; where one fails the proof isn't used up."""
    one = verifier()
    _refused("certificate", BY_BOTH, proofs=made(), peer_certificate=OTHER_DER, verifier=one)
    _refused("certificate_missing", BY_BOTH, proofs=made(), verifier=one)
    _refused("dpop_missing", BY_BOTH, peer_certificate=DER, verifier=one)
    by_other = client(OTHER_KEY).proof(METHOD, URI, access_token=TOKEN)
    _refused("dpop_proof", BY_BOTH, proofs=by_other, peer_certificate=DER, verifier=one)
    _confirm(BY_BOTH, proofs=made(), peer_certificate=DER, verifier=one)


def test_46_a_certificate_that_is_missing() -> None:
    """A token that is bound to a certificate needs that one, DER or PEM, and no proof stands in (RFC 8705 §3)."""
    _confirm(BY_CERTIFICATE, peer_certificate=DER)
    _confirm(BY_CERTIFICATE, peer_certificate=PEM, verifier=None, method=None, uri=None)
    _refused("certificate_missing", BY_CERTIFICATE)
    _refused("certificate", BY_CERTIFICATE, peer_certificate=OTHER_DER)
    for none in (b"", b"x", DER[:-1], "DER"):
        _refused("certificate", BY_CERTIFICATE, peer_certificate=none)


def test_the_thumbprint_of_a_certificate() -> None:
    """`x5t#S256` is the SHA-256 of the DER, base64url without padding (RFC 8705 §3.1), from either form."""
    expected = to_base64url(CERTIFICATE.fingerprint(hashes.SHA256()))
    assert certificate_thumbprint(DER) == certificate_thumbprint(PEM) == certificate_thumbprint(b"\n" + PEM) == expected
    assert len(expected) == 43


KEY_PEM: Final = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.mark.parametrize(
    "certificate",
    [
        b"",
        b"x",
        DER[:-1],
        DER + b"x",
        PEM + PEM,
        PEM[:-30],
        KEY_PEM,
        b"\n" * MAX_CERTIFICATE + PEM,
        "text",
        None,
        DER.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1),
    ],  # of a version that there is not
    ids=range(11),
)
def test_what_is_no_certificate_has_no_thumbprint(certificate: Any) -> None:
    """What isn't exactly one certificate, within the cap, is refused: whose thumbprint it would be is a guess."""
    with pytest.raises(InvalidArgument, match=r"^`certificate` must be"):
        certificate_thumbprint(certificate)
