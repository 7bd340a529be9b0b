"""Test that lines are told apart by what policies read: never is an answer another line's."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentauthz import PolicySet, Principal
from agentauthz.replay.replayer import MAX_LINES, Came, Replayer
from tests import replay_lines
from tests.replay_lines import NEW
from tests.support import Recorded

LINES = replay_lines.lines(40)
POLICIES = PolicySet.parse(NEW)
_SPACED = re.compile(rb"^\{")


def slowly(line: bytes, policies: PolicySet = POLICIES) -> Came | None:
    """Return what comes of a line that no other was read before, with a space in it, so that nothing is cut out."""
    return Replayer(policies).came(_SPACED.sub(b"{ ", line))


def told(came: Came | None) -> Any:
    """Return what can be compared."""
    if came is None:
        return None
    id, ts, result = came  # noqa: A001
    return id, ts, result.action, result.state, result.before, result.after, result.why


@pytest.fixture(scope="module")
def replayer() -> Replayer:
    """Return what has read all lines."""
    made = Replayer(POLICIES)
    for line in LINES:
        made.came(line)
    return made


def test_a_line_comes_out_as_if_it_were_alone(replayer: Replayer) -> None:
    """Whatever lines were read before, each comes out as the only one would that is decoded as a whole."""
    assert [told(replayer.came(line)) for line in LINES] == [told(slowly(line)) for line in LINES]


def test_most_lines_are_not_decoded(replayer: Replayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs in ids, moments, names and sessions that no rule reads isn't decoded again."""
    decoded: list[bytes] = []
    monkeypatch.setattr(Replayer, "_slowly", lambda self, line: decoded.append(line))
    kept = Recorded(replay_lines.OLD)
    for turn in range(20):
        kept.session(subject=Principal.user(f"v{turn}", roles=["support"])).decide("t.do", args={"n": 1})
    came = [replayer.came(record.line()) for record in kept.decisions]
    assert decoded == []
    assert [one[0] for one in came if one] == [record.id for record in kept.decisions]
    assert len({id(one[2]) for one in came if one}) == 1


SLOTS = [b'"id":"', b'"ts":"', b'"args_digest":"', b'"session":"', b'"sub":"', b'"to":"', b'"type":"Order","id":"']


@settings(max_examples=400)
@given(st.data())
def test_no_damage_is_overlooked(replayer: Replayer, data: st.DataObject) -> None:
    """A line that is altered anywhere, also in what would be cut out, comes out as it does when it is decoded."""
    line = data.draw(st.sampled_from(LINES[:400]))
    places = [found.end() for slot in SLOTS for found in re.finditer(re.escape(slot), line)] or [0]
    at = data.draw(st.sampled_from(places) | st.integers(0, len(line)))
    put = st.sampled_from([b'"', b"\\", b"\x00", b"\xff", b"NaN", b"{", b"}", b",", b"\\u0041", b"7", b"\xc3\xbc", b""])
    altered = line[:at] + data.draw(put) + line[at + data.draw(st.integers(0, 3)) :]
    assert told(replayer.came(altered)) == told(slowly(altered))


TWICE = [
    '"id":"other"', '"ts":"2020-01-01T00:00:00Z"', '"type":"effect"', '"v":"2.0"', '"session":"other"', '"v":7',
    '"resource":{"type":"Order","id":"other"}', '"actors":[{"sub":"x","kind":"user"}]', '"outcome":"allow"', '"id":NaN',
    '"action":{"name":"t.name","args_digest":"x"}', '"chain":[]', '"x":[NaN]', '"x":"NaN"', '"meta":{"id":"y"}',
]  # fmt: skip


@pytest.mark.parametrize("member", TWICE)
def test_a_member_that_comes_twice_counts_as_in_json(replayer: Replayer, member: str) -> None:
    """The last one holds, as where the line is decoded; at the end of a line and where it would be expected first."""
    for line in LINES[:60]:
        end = line.rindex(b"}")
        for altered in (
            line[:end] + f",{member}}}\n".encode(),
            line.replace(b',"basis"', f',{member},"basis"'.encode()),
        ):
            assert told(replayer.came(altered)) == told(slowly(altered))


@pytest.mark.parametrize(
    "policy",
    [
        'permit p on t.do when subject == user("u1")',
        'permit p on t.do when actor == agent("bot")',
        'permit p on t.do when session.id == "s"',
        'permit p on t.do when resource.id == "o-3"',
        "permit p on t.do when context.at < now",
        "permit p on t.do when resource == subject.order",
        'permit p on * when purpose == "work"',
        "permit p on delegation.handoff when args.n == 1\npermit q on t.do when true",
    ],
)
def test_what_rules_read_is_never_cut_out(policy: str) -> None:
    """Names, ids and moments that rules ask for make another question."""
    policies = PolicySet.parse(policy)
    made = Replayer(policies)
    assert [told(made.came(line)) for line in LINES[:300]] == [told(slowly(line, policies)) for line in LINES[:300]]


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log with any number of questions takes no more memory than so many of them."""
    monkeypatch.setattr("agentauthz.replay.replayer.MAX_LINES", 10)
    made = Replayer(POLICIES)
    for line in LINES:
        made.came(line)
        assert len(made._known) <= 10
    assert MAX_LINES == 20_000


def test_the_sample_has_all_kinds() -> None:
    """The lines of these tests come out in every state, so that each is compared."""
    states = [came[2].state for line in LINES if (came := slowly(line)) is not None]
    assert set(states) == {"same", "unasked", "changed", "not replayable"}
    assert len(states) < len(LINES)  # effects are no decisions
    assert any(json.loads(line).get("meta") for line in LINES[:100] if line.startswith(b'{"v'))


def test_a_moment_counts_where_authority_ends() -> None:
    """Rules that ask for no time don't make a moment one that may be cut out: the session's end is held to it."""
    kept = Recorded(replay_lines.OLD)
    kept.session(expires="10m").decide("t.do", args={"n": 1})
    line = kept.decisions[0].line()
    late = line.replace(b'"ts":"2026-11-23T12:00:00.000000Z"', b'"ts":"2026-11-23T13:00:00.000000Z"')
    made = Replayer(POLICIES)
    assert [told(made.came(one)) for one in (line, late)] == [told(slowly(one)) for one in (line, late)]
    assert told(made.came(late))[3:] != told(made.came(line))[3:]
