"""Find out what a sink promises, and whether it keeps that."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, TypeAlias, final

from attrs import frozen

from agentauthz.authorizer import Authorizer
from agentauthz.canonical import class_name
from agentauthz.errors import InvalidArgument
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import Principal
from agentauthz.records import Guarantee, MemorySink, Record, Sink
from agentauthz.records.lines import NO_HASH, place, placed
from agentauthz.records.record import of_line
from agentauthz.records.sinks.lanes import append_to
from agentauthz.records.sinks.sink import guarantee_of
from agentauthz.request import Request, SessionFacts

Make: TypeAlias = Callable[[], Sink]
Kept: TypeAlias = Callable[[], Iterable[bytes]]

_THREADS: Final = 8
_EACH: Final = 10  # records of one thread
_POLICY: Final = """
permit allowed on allowed, reviewed when true
review reviewed on reviewed by approver != subject
"""


@final
@frozen
class SinkReport:
    """Say what a sink promises, which promises were looked at and kept, and which couldn't be looked at."""

    promises: Guarantee
    kept: tuple[str, ...]
    unknown: tuple[str, ...]


def check_sink(
    make_sink: Make,
    *,
    kept: Kept | None = None,
    breaking: contextlib.AbstractContextManager[object] | None = None,
    timeout: float = 60.0,
) -> SinkReport:
    """Try out the sinks that `make_sink` makes, and return what is known of them then.

    `make_sink` is called several times, and each sink is closed; all write to one place. `kept` returns the lines that
    are in that place; without it only what a sink says can be checked, not what it keeps. Inside `breaking` the place
    must be out of order: an append has to fail then, and go well again afterwards. What a sink doesn't do within
    `timeout` seconds, it never does: nothing else is looked at then.

    Raises:
        AssertionError: the sink doesn't keep what it promises, or what every sink must; all that was found is in it.
        InvalidArgument: `make_sink` returns nothing that can append and be closed, or no positive time-out.
    """
    if not isinstance(timeout, int | float) or not 0 < timeout <= threading.TIMEOUT_MAX:
        raise InvalidArgument("timeout", "must be a positive number of seconds")
    check = _Check(make_sink, kept, breaking, timeout)
    with contextlib.suppress(_Hangs):
        check.run()
    if check.problems:
        raise AssertionError(f"{check.name}:\n" + "\n".join(f"- {problem}" for problem in check.problems))
    return SinkReport(check.promises, tuple(check.known), tuple(check.unknown))


@final
class _Check:
    def __init__(
        self,
        make_sink: Make,
        kept: Kept | None,
        breaking: contextlib.AbstractContextManager[object] | None,
        timeout: float,
    ) -> None:
        self._make = make_sink
        self._timeout = timeout
        self._kept = kept
        self._breaking = breaking
        self._samples = _samples()
        self._stream = 0
        self._given: set[bytes] = set()
        self._hangs = False
        self.name = "the sink"
        self.promises = Guarantee("best_effort")
        self.problems: list[str] = []
        self.known: list[str] = []
        self.unknown: list[str] = []
        with contextlib.suppress(Exception):  # there may be nothing yet that could be read
            self._given.update([] if kept is None else kept())

    def run(self) -> None:
        """Look at everything.

        Raises:
            _Hangs: the sink does.
        """
        with self._sink() as sink:
            self.name = class_name(sink)
            self.promises = guarantee_of(sink)
            self._shape(sink)
        for step in (self.kinds, self.threads, self.twice, self.inside, self.killed, self.broken, self.closed):
            step()

    # ---- what is looked at

    def _shape(self, sink: Sink) -> None:
        if (told := getattr(sink, "guarantees", None)) is not None and not isinstance(told, Guarantee):
            self.problems.append("its `guarantees` are no Guarantee, so nobody can rely on them")
        if type(getattr(sink, "blocking", False)) is not bool:
            self.problems.append("its `blocking` is no bool")

    def kinds(self) -> None:
        """Append a record of each kind: allowed, denied, reviewed; with hostile names; as long as may be."""
        records = self._next(self._samples)
        with self._sink() as sink:
            self._append(sink, records)
            self._arrived(sink, records, "a record of each kind is kept, to the byte, and nothing else")

    def threads(self) -> None:
        """Append from several threads at once."""
        each = [self._next([self._samples[0]] * _EACH) for _ in range(_THREADS)]
        with self._sink() as sink:
            self._append(sink, *each)
            found = self._arrived(sink, [one for mine in each for one in mine], "threads lose nothing")
        if found is not None and self.promises.ordered:
            place_of = {line: index for index, line in enumerate(found)}
            order = [[place_of.get(one.line(), -1) for one in mine] for mine in each]
            self._say("what one thread appends stays in order", all(sorted(mine) == mine for mine in order))

    def twice(self) -> None:
        """Append the same record twice."""
        if not self.promises.deduplicates:
            return
        [record] = self._next(self._samples[:1])
        for _ in range(2):  # also by another sink, as after a crash
            with self._sink() as sink:
                self._append(sink, [record, record])
        if self._kept is None:
            self.unknown.append("a record that comes twice is kept once: give `kept`")
        else:
            self._say("a record that comes twice is kept once", list(self._kept()).count(record.line()) == 1)

    def inside(self) -> None:
        """Let a call of a session be decided, and see whether the sink makes calls of its own in it."""
        policies = PolicySet.parse(_POLICY, "<check>")
        user, agent = Principal.user("check"), Principal.agent("check")
        with self._sink() as sink:
            watched = _Watched(sink)
            authorizer = Authorizer(policies, sinks=[watched], clock=watched.clock)
            with authorizer.session(user, agent), contextlib.suppress(BaseException):  # `kinds` tells what it raises
                authorizer.decide(Request("allowed", subject=user, actor=agent))
        self._say("it makes no calls of its own while it appends", not watched.asked)

    def killed(self) -> None:
        """Kill a process right after its last append."""
        promise = f"what was appended outlives a {self.promises.survives.replace('_', ' ')}"
        if self.promises.survives == "best_effort":
            return
        if self.promises.survives == "power_loss":
            self.unknown.append(f"{promise}: only a crash can be tried out")
            promise = "what was appended outlives a process crash"
        if self._kept is None or not hasattr(os, "fork"):
            self.unknown.append(f"{promise}: give `kept`, where processes fork")
            return
        records = self._next([self._samples[0]] * _EACH)
        ended = _in_a_child(lambda: _append_all(self._make(), records), self._timeout)
        found = set(self._kept())
        self._say(promise, ended == -signal.SIGKILL and all(record.line() in found for record in records))

    def broken(self) -> None:
        """Append while the place is out of order."""
        if self._breaking is None:
            self.unknown.append("a failure isn't kept silent: give `breaking`")
            return
        first, during, after = self._next([self._samples[0]] * 3)
        with self._sink() as sink:
            self._append(sink, [first])
            with self._breaking:
                failed = self._fails(sink, during)
            self._say("an append that isn't kept raises, in time", failed)
            self._say("after a failure it goes on", _until(lambda: not self._fails(sink, after)))

    def closed(self) -> None:
        """Close a sink twice, and append to it."""
        [record] = self._next(self._samples[:1])
        sink = self._made()
        for _ in range(2):
            [error] = self._done(sink.close)
            if error is not None:
                self.problems.append(f"closing it, or closing it again, raises {class_name(error)}")
        self._say("a closed sink takes nothing", self._fails(sink, record))

    # ---- how

    @contextlib.contextmanager
    def _sink(self) -> Iterator[Sink]:
        sink = self._made()
        if not callable(getattr(sink, "append", None)) or not callable(getattr(sink, "close", None)):
            raise InvalidArgument("make_sink", "must return a sink: what has `append` and `close`")
        try:
            yield sink
        finally:
            if not self._hangs:
                self._done(sink.close)  # `closed` looks at what that raises

    def _made(self) -> Sink:
        made: list[Sink] = []
        [error] = self._done(lambda: made.append(self._make()))
        if error is not None:
            raise error
        return made[0]

    def _done(self, *works: Callable[[], object]) -> list[BaseException | None]:
        """Do things at the same time; return what each raised.

        Raises:
            _Hangs: one didn't end in time. It goes on, where it does.
        """
        errors: list[BaseException | None] = [None] * len(works)

        def attempt(place: int) -> None:
            try:
                works[place]()
            except BaseException as error:
                errors[place] = error

        running = [threading.Thread(target=attempt, args=(place,), daemon=True) for place in range(len(works))]
        for thread in running:
            thread.start()
        ends = time.monotonic() + self._timeout
        for thread in running:
            thread.join(max(0.0, ends - time.monotonic()))
        if any(thread.is_alive() for thread in running):
            self._hangs = True
            self.problems.append(f"it hangs: it wasn't done within {self._timeout:g} seconds")
            raise _Hangs
        return errors

    def _next(self, samples: Sequence[Record]) -> list[Record]:
        """Return records like `samples` in a stream that nobody has used yet."""
        self._stream += 1
        stream = f"{os.getpid():010}{id(self):012}{self._stream:04}"[-26:]
        records = [
            of_line(placed(record.line(), place(stream, seq, NO_HASH, seq)), record)
            for seq, record in enumerate(samples)
        ]
        self._given.update(record.line() for record in records)
        return records

    def _append(self, sink: Sink, *many: Sequence[Record]) -> None:
        """Append records, each sequence in a thread of its own."""
        for error in self._done(*(partial(_append_all, sink, records) for records in many)):
            if error is not None:
                self.problems.append(f"append raises {class_name(error)}")

    def _fails(self, sink: Sink, record: Record) -> bool:
        [error] = self._done(lambda: append_to(sink, record.line(), record))
        return error is not None  # whatever says that it isn't kept

    def _arrived(self, sink: Sink, records: Sequence[Record], promise: str) -> list[bytes] | None:
        """Look whether all records are there once; return what is."""
        if callable(flush := getattr(sink, "flush", None)):
            self._done(lambda: flush(False, self._timeout))
        if self._kept is None:
            self.unknown.append(f"{promise}: give `kept`")
            return None
        found = list(self._kept())
        once = all(found.count(record.line()) == 1 for record in records)
        self._say(promise, once and self._given.issuperset(found))
        return found

    def _say(self, promise: str, holds: bool) -> None:
        (self.known if holds else self.problems).append(promise if holds else f"it isn't so that {promise}")


class _Hangs(Exception):
    """Say that a sink hangs, so that nothing else can be looked at."""


@final
class _Watched:
    """Pass records to a sink, and notice when a session's authorizer is asked for the time meanwhile."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._appending = False
        self.asked = False

    def append(self, line: bytes, record: Record) -> None:
        self._appending = True
        try:
            append_to(self._sink, line, record)
        finally:
            self._appending = False

    def close(self) -> None:
        """Leave that to who made the sink."""

    def clock(self) -> dt.datetime:
        self.asked = self.asked or self._appending
        return dt.datetime.now(dt.UTC)


def _samples() -> list[Record]:
    """Return decisions and effects as an authorizer makes them, among them one of hostile names and a long one."""
    memory = MemorySink()
    subject, actor = Principal.user("a\nb\x00\u202e\ud800"), Principal.agent("</script>")
    facts = SessionFacts(id="check\r\n", started=dt.datetime.now(dt.UTC))
    with Authorizer(PolicySet.parse(_POLICY, "<check>"), sinks=[memory]) as authorizer:
        for action in ("allowed", "denied", "reviewed", "denied\n" * 4000):
            authorizer.decide(Request(action, subject=subject, actor=actor, session=facts))
    return list(memory.decisions)


def _append_all(sink: Sink, records: Sequence[Record]) -> None:
    for record in records:
        append_to(sink, record.line(), record)


def _until(holds: Callable[[], bool]) -> bool:
    return any(holds() for _ in range(20))


def _in_a_child(work: Callable[[], None], timeout: float) -> int:
    """Do something in a forked process that kills itself right after; return how it ended, by an alarm if it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: it lives for one append
        child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, timeout)
            work()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
