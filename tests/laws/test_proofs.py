"""Test the laws of DPoP proofs: any bit matters, and a proof is for one request."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from agentauthz.keys import InstanceKey
from agentauthz.keys.base64url import from_base64url, to_base64url
from agentauthz.tokens.dpop import DpopVerifier, Nonces
from tests.proofs import checked, client, made, refused
from tests.proofs import verifier as verifier_of
from tests.support import Clock

PROOF: Final = made()
PARTS: Final = PROOF.split(".")


@given(st.integers(0, 2), st.data())
def test_any_bit_matters(part: int, data: st.DataObject) -> None:
    """A proof of which any single bit is another, in header, claims or signature, is refused."""
    content = bytearray(from_base64url(PARTS[part]) or b"")
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    refused(".".join([*PARTS[:part], to_base64url(bytes(content)), *PARTS[part + 1 :]]))


@given(st.integers(0, len(PROOF) * 7 - 1))
def test_any_bit_of_the_text_matters(bit: int) -> None:
    """So is one of whose text any single bit is another."""
    text = bytearray(PROOF, "ascii")
    text[bit // 7] ^= 1 << bit % 7
    refused(text.decode("ascii"))


METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE"])
URIS = st.sampled_from(["https://a.example/", "https://a.example/x", "https://b.example/x", "http://a.example/x"])
TOKENS = st.text("abc", min_size=1, max_size=3)
REQUESTS = st.tuples(METHODS, URIS, TOKENS, st.integers(0, 2))


@given(REQUESTS, REQUESTS)
def test_a_proof_is_for_one_request(made_for: tuple[str, str, str, int], sent: tuple[str, str, str, int]) -> None:
    """A proof for one method, URI, token and server's nonce is taken for exactly these, and for no other."""
    servers = [Nonces(InstanceKey.from_bytes(bytes([one]) * 32), clock=Clock()) for one in range(3)]
    method, uri, token, server = made_for
    proof = client().proof(method, uri, access_token=token, nonce=servers[server].issue())
    by: DpopVerifier = verifier_of(nonces=servers[sent[3]])
    given_ = {"method": sent[0], "uri": sent[1], "access_token": sent[2]}
    if made_for == sent:
        assert checked(proof, by, **given_) == client().thumbprint
    else:
        refused(proof, by, reason="dpop_proof" if made_for[:3] != sent[:3] else "dpop_nonce", **given_)
