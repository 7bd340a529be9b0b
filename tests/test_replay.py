"""Test replaying records: exactly, or not at all and why; under other policies; in batches."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agentauthz import UNKNOWN, Chain, Delegation, InvalidArgument, PolicySet, Principal, Request, Resource
from agentauthz.canonical import jsonable
from agentauthz.decision import Reason
from agentauthz.errors import NotReplayable
from agentauthz.records import DecisionRecord, PolicyRecord, Record, read_record
from agentauthz.records.events import policy_bodies
from agentauthz.records.lines import ALONE, finished, opening
from agentauthz.replay import Comparison, explain, recorded_policies, replay
from agentauthz.replay.answer import Answer, Asker
from agentauthz.replay.batches import ROWS_OUT, batches_of, compared, replay_batches
from agentauthz.replay.decoding import Gaps, Hidden, decoded
from agentauthz.replay.parquet import parquet_batches, replay_parquet, write_lines
from agentauthz.replay.replayer import Replayer
from agentauthz.values import ABSENT, INVALID, Entity, Unordered, freeze
from tests import replay_lines
from tests.support import BOT, MARIA, NOON, Recorded


def record_of(policy: str, **call: Any) -> DecisionRecord:
    """Return the record of one call of `t.do` in a session of Maria's."""
    kept = Recorded(policy)
    kept.session().decide("t.do", **call)
    return kept.decisions[0]


def under(record: Record | bytes, policy: str) -> Comparison:
    """Return what comes of one record under another policy."""
    return replay([record], PolicySet.parse(policy))


def why(record: Record, policy: str) -> list[str]:
    """Return why a record can't be replayed."""
    return list(under(record, policy).not_replayable)


VALUES = [
    True, 7, -(2**60), Decimal("2.5"), "text", "a\\ud800\ud800", "$c", NOON, dt.timedelta(microseconds=-5), (1, ("a",)),
    ABSENT, UNKNOWN, INVALID, Unordered([1, 2]),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back(value: Any) -> None:
    """What a record's tagged JSON says is the policy value that was written, of the same type."""
    back = decoded(json.loads(json.dumps(jsonable(value))), "args.x", Gaps())
    assert (type(back), repr(back)) == (type(value), repr(value))


def test_records_principals_and_resources_come_back() -> None:
    """They hold what was read; reading more is noted as a gap, and gives nothing."""
    entity = freeze(Resource("Order", "o-1", {"total": 5}))
    assert isinstance(entity, Entity)
    _ = entity["total"]
    gaps = Gaps()
    back: Any = decoded(jsonable({"$order": entity, "who": BOT}), "args.x", gaps)
    assert (type(back["$order"]), dict(back["$order"])) == (Entity, {"type": "Order", "id": "o-1", "total": 5})
    assert back["who"] == BOT
    assert not gaps.found
    assert (back["who"].facts["trust"], back["$order"]["tax"]) == (UNKNOWN, UNKNOWN)
    assert list(gaps.found) == ["args.x.who.trust", 'args.x["$order"].tax']


@pytest.mark.parametrize("tree", [{"$c": "k:1"}, {"$u": "Odd"}, {"$new": 1}])
def test_what_is_only_committed_to_is_no_value(tree: Any) -> None:
    """A digest, a class's name and a tag that this version doesn't know stand for nothing that can be asked about."""
    with pytest.raises(Hidden):
        decoded([tree], "args.x", Gaps())


READS = "permit p on t.do when args.a == 1 or context.x"


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("permit p on t.do when args.b == 2", "`args.b` isn't in the record"),
        ("permit p on t.do when context.y", "`context.y` isn't in the record"),
        ('permit p on t.do when subject.team == "a"', "`subject.team` isn't in the record"),
        ("permit p on t.do when session.vip", "`session.vip` isn't in the record"),
        ('permit p on t.do when done("x.y", 1h)', '`done("x.y")` isn\'t in the record'),
        ("permit p on t.do when permitted(actor) and subject.n == 1", "`actor.n` isn't in the record"),
        ("permit p on t.do when true with notify()", "nobody knows whether `notify` can be carried out"),
        ("action t.do(a: int)\npermit p on t.do when true", None),
        ("permit p on t.do when exists args.z", None),
        ("permit p on t.do when args.a == 1 or context.y", "`context.y` isn't in the record"),
    ],
)
def test_other_policies_may_read_more_than_the_record_holds(policy: str, reason: str | None) -> None:
    """Such a record isn't replayable, and the reason names the place, also where the outcome didn't hang on it."""
    record = record_of(READS, args={"a": 1, "b": 2})
    assert why(record, policy) == ([] if reason is None else [reason])


def test_what_is_known_to_be_absent_or_unknown_needs_no_value() -> None:
    """No resource and no session mean that nothing is below them, whatever policies come to read."""
    kept = Recorded("permit p on t.do when true")
    kept.authorizer.decide(Request("t.do", subject=MARIA, context=UNKNOWN, now=NOON))
    found = under(kept.decisions[0], "permit p on t.do when not exists resource.x and not exists session.y")
    assert (found.same, found.not_replayable) == (1, {})
    assert under(kept.decisions[0], "forbid f on t.do when context.z").changed[0].after is not None


def test_what_stands_above_a_recorded_place_is_not_guessed() -> None:
    """From `context.a.b` nobody knows what `context.a` was."""
    record = record_of('permit p on t.do when context.a.b == "x"', context={"a": {"b": "x"}})
    assert why(record, "permit p on t.do when exists context.a") == ["`context.a` isn't in the record"]


def test_secrets_and_big_values_are_not_replayed() -> None:
    """A rule that reads what the record only commits to makes it not replayable, and says which of both it is."""
    kept = Recorded(policy := 'permit p on shop.pay when args.card == "4111" and args.note != "x"')
    from agentauthz import authorize

    @authorize("shop.pay", sensitive=["card"])
    def pay(card: str, note: str) -> None: ...

    with kept.session():
        pay("4111", "n")
    assert why(kept.decisions[0], policy) == ["`args.card` is kept secret"]
    record = record_of(policy.replace("shop.pay", "t.do"), args={"card": "4111", "note": "n" * 5000})
    assert why(record, policy.replace("shop.pay", "t.do")) == ["`args.note` was too big for the record"]


def test_names_that_are_cut_or_not_exact_are_not_replayed() -> None:
    """A principal's id of 300 characters, or one with a lone surrogate, could else be taken for another one's."""
    for name in ("b" * 300, "\ud800"):
        kept = Recorded("permit p on t.do when true")
        kept.session(actor=Principal.agent(name)).decide("t.do")
        assert why(kept.decisions[0], "permit p on t.do when true") == ["`actors` isn't whole in the record"]


def test_arguments_that_nobody_declared_are_in_the_record() -> None:
    """The names of all arguments are known, so an action that is declared without one denies in a replay too."""
    record = record_of("permit p on t.do when true", args={"a": 1, "b": 2})
    [change] = under(record, "action t.do(a: int)\npermit p on t.do when true").changed
    assert change.after is not None
    assert (change.kind, change.after.basis) == ("newly denied", "error")


def test_what_the_policies_did_not_decide_stays() -> None:
    """A closed session, a refusal by hand and a failed look-up come out the same under any policy."""
    kept = Recorded("permit p on t.do when true")
    session = kept.session()
    session.close()
    session.decide("t.do")
    kept.authorizer.refuse(Request("t.do", subject=MARIA, now=NOON), Reason("no", "no"))
    kept.session().decide("t.do", resource=object())
    assert [record.cause for record in kept.decisions] == ["stopped", "stopped", "problem"]
    found = replay(kept.decisions, PolicySet.parse("forbid f on *"))
    assert (found.total, found.same, found.unasked, found.changed) == (3, 3, 3, [])
    with pytest.raises(NotReplayable, match="wasn't the policies"):
        explain(kept.decisions[0], PolicySet.parse("forbid f on *"))


def test_observe_mode_replays_what_it_recorded() -> None:
    """A look-up that failed where calls are only observed is asked about again: a new forbid shows."""
    kept = Recorded("permit p on t.do when true", mode="observe", observe_until=NOON + dt.timedelta(hours=1))
    kept.session().decide("t.do", resource=object())
    assert under(kept.decisions[0], "permit p on t.do when true").same == 1
    assert under(kept.decisions[0], "forbid f on t.do").changed[0].rules == ("f",)


def test_obligations_that_were_left_stay_left() -> None:
    """A denial because nothing could carry an obligation out is that again, and names the obligation as left."""
    record = record_of(policy := 'permit p on t.do when true with mask(fields: ["ssn"])')
    assert [duty.left for duty in record.obligations] == [True]
    assert under(record, policy).same == 1


def test_obligations_whose_handlers_failed_stay_left() -> None:
    """What a handler did then it did: no handler is asked again, and another rule's is known only where all agree."""
    policy = 'permit p on t.do when true with tell(to: "a") with tell(to: "b")'
    kept = Recorded(policy, obligations={"tell": lambda duty: duty.properties["to"] != "b"})
    kept.session().decide("t.do")
    (record,) = kept.decisions
    assert [duty.left for duty in record.obligations] == [False, True]
    assert under(record, policy).same == 1
    assert under(record, 'permit p on t.do when true with tell(to: "a")').changed[0].after == Answer(
        "allow", "rule", ("p",)
    )
    assert why(record, "permit q on t.do when true with tell()") == ["nobody knows whether `tell` can be carried out"]


def test_changes_come_in_order_and_by_rule() -> None:
    """Those newly allowed are first, then those newly denied, then others; each is counted under its rules."""
    kept = Recorded("permit p on t.do when args.n <= 10\nreview r on t.do when args.n == 5 by approver != subject")
    for n in (1, 2, 5, 20, 30):
        kept.session().decide("t.do", args={"n": n})
    found = replay(kept.decisions, PolicySet.parse("permit q on t.do when args.n > 1"))
    assert [one.kind for one in found.changed] == ["newly allowed"] * 3 + ["newly denied", "other"]
    assert {rule: len(ones) for rule, ones in found.by_rule("newly allowed").items()} == {"q": 3}
    assert list(found.by_rule("newly denied")) == ["p"]
    assert (found.same, found.total) == (0, 5)


def test_equal_questions_are_asked_once() -> None:
    """Facts that no rule reads, such as another subject, session or time, make no other question; those read do."""
    kept = Recorded("permit p on t.do when args.n == 1 and context.at < now")
    for n in (1, 1, 2):
        for who in ("a", "b"):
            kept.clock.forward(seconds=1)
            kept.session(subject=Principal.user(who), context={"at": NOON}).decide("t.do", args={"n": n, "m": n})
    for policy, count in (
        ("permit p on t.do when args.n == 1", 2),
        ('permit p on t.do when args.n == 1 and subject == user("a")', 4),
        ("permit p on t.do when args.n == 1 and context.at < now", 6),
    ):
        asker = Asker(PolicySet.parse(policy))
        for record in kept.decisions:
            asker.answer(record.as_dict())
        assert asker.asked == count


@pytest.mark.parametrize("line", [b"\n", b"{", b"[]", b'{"v":"2.0","type":"decision"}'])
def test_what_is_no_record_is_told(line: bytes) -> None:
    """It counts as not replayable, and stops nothing."""
    assert under(line, READS).not_replayable == {"the line is no record": [""]}


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: tree.pop("action"),
        lambda tree: tree.update(actors=[]),
        lambda tree: tree.update(inputs=[{"name": "args.a", "state": "odd"}]),
        lambda tree: tree.update(inputs=[{"name": "args.a", "state": "value", "value": {"$d": "x"}}]),
        lambda tree: tree.update(ts="yesterday"),
        lambda tree: tree.update(inputs=7),
        lambda tree: tree.pop("outcome"),
        lambda tree: tree["chain"][0].update(via="magic"),
    ],
)
def test_damaged_records_are_not_replayable(damage: Callable[[dict[str, Any]], object]) -> None:
    """A record that isn't as this library writes it gives no answer."""
    tree = record_of(READS, args={"a": 1}).as_dict()
    damage(tree)
    [reason] = under(json.dumps(tree).encode(), "permit p on t.do when args.a == 1").not_replayable
    assert "damaged" in reason or "don't fit" in reason


def test_an_explanation_is_the_one_of_the_call() -> None:
    """The clauses that are derived from a record are those of the request itself, with the values seen."""
    policy = PolicySet.parse("permit p on t.do when args.n <= 5 and every h in chain: h.to.trust > 1\nforbid f on t.*")
    kept = Recorded()
    kept.authorizer.replace(policy)
    chain = Chain(MARIA, (Delegation(BOT), Delegation(Principal.agent("c", trust=2))))
    request = Request("t.do", subject=MARIA, chain=chain, args={"n": 7}, now=NOON)
    kept.authorizer.decide(request)
    assert explain(kept.decisions[0], policy).render() == policy.explain(request).render()


def test_only_decisions_and_policy_sets_are_taken() -> None:
    """Anything else is a mistake of the caller's."""
    record = record_of(READS)
    with pytest.raises(InvalidArgument, match="policies"):
        replay([record], "p.authz")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="policies"):
        explain(record, "p.authz")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="record"):
        explain(record.line(), PolicySet.parse(READS))  # type: ignore[arg-type]


def texts_of(digest: str, sources: list[tuple[str, str]]) -> list[PolicyRecord]:
    """Return the records that a log has of a policy set's text."""
    bodies = policy_bodies(digest, sources)
    lines = [ALONE + finished(f"{opening('policy', str(i), NOON)},{body}}}") for i, body in enumerate(bodies)]
    found = [read_record(line) for line in lines]
    assert all(isinstance(record, PolicyRecord) for record in found)
    return found  # type: ignore[return-value]


def test_policies_come_back_from_the_log() -> None:
    """The text of a digest is put together from its parts, in any order; with one missing or altered it is none."""
    long = "# " + "x" * 70_000 + "\npermit p on t.do when true\n"
    policies = PolicySet.of_texts([("a.authz", long), ("b.authz", "forbid f on t.x\n")])
    parts = texts_of(policies.digest, [("a.authz", long), ("b.authz", "forbid f on t.x\n")])
    assert len(parts) > 3
    assert recorded_policies(parts[::-1], policies.digest).rules[0].at.startswith("b.authz:1")
    for wrong in (parts[1:], [], texts_of(policies.digest, [("a.authz", "permit p on t.do")])):
        with pytest.raises(NotReplayable, match="the policies"):
            recorded_policies(wrong, policies.digest)
    with pytest.raises(NotReplayable, match="isn't theirs"):
        recorded_policies(texts_of(policies.digest, [("a.authz", "forbid f on t.x\n")]), policies.digest)


# ---- batches


def some_lines() -> list[bytes]:
    """Return lines of every kind that a replay tells apart."""
    kept = Recorded("permit p on t.do when args.n <= 10")
    for n in range(60):
        kept.session().decide("t.do", args={"n": n})
    closed = kept.session()
    closed.close()
    closed.decide("t.do", args={"n": 1})
    with kept.session().perform("t.do", args={"n": 1}):
        pass
    return [*(record.line() for record in kept.sink.records), b"{\n"]


NEW = "permit p on t.do when args.n <= 10\nforbid f on t.do when args.n == 9\npermit q on t.do when args.n > 50"


def test_one_process_and_a_pool_give_the_same() -> None:
    """The same batches come out in the same order, whoever replayed them, and count as the lines themselves do."""
    policies = PolicySet.parse(NEW)
    batches = list(batches_of(some_lines(), rows=7))
    single = pa.Table.from_batches(replay_batches(batches, policies))
    pool = pa.Table.from_batches(replay_batches(batches, policies, workers=2))
    assert single.equals(pool)
    assert single.schema == ROWS_OUT
    assert single.num_rows == 63


def test_parquet_in_parquet_out(tmp_path: Path) -> None:
    """A file of lines gives a file of answers, and the same comparison as the lines."""
    policies, lines = PolicySet.parse(NEW), some_lines()
    pq.write_table(pa.Table.from_batches(batches_of(lines)), tmp_path / "in.parquet")
    found = replay_parquet(tmp_path / "in.parquet", tmp_path / "out.parquet", policies, workers=1)
    assert found == replay(lines, policies)
    assert found.changed
    assert found.not_replayable
    states = pq.read_table(tmp_path / "out.parquet").column("state").to_pylist()
    assert {state: states.count(state) for state in set(states)} == {
        "same": found.same - found.unasked, "unasked": 1, "changed": len(found.changed), "not replayable": 1,
    }  # fmt: skip


def test_half_a_replay_leaves_no_file(tmp_path: Path) -> None:
    """Where the lines end in an error, no file passes for the whole, and what stood there before still does."""
    policies = PolicySet.parse(NEW)
    (tmp_path / "in").mkdir()
    write_lines(some_lines(), tmp_path / "in" / "1.parquet")
    pq.write_table(pa.table({"text": ["{}"]}), tmp_path / "in" / "2.parquet")
    (tmp_path / "out.parquet").write_bytes(b"before")
    with pytest.raises(InvalidArgument, match="line"):
        replay_parquet(tmp_path / "in", tmp_path / "out.parquet", policies, workers=1)
    assert (tmp_path / "out.parquet").read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "out.parquet"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidArgument, match="no Parquet"):
        list(parquet_batches(tmp_path / "none"))


@pytest.mark.parametrize(
    "batch",
    [
        pa.record_batch({"text": ["{}"]}),
        pa.record_batch([pa.array(["{}"]), pa.array(["{}"])], names=["line", "line"]),
        pa.record_batch({"line": [1]}),
        pa.record_batch({"line": [["{}"]]}),
        pa.record_batch({"line": pa.array([1]).dictionary_encode()}),
        pa.table({"line": ["{}"]}),
        "{}",
    ],
    ids=["none", "two", "numbers", "lists", "dictionary", "table", "text"],
)
def test_a_batch_needs_its_lines(batch: Any) -> None:
    """A batch without one column `line` of bytes or text is refused, and says what it has."""
    with pytest.raises(InvalidArgument, match="line"):
        list(replay_batches([batch], PolicySet.parse(NEW)))
    with pytest.raises(InvalidArgument, match="policies"):
        replay_batches([], "p.authz")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), pa.binary_view(), pa.string(), pa.large_string(), pa.string_view()],
    ids=str,
)
def test_lines_may_be_of_each_arrow_type_of_bytes_and_text(kind: pa.DataType) -> None:
    """They come out alike, as slices and as dictionaries too; a null is no record."""
    policies = PolicySet.parse(NEW)
    plain = pa.array([None, *some_lines(), None], pa.binary())
    [expected] = replay_batches([pa.record_batch({"line": plain})], policies)
    assert expected.column("state").to_pylist().count("not replayable") == 3
    own = plain.cast(kind)
    forms = [own, pa.concat_arrays([own, own])[len(own) :]]
    if "view" not in str(kind):
        forms.append(own.dictionary_encode())
    for form in forms:
        assert list(replay_batches([pa.record_batch({"line": form})], policies)) == [expected]
    for empty in ([], [None], [b""]):
        [made] = replay_batches([pa.record_batch({"line": pa.array(empty, pa.binary()).cast(kind)})], policies)
        assert (made.num_rows, made.schema) == (len(empty), ROWS_OUT)


def test_every_way_tells_the_same_of_every_kind_of_record() -> None:
    """Lines, batches in one process and in a pool, damaged ones among them, come to the same comparison."""
    policies, lines = PolicySet.parse(replay_lines.NEW), replay_lines.lines(60)
    alone = replay(lines, policies)
    assert alone.changed
    assert alone.unasked
    assert len(alone.not_replayable) > 5
    for workers in (1, 2):
        made = list(replay_batches(batches_of(lines, rows=101), policies, workers=workers))
        assert compared(made, policies) == alone


def test_damage_where_no_rule_looks_hides_behind_no_other_record() -> None:
    """Whether a record is sound doesn't hang on which others were replayed before it."""
    policies, lines = PolicySet.parse(replay_lines.NEW), replay_lines.lines(1)
    replayer = Replayer(policies)
    for line in lines:
        assert under_replayer(Replayer(policies), line) == under_replayer(replayer, line)


def under_replayer(replayer: Replayer, line: bytes) -> Any:
    """Return what came of a line, to be compared."""
    came = replayer.came(line)
    return None if came is None else (came[:2], came[2].state, came[2].before, came[2].after, came[2].why)


def test_a_handoff_that_is_asked_about_has_no_resource() -> None:
    """Rules on a hand-off look through no list of the call's own resource or arguments, so a record needn't hold it."""
    policy = (
        'permit handing on delegation.handoff when (any item in resource.items: item.sku == "x")\n'
        "permit handed on delegation.handoff when (any part in args.parts: part.sku == 7)\n"
        'permit work on t.do when "x" in resource.labels\n'
    )
    chain = Chain(MARIA, [Delegation(BOT), Delegation(Principal.agent("x"), handoff=True)])
    things = {"items": [{"sku": "x"}], "labels": ["x"]}
    kept = Recorded(policy)
    call = Request(
        "t.do", subject=MARIA, chain=chain, args={"parts": [{"sku": 7}]}, resource=Resource("F", "1", things)
    )
    assert kept.authorizer.decide(call).allowed
    assert under(kept.decisions[0], policy).same == 1
