"""Test records: what they tell, what they never tell, how big they get, and how they are read back."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz.canonical import canonical
from agentauthz.decision import Basis, Decision, Obligation, Outcome, Reason
from agentauthz.errors import InvalidArgument
from agentauthz.keys import InstanceKey
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.records import DecisionRecord, EffectRecord, Record, RecordIds, decision_record, read_record
from agentauthz.records.events import Ctx, ctx_member
from agentauthz.records.lines import MAX_LINE
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Value
from tests.test_canonical import Spy

NOW: Final = dt.datetime(2026, 11, 23, 9, 0, 0, 123456, tzinfo=dt.UTC)
KEY: Final = InstanceKey.from_bytes(bytes(32))
MARIA: Final = Principal.user("maria", issuer="https://id.example")
BOT: Final = Principal.agent("bot")
CTX: Final = {"call_id": "call-1", "parent": "00"}
ALLOW: Final = Decision(
    Outcome.ALLOW, Basis.RULE, "payments.refund",
    rules=("small_refund",),
    reasons=(Reason("permitted", "permitted by `small_refund`", "small_refund", "a.authz:1:1"),),
    obligations=(Obligation("small_refund.0", "notify", {"to": "finance", "after": Decimal("1.5")}),),
    marks=("refunded",), policy_digest="sha256:00",
)  # fmt: skip


ALONE: Final = {"stream": "0" * 26, "seq": 0, "prev": "0" * 64, "mono_ns": 0}  # in no stream yet


def _request(**changed: Any) -> Request:
    hop = Delegation(BOT, ("payments.*",), "customer-refund", NOW + dt.timedelta(hours=1))
    given: dict[str, Any] = {
        "subject": MARIA, "chain": Chain(MARIA, (hop,)), "resource": Resource("Order", "o-17", {"sensitivity": "low"}),
        "session": SessionFacts("s-1", NOW), "purpose": "customer-refund", "route": "python:shop.refund", "now": NOW,
    }  # fmt: skip
    return Request("payments.refund", **{**given, **changed})


def _record(
    args: Mapping[str, object] | None = None,
    seen: Sequence[tuple[str, Value]] = (),
    *,
    sensitive: Sequence[str] = (),
    explain: object = None,
    decision: Decision = ALLOW,
    request: Request | None = None,
    key: InstanceKey = KEY,
) -> DecisionRecord:
    return decision_record(
        id="01", ts=NOW, request=request or _request(), args=args or {}, decision=decision, seen=seen, explain=explain,
        sensitive=frozenset(sensitive), key=key, mode="enforce", ctx=ctx_member(CTX),
    )  # fmt: skip


def test_a_whole_record() -> None:
    """Every field of a plain decision is where the format says, nulls and empty lists are left out."""
    args = {"amount": Decimal("12.50"), "order_id": "o-17"}
    record = _record(args, [("args.amount", Decimal("12.5")), ("resource.sensitivity", "low"), ("actor.trust", ABSENT)])
    assert record.as_dict() == {
        "v": "1.0", **ALONE, "type": "decision", "id": "01", "ts": "2026-11-23T09:00:00.123456Z", "outcome": "allow",
        "basis": "rule", "mode": "enforce", "enforced": True, "policy": {"digest": "sha256:00"},
        "action": {
            "name": "payments.refund", "args_digest": KEY.digest("args", canonical(args)),
            "given": ["amount", "order_id"], "args": {"amount": {"$d": "12.5"}},
        },
        "resource": {"type": "Order", "id": "o-17", "attributes": {"sensitivity": "low"}},
        "actors": [{"sub": "maria", "kind": "user", "iss": "https://id.example"}, {"sub": "bot", "kind": "agent"}],
        "depth": 1,
        "chain": [{
            "to": 'agent("bot")', "actions": ["payments.*"], "purpose": "customer-refund",
            "expires": "2026-11-23T10:00:00.123456Z", "via": "host",
        }],
        "session": "s-1", "purpose": "customer-refund", "route": "python:shop.refund", "rules": ["small_refund"],
        "marks": ["refunded"],
        "reasons": [{
            "code": "permitted", "text": "permitted by `small_refund`", "rule": "small_refund", "at": "a.authz:1:1",
        }],
        "obligations": [{
            "id": "small_refund.0", "type": "notify", "properties": {"to": "finance", "after": {"$d": "1.5"}},
        }],
        "inputs": [
            {"name": "args.amount", "state": "value", "value": {"$d": "12.5"}},
            {"name": "resource.sensitivity", "state": "value", "value": "low"},
            {"name": "actor.trust", "state": "absent"},
        ],
        "ctx": {"call_id": "call-1", "parent": "00"},
    }  # fmt: skip


def test_each_state_of_an_input() -> None:
    """An input that is no value says which: absent, unknown or invalid."""
    record = _record(seen=[("args.a", ABSENT), ("args.b", UNKNOWN), ("args.c", INVALID), ("args.d", False)])
    assert [(seen.name, seen.state, seen.value) for seen in record.inputs] == [
        ("args.a", "absent", None), ("args.b", "unknown", None), ("args.c", "invalid", None),
        ("args.d", "value", False),
    ]  # fmt: skip


def test_arguments_that_no_rule_reads_are_only_in_the_digest() -> None:
    """An argument is shown where a rule's path names it; the others change the digest and nothing else."""
    shown = _record({"amount": 5, "note": "MARK-1"}, [("args.amount", 5)])
    other = _record({"amount": 5, "note": "MARK-2"}, [("args.amount", 5)])
    assert b"MARK" not in shown.line()
    assert shown.action.args == {"amount": 5}
    assert shown.action.args_digest != other.action.args_digest
    assert (
        shown.action.args_digest
        != _record({"amount": 5, "note": "MARK-1"}, key=InstanceKey.random()).action.args_digest
    )


def test_names_that_are_no_identifiers() -> None:
    """A member such as `args["file-path"]` is shown under its own name; deeper paths are inputs only."""
    record = _record({}, [('args["file-path"]', "/a"), ("args.order.total", 3), ('args["a"]["b"]', 4), ("argsx", 1)])
    assert record.action.args == {"file-path": "/a"}
    assert len(record.inputs) == 4


def test_resource_session_and_purpose_may_be_missing() -> None:
    """What is unknown or isn't there leaves no value."""
    unknown = _record(request=_request(resource=UNKNOWN, session=UNKNOWN, route=UNKNOWN, purpose=UNKNOWN))
    assert unknown.as_dict()["resource"] == {"state": "unknown"}
    assert {"session", "route", "purpose"}.isdisjoint(unknown.as_dict())
    assert _record(request=_request(resource=None)).resource is None


# ---- secrets

CANARY: Final = "CANARY-4111-1111"


@pytest.mark.parametrize(
    ("secret", "echo"),
    [
        (CANARY, CANARY), ([CANARY], CANARY), ({"number": CANARY}, CANARY), ({"deep": [{"er": CANARY}]}, CANARY),
        ({CANARY: 1}, CANARY), ({1: CANARY}, CANARY), ((CANARY, {CANARY}), CANARY),
        (CANARY.encode(), "other"), (CANARY + "\ud800", "other"), (CANARY * 1_000, "other"),
    ],
    ids=["text", "list", "field", "deep", "name", "number-name", "tuple", "bytes", "surrogate", "long"],
)  # fmt: skip
def test_a_sensitive_argument_is_nowhere(secret: Any, echo: str) -> None:
    """A secret doesn't show: not under its paths, its parts' paths, in clauses, loop variables, attributes or texts."""
    seen: list[tuple[str, Value]] = [
        ("args", {"card": secret}), ("args.card", secret), ("args.card.number", CANARY), ('args["card"]', secret),
        ('args.card["x"]', secret), ("context.copy", secret), ("resource.card", echo),
    ]  # fmt: skip
    saw = {"args.card": secret, "args.card.number": CANARY, "card": secret, "args": {"card": secret}, "subject": MARIA}
    explain = [{"rule": "r", "clauses": [{"at": "a:1:1", "expr": "any card in args.card: card == 1", "saw": saw}]}]
    reasons = (Reason("look_up_failed", f"no such card as {echo}", because=f"about {echo}"),)
    decision = attrs.evolve(ALLOW, reasons=reasons, outcome=Outcome.DENY)
    record = _record(
        {"card": secret, "amount": 3}, seen, sensitive=["card", "other"], explain=explain, decision=decision,
        request=_request(resource=Resource("Card", echo)),
    )  # fmt: skip
    for marker in (b"CANARY", base64.b64encode(CANARY.encode())[:12]):
        assert marker not in record.line()
    assert "CANARY" not in repr(record) + repr(_fields(record))
    assert record.meta.redacted[0] == "/action/args/card"
    assert [seen.name for seen in record.inputs] == ["context.copy", "resource.card"]
    assert record.as_dict()["explain"][0]["clauses"][0]["saw"] == {"subject": {"$p": ["user", "maria", MARIA.issuer]}}


def test_a_sensitive_argument_is_bound_by_the_digest() -> None:
    """Two calls that differ only in a secret have two digests."""
    first, second = (_record({"card": card}, sensitive=["card"]) for card in ("1", "2"))
    assert first.action.args_digest != second.action.args_digest


@pytest.mark.parametrize("number", range(8))
def test_secrets_of_every_kind(number: int) -> None:
    """Numbers, short texts and objects stay out as well; what is no secret stays in."""
    secret = [4111222233334444, Decimal("4111222.25"), 10**30, True, None, "abc", "", Spy()][number]
    saw = {"args.pin": secret, "context.level": "low"}
    record = _record(
        {"pin": secret}, [("args.pin", 1), ("context.level", "low")], sensitive=["pin"],
        explain=[{"at": "a:1:1", "expr": "args.pin == 1", "result": "true", "saw": saw}],
    )  # fmt: skip
    assert not any(text in record.line() for text in (b"4111222", str(10**30).encode(), b'"abc"'))
    assert record.as_dict()["explain"][0]["saw"] == {"context.level": "low"}
    assert [seen.name for seen in record.inputs] == ["context.level"]


def test_a_secret_cannot_hide_who_acted() -> None:
    """A model that passes an identity as a secret doesn't remove identity, action or rules from the record."""
    args = {"a": "maria", "b": "payments.refund", "c": "small_refund", "d": "o-17"}
    record = _record(args, [("subject.name", "maria")], sensitive=list(args))
    assert [actor.sub for actor in record.actors] == ["maria", "bot"]
    assert (record.action.name, record.rules) == ("payments.refund", ("small_refund",))
    assert record.resource is not None
    assert record.resource.id == KEY.digest("value", canonical("o-17"))
    assert record.inputs[0].value == {"$c": KEY.digest("value", canonical("maria"))}


def test_what_is_kept_for_a_chain_is_all_of_it() -> None:
    """Records that share a chain or a reason tell the same of it; what had to be cut says so in each of them."""
    for length in (3, 300):
        request = _request(chain=Chain(MARIA, (Delegation(Principal.agent("b" * length), ("c" * length,)),)))
        decision = attrs.evolve(ALLOW, reasons=(Reason("permitted", "t" * 4 * length, "r" * length),))
        first, again = (_record(request=request, decision=decision) for _ in range(2))
        assert first.line() == again.line()
        cut = {"/actors/1/sub", "/chain/0/to", "/chain/0/actions/0", "/reasons/0/text", "/reasons/0/rule"}
        assert set(again.meta.oversized) == (cut if length == 300 else set())


def test_what_is_kept_for_a_decision_is_all_of_it() -> None:
    """Records that share a decision tell the same rules, cut or counted ones too; a changed one, its own."""
    for rules in (("a",), ("r" * 300,), tuple(f"rule_{n}" for n in range(20))):
        decision = attrs.evolve(ALLOW, rules=rules, undetermined=("u",), missing=("m",))
        first, again = (_record(decision=decision) for _ in range(2))
        assert first.line() == again.line()
        assert first.rules == tuple(rule[:256] for rule in rules[:16])
        assert ("/rules/0" in again.meta.oversized, "/rules" in again.meta.more) == (
            len(rules[0]) > 256,
            len(rules) > 16,
        )
        assert _record(decision=attrs.evolve(decision, rules=("other",))).rules == ("other",)


def test_a_kept_reason_hides_no_secret() -> None:
    """A reason that one record has shown is still kept out of another where it repeats a secret, and the reverse."""
    decision = attrs.evolve(ALLOW, reasons=(Reason("x", f"about {CANARY}"),))
    shown, hidden, again = (_record({"card": CANARY}, sensitive=s, decision=decision) for s in ([], ["card"], []))
    assert b"CANARY" not in hidden.line()
    assert hidden.meta.redacted == ("/action/args/card", "/reasons/0/text")
    assert shown.line() == again.line()


# ---- immutable, and one line


def test_nothing_in_a_record_is_live() -> None:
    """Changing an argument, an attribute or an explanation later changes nothing, and the record can't be changed."""
    items: list[Any] = [1]
    nested: dict[str, Any] = {"a": items}
    record = _record({"x": nested}, [("context.x", nested)], explain=[nested])
    before = record.line()
    items.append("LATER")
    nested["b"] = "LATER"
    assert record.line() == before
    assert "LATER" not in repr(record.inputs) + repr(record.explain)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.outcome = "allow"  # type: ignore[misc]
    with pytest.raises(TypeError):
        record.inputs[0].value["c"] = 1  # type: ignore[index]
    record.as_dict()["outcome"] = "deny"
    assert record.as_dict()["outcome"] == "allow"


NASTY: Final = "a\nb\r\x00\x1b[31m\x7f\x85\x9b\u2028\u2029\u202e\u2066\ufeff\ud800</script>\U0001f600é"


def test_a_record_is_one_printable_line() -> None:
    """Line ends, control characters, marks of direction and lone surrogates are escaped; other text is itself."""
    decision = attrs.evolve(ALLOW, action=NASTY, rules=(NASTY,), reasons=(Reason("x", NASTY),))
    request = _request(
        chain=None, subject=Principal.user(NASTY), purpose=NASTY, route=NASTY, resource=Resource(NASTY, NASTY),
        session=SessionFacts(NASTY, NOW),
    )  # fmt: skip
    record = _record(
        {NASTY: NASTY}, [(f'args["{NASTY}"]', NASTY)], decision=decision, request=request, explain={NASTY: NASTY}
    )
    line = record.line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")
    text = line.decode().removesuffix("\n")
    assert text.isprintable()
    assert "\U0001f600é" in text
    assert record.as_dict()["action"]["name"] == NASTY.replace("\ud800", "\\ud800")
    assert read_record(line).line() == line


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000, ["x" * 1_000] * 1_000, list(range(100_000)), {str(i): "\x00" * 100 for i in range(5_000)},
        10**100_000, b"x" * 1_000_000,
    ],
    ids=["text", "texts", "numbers", "names", "integer", "bytes"],
)  # fmt: skip
def test_too_big_values_leave_their_digest(value: object) -> None:
    """A big value is replaced by its keyed digest wherever it would stand, and the record says where."""
    record = _record({"a": value}, [("args.a", value), ("context.b", 1)], explain=[{"saw": {"args.a": value}}])
    commitment = KEY.digest("value", canonical(value))
    assert record.action.args == {"a": {"$c": commitment}}
    assert record.inputs[0].value == {"$c": commitment}
    assert record.inputs[1].value == 1
    assert set(record.meta.oversized) == {"/inputs/0/value", "/explain/0/saw/args.a"}
    assert record.meta.oversized["/inputs/0/value"] == commitment
    assert len(record.line()) <= MAX_LINE


def test_a_record_never_exceeds_its_bound() -> None:
    """With every text and every list as long as a host can make it, the line fits and says what it left out."""
    big = "\x00" * 100_000
    hops = tuple(Delegation(Principal.agent(f"{i}{big}", issuer=big), (big,) * 50, big) for i in range(16))
    subject = Principal.user(big, issuer=big)
    decision = attrs.evolve(
        ALLOW, action=big, outcome=Outcome.DENY, rules=(big,) * 5_000, undetermined=(big,) * 5_000, missing=(big,) * 50,
        reasons=(Reason("x", big, big, big, big),) * 5_000, obligations=(Obligation(big, big, {big: big}),) * 50,
        policy_digest="sha256:00", marks=(big,) * 50,
    )  # fmt: skip
    request = _request(
        subject=subject, chain=Chain(subject, hops), resource=Resource(big, big), purpose=big, route=big,
        session=SessionFacts(big, NOW),
    )  # fmt: skip
    names = [f"{i}{big}" for i in range(50)]
    seen = [(f"context.x{i}", "\x00" * 2000) for i in range(1_000)]
    record = _record(
        dict.fromkeys(names, big), seen, sensitive=names, decision=decision, request=request, explain=[big]
    )
    assert len(record.line()) <= MAX_LINE
    assert {"/inputs", "/actors", "/chain", "/reasons"} <= set(record.meta.oversized)
    assert record.outcome == "deny"
    assert record.policy.digest == "sha256:00"
    assert read_record(record.line()).line() == record.line()


def test_long_lists_are_counted() -> None:
    """Of rules, reasons and the like the first 16 are named, and the number of the others is told."""
    names = tuple(f"r{i:03}" for i in range(100))
    record = _record(decision=attrs.evolve(ALLOW, rules=names, undetermined=names))
    assert record.rules == names[:16]
    assert record.meta.more == {"/rules": 84, "/undetermined": 84}


def test_parts_give_way_in_order() -> None:
    """Where a line is too long the explanation goes first, and who acted stays as long as possible."""
    seen = [(f"context.x{i}", "y" * 1_900) for i in range(20)]
    record = _record({}, seen, explain=["z" * 2_000] * 3)
    assert record.explain is None
    assert record.inputs == ()
    assert record.meta.oversized.keys() == {"/explain", "/inputs"}
    assert record.actors[0].sub == "maria"
    assert len(record.obligations) == 1


def test_hostile_values_never_reach_the_caller() -> None:
    """Objects that raise at whatever is asked, cycles, NaN and deep nesting make a record like any other."""
    loop: list[object] = []
    loop.append(loop)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    values = [Spy(), loop, deep, float("nan"), Decimal("sNaN"), b"x", {1: 2}, {1, 2}, "\udfff", 1 << 5_000, len]
    Spy.asked.clear()
    record = _record(
        {f"a{i}": value for i, value in enumerate(values)}, [(f"args.a{i}", v) for i, v in enumerate(values)]
    )
    assert Spy.asked == []
    assert len(record.inputs) == len(values)
    assert b"SECRET" not in record.line()
    json.loads(record.line(), parse_constant=pytest.fail)


# ---- effects, and reading


def _effect(**changed: Any) -> EffectRecord:
    given: dict[str, Any] = {"id": "02", "ts": NOW, "of": "01", "status": "done"}
    return EffectRecord(**{**given, **changed})


def test_an_effect() -> None:
    """An effect names its decision, its status, its duration, and of an error the class's name only."""
    record = _effect(
        status="failed",
        error_type="ValueError",
        dur_us=1200,
        action="payments.refund",
        session="s-1",
        ctx=Ctx(parent="01"),
    )
    assert record.as_dict() == {
        "v": "1.0", **ALONE, "type": "effect", "id": "02", "ts": "2026-11-23T09:00:00.123456Z",
        "effect": {
            "of": "01", "status": "failed", "action": "payments.refund", "error_type": "ValueError", "dur_us": 1200,
        },
        "session": "s-1", "ctx": {"parent": "01"},
    }  # fmt: skip
    assert (record.of, record.status, record.error_type) == ("01", "failed", "ValueError")


def _fields(record: Record) -> dict[str, Any]:
    return {each.name: getattr(record, each.name) for each in attrs.fields(type(record))}


def test_effects_are_bounded_and_checked() -> None:
    """Names are cut at 256 characters and made printable; a status that nobody knows is refused."""
    big = NASTY * 10_000
    record = _effect(action=big, session=big, error_type=big, of=big)
    assert record.line().decode().removesuffix("\n").isprintable()
    assert len(record.line()) <= MAX_LINE
    with pytest.raises(ValueError, match="status"):
        _effect(status="went-well")


def test_records_read_back() -> None:
    """A line gives the same record again, every field of it."""
    seen: list[tuple[str, Value]] = [("args.a", [1, {"b": Decimal(2)}]), ("args.c", UNKNOWN)]
    for record in (
        _record({"a": 1}, seen, explain=[{"saw": {"a": 1}}], sensitive=["a"]),
        _effect(status="failed", error_type="ValueError", session="s", dur_us=3),
    ):
        again = read_record(record.line())
        assert _fields(again) == _fields(record)


def test_a_record_can_be_copied_before_it_is_read() -> None:
    """A record that nobody has read yet is copied whole, and knows no other names than its fields."""
    for make in (_record, lambda: EffectRecord.of_line(_effect().line())):
        assert _fields(copy.copy(make())) == _fields(make())
        with pytest.raises(AttributeError, match="no field `amount`"):
            make().amount  # type: ignore[union-attr]


def test_unknown_fields_are_kept_and_ignored() -> None:
    """A record of a newer minor version is read; its line keeps what this version doesn't know."""
    tree = {**_record().as_dict(), "v": "1.7", "seq": 3, "new": {"a": 1}}
    tree["action"]["new"] = 1
    line = json.dumps(tree).encode() + b"\n"
    record = read_record(line)
    assert isinstance(record, DecisionRecord)
    assert record.line() == line
    assert record.seq == 3
    assert record.as_dict()["new"] == {"a": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"{", b"[]", b"3", b"null", b"\xff", b"[" * 100_000, b"{}", b'{"v":"1.0"}',
        b'{"v":"2.0","type":"decision"}',
        b'{"v":"1.0","type":"policy"}', b'{"v":"1.0","type":"decision"}', b'{"v":"1.0","type":["decision"]}',
        b'{"v":"1.0","type":"effect","id":"CANARY","ts":"CANARY","effect":{"of":"1","status":"done"}}',
        b'{"v":"1.0","type":"effect","id":"1","ts":3,"effect":[]}',
        b'{"v":"1.0","type":"effect","id":"1","ts":"2026-11-23T09:00:00Z","effect":{"of":"1","status":"CANARY"}}',
    ],
    ids=lambda line: line[:60].decode("latin-1"),
)  # fmt: skip
def test_what_is_no_record_is_refused(line: bytes) -> None:
    """Damaged, foreign and other lines give one error, which repeats nothing of the line."""
    with pytest.raises(InvalidArgument) as caught:
        read_record(line)
    assert caught.value.argument == "line"
    assert "CANARY" not in str(caught.value) + repr(caught.value.__cause__)


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.dictionaries(st.text(), st.text()).map(lambda d: json.dumps(d).encode())
)
def test_reading_never_crashes(line: bytes) -> None:
    """Any bytes give a record or InvalidArgument."""
    with pytest.raises(InvalidArgument):
        read_record(line)


# ---- ids


def _at(millis: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(millis / 1000, dt.UTC)


def test_ids_sort_by_time() -> None:
    """Ids are 26 characters of base 32, ascending, also within one millisecond and when the clock is set back."""
    ids = RecordIds(lambda size: b"\x07" * size)
    made = [ids.next(_at(millis)) for millis in (5, 5, 9, 1, 9, 10)]
    assert made == sorted(made)
    assert len(set(made)) == 6
    assert all(len(each) == 26 and set(each) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for each in made)
    assert made[0][:10] == "0000000005"


def test_ids_begin_with_the_time_of_a_ulid() -> None:
    """The first ten characters are the milliseconds, as in the ULID specification's example."""
    assert RecordIds().next(_at(1469922850259))[:10] == "01ARZ3NDEK"


def test_ids_go_on_when_a_millisecond_is_full() -> None:
    """The id after the last of a millisecond belongs to the next one."""
    ids = RecordIds()
    first = ids.next(_at(0))
    ids._series.count = 1 << 30
    assert first < ids.next(_at(0)) < ids.next(_at(0))


def test_ids_are_unique_over_threads() -> None:
    """Eight threads never get one id twice, and each sees its own ascend."""
    ids = RecordIds()
    made: list[list[str]] = [[] for _ in range(8)]

    def make(mine: list[str]) -> None:
        mine.extend(ids.next(NOW) for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({each for mine in made for each in mine}) == 16_000


def test_ids_are_unique_over_forks() -> None:
    """A child that is forked, even while a thread holds the lock, makes ids of its own."""
    ids = RecordIds()
    ids.next(NOW)
    reader, writer = os.pipe()
    with ids._series.lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a lock that nobody will release must fail the test, not hang it
            os.write(writer, b" ".join(ids.next(NOW).encode() for _ in range(50)))
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read().decode().split()
    os.waitpid(child, 0)
    ours = [ids.next(NOW) for _ in range(50)]
    assert len(set(theirs) | set(ours)) == 100
    assert {each[16:] for each in theirs}.isdisjoint({each[16:] for each in ours})


def test_ids_are_unique_over_processes() -> None:
    """Processes that share nothing never make one id twice, even in one millisecond."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_make_ids, [500, 500], chunksize=1)
    assert len(set(first) | set(second)) == 1_000


def _make_ids(count: int) -> list[str]:
    ids = RecordIds()
    return [ids.next(NOW) for _ in range(count)]
