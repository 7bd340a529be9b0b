"""Hold what a token is bound to (`cnf`, RFC 7800) against what was presented with it: a DPoP proof, a certificate."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from agentauthz.errors import InvalidArgument, TokenError
from agentauthz.keys.base64url import to_base64url
from agentauthz.tokens.dpop import DpopVerifier
from agentauthz.tokens.verified import Confirmation

MAX_CERTIFICATE: Final = 64 * 1024  # bytes


def confirm(
    confirmation: Confirmation | None,
    access_token: str,
    *,
    verifier: DpopVerifier | None = None,
    proofs: str | Sequence[str] | None = None,
    method: str | None = None,
    uri: str | None = None,
    peer_certificate: bytes | None = None,
) -> None:
    """Check that what a token is bound to was presented with it: all of it, and no proof that it isn't bound to.

    `peer_certificate` is the client's, DER or PEM, as the host's TLS layer has verified it.

    Raises:
        TokenError: `certificate_missing`, or `certificate`: another than the token's (RFC 8705 §3); `dpop_missing`;
            `dpop_unbound`: a proof with a token that is bound to no DPoP key; `cnf`: bound to nothing that is known;
            or as `DpopVerifier.check`.
    """
    jkt, x5t = (None, None) if confirmation is None else (confirmation.jkt, confirmation.x5t_s256)
    if confirmation is not None and jkt is None and x5t is None:
        raise TokenError("cnf", "the token is bound to a key in a way that isn't understood")
    given = [proofs] if isinstance(proofs, str) else list(proofs or ())
    if jkt is None and given:
        raise TokenError("dpop_unbound", "the request has a DPoP proof, but its token is bound to no DPoP key")
    if x5t is not None:
        _same_certificate(x5t, peer_certificate)
    if jkt is not None:  # last, since it uses the proof up
        if verifier is None or method is None or uri is None:
            raise TokenError("dpop_missing", "the token needs a DPoP proof: give a `DpopVerifier`, `method` and `uri`")
        verifier.check(given, method=method, uri=uri, access_token=access_token, thumbprint=jkt)


def _same_certificate(thumbprint: str, certificate: bytes | None) -> None:
    if certificate is None:
        raise TokenError("certificate_missing", "the token is bound to a certificate, and the client presented none")
    try:
        presented = certificate_thumbprint(certificate)
    except InvalidArgument as error:
        raise TokenError("certificate", f"the client's certificate {error.message}") from None
    if not hmac.compare_digest(thumbprint, presented):
        raise TokenError("certificate", "the token is bound to another certificate than the client's")


def certificate_thumbprint(certificate: bytes) -> str:
    """Return the `x5t#S256` of a certificate, one in DER or PEM: the SHA-256 of its DER, base64url (RFC 8705 §3.1).

    Whether the certificate is valid is for the TLS layer to say.

    Raises:
        InvalidArgument: no X.509 certificate, more than one, or over 64 KiB.
    """
    if not isinstance(certificate, bytes) or len(certificate) > MAX_CERTIFICATE:
        raise InvalidArgument("certificate", f"must be bytes, at most {MAX_CERTIFICATE} of them")
    try:
        if certificate.lstrip().startswith(b"-----BEGIN "):
            (found,) = x509.load_pem_x509_certificates(certificate)
        else:
            found = x509.load_der_x509_certificate(certificate)
    except (ValueError, x509.InvalidVersion):
        raise InvalidArgument("certificate", "must be one X.509 certificate, in DER or PEM") from None
    return to_base64url(found.fingerprint(hashes.SHA256()))
