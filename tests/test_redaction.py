"""Test the classes of facts: what a record shows of them, whatever way they come into it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz import Authorizer, PolicySet, Principal, Resource, testing
from agentauthz.errors import InvalidArgument
from agentauthz.keys import InstanceKey
from agentauthz.records import DecisionRecord, FileSink, MemorySink, decision_record
from agentauthz.records.openings import Openings
from agentauthz.records.query import Query, query
from agentauthz.records.redaction import Class, Redaction, Shred, correlation
from agentauthz.replay import explain, replay
from agentauthz.replay.report import report
from agentauthz.request import Request
from agentauthz.values import Entity, freeze
from tests.golden import ROOT, check_golden
from tests.recording import ALLOW, NOW

KEY: Final = InstanceKey.from_bytes(bytes(range(32)))
MARIA, BOT = Principal.user("maria", badge="BADGE-7731"), Principal.agent("bot", badge="BADGE-9942")
PERSON: Final = Resource("person", "p-1", {"ssn": "SSN-1234-5678", "owner": Principal.user("olga")})
POLICIES: Final = PolicySet.parse("""
permit look on person.look when resource.ssn like "SSN*" and subject.badge like "BADGE*" and context.note != "x"
forbid blocked on person.look when args.email == "blocked@example.org" or session.campaign == "CAMPAIGN-STOP"
""")


@pytest.fixture
def openings(tmp_path: Path) -> Iterator[Openings]:
    with closing(Openings(tmp_path / "openings.db", KEY)) as kept:
        yield kept


def looked(redact: dict[str, Class], openings: Openings | None = None, **more: Any) -> DecisionRecord:
    """Return the record of one look, under these classes."""
    sink = MemorySink()
    with Authorizer(POLICIES, sinks=[sink], key=KEY, redact=redact, openings=openings) as authorizer:
        session = authorizer.session(MARIA, BOT, attributes={"campaign": "CAMPAIGN-5"}, context={"note": "NOTE-4711"})
        args = {"email": "maria@example.org", "other": 5, **more}
        session.decide("person.look", args=args, resource=PERSON)
    return sink.decisions[-1]


def shown(record: DecisionRecord) -> dict[str, Any]:
    """Return the recorded inputs by their names."""
    return {each["name"]: each.get("value") for each in record.as_dict()["inputs"]}


def test_what_has_no_class_is_public() -> None:
    """A path that a rule reads stands in the record, classed as public or not at all."""
    assert shown(looked({}))["resource.ssn"] == "SSN-1234-5678"
    record = looked({"resource.ssn": "public"})
    assert shown(record)["resource.ssn"] == "SSN-1234-5678"
    assert record.as_dict()["resource"]["attributes"]["ssn"] == "SSN-1234-5678"


@pytest.mark.parametrize(
    ("path", "marker"),
    [
        ("resource.ssn", "SSN-1234"), ("args.email", "maria@example"), ("context.note", "NOTE-4711"),
        ("subject.badge", "BADGE-"), ("actor.badge", "BADGE-"), ("session.campaign", "CAMPAIGN-5"),
        ('resource["ssn"]', "SSN-1234"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["correlate", "shred", "secret"])
def test_a_class_holds_for_every_root(path: str, marker: str, kind: Class, openings: Openings) -> None:
    """Whatever root a path begins with, none of its value is in the record; a party's fact is hidden of every party."""
    line = looked({path: kind}, openings).line().decode()
    assert marker not in line
    assert ("$s" in line) == (kind == "shred")
    assert '"redacted"' in line


def test_equal_values_correlate_under_one_key_only() -> None:
    """A correlated value is a keyed hash: equal for equal values, which the key's holder finds, and nobody else's."""
    first, second = looked({"args.email": "correlate"}), looked({"args.email": "correlate"}, email="other@example.org")
    held = {"$c": correlation("maria@example.org", KEY)}
    assert shown(first)["args.email"] == held == first.as_dict()["action"]["args"]["email"]
    assert shown(second)["args.email"] != held
    wanted = Query(holds=(correlation("maria@example.org", KEY),))
    assert [found.id for found in query([first.line(), second.line()], wanted)] == [first.id]
    assert held["$c"].startswith(f"{KEY.epoch}:")
    assert correlation("maria@example.org", InstanceKey.random()) not in first.line().decode()
    assert correlation(5, KEY) == correlation(5, KEY) != correlation("5", KEY)


def test_a_shredded_value_is_committed_to_at_random(openings: Openings) -> None:
    """Two records of one value don't tell that it is one; in one record it is the same wherever it stands."""
    first, second = (looked({"resource.ssn": "shred"}, openings) for _ in range(2))
    one, other = shown(first)["resource.ssn"]["$s"], shown(second)["resource.ssn"]["$s"]
    assert one != other
    assert one.partition(":")[0] == other.partition(":")[0]
    assert first.as_dict()["resource"]["attributes"]["ssn"] == {"$s": one}
    assert openings.open(one).value == openings.open(other).value == "SSN-1234-5678"


def test_the_data_subject_is_the_session_s_unless_the_class_names_another(openings: Openings) -> None:
    """What is shredded belongs to the session's subject, or to whom the named fact says; else nobody can open it."""
    looked({"resource.ssn": "shred"}, openings)
    looked({"resource.ssn": Shred("resource.owner")}, openings)
    assert openings.erase(Principal.user("olga"), dry_run=True).openings == 1
    assert openings.erase(Principal.user("maria"), dry_run=True).openings == 1
    orphan = looked({"resource.ssn": Shred("resource.nobody")}, openings)
    assert "SSN-1234" not in orphan.line().decode()
    assert "/inputs/0/value" in orphan.meta.redacted or any("/inputs/" in each for each in orphan.meta.redacted)


def test_a_secret_is_dropped_and_pointed_to() -> None:
    """A secret leaves a pointer at each place where it would have been, and no digest of itself."""
    record = looked({"resource.ssn": "secret"})
    names = [each["name"] for each in record.as_dict()["inputs"]]
    assert f"/inputs/{names.index('resource.ssn')}/value" in record.meta.redacted
    assert "/resource/attributes/ssn" in record.meta.redacted
    assert shown(record)["resource.ssn"] == {"$u": "secret"}
    assert correlation("SSN-1234-5678", KEY) not in record.line().decode()


def test_a_value_is_hidden_where_another_place_repeats_it(openings: Openings) -> None:
    """What has a class is hidden in other arguments, in texts and in ids too, with no digest to guess at."""
    for kind in ("correlate", "shred", "secret"):
        record = looked({"context.note": kind}, openings, email="see NOTE-4711", other="NOTE-4711")
        assert "NOTE-4711" not in record.line().decode()
    shredded = looked({"context.note": "shred"}, openings, email="NOTE-4711")
    assert set(shown(shredded)["args.email"]) == {"$s"}
    assert correlation("NOTE-4711", KEY) not in shredded.line().decode()


def test_classes_reach_into_what_is_read_as_a_whole(openings: Openings) -> None:
    """A class below a value that a rule reads as a whole hides that part only, through lists too."""
    policies = PolicySet.parse('permit ship on ship when args.box != "x" and any item in args.items: item.name != "x"')
    args = {
        "box": {"owner": "OWNER-1111", "size": 3, "address": {"street": "STREET-2222", "land": "NORWAY"}},
        "items": [{"name": "PART-3333", "code": "CODE-4444"}, {"name": "PART-5555", "code": "CODE-6666"}],
    }
    redact: dict[str, Class] = {
        "args.box.owner": "secret", "args.box.address": "shred", "args.items.code": "correlate",
    }  # fmt: skip
    sink = MemorySink()
    with Authorizer(policies, sinks=[sink], key=KEY, redact=redact, openings=openings) as authorizer:
        authorizer.session(MARIA).decide("ship", args=args)
    line = sink.decisions[0].line().decode()
    assert not [
        marker for marker in ("OWNER-1111", "STREET-2222", "NORWAY", "CODE-4444", "CODE-6666") if marker in line
    ]


def test_the_argument_digest_can_t_be_guessed_after_erasure(openings: Openings) -> None:
    """A shredded argument isn't in the keyed digest of all arguments, in which its key's holder could guess it."""
    digests = {
        email: looked({"args.email": "shred"}, openings, email=email).action.args_digest for email in ("aaaa", "bbbb")
    }
    assert digests["aaaa"] == digests["bbbb"]
    kept = {email: looked({"args.email": "correlate"}, email=email).action.args_digest for email in ("aaaa", "bbbb")}
    assert kept["aaaa"] != kept["bbbb"]


@pytest.mark.parametrize("size", [3_000, 40_000, 2_000_000])
def test_a_record_stays_bounded(size: int, openings: Openings) -> None:
    """However big what has a class is, the record keeps its bounds, and nothing of it."""
    for kind in ("correlate", "shred", "secret"):
        record = looked({"args.email": kind}, openings, email="LONG-" * (size // 5))
        assert len(record.line()) <= 32 * 1024
        assert b"LONG-LONG" not in record.line()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("user.x", "are the roots"), ("resourse.ssn", "did you mean `resource.…`?"), ("args", "leads to no fact"),
        ("args.", "leads to no fact"), ("args.a b", "leads to no fact"), ("", "leads to no fact"),
        ("now.hour", "are the roots"), ("chain[0].to.x", "are the roots"), (7, "leads to no fact"),
        ("session.attributes.x", "written `session.…`"), ("subject.id", "pseudonym"), ("resource.type", "pseudonym"),
    ],
)  # fmt: skip
def test_paths_that_lead_nowhere_are_refused(path: Any, said: str) -> None:
    """A path that hides nothing raises when the authorizer is made, and says what to try."""
    with pytest.raises(InvalidArgument, match="redact") as caught:
        Authorizer(POLICIES, sinks=[MemorySink()], redact={path: "secret"})
    assert said in str(caught.value)


def test_other_classes_are_refused() -> None:
    """A class that there isn't, a subject that is no path, and shredding without a store raise."""
    for redact in ({"args.x": "private"}, {"args.x": Shred("owner")}, {"args.x": None}, ["args.x"]):
        with pytest.raises(InvalidArgument, match="redact"):
            Authorizer(POLICIES, sinks=[MemorySink()], redact=redact)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="openings"):
        Authorizer(POLICIES, sinks=[MemorySink()], redact={"args.x": "shred"})


def test_the_stricter_class_of_a_party_s_fact_wins(openings: Openings) -> None:
    """`subject.x` and `actor.x` are one fact: whoever is one in this call is the other in the next."""
    redaction = Redaction({"subject.badge": "secret", "actor.badge": "correlate"}, openings)
    assert {redaction.place(f"{who}.badge").kind for who in ("subject", "actor", "chain[0].to")} == {"secret"}


def test_a_store_that_fails_denies(openings: Openings) -> None:
    """Where the opening can't be kept, the call is denied and no line is written."""
    sink = MemorySink()
    authorizer = Authorizer(POLICIES, sinks=[sink], key=KEY, redact={"resource.ssn": "shred"}, openings=openings)
    session = authorizer.session(MARIA, BOT, context={"note": "n"}, attributes={"campaign": "c"})
    assert session.decide("person.look", resource=PERSON, args={"email": "e"}).allowed
    openings.close()
    denied = session.decide("person.look", resource=PERSON, args={"email": "e"})
    assert denied.reasons[0].code == "not_recorded"
    assert len(sink.decisions) == 1


async def _adecided(authorizer: Authorizer) -> bool:
    session = authorizer.session(MARIA, BOT, context={"note": "n"}, attributes={"campaign": "c"})
    return (await session.adecide("person.look", resource=PERSON, args={"email": "e"})).allowed


def test_coroutines_keep_openings_too(openings: Openings) -> None:
    """A decision of a coroutine is recorded the same way, with the store in a thread."""
    import asyncio

    sink = MemorySink()
    authorizer = Authorizer(POLICIES, sinks=[sink], key=KEY, redact={"resource.ssn": "shred"}, openings=openings)
    assert asyncio.run(_adecided(authorizer))
    assert openings.open(shown(sink.decisions[0])["resource.ssn"]["$s"]).state == "opened"


def test_replay_knows_each_class(openings: Openings) -> None:
    """A shredded value replays while its opening is there and given; the others tell why they don't."""
    record = looked({"resource.ssn": "shred"}, openings)
    assert list(replay([record], POLICIES).not_replayable) == [
        "`resource.ssn` can be shredded, and what opens it isn't here"
    ]
    assert replay([record], POLICIES, openings=openings).same == 1
    assert "SSN-1234-5678" in explain(record, POLICIES, openings=openings).render()
    openings.erase(Principal.user("maria"))
    assert list(replay([record], POLICIES, openings=openings).not_replayable) == ["`resource.ssn` was erased"]
    told = {
        kind: list(replay([looked({"resource.ssn": kind})], POLICIES).not_replayable)
        for kind in ("correlate", "secret")
    }
    assert told == {
        "correlate": ["`resource.ssn` is only a keyed hash in the record"],
        "secret": ["`resource.ssn` is kept secret"],
    }


def test_a_part_that_is_missing_makes_the_whole_unreadable() -> None:
    """Where a part of a value is secret, a rule that reads the whole isn't replayed as if the part weren't there."""
    policies = PolicySet.parse('permit go on go when any item in args.items: item.name != "x"')
    sink = MemorySink()
    with Authorizer(policies, sinks=[sink], key=KEY, redact={"args.items.name": "secret"}) as authorizer:
        authorizer.session(MARIA).decide("go", args={"items": [{"name": "NAME-1"}]})
    assert shown(sink.decisions[0])["args.items"] == [{"name": {"$u": "secret"}}]
    assert replay(sink.decisions, policies).not_replayable


def test_capturing_records_shows_what_the_sinks_get(openings: Openings) -> None:
    """Every sink gets the masked line: also one that was added for a test."""
    authorizer = Authorizer(POLICIES, sinks=[MemorySink()], redact={"args.email": "secret"}, key=KEY)
    with testing.capture_records(authorizer) as kept:
        authorizer.session(MARIA).decide("person.look", args={"email": "maria@example.org"}, resource=PERSON)
    assert b"maria@example.org" not in kept.decisions[0].line()


def test_a_record_made_by_hand_needs_no_classes() -> None:
    """`decision_record` without `held` writes as before."""
    request = Request("a", subject=MARIA, now=dt.datetime.now(dt.UTC))
    made = decision_record(id="1", ts=NOW, request=request, args={}, decision=ALLOW, key=KEY)
    assert "meta" not in json.loads(made.line())


@pytest.mark.parametrize("value", [True, 7, "abc"])
@pytest.mark.parametrize(("kind", "tag"), [("correlate", "$c"), ("shred", "$s"), ("secret", "$u")])
def test_what_is_too_short_to_be_recognised_is_hidden_by_its_place(
    value: object, kind: Class, tag: str, openings: Openings
) -> None:
    """A bool or a small number has its class among inputs, arguments and in what a clause saw, and nowhere else."""
    policies, sink = (
        PolicySet.parse("forbid no on go when args.flag == args.flag and args.other == args.flag"),
        MemorySink(),
    )
    with Authorizer(policies, sinks=[sink], key=KEY, redact={"args.flag": kind}, openings=openings) as authorizer:
        authorizer.session(MARIA).decide("go", args={"flag": value, "other": value})
    [record] = sink.decisions
    assert set(shown(record)["args.flag"]) == {tag}
    assert shown(record)["args.other"] == value
    clauses = record.as_dict()["explain"][0]["clauses"]
    assert [set(clause["saw"]["args.flag"]) for clause in clauses] == [{tag}, {tag}]
    assert set(record.as_dict()["action"]["args"].get("flag", {tag: 0})) == {tag}


def test_held_back_values_are_written_with_these_very_bytes() -> None:
    """A record of version 1.0 writes correlated, secret and shredded values so; only commitments are at random."""
    redaction = Redaction({"args.email": "correlate", "args.pin": "secret", "args.box.code": "correlate"})
    args = {"email": "maria@example.org", "pin": "PIN-1234", "box": {"code": "CODE-1", "size": 2}}
    request = Request("shop.send", subject=MARIA, args=args, now=NOW)
    asked = POLICIES.asked(request)
    made = decision_record(
        id="0" * 26, ts=NOW, request=request, args=args, decision=attrs.evolve(ALLOW, action="shop.send"), key=KEY,
        seen=[(f"args.{name}", value) for name, value in args.items()],
        held=redaction.held(lambda root: getattr(asked, root), request),
    )  # fmt: skip
    check_golden(ROOT / "tests" / "vectors" / "records" / "1.0-redacted" / "decision.ndjson", made.line().decode())


def test_a_resource_that_is_read_as_a_whole_keeps_its_class(openings: Openings) -> None:
    """A resource among the inputs shows its other attributes, and holds back the one with a class."""
    entity = freeze(PERSON)
    assert isinstance(entity, Entity)
    assert entity["ssn"] == "SSN-1234-5678"
    request = Request("a", subject=MARIA, resource=PERSON, now=NOW)
    asked = POLICIES.asked(request)
    held = Redaction({"resource.ssn": "correlate"}).held(lambda root: getattr(asked, root), request)
    made = decision_record(
        id="1", ts=NOW, request=request, args={}, decision=ALLOW, key=KEY, seen=[("resource", entity)], held=held
    )
    assert shown(made)["resource"]["$e"]["ssn"] == {"$c": correlation("SSN-1234-5678", KEY)}
    assert b"SSN-1234" not in made.line()


def test_the_page_says_how_a_value_is_held_back(tmp_path: Path, openings: Openings) -> None:
    """The report names the class in words, not by its tag."""
    redact: dict[str, Class] = {"resource.ssn": "shred", "args.email": "correlate", "context.note": "secret"}
    sink = FileSink(tmp_path / "log")
    with Authorizer(POLICIES, sinks=[sink], key=KEY, redact=redact, openings=openings) as authorizer:
        session = authorizer.session(MARIA, id="s-1", context={"note": "NOTE-4711"}, attributes={"campaign": "c"})
        session.decide("person.look", args={"email": "maria@example.org"}, resource=PERSON)
    page = report(tmp_path / "log", "s-1")
    assert "args.email = (only a keyed hash: " in page
    assert "resource.ssn = (kept apart, until it is shredded)" in page
    assert "context.note = (secret)" in page
    assert "$s" not in page


@given(
    st.recursive(
        st.just("MARK-42") | st.integers(-9, 9) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["correlate", "secret"]),
)
def test_no_shape_of_a_value_gets_through(value: object, kind: Class) -> None:
    """Whatever lists and mappings it stands in, nothing of what has a class is in the line, here or elsewhere."""
    policies = PolicySet.parse('forbid no on go when args.a.b == "x" or args.other == "y" or args.a == "z"')
    sink = MemorySink()
    with Authorizer(policies, sinks=[sink], key=KEY, redact={"args.a.b": kind}) as authorizer:
        args = {"a": {"b": [value, "MARK-42"], "c": [{"b": value}]}, "other": "see MARK-42"}
        authorizer.session(MARIA).decide("go", args=args)
    assert b"MARK-42" not in sink.decisions[0].line()


def test_what_no_rule_reads_of_a_value_is_recognised_too() -> None:
    """A member of a mapping with a class is hidden elsewhere, whether or not a rule has read it there."""
    policies = PolicySet.parse('permit go on go when args.other != "x" and context.other != "x"')
    sink = MemorySink()
    redact: dict[str, Class] = {"args.profile": "correlate", "context.profile": "secret"}
    with Authorizer(policies, sinks=[sink], key=KEY, redact=redact) as authorizer:
        session = authorizer.session(MARIA, context={"profile": {"a": ["MARK-43"]}, "other": "MARK-43"})
        session.decide("go", args={"profile": {"email": "MARK-42"}, "other": "see MARK-42"})
    assert b"MARK-4" not in sink.decisions[0].line()
