"""One call as a decision sees it: what is refused when it is made, and what it shows."""

from __future__ import annotations

import dataclasses
import datetime as dt
import pickle
from typing import Any

import pytest
from attrs import exceptions

from agentauthz import UNKNOWN, Chain, Delegation, InvalidArgument, Principal, Request, Resource, SessionFacts
from agentauthz.policy.builtins import equal
from agentauthz.values import ABSENT, freeze
from tests.support import BOT, HELPER, MARIA, NOON


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"action": ""}, "action"), ({"action": None}, "action"), ({"action": 7}, "action"),
        ({"subject": "maria"}, "subject"),
        ({"subject": None}, "subject"), ({"subject": UNKNOWN}, "subject"), ({"actor": "bot"}, "actor"),
        ({"actor": UNKNOWN}, "actor"),
        ({"chain": []}, "chain"), ({"chain": Chain(BOT)}, "chain"),
        ({"actor": HELPER, "chain": Chain(MARIA, (Delegation(BOT),))}, "chain"),
        ({"args": None}, "args"), ({"args": [1]}, "args"), ({"args": {1: 2}}, "args"),
        ({"args": {"a": 1, None: 2}}, "args"),
        ({"context": "x"}, "context"), ({"context": {b"a": 1}}, "context"), ({"route": ""}, "route"),
        ({"route": 7}, "route"),
        ({"purpose": ""}, "purpose"), ({"purpose": ["p"]}, "purpose"), ({"resource": {"type": "x"}}, "resource"),
        ({"resource": "o-1"}, "resource"), ({"session": "s"}, "session"), ({"session": {}}, "session"),
        ({"now": 0}, "now"),
        ({"now": "2026-11-23T12:00:00Z"}, "now"), ({"now": dt.datetime(2026, 1, 1)}, "now"),  # noqa: DTZ001
        ({"now": dt.date(2026, 1, 1)}, "now"),
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(given: dict[str, Any], argument: str) -> None:
    """Each argument is looked at when the request is made, and the wrong one is named."""
    with pytest.raises(InvalidArgument) as raised:
        Request(**{"action": "a.b", "subject": MARIA, **given})
    assert raised.value.argument == argument


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"id": ""}, "id"), ({"id": 7}, "id"), ({"id": None}, "id"),
        ({"started": dt.datetime(2026, 1, 1)}, "started"), ({"started": "now"}, "started"),  # noqa: DTZ001
        ({"started": UNKNOWN}, "started"),
        ({"expires": dt.datetime(2026, 1, 1)}, "expires"), ({"expires": 3600}, "expires"),  # noqa: DTZ001
        ({"attributes": None}, "attributes"), ({"attributes": 7}, "attributes"),
        ({"marks": {1}}, "marks"), ({"marks": "vip"}, "marks"), ({"marks": None}, "marks"),
        ({"began": {"a.b": dt.datetime(2026, 1, 1)}}, "began"), ({"began": {"a.b": None}}, "began"),  # noqa: DTZ001
        ({"began": ["a.b"]}, "began"), ({"done": {1: NOON}}, "done"), ({"done": None}, "done"),
        ({"tracked": {"a.b": 3}}, "tracked"), ({"tracked": UNKNOWN}, "tracked"),
    ],
)  # fmt: skip
def test_malformed_facts_of_a_session_are_refused(given: dict[str, Any], argument: str) -> None:
    """Each part is looked at when the facts are made, and the wrong one is named: a decision is too late."""
    with pytest.raises(InvalidArgument) as raised:
        SessionFacts(**{"id": "s", "started": NOON, **given})
    assert raised.value.argument == argument


def test_the_facts_of_a_session_are_their_own() -> None:
    """Times are kept in UTC, and what the caller changes later changes no fact."""
    began = {"a.b": NOON.astimezone(dt.timezone(dt.timedelta(hours=2)))}
    facts = SessionFacts("s", began["a.b"], marks=frozenset({"vip"}), began=began, done=UNKNOWN)
    began.clear()
    assert facts.began == {"a.b": NOON}
    assert facts.done is UNKNOWN
    assert facts.started.tzinfo is dt.UTC
    assert facts.marks == frozenset({"vip"})


@pytest.mark.parametrize("name", ["args", "resource", "route", "purpose", "session", "context"])
def test_unknown_may_stand_for_any_input_but_who_acts(name: str) -> None:
    """What couldn't be looked up is UNKNOWN, and the request is made all the same."""
    given: dict[str, Any] = {name: UNKNOWN}
    assert getattr(Request("a.b", subject=MARIA, **given), name) is UNKNOWN


def test_a_chain_is_made_where_none_is_given() -> None:
    """Without an actor the subject acts; an actor who is somebody else has one hop; the same one has none."""
    assert Request("a.b", subject=MARIA).actor is MARIA
    assert Request("a.b", subject=MARIA, actor=BOT).chain == Chain(MARIA, (Delegation(BOT),))
    assert Request("a.b", subject=MARIA, actor=Principal.user("maria")).chain.depth == 0
    chain = Chain(MARIA, (Delegation(BOT), Delegation(HELPER)))
    assert Request("a.b", subject=MARIA, chain=chain).actor is HELPER


def test_now_is_now_where_it_is_not_given() -> None:
    """A request knows its moment, in UTC."""
    before = dt.datetime.now(dt.UTC)
    assert before <= Request("a.b", subject=MARIA).now <= dt.datetime.now(dt.UTC)
    assert Request("a.b", subject=MARIA, now=NOON).now is NOON


def test_secrets_are_not_shown() -> None:
    """The repr of a request, resource or session's facts holds no arguments, attributes or context."""
    secret = "hunter2"
    resource = Resource("Order", "o-1", {"card": secret}, original=secret)
    session = SessionFacts("s", NOON, attributes={"token": secret})
    maria = Principal.user("maria", password=secret)
    request = Request(
        "a.b", subject=maria, args={"a": secret}, resource=resource, context={"c": secret}, session=session, purpose="p"
    )
    for shown in (repr(request), str(request), repr(resource), str(resource)):
        assert secret not in shown
    assert repr(resource) == "Resource('Order', 'o-1')"


def test_another_account_of_the_session_changes_nothing_else() -> None:
    """`with_session` keeps all other parts as they are."""
    request = Request(
        "a.b", subject=MARIA, actor=BOT, args={"a": 1}, purpose="p", route="r", context={"c": 1}, now=NOON
    )
    facts = SessionFacts("s", NOON)
    other = request.with_session(facts)
    assert other.session is facts
    for name in ("action", "subject", "actor", "chain", "args", "resource", "route", "purpose", "context", "now"):
        assert getattr(other, name) is getattr(request, name)


def test_a_request_can_not_be_changed_however_it_was_made() -> None:
    """Neither one that a caller made, nor one that the library fills by its quick way, nor into another class."""
    made = Request("a.b", subject=MARIA, now=NOON)
    quick = Request.trusted("a.b", made.chain, {}, None, None, None, None, {}, NOON)
    for request in (made, quick):
        assert type(request) is Request
        for name in ("action", "args", "chain", "__class__"):
            with pytest.raises(exceptions.FrozenInstanceError):
                setattr(request, name, getattr(request, name))
        with pytest.raises(exceptions.FrozenInstanceError):
            del request.action


# ---- resources


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        (("", "x"), "type"), ((None, "x"), "type"), ((7, "x"), "type"), (("Order", ""), "id"), (("Order", 7), "id"),
        (("Order", None), "id"), (("Order", "x", None), "attributes"), (("Order", "x", [1]), "attributes"),
        (("Order", "x", object()), "attributes"),
    ],
)  # fmt: skip
def test_a_malformed_resource_is_refused(given: Any, argument: str) -> None:
    """Type and id are texts that aren't empty; attributes are a mapping or an object with data fields."""
    with pytest.raises(InvalidArgument) as raised:
        Resource(*given)
    assert raised.value.argument == argument


@dataclasses.dataclass
class Row:
    amount: int
    type: str = "lie"


def test_a_resource_shows_its_fields_and_its_own_type_and_id() -> None:
    """Attributes may come from an object; `type` and `id` are always the resource's own."""
    entity: Any = freeze(Resource("Order", "o-1", Row(3)))
    assert (entity["amount"], entity["type"], entity["id"], entity["other"]) == (3, "Order", "o-1", ABSENT)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (Resource("Order", "1", {"a": 1}), Resource("Order", "1", {"a": 2}), True),
        (Resource("Order", "1"), Resource("Order", "2"), False),
        (Resource("Order", "1"), Resource("Doc", "1"), False),
        (Resource("Order", "1", {"type": "Doc"}), Resource("Doc", "1"), False),
        (Resource("Order", "1"), {"type": "Order", "id": "1"}, None),
        (Resource("Order", "1"), "1", None),
    ],
)  # fmt: skip
def test_resources_are_equal_by_type_and_id(left: object, right: object, expected: bool | None) -> None:
    """Attributes don't count, and nothing but a resource is comparable with one."""
    assert equal(freeze(left), freeze(right)) is expected
    assert equal(freeze(right), freeze(left)) is expected


def test_a_type_that_lies_about_equality_is_taken_at_its_text() -> None:
    """A subclass of str as type or id counts as its text."""

    class Liar(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    liar = Resource(Liar("Order"), Liar("1"))
    assert type(liar.type) is type(liar.id) is str
    assert equal(freeze(liar), freeze(Resource("Doc", "1"))) is False


def test_a_principal_can_be_pickled_inside_a_delegation() -> None:
    """Chains travel between processes with what they hold."""
    chain = Chain(MARIA, (Delegation(BOT, ("a.*",), "p", NOON),))
    assert pickle.loads(pickle.dumps(chain)) == chain
