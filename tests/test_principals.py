"""Who acts and for whom: identity, hops that only narrow, chains."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
from typing import Any

import pytest
from attrs import exceptions
from hypothesis import given
from hypothesis import strategies as st

from agentauthz import Chain, Delegation, InvalidArgument, Principal
from agentauthz.errors import WideningError
from agentauthz.principals import MAX_DEPTH, beyond, includes, matches
from agentauthz.values import ABSENT, INVALID
from tests.support import BOT, HELPER, MARIA, NOON

# ---- principals


def test_a_principal_is_who_the_issuer_says() -> None:
    """Issuer, kind and id tell principals apart; attributes don't."""
    bot = Principal.agent("bot", issuer="https://id.example", trust=1)
    assert bot == Principal.agent("bot", issuer="https://id.example", trust=9)
    assert hash(bot) == hash(Principal.agent("bot", issuer="https://id.example"))
    others = [
        Principal.agent("bot"), Principal.agent("bot", issuer="https://evil.test"), Principal.agent("Bot"),
        Principal.user("bot", issuer="https://id.example"), Principal.service("bot", issuer="https://id.example"),
    ]  # fmt: skip
    assert bot not in others
    assert len({bot, *others}) == 6
    assert bot != "bot"
    assert bot != bot.identity


def test_the_kinds_have_their_constructors() -> None:
    """`user`, `agent` and `service` make what they are called."""
    made = [make("x", team="a") for make in (Principal.user, Principal.agent, Principal.service)]
    assert [principal.kind for principal in made] == ["user", "agent", "service"]
    assert {principal.attributes["team"] for principal in made} == {"a"}


@pytest.mark.parametrize(
    ("given_", "argument"),
    [
        (("robot", "x"), "kind"), (("User", "x"), "kind"), (("", "x"), "kind"), ((None, "x"), "kind"),
        (("user", ""), "id"),
        (("user", None), "id"), (("user", 7), "id"), (("user", b"x"), "id"), (("user", "x", ""), "issuer"),
        (("user", "x", 7), "issuer"), (("user", "x", None, None), "attributes"),
        (("user", "x", None, [("a", 1)]), "attributes"),
    ],
)  # fmt: skip
def test_a_malformed_principal_is_refused(given_: Any, argument: str) -> None:
    """Kind, id, issuer and attributes are looked at when the principal is made, and the wrong one is named."""
    with pytest.raises(InvalidArgument) as raised:
        Principal(*given_)
    assert raised.value.argument == argument


class Lying(str):
    """Equal every text."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("agent")


def test_a_kind_is_what_it_says_not_what_it_equals() -> None:
    """A subclass of `str` that is equal to every kind is none but its own text."""
    with pytest.raises(InvalidArgument, match="one of user, agent, service"):
        Principal(Lying("root"), "x")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="host, session or token"):
        Delegation(BOT, via=Lying("host"))  # type: ignore[arg-type]
    agent = Principal(Lying("agent"), Lying("x"))  # type: ignore[arg-type]
    assert {type(agent.kind), type(agent.id)} == {str}
    assert agent == Principal.agent("x")


def test_attributes_are_frozen_when_the_principal_is_made() -> None:
    """Neither the host's later changes nor the principal's own fields change what policies see."""
    roles = ["support"]
    maria = Principal.user("maria", roles=roles, nothing=None, odd=object(), _hidden=1)
    roles.append("admin")
    assert maria.facts["roles"] == ("support",)
    assert maria.facts["nothing"] is ABSENT
    assert maria.facts["odd"] is INVALID
    assert maria.facts["_hidden"] is ABSENT
    with pytest.raises(exceptions.FrozenInstanceError):
        maria.id = "eve"  # type: ignore[misc]
    with pytest.raises(TypeError):
        maria.attributes["roles"] = ()  # type: ignore[index]


def test_builtin_names_win_over_attributes() -> None:
    """Attributes called `id`, `kind` or `issuer` say nothing about who it is."""
    eve = Principal("user", "eve", None, {"id": "maria", "kind": "agent", "issuer": "https://id.example"})
    assert (eve.facts["id"], eve.facts["kind"], eve.facts["issuer"]) == ("eve", "user", ABSENT)
    assert dict(eve.attributes) == {}


class Liar(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


def test_an_id_that_lies_about_equality_is_taken_at_its_text() -> None:
    """A subclass of str that is equal to everything is nobody else than its own text."""
    liar = Principal("user", Liar("eve"), Liar("x"))
    assert liar != MARIA
    assert liar == Principal.user("eve", issuer="x")
    assert type(liar.id) is type(liar.kind) is str


@pytest.mark.parametrize(
    ("principal", "text"),
    [
        (Principal.user("maria"), 'user("maria")'),
        (Principal.agent("bot", issuer="https://id.example", secret="s3cret"), 'agent("bot", issuer: "https://id.example")'),
        (Principal.service('a"b\\c'), 'service("a\\"b\\\\c")'),
        (Principal.user("a\nb\u202ec\x00"), 'user("a\\u{a}b\\u{202e}c\\u{0}")'),
        (Principal.user("ünï"), 'user("ünï")'),
    ],
)  # fmt: skip
def test_a_principal_is_shown_as_policies_write_it(principal: Principal, text: str) -> None:
    """Quotes, control and bidirectional characters are escaped; attributes are not shown."""
    assert str(principal) == text
    assert repr(principal) == f"Principal({text})"


@pytest.mark.parametrize("principal", [MARIA, BOT, Principal.service("s", issuer="i", tags={"a"}, at=NOON)])
def test_principals_survive_pickling_and_copying(principal: Principal) -> None:
    """The copy is the same principal with the same facts."""
    for other in (pickle.loads(pickle.dumps(principal)), copy.copy(principal), copy.deepcopy(principal)):
        assert other == principal
        assert dict(other.facts) == dict(principal.facts)


# ---- patterns


@pytest.mark.parametrize(
    ("pattern", "action", "expected"),
    [
        ("a.b", "a.b", True), ("a.b", "a.b.c", False), ("a.b", "A.b", False), ("a.*", "a.b", True),
        ("a.*", "a.b.c", True),
        ("a.*", "a", False), ("a.*", "a.", False), ("a.*", "ab.c", False), ("a.b.*", "a.bc", False), ("*", "a", True),
        ("*", "delegation.handoff", False), ("*", "token.exchange", False), ("*", "tokens.x", True),
        ("*", "token", True),
        ("delegation.*", "delegation.handoff", True), ("token.exchange", "token.exchange", True),
        ("a/b-c", "a/b-c", True),
    ],
)  # fmt: skip
def test_a_pattern_covers_names(pattern: str, action: str, expected: bool) -> None:
    """A name covers itself, `a.*` all below `a`, and `*` all but the library's own actions."""
    assert matches(pattern, action) is expected


words = st.sampled_from(["a", "ab", "b", "delegation", "token", "handoff", "exchange"])
names = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.one_of(st.just("*"), names, names.map("{}.*".format))


@pytest.mark.parametrize(
    ("wider", "narrower", "expected"),
    [
        ("a.*", "a.*", True), ("a.*", "a.b.*", True), ("a.*", "a.b", True), ("a.*", "a", False), ("a.*", "ab.*", False),
        ("a.*", "ab.c", False), ("a.b.*", "a.*", False), ("a", "a", True), ("a", "a.*", False), ("*", "a.*", True),
        ("*", "*", True), ("a.*", "*", False), ("*", "token.*", False), ("*", "delegation.handoff", False),
        ("token.*", "token.exchange", True), ("*", "tokens.*", True),
    ],
)  # fmt: skip
def test_a_pattern_includes_what_is_below_it(wider: str, narrower: str, expected: bool) -> None:
    """A name that only begins alike is not below, and `*` includes nothing of the library's own."""
    assert includes(wider, narrower) is expected


@given(patterns, patterns, names)
def test_what_the_narrower_pattern_covers_the_wider_covers(wider: str, narrower: str, below: str) -> None:
    """Where `includes` says yes, no action that the narrower one covers escapes the wider one."""
    action = narrower.replace("*", below)
    assert matches(wider, action) or not includes(wider, narrower) or not matches(narrower, action)


@given(patterns, patterns)
def test_a_pattern_that_is_not_included_covers_something_more(wider: str, narrower: str) -> None:
    """Where `includes` says no, some action shows it, so nothing is refused for no reason."""
    probe = narrower.replace("*", "z.z") if narrower != "*" else "zz"
    probes = [probe, "token.zz", "delegation.zz", probe.replace("z.z", "zz")]
    if not includes(wider, narrower):
        assert any(matches(narrower, one) and not matches(wider, one) for one in probes)


@given(patterns, patterns, patterns)
def test_inclusion_is_an_order(one: str, two: str, three: str) -> None:
    """Each pattern includes itself, and inclusion passes on."""
    assert includes(one, one)
    assert includes(one, three) or not (includes(one, two) and includes(two, three))


@given(st.lists(st.one_of(patterns, st.text("a.*", max_size=4)), max_size=4), st.text("a.*", max_size=5))
def test_what_goes_beyond_is_what_nothing_includes(wider: list[str], narrower: str) -> None:
    """Looking patterns up finds what trying each of them finds, of texts of any form."""
    assert beyond(wider, [narrower]) == ([] if any(includes(one, narrower) for one in wider) else [narrower])


def test_many_patterns_are_compared_in_no_time() -> None:
    """Thousands against thousands, and names of thousands of parts, as a forged record may hold them."""
    many = [f"a{number}.*" for number in range(20_000)]
    assert beyond(many, [f"b{number}.x" for number in range(20_000)]) == [f"b{number}.x" for number in range(20_000)]
    assert beyond(many, ["." * 100_000]) == ["." * 100_000]


# ---- hops


@pytest.mark.parametrize(
    ("given_", "argument"),
    [
        ({"to": "bot"}, "to"), ({"to": None}, "to"), ({"to": BOT, "actions": "a.*"}, "actions"),
        ({"to": BOT, "actions": []}, "actions"),
        ({"to": BOT, "actions": [""]}, "actions"), ({"to": BOT, "actions": [7]}, "actions"),
        ({"to": BOT, "actions": ["a*"]}, "actions"),
        ({"to": BOT, "actions": ["*.a"]}, "actions"), ({"to": BOT, "actions": [".*"]}, "actions"),
        ({"to": BOT, "actions": ["a.*.*"]}, "actions"), ({"to": BOT, "purpose": ""}, "purpose"),
        ({"to": BOT, "purpose": 7}, "purpose"),
        ({"to": BOT, "expires": dt.datetime(2026, 1, 1)}, "expires"),  # noqa: DTZ001
        ({"to": BOT, "expires": 60}, "expires"),
        ({"to": BOT, "via": "magic"}, "via"),
    ],
)  # fmt: skip
def test_a_malformed_hop_is_refused(given_: Any, argument: str) -> None:
    """Receiver, actions, purpose, expiry and origin are looked at when the hop is made."""
    with pytest.raises(InvalidArgument) as raised:
        Delegation(**given_)
    assert raised.value.argument == argument


@pytest.mark.parametrize(
    ("actions", "action", "expected"),
    [
        (("*",), "a.b", True), (("a.*", "b"), "b", True), (("a.*", "b"), "c", False),
        (("a.*",), "delegation.handoff", True),
        (("a.*",), "token.exchange", True), (("a.*",), "tokens.exchange", False),
    ],
)  # fmt: skip
def test_a_hop_covers_its_actions_and_the_librarys_own(actions: Any, action: str, expected: bool) -> None:
    """What delegating and exchanging pass on is narrowed instead of being covered."""
    assert Delegation(BOT, actions).covers(action) is expected


moments = st.sampled_from([None, NOON, NOON + dt.timedelta(hours=1), NOON + dt.timedelta(hours=2)])
purposes = st.sampled_from([None, "a", "b"])
several = st.lists(patterns, min_size=1, max_size=3)


@given(several, purposes, moments, st.none() | several, purposes, moments, names)
def test_a_hop_after_a_hop_is_never_wider(
    own: list[str],
    purpose: str | None,
    expires: Any,
    asked: list[str] | None,
    other: str | None,
    later: Any,
    action: str,
) -> None:
    """What `narrower` gives covers no action that the hop before doesn't, has its purpose, and ends no later."""
    hop = Delegation(BOT, tuple(own), purpose, expires)
    try:
        kept, kept_purpose, kept_expires = hop.narrower(actions=asked, purpose=other, expires=later)
    except WideningError:
        return
    after = Delegation(HELPER, kept, kept_purpose, kept_expires)
    assert hop.covers(action) or not after.covers(action)
    assert purpose is None or kept_purpose == purpose
    assert expires is None or (kept_expires is not None and kept_expires <= expires)
    assert asked is None or kept == tuple(asked)


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"actions": ["*"]}, "cover"), ({"actions": ["docs.read", "mail.send"]}, "cover"),
        ({"actions": ["docs"]}, "cover"),
        ({"actions": ["token.*"]}, "cover"), ({"purpose": "b"}, "purpose"),
        ({"expires": NOON + dt.timedelta(seconds=1)}, "ends"),
    ],
)  # fmt: skip
def test_anything_wider_raises_at_once(asked: dict[str, Any], word: str) -> None:
    """More actions, another purpose or a later end is refused, and the message says which."""
    hop = Delegation(BOT, ("docs.*",), "a", NOON)
    with pytest.raises(WideningError, match=word):
        hop.narrower(**{"actions": None, "purpose": None, "expires": None, **asked})


# ---- chains


def test_a_chain_leads_from_subject_to_actor() -> None:
    """The last receiver acts; without hops the subject does."""
    chain = Chain(MARIA, [Delegation(BOT), Delegation(HELPER)])
    assert (chain.actor, chain.depth) == (HELPER, 2)
    assert (Chain(MARIA).actor, Chain(MARIA).depth) == (MARIA, 0)
    assert chain.prefix(1) == Chain(MARIA, (Delegation(BOT),))
    assert type(chain.delegations) is tuple


@pytest.mark.parametrize("given_", [("maria",), (None,), (MARIA, (BOT,)), (MARIA, ("hop",)), (MARIA, (None,))])
def test_a_malformed_chain_is_refused(given_: Any) -> None:
    """A subject and hops of other types raise."""
    with pytest.raises(InvalidArgument):
        Chain(*given_)


@pytest.mark.parametrize(
    ("chain", "narrows", "alone"),
    [
        (Chain(MARIA), False, True),
        (Chain(MARIA, [Delegation(BOT)]), False, True),
        (Chain(BOT), False, False),
        (Chain(MARIA, [Delegation(BOT), Delegation(HELPER)]), False, False),
        (Chain(MARIA, [Delegation(BOT, ["docs.*", "*"])]), False, True),
        (Chain(MARIA, [Delegation(BOT, ["docs.*"])]), True, True),
        (Chain(MARIA, [Delegation(BOT, purpose="p")]), True, True),
        (Chain(MARIA, [Delegation(BOT), Delegation(HELPER, expires=NOON)]), True, False),
    ],
)
def test_a_chain_knows_whether_anything_in_it_must_be_looked_at(chain: Chain, narrows: bool, alone: bool) -> None:
    """It narrows where a hop passes on less than all; its actor is alone where no agent gave it its authority."""
    assert (chain.narrows, chain.alone) == (narrows, alone)


def test_a_chain_has_at_most_sixteen_hops() -> None:
    """Sixteen are fine, a seventeenth raises, by hand and by extending."""
    full = Chain(MARIA, (Delegation(BOT),) * MAX_DEPTH)
    assert full.depth == 16
    with pytest.raises(InvalidArgument, match="at most 16 hops, not 17"):
        Chain(MARIA, (Delegation(BOT),) * 17)
    with pytest.raises(WideningError, match="at most 16"):
        full.extend(Delegation(HELPER))
    with pytest.raises(WideningError, match="at most 1 "):
        Chain(MARIA, (Delegation(BOT),)).extend(Delegation(HELPER), max_depth=1)


def test_extending_only_narrows() -> None:
    """A hop that is wider than the one before can't be added; the first hop can be anything."""
    chain = Chain(MARIA).extend(Delegation(BOT, ("docs.*",)))
    assert chain.extend(Delegation(HELPER, ("docs.read",))).depth == 2
    with pytest.raises(WideningError):
        chain.extend(Delegation(HELPER))


def test_an_attribute_that_nests_too_deep_is_of_the_wrong_type() -> None:
    """Such a principal can be made; no rule can be true on that attribute, and the others stay."""
    deep: list[object] = []
    for _ in range(1000):
        deep = [deep]
    facts = Principal.user("anna", deep=deep, team="red").facts
    assert facts["deep"] is INVALID
    assert facts["team"] == "red"
