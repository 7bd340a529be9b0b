"""Hold the command `records show`: what happened in one session, for a terminal."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from agentauthz.cli.command import Run, conclude, working
from agentauthz.cli.openings import given, openings
from agentauthz.records.delegations import Party, delegations, walk
from agentauthz.records.openings import Openings, opened
from agentauthz.records.reading import log_lines
from agentauthz.records.story import Step, Story, story
from agentauthz.records.words import (
    count,
    decision_line,
    effect_words,
    event_line,
    party,
    record_line,
    refusal_words,
    value_words,
)
from agentauthz.replay.clauses import Accounts

_UNKNOWN: Final = 1
_FOR_PROGRAMS: Final = frozenset({"digest", "until"})  # of what became of a review


def show(parser: argparse.ArgumentParser) -> Run:
    """Tell what happened in a session: each decision with its effect, and who acted for whom."""
    parser.epilog = "exits with 0: all effects are known; 1: what came of an allowed call is unknown; 4: usage"
    parser.add_argument("session", metavar="SESSION", help="the session's id")
    parser.add_argument("path", metavar="PATH", type=Path, help="a log's folder, or a file of lines")
    openings(parser)
    return _show


def _show(arguments: argparse.Namespace) -> int:
    with working("reading"):
        found = story(log_lines(arguments.path), arguments.session)
    with given(arguments) as kept:
        return conclude(_UNKNOWN if found.unknown else 0, *told(found, Accounts(found.policies, kept), kept))


def told(found: Story, accounts: Accounts, kept: Openings | None = None) -> Iterator[str]:
    """Return the account of a session, as lines; with what `kept` still holds of its values."""
    yield f"session {found.session}: {count(len(found.steps), 'decision')}"
    yield from (f"under {digest or 'no policies'}" for digest in found.digests)
    if found.unreadable:
        yield f"{count(found.unreadable, 'line')} of the log can't be read: see `agentauthz records verify`"
    yield from ("", "who acted for whom:")
    for depth, each in walk(delegations((step.decision for step in found.steps), found.passed)):
        yield f"{'  ' * (depth + 1)}{_party(each)}"
        yield from (f"{'  ' * (depth + 2)}{refusal_words(one)}" for one in each.refused)
    guarded = [step for step in found.steps if step.fate != "inline"]
    inline = [step for step in found.steps if step.fate == "inline"]
    for title, steps in (("what happened:", guarded), ("decided inline, where no effect is recorded:", inline)):
        if steps:
            yield from ("", title)
            for step in steps:
                yield from _step(step, accounts, kept)
    if found.beside:
        yield from ("", "what was asked of people, and ordered by them:")
        yield from (f"  {event_line(one, _FOR_PROGRAMS)}" for one in found.beside)
    if found.strays:
        yield from ("", "effects whose decision isn't in the log:")
        yield from (f"  {record_line(effect)}" for effect in found.strays)
    if found.unknown:
        yield from ("", f"{count(len(found.unknown), 'call')} allowed, effect unknown")


def _party(each: Party) -> str:
    name, acted = party(each.actor), "" if not each.acted else f": {count(each.acted, 'decision')}"
    narrower = "" if each.hop is None else f", {'; '.join(each.narrowing()) or 'with all of it'}"
    lost = f"; {count(len(each.lost), 'call')} refused at this hop" if each.lost else ""
    return f"{name}{narrower}{acted}{lost}"


def _step(step: Step, accounts: Accounts, kept: Openings | None) -> Iterator[str]:
    clock = "  (order by the clock only)" if step.by_clock else ""
    yield f"  {decision_line(step.decision)}{clock}"
    for one in step.decision.inputs if kept is not None else ():
        if isinstance(one.value, Mapping) and "$s" in one.value:
            yield f"    {one.name} = {value_words(opened({**one.value}, kept))}"
    if step.decision.outcome != "allow":
        yield from (f"    {flip}" for flip in accounts.why(step.decision).flips)
    yield from (f"    -> {effect_words(effect)}" for effect in step.effects)
    if step.fate == "unknown":
        yield "    -> ALLOWED, EFFECT UNKNOWN"
