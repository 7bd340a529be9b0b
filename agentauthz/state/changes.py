"""Say what becomes of what a session remembers: the same in every store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from attrs import evolve

from agentauthz.state.store import Intent, State


def is_outdated(intent: Intent, state: State) -> bool:
    """Say whether what a decision has read of its session has changed."""
    if intent.marks_seen is not None and intent.marks_seen != state.marks:
        return True
    return any(
        (state.began if kind == "began" else state.done).get(action) != at for kind, action, at in intent.times_seen
    )


def after(state: State, intent: Intent, now: dt.datetime) -> State:
    """Return what is remembered once a call has been allowed; the same object where nothing is new."""
    began = state.began if intent.began is None else later(state.began, intent.began, now)
    if began is state.began and state.marks.issuperset(intent.marks):
        return state
    return State(state.marks.union(intent.marks), began, state.done, state.watched)


def finished(state: State, action: str, now: dt.datetime) -> State:
    """Return what is remembered once an action has returned."""
    return evolve(state, done=later(state.done, action, now))


def later(times: Mapping[str, dt.datetime], action: str, now: dt.datetime) -> Mapping[str, dt.datetime]:
    """Return `times` with `action` seen at `now`; a clock that steps back doesn't lower a time."""
    return {**times, action: max(now, times.get(action, now))}


def watching(
    before: Mapping[str, dt.datetime], watched: Mapping[str, dt.datetime], now: dt.datetime
) -> Mapping[str, dt.datetime]:
    """Return since when each action is watched in a session that was begun before."""
    return {action: before.get(action, now) for action in watched}
