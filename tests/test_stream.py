"""Test streams: numbers, hashes, the text of policies, events, and records of older and newer versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from agentauthz import Authorizer, Chain, Delegation, PolicySet, Principal
from agentauthz.decision import Reason
from agentauthz.errors import InvalidArgument, SinkError
from agentauthz.keys.signing import SigningKey
from agentauthz.records import (
    DecisionRecord,
    EffectRecord,
    EventRecord,
    FileSink,
    MemorySink,
    PolicyRecord,
    Record,
    Recorder,
    read_record,
)
from agentauthz.records.events import Ctx, ctx_member, policy_bodies
from agentauthz.records.lines import ALONE, MAX_LINE, NO_HASH, finished, opening
from agentauthz.records.merkle import leaf_hash
from agentauthz.records.passing import Passing, delegation_record
from tests import logs
from tests.faults.logged import KEY, NOW, append, checked, record
from tests.golden import ROOT, check_golden
from tests.record_schema import SCHEMA, problems
from tests.support import ANYTHING, BOT, MARIA

GOLDEN: Final = ROOT / "tests" / "vectors" / "records"


def _chained(records: tuple[Record, ...]) -> bool:
    """Say whether records are numbered from 0 and each has the hash of the line before."""
    prev = NO_HASH
    for seq, each in enumerate(records):
        if (each.seq, each.prev) != (seq, prev):
            return False
        prev = leaf_hash(each.line()[:-1]).hex()
    return len({each.stream for each in records}) == 1


def test_records_are_numbered_and_chained_without_a_file_too() -> None:
    """Every sink gets one stream: dense numbers from 0, and the hash of each line in the one behind it."""
    first, second = MemorySink(), MemorySink()
    recorder = Recorder([first, second])
    for number in range(3):
        recorder.write(record(str(number)))
    assert _chained(first.records)
    assert [each.line() for each in first.records] == [each.line() for each in second.records]
    assert [each.mono_ns for each in first.records] == sorted(each.mono_ns for each in first.records)


def test_the_file_and_other_sinks_have_the_same_lines(tmp_path: Path) -> None:
    """Beside a file every sink gets the same bytes, over segments and to the end of what was written."""
    memory = MemorySink()
    recorder = Recorder([memory, FileSink(tmp_path, segment_size=2_000)])
    for number in range(10):
        recorder.write(record(str(number)))
    assert len(logs.segments(tmp_path)) > 2
    assert [each.line() for each in memory.records] == logs.lines(tmp_path)
    assert _chained(memory.records)


def test_a_segment_begins_with_what_the_one_before_ended_with(tmp_path: Path) -> None:
    """Each file is named after its first record, which names the segment before and the roots of the tree so far."""
    sink = FileSink(tmp_path, segment_size=2_000)
    for number in range(10):
        append(sink, str(number))
    sink.close()
    previous: EventRecord | None = None
    for path in logs.segments(tmp_path):
        records = [read_record(line) for line in path.read_bytes().splitlines()]
        first, last = records[0], records[-1]
        assert isinstance(first, EventRecord)
        assert isinstance(last, EventRecord)
        assert (first.type, last.type) == ("stream.open", "stream.sealed")
        assert int(path.stem) == first.seq == first.about["segment"]
        if previous is not None:
            told: Any = first.about["previous"]
            assert (told["segment"], told["last"]) == (previous.about["segment"], first.prev)
            assert len(first.about["tree"]) == first.seq.bit_count()  # type: ignore[arg-type]
        previous = last


def test_two_files_can_not_number_the_same_records(tmp_path: Path) -> None:
    """An authorizer has one file log at most: two of them are refused, at once and later."""
    with pytest.raises(InvalidArgument, match="one `FileSink` at most"):
        Recorder([FileSink(tmp_path / "a"), FileSink(tmp_path / "b")])
    recorder = Recorder([FileSink(tmp_path / "c")])
    with pytest.raises(InvalidArgument, match="one `FileSink` at most"):
        recorder.add(FileSink(tmp_path / "d"))


@pytest.mark.parametrize("text", [ANYTHING, f"# {'é' * 60_000}\n{ANYTHING}", f"# {chr(92) * 60_000}\n{ANYTHING}"])
def test_the_text_of_policies_goes_before_the_first_decision(text: str) -> None:
    """A log holds the text behind each digest, in order, once, in records that each fit a line."""
    memory = MemorySink()
    authorizer = Authorizer(PolicySet.parse(text, "a.authz"), sinks=[memory])
    session = authorizer.session(MARIA, BOT)
    for _ in range(2):
        session.decide("t.pay")
    policies = [each for each in memory.records if isinstance(each, PolicyRecord)]
    assert "".join(each.text for each in policies) == text
    assert {(each.digest, each.name, each.source) for each in policies} == {(authorizer.policies.digest, "a.authz", 0)}
    assert [(each.part, each.parts) for each in policies] == [(i + 1, len(policies)) for i in range(len(policies))]
    assert all(len(each.line()) <= MAX_LINE for each in memory.records)
    assert policies[-1].seq < memory.decisions[0].seq
    assert _chained(memory.records)


def test_policies_of_several_files_and_replaced_ones(tmp_path: Path) -> None:
    """Each file's name stands with its text, and a set that is put in force later is told before it decides."""
    (tmp_path / "a.authz").write_text("permit a on t.a when true\n")
    (tmp_path / "b.authz").write_text("permit b on t.b when true\n")
    memory = MemorySink()
    authorizer = Authorizer(tmp_path, sinks=[memory])
    session = authorizer.session(MARIA, BOT)
    session.decide("t.a")
    authorizer.replace(PolicySet.parse(ANYTHING))
    session.decide("t.a")
    told = [(each.source, Path(each.name).name) for each in memory.records if isinstance(each, PolicyRecord)]
    assert told == [(0, "a.authz"), (1, "b.authz"), (0, "<policy>")]
    for decision in memory.decisions:
        before = [each.digest for each in memory.records[: decision.seq] if isinstance(each, PolicyRecord)]
        assert decision.policy.digest in before


def test_each_segment_explains_itself(tmp_path: Path) -> None:
    """The text is told again in each segment, so that older ones can go."""
    authorizer = Authorizer(PolicySet.parse(ANYTHING), sinks=[FileSink(tmp_path, segment_size=4_000)])
    session = authorizer.session(MARIA, BOT)
    for _ in range(20):
        session.decide("t.pay")
    authorizer.close()
    for path in logs.segments(tmp_path):
        records = [read_record(line) for line in path.read_bytes().splitlines()]
        if any(isinstance(each, DecisionRecord) for each in records):
            assert sum(isinstance(each, PolicyRecord) for each in records) == 1


def test_checkpoints_come_by_count_and_by_time(tmp_path: Path) -> None:
    """The thread signs after so many records, and after so many seconds, and hands each checkpoint to the witness."""
    from threading import Event

    key, seen, notes = SigningKey.generate("Ed25519"), Event(), []

    def witness(note: str) -> None:
        notes.append(note)
        seen.set()

    for options in ({"checkpoint_every": 3}, {"checkpoint_idle": 0.01}):
        sink = FileSink(tmp_path / str(len(options) + len(notes)), key=key, witness=witness, **options)
        for number in range(4):
            append(sink, str(number))
        assert seen.wait(30)
        sink.close()
        seen.clear()
        assert (sink.folder / "checkpoints").read_text().count("\u2014 ") >= 2


def test_a_witness_that_fails_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that couldn't be handed over is handed over later; the failure is told once."""
    from tests.faults.logged import SIGNER

    monkeypatch.setattr("agentauthz.records.keeper._FIRST_PAUSE", 0.0)
    notes: list[str] = []
    works = False

    def witness(note: str) -> None:
        if not works:
            raise ConnectionError("CANARY")
        notes.append(note)

    sink = FileSink(tmp_path, key=SIGNER, witness=witness)
    append(sink, "1")
    keeper = sink.stream.keeper
    assert keeper is not None
    keeper.sign()
    keeper.sign()
    assert notes == []
    assert len(caplog.records) == 1
    works = True
    keeper.sign()
    assert len(notes) == 1
    sink.close()
    assert checked(tmp_path, notes).streams[0].witnessed == checked(tmp_path).streams[0].size
    assert "CANARY" not in caplog.text + repr(logs.lines(tmp_path))


def test_a_write_can_not_be_entered_again(tmp_path: Path) -> None:
    """What comes back in the middle of a write, from a signal's handler say, is refused; the write goes on."""
    problems: list[str] = []

    def clock() -> Any:
        if entering:
            for attempt in (lambda: append(sink, "inner"), sink.close, sink.stream.standing):
                with pytest.raises(SinkError, match="within a write"):
                    attempt()
                problems.append("refused")
        return NOW

    entering: list[int] = []
    sink = FileSink(tmp_path, segment_size=500, clock=clock)
    append(sink, "1")
    entering.append(1)
    append(sink, "2")
    entering.clear()
    assert len(problems) >= 3
    append(sink, "3")
    sink.close()
    assert logs.ids(tmp_path) == ["1", "2", "3"]
    assert checked(tmp_path).damages == ()


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"mode": "late"}, "mode"), ({"segment_size": 0}, "segment_size"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"checkpoint_idle": 0}, "checkpoint_idle"), ({"witness": print}, "witness"), ({"key": "k"}, "key"),
        ({"key": SigningKey.generate("ES256")}, "key"), ({"key": SigningKey.generate("Ed25519"), "org": "a b"}, "org"),
    ],
)  # fmt: skip
def test_options_that_can_not_be_are_refused(tmp_path: Path, options: dict[str, Any], argument: str) -> None:
    """A file log that could not keep what it is asked to is refused before anything is written."""
    with pytest.raises(InvalidArgument) as caught:
        FileSink(tmp_path / "log", **options)
    assert caught.value.argument == argument
    assert not (tmp_path / "log").exists()


# ---- versions

_EVENTS: Final[dict[str, dict[str, Any]]] = {
    "stream.open": {
        "segment": 4, "tree": ["a" * 64], "previous": {"segment": 0, "last": "b" * 64}, "host": "h", "pid": 7,
    },
    "stream.sealed": {"segment": 0, "size": 3, "root": "a" * 64, "last": "b" * 64, "reason": "full"},
    "stream.recovered": {
        "reason": "the writer died", "stream": "0" * 26, "segment": 0, "bytes": 12, "digest": "sha256:00", "size": 3,
        "last": "b" * 64,
    },
    "stream.gap": {
        "count": 1, "reason": "no space left on device", "first_seq": 5, "last_seq": 5, "hashes": ["a" * 64],
    },
    "log.pruned": {"stream": "0" * 26, "from_seq": 40, "segments": [0, 20]},
    "sink.failed": {"sink": "FileSink", "error": "no space left on device"},
    "approval": {
        "kind": "approved", "id": "A1", "by": {"sub": "sam", "kind": "user"}, "reason": "as agreed", "digest": "k:00",
        "until": "2026-11-23T10:00:00.000000Z",
    },
    "state": {
        "kind": "revoke", "id": "k:00", "by": {"sub": "sam", "kind": "user"}, "reason": "stolen", "digest": "k:00",
        "until": "2026-11-23T10:00:00.000000Z",
    },
    "erasure": {"subject": "k:00", "count": 3},
}  # fmt: skip
_OF_SESSIONS: Final = frozenset({"approval", "state"})


def _examples() -> dict[str, Record]:
    """Return a record of each type."""
    [body] = policy_bodies("sha256:00", [("a.authz", ANYTHING)])
    policy = PolicyRecord.of_line(ALONE + finished(f"{opening('policy', '04', NOW)},{body}}}"))
    events = {
        kind: EventRecord(
            id=f"{i:026}", ts=NOW, type=kind, about=about, session="s-1" if kind in _OF_SESSIONS else None,
            ctx=Ctx(parent="01") if kind in _OF_SESSIONS else Ctx(),
        )
        for i, (kind, about) in enumerate(_EVENTS.items())
    }  # fmt: skip
    effect = EffectRecord(id="02", ts=NOW, of="01", status="failed", action="t.pay", error_type="ValueError", dur_us=3)
    hop = Delegation(Principal.agent("helper"), ("t.*",), "search", NOW)
    refusal = Passing(
        "session", Chain(MARIA, (Delegation(BOT, ("t.pay",)),)), hop.to, hop, ["t.pay"], ["docs"], "token-1", "token-2",
        Reason("widening", "the delegation to agent(\"bot\") doesn't cover `t.*`"),
    )  # fmt: skip
    ctx = Ctx(trace_id="0" * 31 + "1", span_id="0" * 15 + "1", request_id="r-1", turn=3, call_id="c-1", parent="01")
    passed = delegation_record(refusal, id="03", ts=NOW, session="s-1", key=KEY, ctx=ctx_member(ctx))
    told: dict[str, Record] = {"decision": record("01", "a note"), "effect": effect, "delegation": passed}
    return {**told, "policy": policy, **events}


def test_every_type_has_its_golden_file() -> None:
    """Each type that the schema knows has a record of version 1.0 to be held to."""
    known = {each["if"]["properties"]["type"]["const"] for each in SCHEMA["allOf"]}
    assert known == {path.stem for path in (GOLDEN / "1.0").glob("*.ndjson")} == _examples().keys()


@pytest.mark.parametrize("kind", ["decision", "effect", "delegation", "policy", *_EVENTS])
def test_golden_records(kind: str) -> None:
    """A record of version 1.0 is written with these very bytes."""
    line = _examples()[kind].line()
    check_golden(GOLDEN / "1.0" / f"{kind}.ndjson", line.decode())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/*.ndjson")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_version_is_read_for_ever(path: Path) -> None:
    """Records of each version are valid, are read, keep their bytes, and say their type."""
    for line in path.read_bytes().splitlines(keepends=True):
        assert problems(line) == []
        found = read_record(line)
        assert found.line() == line
        assert json.loads(line)["type"] == path.stem == found.as_dict()["type"]


@pytest.mark.parametrize("kind", ["decision", "effect", "delegation", "policy", *_EVENTS])
def test_newer_minors_keep_what_this_version_does_not_know(kind: str) -> None:
    """Fields that a newer minor version adds, at every depth, are ignored, and kept with their bytes."""
    made = _examples()[kind]

    def grown(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {**{name: grown(item) for name, item in tree.items()}, "zz_new": [1, {"a": None}]}
        return [grown(item) for item in tree] if isinstance(tree, list) else tree

    tree = {**grown(made.as_dict()), "v": "1.9"}
    line = json.dumps(tree, indent=None, separators=(", ", ": ")).encode() + b"\n"
    found = read_record(line)
    assert type(found) is type(made)
    assert found.line() == line
    for each in attrs.fields(type(made)):
        if each.name not in ("_line", "about"):
            assert getattr(found, each.name) == getattr(made, each.name) or each.name in ("inputs", "explain", "action")


def test_a_type_that_nobody_knows_is_an_event() -> None:
    """A record of a type that came later is read: its id, its place, and what it is about."""
    line = EventRecord(id="1", ts=NOW, type="new.kind", about={"a": 1}).line()
    found = read_record(line)
    assert isinstance(found, EventRecord)
    assert (found.type, found.about) == ("new.kind", {"a": 1})
    for bad in (b"Bad", b"", b"1", b"a b"):
        with pytest.raises(InvalidArgument, match="type"):
            read_record(line.replace(b"new.kind", bad))
