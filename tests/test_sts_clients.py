"""Test how a token service authenticates its clients: RFC 6749 §2.3, RFC 7521 §4.2, RFC 7523 §3, RFC 8705 §2."""

from __future__ import annotations

import base64
import contextlib
import copy
import datetime as dt
import hmac
import json
import pickle
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote_plus

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from agentauthz.errors import ExchangeRefused, InvalidArgument
from agentauthz.keys.base64url import to_base64url
from agentauthz.keys.jwk import KeySet, verification_key
from agentauthz.keys.signing import SigningKey
from agentauthz.sts.assertions import AssertionRules
from agentauthz.sts.clients import Client, Clients, SecretHash, new_secret
from agentauthz.tokens import jws
from agentauthz.tokens.confirmation import certificate_thumbprint
from agentauthz.tokens.once import MemoryOnce
from agentauthz.tokens.types import JWT_CLIENT_ASSERTION
from tests.token_service import certificate

NOW: Final = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)
SECRET: Final = "canary-secret-of-the-planner-0123456789"
ISSUER: Final = "https://sts.example"
ENDPOINT: Final = "https://sts.example/token"
KEY: Final = SigningKey.generate("ES256", key_id="planner-1")
OTHER: Final = SigningKey.generate("ES256", key_id="planner-1")


def basic(name: str, secret: str) -> list[tuple[str, str]]:
    """Return the header that a client sends as RFC 6749 §2.3.1 has it."""
    joined = f"{quote_plus(name)}:{quote_plus(secret)}"
    return [("Authorization", f"Basic {base64.b64encode(joined.encode()).decode()}")]


def raw_basic(text: bytes) -> list[tuple[str, str]]:
    """Return Basic credentials of just these bytes."""
    return [("Authorization", f"Basic {base64.b64encode(text).decode()}")]


def post(name: str, secret: str) -> list[tuple[str, str]]:
    """Return the parameters of `client_secret_post`."""
    return [("client_id", name), ("client_secret", secret)]


def known(*more: Client, once: Any = None) -> Clients:
    """Return clients of each sort, at a fixed time."""
    clients = [
        Client("planner", secret=SECRET),
        Client("keyed", keys=KeySet([KEY.public_key()]), kind="service"),
        Client("browser", public=True),
        *more,
    ]
    rules = AssertionRules([ISSUER, ENDPOINT], once or MemoryOnce(clock=lambda: NOW))
    return Clients(clients, rules, clock=lambda: NOW)


def refused(clients: Clients, pairs: Iterable[tuple[str, str]], headers: Any = (), **more: Any) -> ExchangeRefused:
    """Return the refusal of what must not authenticate."""
    with pytest.raises(ExchangeRefused) as caught:
        clients.authenticate(list(pairs), list(headers), **more)
    return caught.value


# ---- secrets


def test_a_client_authenticates_by_basic_and_by_post() -> None:
    """Both ways of RFC 6749 §2.3.1 give the registered client."""
    clients = known()
    assert clients.authenticate([], basic("planner", SECRET)).id == "planner"
    assert clients.authenticate(post("planner", SECRET), []).id == "planner"


@pytest.mark.parametrize(
    ("pairs", "headers"),
    [
        ([], []),
        ([("client_id", "planner")], []),
        (post("planner", SECRET + "x"), []),
        (post("planner", SECRET[:-1]), []),
        (post("planner", SECRET.upper()), []),
        (post("nobody", SECRET), []),
        (post("Planner", SECRET), []),
        (post("keyed", SECRET), []),
        (post("browser", SECRET), []),
        ([("client_secret", SECRET)], []),
        ([], basic("planner", "")),
        ([], basic("planner", SECRET + " ")),
        ([], basic("nobody", SECRET)),
        ([], basic("", SECRET)),
        ([("client_id", "other")], basic("planner", SECRET)),
        (post("planner", "x" * 100_000), []),
        (post("x" * 100_000, SECRET), []),
        (post("planner", "\ud800"), []),
    ],
)
def test_case_53_whoever_does_not_prove_who_it_is_gets_one_same_answer(pairs: Any, headers: Any) -> None:
    """Case 53: an absent, wrong or unfit secret and an unknown client are all `invalid_client` with 401 (§5.2)."""
    found = refused(known(), pairs, headers)
    assert (found.error, found.status) == ("invalid_client", 401)


def test_empty_parameters_count_as_left_out() -> None:
    """RFC 6749 §3.2: a parameter without a value is as if it weren't there, so Basic stays the only method."""
    empty = [("client_secret", ""), ("client_assertion", ""), ("client_id", "")]
    assert known().authenticate(empty, basic("planner", SECRET)).id == "planner"


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.isprintable),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=22, max_size=60),
)
def test_names_and_secrets_of_any_text_arrive_form_encoded(name: str, secret: str) -> None:
    """RFC 6749 §2.3.1: name and secret are form-encoded, then joined; colons, plus, percent and umlauts survive."""
    clients = Clients([Client(name, secret=secret)])
    assert clients.authenticate([], basic(name, secret)).id == name


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Basic")],
        [("Authorization", "Basic !!!!")],
        [("Authorization", f"Bearer {SECRET}")],
        [("Authorization", basic("planner", SECRET)[0][1].replace("Basic", "Bearer"))],
        [("Authorization", f"planner:{SECRET}")],
        raw_basic(f"planner{SECRET}".encode()),
        raw_basic(f"planner:{SECRET}%2".encode()),
        raw_basic(f"planner:{SECRET}%zz".encode()),
        raw_basic(b"planner:%ff" + SECRET.encode()),
        raw_basic(b"pl\xc3\xa4nner:" + SECRET.encode()),
        raw_basic(f"planner:{SECRET}\n".encode()),
        [("Authorization", "Basic " + "A" * 100_000)],
    ],
)
def test_malformed_basic_credentials_authenticate_nobody(headers: Any) -> None:
    """What isn't `Basic` with base64 of form-encoded text, joined by a colon, is `invalid_client`."""
    assert refused(known(), [], headers).error == "invalid_client"


def test_the_scheme_of_basic_has_no_case() -> None:
    """RFC 9110 §11.1: `basic` and `BASIC` are one scheme, and header names have no case either."""
    ((_, value),) = basic("planner", SECRET)
    assert known().authenticate([], [("AUTHORIZATION", value.replace("Basic", "bASIC"))]).id == "planner"


@pytest.mark.parametrize(
    ("pairs", "headers"),
    [
        (post("planner", SECRET), basic("planner", SECRET)),
        ([], [*basic("planner", SECRET), *basic("planner", SECRET)]),
        ([*post("planner", SECRET), ("client_secret", SECRET)], []),
        ([("client_id", "planner"), *post("planner", SECRET)], []),
        ([*post("planner", SECRET), ("client_assertion", "x"), ("client_assertion_type", JWT_CLIENT_ASSERTION)], []),
        ([("client_assertion", "x"), ("client_assertion_type", JWT_CLIENT_ASSERTION)], basic("planner", SECRET)),
        ([("client_assertion", "x")], []),
        ([("client_assertion_type", JWT_CLIENT_ASSERTION)], []),
    ],
)
def test_two_methods_or_half_a_one_are_an_invalid_request(pairs: Any, headers: Any) -> None:
    """RFC 6749 §2.3, §5.2: more than one way to authenticate, and a parameter or header twice, is `invalid_request`."""
    found = refused(known(), pairs, headers)
    assert (found.error, found.status) == ("invalid_request", 400)


def test_basic_may_name_the_client_once_more() -> None:
    """A `client_id` beside Basic credentials is no second method, as long as it is the same."""
    assert known().authenticate([("client_id", "planner")], basic("planner", SECRET)).id == "planner"


def test_a_secret_is_replaced_without_an_interruption() -> None:
    """Both the old secret and its successor authenticate while both are registered, a third never is."""
    old, new = new_secret(), new_secret()
    clients = Clients([Client("planner", secret=[SecretHash.of(old), SecretHash.of(new)])])
    assert {clients.authenticate(post("planner", one), []).id for one in (old, new)} == {"planner"}
    with pytest.raises(InvalidArgument):
        Client("planner", secret=[old, new, new_secret()])


def test_the_longest_secret_counts_to_its_end() -> None:
    """A secret of 1,024 characters authenticates, and with one more behind it doesn't."""
    clients = Clients([Client("planner", secret="x" * 1024)])
    assert clients.authenticate(post("planner", "x" * 1024), []).id == "planner"
    assert refused(clients, post("planner", "x" * 1025)).error == "invalid_client"


def test_a_hash_in_a_configuration_takes_the_place_of_a_secret() -> None:
    """`text` and `from_text` carry the hash; two hashes of one secret differ, and none holds the secret."""
    text = SecretHash.of(SECRET).text()
    clients = Clients([Client("planner", secret=SecretHash.from_text(text))])
    assert clients.authenticate(post("planner", SECRET), []).id == "planner"
    assert text != SecretHash.of(SECRET).text()
    assert SECRET not in text
    assert refused(clients, post("planner", text)).error == "invalid_client"  # the hash is no secret


@pytest.mark.parametrize("text", ["", "sha256$aa$bb", "md5$00$00", SECRET, "sha256$" + "0" * 32 + "$" + "g" * 64])
def test_what_is_no_hash_is_refused(text: str) -> None:
    """A text that `SecretHash.text` didn't write raises."""
    with pytest.raises(InvalidArgument):
        SecretHash.from_text(text)


@pytest.mark.parametrize("pairs", [post("planner", SECRET), post("planner", "wrong" * 6), post("nobody", SECRET)])
def test_secrets_are_compared_alike_for_everybody(pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right secret, a wrong one and an unknown client take as many comparisons, all by `hmac.compare_digest`."""
    clients, calls = known(), []
    compare = hmac.compare_digest

    def counted(one: Any, other: Any) -> bool:
        calls.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr("agentauthz.sts.clients.hmac.compare_digest", counted)
    with contextlib.suppress(ExchangeRefused):
        clients.authenticate(pairs, [])
    assert calls == [(32, 32), (32, 32)]


# ---- registration


@pytest.mark.parametrize(
    "make",
    [
        lambda: Client("planner"),
        lambda: Client("planner", secret=SECRET, public=True),
        lambda: Client("", secret=SECRET),
        lambda: Client("a\nb", secret=SECRET),
        lambda: Client("x" * 257, secret=SECRET),
        lambda: Client("planner", secret="short"),
        lambda: Client("planner", secret="x" * 1025),
        lambda: Client("planner", secret=SECRET, kind="user"),  # type: ignore[arg-type]
        lambda: Client("planner", secret=SECRET, scopes="docs.read"),
        lambda: Client("planner", secret=SECRET, audiences=[""]),
        lambda: Client("planner", secret=SECRET, max_lifetime=dt.timedelta(0)),
        lambda: Client("planner", tls_thumbprint=""),
        lambda: Client("planner", tls_thumbprint="AB:CD:EF"),
        lambda: Client("planner", keys=KeySet([])),
        lambda: Client("planner", keys=KeySet([verification_key({"kty": "oct", "k": to_base64url(b"s" * 32)})])),
        lambda: Clients([Client("one", public=True), Client("one", public=True)]),
        lambda: AssertionRules([], MemoryOnce()),
        lambda: AssertionRules([ISSUER], MemoryOnce(), max_lifetime=dt.timedelta(0)),
        lambda: AssertionRules([ISSUER], MemoryOnce(), max_lifetime=dt.timedelta(days=2)),
        lambda: AssertionRules([ISSUER], MemoryOnce(), leeway=dt.timedelta(minutes=3)),
    ],
)
def test_a_client_that_proves_nothing_or_is_malformed_is_refused(make: Callable[[], object]) -> None:
    """A registration without proof needs the explicit `public`; weak secrets and shared keys are refused."""
    with pytest.raises(InvalidArgument):
        make()


def test_a_client_may_get_nothing_unless_it_is_said() -> None:
    """A client registered with a secret alone has no scope, audience, resource or detail, and no impersonation."""
    client = Client("planner", secret=SECRET)
    assert not (client.scopes | client.audiences | client.resources | client.detail_types | client.serves)
    assert not client.may_impersonate
    assert not client.public


def test_a_client_is_a_principal_of_the_service_or_of_its_own_issuer() -> None:
    """As an actor a client has the issuer that vouches for it, never none."""
    assert str(Client("planner", public=True).principal(ISSUER)) == f'agent("planner", issuer: "{ISSUER}")'
    other = Client("planner", public=True, kind="service", issuer="https://idp.example")
    assert str(other.principal(ISSUER)) == 'service("planner", issuer: "https://idp.example")'


def test_a_public_client_only_says_who_it_is() -> None:
    """A client that is `public` comes back marked as such, for the caller to refuse what needs proof."""
    assert known().authenticate([("client_id", "browser")], []).public


def test_a_registry_that_fails_is_the_servers_error() -> None:
    """A look-up that raises is `server_error`; one that returns another client is as if there were none."""

    def failing(client_id: str) -> Client | None:
        raise RuntimeError(client_id)

    found = refused(Clients(failing), post("planner", SECRET))
    assert (found.error, found.status) == ("server_error", 500)
    other = Client("other", secret=SECRET)
    assert refused(Clients(lambda _: other), post("planner", SECRET)).error == "invalid_client"


# ---- keys


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a good assertion of `keyed`, with changes; None leaves one out."""
    moment = int(NOW.timestamp())
    good = {"iss": "keyed", "sub": "keyed", "aud": ISSUER, "exp": moment + 60, "iat": moment, "jti": "one"}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def signed(payload: dict[str, Any], key: SigningKey = KEY, typ: str = "JWT") -> str:
    """Return an assertion."""
    return jws.make(payload, key, typ=typ)


def asserted(assertion: str, **more: str) -> list[tuple[str, str]]:
    """Return the parameters that carry an assertion."""
    given = {"client_assertion": assertion, "client_assertion_type": JWT_CLIENT_ASSERTION, **more}
    return list(given.items())


@pytest.mark.parametrize(
    "assertion",
    [
        signed(claims()),
        signed(claims(aud=ENDPOINT)),
        signed(claims(aud=[ISSUER])),
        signed(claims(iat=None)),
        signed(claims(exp=NOW.timestamp() + 300.5)),
        signed(claims(), typ="client-authentication+jwt"),
        jws.make(claims(), KEY, typ="JWT", header={}),
    ],
)
def test_a_client_authenticates_by_its_key(assertion: str) -> None:
    """RFC 7523 §3: an assertion of the client, for this service alone, short and new, proves who it is."""
    assert known().authenticate(asserted(assertion), []).id == "keyed"
    assert known().authenticate(asserted(assertion, client_id="keyed"), []).id == "keyed"


MOMENT: Final = int(NOW.timestamp())


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": None},
        {"sub": None},
        {"iss": "planner"},
        {"sub": "planner"},
        {"iss": "planner", "sub": "planner"},
        {"iss": "nobody", "sub": "nobody"},
        {"iss": ["keyed"], "sub": ["keyed"]},
        {"aud": None},
        {"aud": "https://other.example"},
        {"aud": ISSUER + "/"},
        {"aud": [ISSUER, "https://other.example"]},
        {"aud": []},
        {"exp": None},
        {"exp": str(MOMENT + 60)},
        {"exp": MOMENT - 30},
        {"exp": MOMENT + 331},
        {"exp": True},
        {"exp": -1},
        {"iat": MOMENT + 31},
        {"nbf": MOMENT + 31},
        {"iat": "now"},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"jti": "x" * 257},
    ],
)
def test_an_assertion_of_other_claims_authenticates_nobody(changed: dict[str, Any]) -> None:
    """RFC 7523 §3 item by item: `iss`, `sub`, `aud`, `exp`, `nbf`, `iat` and `jti` must each be right."""
    found = refused(known(), asserted(signed(claims(**changed))))
    assert (found.error, found.status) == ("invalid_client", 401)


def _unsigned(algorithm: str, signature: bytes = b"") -> str:
    head = to_base64url(json.dumps({"alg": algorithm, "kid": "planner-1"}).encode())
    body = to_base64url(json.dumps(claims()).encode())
    return f"{head}.{body}.{to_base64url(signature)}"


def _by_public_key() -> str:
    text = _unsigned("HS256").rpartition(".")[0]
    pem = json.dumps(KEY.public_jwk()).encode()
    return f"{text}.{to_base64url(hmac.digest(pem, text.encode(), 'sha256'))}"


@pytest.mark.parametrize(
    "assertion",
    [
        signed(claims(), OTHER),
        signed(claims(), SigningKey.generate("ES256", key_id="unknown")),
        signed(claims(), SigningKey.generate("Ed25519", key_id="planner-1")),
        signed(claims(), typ="at+jwt"),
        signed(claims(), typ="dpop+jwt"),
        _unsigned("none"),
        _unsigned("none", b"x"),
        _by_public_key(),
        signed(claims())[:-4] + "AAAA",
        signed(claims(more="x" * 5000)),
        jws.make(claims(), KEY, typ="JWT", header={"jwk": OTHER.public_jwk()}),
        "not.a.token",
        "x",
    ],
)
def test_an_assertion_that_is_not_genuine_authenticates_nobody(assertion: str) -> None:
    """RFC 7523 §3 item 9: another key, algorithm or kind of token, or no signature, is `invalid_client`."""
    assert refused(known(), asserted(assertion)).error == "invalid_client"


def test_an_assertion_is_used_once() -> None:
    """The second use of one `jti` by one client is refused, and another `jti` isn't."""
    clients = known()
    assert clients.authenticate(asserted(signed(claims())), []).id == "keyed"
    assert refused(clients, asserted(signed(claims()))).error == "invalid_client"
    assert clients.authenticate(asserted(signed(claims(jti="two"))), []).id == "keyed"


def test_an_assertion_that_fails_uses_nothing_up() -> None:
    """A forged assertion with the `jti` of a genuine one doesn't keep that one from being used."""
    clients = known()
    refused(clients, asserted(signed(claims(), OTHER)))
    refused(clients, asserted(signed(claims(aud="https://other.example"))))
    assert clients.authenticate(asserted(signed(claims())), []).id == "keyed"


def test_an_assertion_whose_use_can_not_be_remembered_is_refused() -> None:
    """A store that raises or is full means `temporarily_unavailable`, and nobody is authenticated."""
    full = MemoryOnce(1, clock=lambda: NOW)
    full.once("taken", NOW + dt.timedelta(hours=1))
    found = refused(known(once=full), asserted(signed(claims())))
    assert (found.error, found.status) == ("temporarily_unavailable", 503)


@pytest.mark.parametrize(
    "pairs",
    [
        asserted(signed(claims()), client_id="planner"),
        [
            *asserted(signed(claims()))[:1],
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2"),
        ],
    ],
)
def test_an_assertion_beside_another_name_or_of_another_type_is_refused(pairs: Any) -> None:
    """RFC 7521 §4.2: `client_id` must name the same client, and only JWT assertions are understood."""
    assert refused(known(), pairs).error == "invalid_client"


def test_without_rules_no_assertion_counts() -> None:
    """A service without `assertions` takes none, however genuine."""
    clients = Clients([Client("keyed", keys=KeySet([KEY.public_key()]))], clock=lambda: NOW)
    assert refused(clients, asserted(signed(claims()))).error == "invalid_client"


# ---- certificates


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_a_client_authenticates_by_the_certificate_of_its_connection(encoding: Encoding) -> None:
    """RFC 8705 §2: the registered certificate authenticates; another, none, or one that is none does not."""
    mine, other = certificate(), certificate().public_bytes(encoding)
    clients = known(Client("cert", tls_thumbprint=certificate_thumbprint(mine.public_bytes(Encoding.DER))))
    name = [("client_id", "cert")]
    assert clients.authenticate(name, [], mine.public_bytes(encoding)).id == "cert"
    for wrong in (other, b"", b"no certificate", None):
        assert refused(clients, name, peer_cert=wrong).error == "invalid_client"
    assert refused(clients, [("client_id", "planner")], peer_cert=other).error == "invalid_client"
    assert refused(clients, [], peer_cert=mine.public_bytes(encoding)).error == "invalid_client"


def test_a_certificate_does_not_stand_in_for_a_secret() -> None:
    """A connection with a certificate beside a wrong secret is refused: the secret is the method that was used."""
    mine = certificate().public_bytes(Encoding.DER)
    clients = known(Client("cert", tls_thumbprint=certificate_thumbprint(mine), secret=SECRET))
    assert refused(clients, post("cert", "wrong" * 6), peer_cert=mine).error == "invalid_client"
    assert clients.authenticate(post("cert", SECRET), [], mine).id == "cert"


# ---- secrets stay secret


def test_no_secret_is_ever_shown() -> None:
    """Neither a repr nor an error with its traceback holds a secret, an assertion or the hash of a secret."""
    clients, assertion = known(), signed(claims(aud="https://other.example"))
    client = clients.authenticate(post("planner", SECRET), [])
    shown = [repr(client), repr(clients), repr(client.secret), str(client)]
    for pairs, headers in [
        (post("nobody", SECRET), []),
        ([], basic("nobody", SECRET)),
        ([], raw_basic(f"planner:{SECRET}%zz".encode())),
        (post("planner", SECRET), basic("planner", SECRET)),
        (asserted(assertion), []),
    ]:
        found = refused(clients, pairs, headers)
        shown += [repr(found), str(found), "".join(traceback.format_exception(found))]
    text = "\n".join(shown)
    assert SECRET not in text
    assert assertion not in text
    assert client.secret[0].text().rpartition("$")[2] not in text


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_the_hash_of_a_secret_is_not_copied(copied: Callable[[object], object]) -> None:
    """A `SecretHash` can't be pickled or copied by mistake: `text` is the one way out."""
    with pytest.raises(InvalidArgument):
        copied(SecretHash.of(SECRET))
