"""Test values that no encoder takes, or takes in its own way: rows 20 to 24 of the faults to survive."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import pytest
from attrs import define

from agentauthz import Authorizer, Denied, PolicySet, Resource, Sensitive, authorize
from agentauthz.canonical import canonical
from agentauthz.decision import Basis
from agentauthz.errors import InvalidArgument
from agentauthz.keys import InstanceKey
from agentauthz.records import DecisionRecord, MemorySink, read_record
from agentauthz.records.lines import MAX_LINE
from agentauthz.request import Request
from tests.support import BOT, MARIA

KEY: Final = InstanceKey.from_bytes(bytes(32))
POLICIES: Final = PolicySet.parse("""
permit read on doc.read when context.value != "x" and args.value != "x" and resource.value != "x"
forbid no on doc.read when context.value == "forbidden"
""")


class Loud:
    """Be an object that nobody may ask anything."""

    def __str__(self) -> str:
        raise RuntimeError("CANARY")

    __repr__ = __str__
    __iter__ = __len__ = __hash__ = __eq__ = __str__  # type: ignore[assignment]

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("CANARY")


@define
class Lazy:
    """Be a resource one of whose fields can't be had."""

    id: str = "1"
    value: object = None

    def __getattribute__(self, name: str) -> object:
        if name == "value":
            raise RuntimeError("CANARY")
        return object.__getattribute__(self, name)


def cycle() -> list[object]:
    """Return a list that holds itself."""
    own: list[object] = []
    own.append(own)
    return own


def nested(kind: type, depth: int = 100_000) -> Any:
    """Return collections within each other."""
    value: Any = "x"
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def decided(value: object, *, resource: object = None) -> tuple[Any, DecisionRecord, dict[str, Any]]:
    """Return what comes of a call with the value in its arguments and context: decision, record, inputs by name."""
    sink = MemorySink()
    with Authorizer(POLICIES, sinks=[sink], key=KEY) as authorizer:
        on = Resource("doc", "d", {"value": 1}) if resource is None else resource
        session = authorizer.session(MARIA, BOT, context={"value": value})
        decision = session.decide("doc.read", args={"value": value}, resource=on)
    [record] = sink.decisions
    strict = json.loads(record.line(), parse_constant=lambda name: pytest.fail(f"`{name}` isn't JSON"))
    assert read_record(record.line()).line() == record.line()
    assert b"CANARY" not in record.line()
    return decision, record, {each["name"]: each for each in strict["inputs"]}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Loud(), {"$u": "Loud"}), (b"\xff\x00", {"$b": "/wA="}), (lambda: 1, {"$u": "function"}),
        (dt.datetime(2026, 1, 1), {"$local": "2026-01-01T00:00:00.000000"}),  # noqa: DTZ001
        (dt.date(2026, 1, 1), {"$date": "2026-01-01"}), (1j, {"$u": "complex"}), (Loud, {"$u": "type"}),
    ],
    ids=["object", "bytes", "function", "naive", "date", "complex", "class"],
)  # fmt: skip
def test_row_20_what_can_t_be_written_leaves_its_type(value: object, shown: Mapping[str, object]) -> None:
    """A typed placeholder stands for it, nobody asks it anything, and a rule that reads it is undetermined."""
    decision, record, inputs = decided(value)
    assert decision.basis is Basis.UNDETERMINED
    assert inputs["context.value"] == {"name": "context.value", "state": "invalid", "value": shown}
    assert inputs["args.value"]["value"] == shown
    assert record.undetermined == ("no",)


def test_row_20_sets_moments_cycles_and_lazy_fields() -> None:
    """A set and a moment are written with a tag, a cycle ends, and a field that raises is unknown."""
    assert decided({1, "a"})[2]["context.value"]["value"] == {"$set": ["a", 1]}
    moment = decided(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))[2]
    assert moment["context.value"]["value"] == {"$t": "2026-01-01T00:00:00.000000Z"}
    assert len(decided(cycle())[1].line()) <= MAX_LINE
    decision, _, inputs = decided("y", resource=Lazy())
    assert inputs["resource.value"]["state"] == "unknown"
    assert decision.basis is Basis.DEFAULT
    assert "resource.value (unknown)" in decision.missing


def test_row_20_objects_deep_inside_are_placeholders() -> None:
    """What can't be written inside a list doesn't take the list with it."""
    inputs = decided([1, Loud(), "z"])[2]
    assert inputs["context.value"]["value"][0] == 1
    assert inputs["context.value"]["value"][2] == "z"
    assert set(inputs["context.value"]["value"][1]) <= {"$u", "$x"}


@pytest.mark.parametrize(("value", "text"), [(float("nan"), "nan"), (float("inf"), "inf"), (-float("inf"), "-inf")])
def test_row_21_numbers_that_are_none_are_tagged(value: float, text: str) -> None:
    """NaN and the infinities are neither `null` nor invalid JSON, but tagged, and no rule compares them."""
    decision, record, inputs = decided(value)
    assert decision.basis is Basis.UNDETERMINED
    assert inputs["args.value"] == {"name": "args.value", "state": "invalid", "value": {"$f": text}}
    assert record.action.args_digest == KEY.digest("args", canonical({"value": value}))
    assert canonical({"value": value}) == b'{"value":{"$f":"%b"}}' % text.encode()


def test_row_22_lone_surrogates_are_escaped() -> None:
    """A value keeps them behind a tag; a name has them replaced, and the record lists where."""
    _, _, inputs = decided("a\ud800b\\")
    assert inputs["context.value"]["value"] == {"$w": "a\\ud800b\\\\"}
    sink = MemorySink()
    with Authorizer(POLICIES, sinks=[sink], key=KEY) as authorizer:
        authorizer.session(MARIA, id="s-\ud800").decide("doc.read\udfff", args={"n\ud800": 1})
    [record] = sink.decisions
    assert (record.session, record.action.name) == ("s-\\ud800", "doc.read\\udfff")
    assert {"/session", "/action/name"} <= set(record.meta.oversized)
    assert read_record(record.line()).line() == record.line()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**53, 2**53), (2**53 + 1, {"$i": str(2**53 + 1)}), (-(2**60), {"$i": str(-(2**60))}),
        (2**64, {"$i": str(2**64)}), (10**100, {"$i": hex(10**100)}),
    ],
)  # fmt: skip
def test_row_23_big_integers_are_tagged(value: int, shown: object) -> None:
    """Beyond 2^53, where other readers lose digits, an integer stands behind a tag; none is ever rounded."""
    assert decided(value)[2]["args.value"].get("value") == shown
    assert json.loads(canonical(value)) == shown


def test_row_23_names_that_aren_t_text_or_collide_stay_apart() -> None:
    """Names that aren't strings, or become one text, become pairs: two mappings never have one form by them."""
    forms = [{1: 2}, {"1": 2}, {1: 2, "1": 3}, {True: 2}, {None: 2}, {"\ud800": 2}, {"\\ud800": 2}, {"$i": "5"}, 5]
    assert len({canonical(form) for form in forms}) == len(forms)
    assert json.loads(canonical({1: 2, "1": 3})) == {"$m": [["1", 3], [1, 2]]}
    assert json.loads(canonical({"\ud800": 1, "\\ud800": 2})) == {"$m": [["\\ud800", 2], [{"$w": "\\ud800"}, 1]]}
    with pytest.raises(InvalidArgument, match="names that are strings"):
        decided_args({1: 2})


def decided_args(args: Any) -> None:
    """Decide a call with these arguments."""
    with Authorizer(POLICIES, sinks=[MemorySink()]) as authorizer:
        authorizer.session(MARIA).decide("doc.read", args=args)


@pytest.mark.parametrize("value", ["x" * 10_000_000, ["y" * 100] * 100_000], ids=["text", "list"])
def test_row_24_ten_megabytes_leave_a_digest(value: object, record_property: Any) -> None:
    """However much there is, the line keeps its bound and a keyed digest of it all, and says that it was too much."""
    began = time.perf_counter()
    _, record, inputs = decided(value)
    record_property("ms", (time.perf_counter() - began) * 1000)
    assert len(record.line()) <= MAX_LINE
    digest = KEY.digest("value", canonical(value))
    assert inputs["args.value"]["value"] == inputs["context.value"]["value"] == {"$c": digest}
    assert set(record.meta.oversized.values()) == {digest}
    assert record.action.args_digest == KEY.digest("args", canonical({"value": value}))


@pytest.mark.parametrize("kind", [list, dict])
def test_row_24_depth_is_cut_before_encoding(kind: type, record_property: Any) -> None:
    """A hundred thousand levels neither end the stack nor get in: a request is decided and recorded in bounds."""
    value, sink = nested(kind), MemorySink()
    with Authorizer(POLICIES, sinks=[sink], key=KEY) as authorizer:
        began = time.perf_counter()
        request = Request("doc.read", subject=MARIA, args={"value": value}, context={"value": value})
        decision = authorizer.decide(request)
        record_property("ms", (time.perf_counter() - began) * 1000)
    assert not decision.allowed
    [record] = sink.decisions
    assert len(record.line()) <= MAX_LINE
    assert record.action.args_digest.startswith(KEY.epoch)


@authorize("doc.read")
def tool(value: object, card: Annotated[object, Sensitive] = None) -> str:
    """Read it."""
    return "read"


@pytest.mark.parametrize("kind", [list, dict])
def test_row_24_what_nests_too_deep_isn_t_called(kind: type) -> None:
    """A guarded call is denied and recorded; inline, the argument is named; neither meets the end of the stack."""
    sink = MemorySink()
    with Authorizer(POLICIES, sinks=[sink], key=KEY) as authorizer:
        with authorizer.session(MARIA, BOT), pytest.raises(Denied, match="arguments_failed"):
            tool(nested(kind))
        with pytest.raises(InvalidArgument, match="`args` must not nest deeper"):
            authorizer.session(MARIA).decide("doc.read", args={"value": nested(kind)})
        with pytest.raises(InvalidArgument, match="`context` must not nest deeper"):
            authorizer.session(MARIA, context={"value": nested(kind)})
    assert [record.outcome for record in sink.decisions] == ["deny"]
