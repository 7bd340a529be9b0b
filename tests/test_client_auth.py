"""Test how a client says who it is at a token endpoint, and that its secrets never show."""

from __future__ import annotations

import base64
import copy
import pickle
from typing import Any
from urllib.parse import unquote_plus

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.keys.signing import SigningKey
from agentauthz.tokens import jws
from agentauthz.tokens.client_auth import ClientAuth, ClientSecretBasic, ClientSecretPost, Credentials, PrivateKeyJwt
from tests.exchanging import ISSUER, keys_of
from tests.support import NOON, Clock

SECRET = "canary s3cr:t%+/=&\"'"
KEY = SigningKey.generate()


def test_basic_is_form_encoded_first() -> None:
    """RFC 6749 §2.3.1: id and secret are each form-encoded, then joined with a colon and put into base64."""
    sent = ClientSecretBasic("a:b c", SECRET).credentials()
    name, value = sent.headers[0]
    assert (name, sent.fields) == ("Authorization", ())
    assert value.startswith("Basic ")
    pair = base64.b64decode(value.removeprefix("Basic "), validate=True).decode("ascii")
    assert pair == "a%3Ab+c:canary+s3cr%3At%25%2B%2F%3D%26%22%27"
    assert [unquote_plus(part) for part in pair.split(":")] == ["a:b c", SECRET]


def test_post_sends_fields() -> None:
    """RFC 6749 §2.3.1: id and secret may be form fields instead, and then there is no header."""
    sent = ClientSecretPost("bot", SECRET).credentials()
    assert (sent.headers, sent.fields) == ((), (("client_id", "bot"), ("client_secret", SECRET)))


def test_an_assertion_names_its_client_and_server() -> None:
    """RFC 7523 §3: `iss` and `sub` are the client, `aud` is the server alone, `exp` is near, `jti` is there."""
    auth = PrivateKeyJwt("bot", KEY, ISSUER, clock=Clock())
    fields = dict(auth.credentials().fields)
    assert fields["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert fields["client_id"] == "bot"
    token = jws.parse(fields["client_assertion"])
    assert jws.verify(token, keys_of(KEY), ["Ed25519"]).key_id == KEY.key_id
    claims = token.claims()
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("bot", "bot", ISSUER)
    assert (claims["iat"], claims["exp"]) == (int(NOON.timestamp()), int(NOON.timestamp()) + 60)
    assert token.typ == "client-authentication+jwt"
    assert token.key_id == KEY.key_id


def test_each_assertion_is_another() -> None:
    """RFC 7523 §3: an assertion counts once, so each request has one of its own."""
    auth = PrivateKeyJwt("bot", KEY, ISSUER)
    made = [dict(auth.credentials().fields)["client_assertion"] for _ in range(50)]
    identifiers = {str(jws.parse(one).claims()["jti"]) for one in made}
    assert len(identifiers) == 50
    assert min(map(len, identifiers)) >= 32


@pytest.mark.parametrize("bad", ["", "a\n", "ä", None, 7, b"a"])
def test_malformed_names_and_secrets_are_refused(bad: Any) -> None:
    """RFC 6749, appendix A: ids and secrets are printable ASCII; another isn't sent, nor shown."""
    for make in (
        lambda: ClientSecretBasic(bad, "a"),
        lambda: ClientSecretBasic("a", bad),
        lambda: ClientSecretPost("a", bad),
        lambda: PrivateKeyJwt(bad, KEY, ISSUER),
        lambda: PrivateKeyJwt("a", KEY, bad),
    ):
        with pytest.raises(InvalidArgument, match=r"must be printable ASCII that is not empty$"):
            make()


@pytest.mark.parametrize(
    "auth", [ClientSecretBasic("bot", SECRET), ClientSecretPost("bot", SECRET), PrivateKeyJwt("bot", KEY, ISSUER)]
)
def test_secrets_do_not_show(auth: ClientAuth) -> None:
    """Case 89: the repr names the client and nothing that is secret; nothing is pickled or copied."""
    sent = auth.credentials()
    shown = f"{auth!r}{auth}{sent!r}{sent}"
    assert f"{type(auth).__name__}('bot')" in shown
    assert "canary" not in shown
    assert all(secret and secret not in shown for secret in sent.secrets)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidArgument, match="can't be pickled or copied"):
            leak(auth)
    assert repr(Credentials(secrets=("canary",))) == "Credentials(…)"


@pytest.mark.parametrize("signer", [None, "-----BEGIN PRIVATE KEY-----canary", object()])
def test_only_a_signer_signs(signer: Any) -> None:
    """What can't sign is refused when the way to authenticate is made, and isn't shown."""
    with pytest.raises(InvalidArgument, match=r"^`signer` must be") as caught:
        PrivateKeyJwt("bot", signer, ISSUER)
    assert "canary" not in str(caught.value)


def test_only_a_clock_is_called() -> None:
    """A moment isn't a clock."""
    with pytest.raises(InvalidArgument, match=r"^`clock` must be"):
        PrivateKeyJwt("bot", KEY, ISSUER, clock=NOON)  # type: ignore[arg-type]
