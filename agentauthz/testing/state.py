"""Find out whether a state store keeps what every one must."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

from attrs import frozen

from agentauthz.canonical import class_name
from agentauthz.errors import InvalidArgument, StateError
from agentauthz.state.store import Committed, Intent, StateStore
from agentauthz.testing import operations
from agentauthz.testing.trying import FAR, Trial, approved, request, spend, spending, taken, used

_THREADS: Final = 8
_EACH: Final = 10  # decisions of one thread or process
_BOUND: Final = 50  # of the 80 that they ask for
_PATIENCE: Final = 60.0  # seconds, for one operation of a place that is out of order


@final
@frozen
class StateReport:
    """Say which promises a store keeps, and which couldn't be looked at."""

    kept: tuple[str, ...]
    unknown: tuple[str, ...]


def check_state(
    make_store: Callable[[], StateStore],
    *,
    shared: bool = True,
    breaking: contextlib.AbstractContextManager[object] | None = None,
) -> StateReport:
    """Try out the stores that `make_store` makes, and return what is known of them then.

    It is called several times, and each store is closed; all keep state in one place, unless `shared` is False: then
    each has a place of its own, as in memory. Inside `breaking` the place must be out of order: operations have to
    raise `StateError` then, within a minute, and go well again afterwards. The place may hold state of before; what is
    added to it stays.

    Raises:
        AssertionError: a store doesn't keep what every one must; all that was found is in it.
        InvalidArgument: `make_store` returns something that isn't a state store.
    """
    trial = Trial(make_store, shared=shared)
    with _stores(trial) as (one, other):
        for operation in operations.ALL:
            operation(trial, one, other)
        _threads(trial, (one, other))
        _forks(trial, one)
        name = class_name(one)
    _killed(trial)
    _broken(trial, breaking)
    _closed(trial)
    if trial.problems:
        raise AssertionError(f"{name}:\n" + "\n".join(f"- {problem}" for problem in trial.problems))
    return StateReport(tuple(trial.kept), tuple(trial.unknown))


@contextlib.contextmanager
def _stores(trial: Trial) -> Iterator[tuple[StateStore, StateStore]]:
    """Make two stores of one place; where none share theirs, the same one twice."""
    made = [_made(trial)]
    try:
        made.append(_made(trial) if trial.shared else made[0])
        yield made[0], made[1]
    finally:
        for store in made:
            with contextlib.suppress(Exception):  # `_closed` looks at that
                store.close()


def _made(trial: Trial) -> StateStore:
    store = trial.make()
    missing = [name for name in _OPERATIONS if not callable(getattr(store, name, None))]
    if missing or type(getattr(store, "blocking", None)) is not bool:
        raise InvalidArgument("make_store", f"must return a state store: it has no {(*missing, 'blocking')[0]}")
    return store


# ---- at once


@final
@frozen
class _Race:
    """Be what several workers compete for, and what one of them has got of it."""

    count: str
    money: str
    key: str
    approval: str
    session: str

    def run(self, store: StateStore, worker: int) -> tuple[int, int, int, int]:
        """Compete, and return how often it got each."""
        spends = (spend(self.count, bound=str(_BOUND)), spend(self.money, "0.1", "1E+9"))
        granted = sum(taken(store.commit(spending(*spends))) for _ in range(_EACH))
        store.commit(Intent(self.session, marks=(f"m{worker}",)))
        first = store.once(self.key, store.now() + FAR)
        return granted, granted, first, taken(store.commit(Intent(None, approvals=(self.approval,))))

    def outcome(self, store: StateStore) -> tuple[int, int, int, int]:
        """Return how it must have come out, by what the store says now."""
        count, money = used(store, spend(self.count, bound=str(_BOUND)), spend(self.money, "0.1", "1E+9"))
        marks = store.read(self.session).marks == {f"m{worker}" for worker in range(_THREADS)}
        return int(count), int(money * 10), 1, 1 if marks else -1


def _race(trial: Trial, store: StateStore) -> _Race:
    made = approved(store, trial.name())
    return _Race(trial.name(), trial.name(), trial.name(), made.id, trial.name())


def _threads(trial: Trial, stores: tuple[StateStore, StateStore]) -> None:
    """Let threads compete."""

    def exact() -> bool:
        race = _race(trial, stores[0])
        got: list[tuple[int, int, int, int]] = []
        threads = [
            threading.Thread(target=lambda worker=worker: got.append(race.run(stores[worker % 2], worker)))
            for worker in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return _came_out(got, race, stores[0])

    trial.say("threads get no more together than there is, and no less", exact)


def _came_out(got: Sequence[tuple[int, ...]], race: _Race, store: StateStore) -> bool:
    sums = tuple(map(sum, zip(*got, strict=True)))
    return len(got) == _THREADS and sums == (_BOUND, _BOUND, 1, 1) == race.outcome(store)


def _forks(trial: Trial, store: StateStore) -> None:
    """Let forked processes compete, each with a store of its own or with the one that it was forked with."""
    promise = "processes get no more together than there is, and no less"
    alone = "a forked process can use the store"
    if not hasattr(os, "fork"):
        trial.unknown += [promise, alone]
        return

    def exact() -> bool:
        race = _race(trial, store)
        children = [
            _forked(functools.partial(lambda one: race.run(store if one % 2 else trial.make(), one), worker))
            for worker in range(_THREADS)
        ]
        return _came_out([_result(*child) for child in children], race, store)

    def works() -> bool:
        key, ends = trial.name(), threading.Event()

        def busy() -> None:
            while not ends.is_set():
                store.commit(spending(spend(key, bound="1E+9")))

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            done = [
                _result(*_forked(lambda: (taken(store.commit(spending(spend(key, bound="1E+9")))),))) for _ in "123"
            ]
        finally:
            ends.set()
            thread.join()
        return done == [(1,)] * 3 and taken(store.commit(spending(spend(key, bound="1E+9"))))

    trial.say(alone, works)
    if trial.shared:
        trial.say(promise, exact)
    else:
        trial.unknown.append(f"{promise}: each store has a place of its own")


def _forked(work: Callable[[], tuple[int, ...]]) -> tuple[int, int]:
    """Do something in a forked process; return the process, and where its result comes."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: that is what is tried out
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(int(_PATIENCE))  # one that waits for a lock that nobody holds must not wait for ever
            os.write(writing, " ".join(str(int(number)) for number in work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    return child, reading


def _result(child: int, reading: int) -> tuple[int, ...]:
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().split()
    os.waitpid(child, 0)
    return tuple(map(int, told))


# ---- out of order


def _killed(trial: Trial) -> None:
    """Kill a process right after its last answer."""
    promise = "what was answered outlives the process"
    if not trial.shared or not hasattr(os, "fork"):
        trial.unknown.append(f"{promise}: each store has a place of its own, or processes don't fork")
        return

    def kept() -> bool:
        race = _Race(*(trial.name() for _ in range(5)))

        def work() -> tuple[int, ...]:
            race.run(store := trial.make(), 0)
            store.ask(request(store, race.approval))
            store.finish(race.session, "a")
            store.revoke("token", race.key, "")
            os.kill(os.getpid(), signal.SIGKILL)
            return ()

        _result(*_forked(work))
        with _stores(trial) as (store, _):
            state, count = store.read(race.session), used(store, spend(race.count, bound=str(_BOUND)))
            return (
                count == [_EACH]
                and state.marks == {"m0"}
                and set(state.done) == {"a"}
                and not store.once(race.key, store.now() + FAR)
                and store.approval(race.approval) is not None
                and [each.name for each in store.revocations(0)][-1] == race.key
            )

    trial.say(promise, kept)


def _broken(trial: Trial, breaking: contextlib.AbstractContextManager[object] | None) -> None:
    """Ask while the place is out of order."""
    if breaking is None:
        trial.unknown.append("what can't be done raises, in time: give `breaking`")
        return
    with _stores(trial) as (store, _):
        steps = _steps(trial, store)
        with breaking:
            silent = [name for name, step in steps.items() if not _fails(step)]
        trial.say(f"what can't be done raises `StateError`, in time{_named(silent)}", lambda: not silent)
        trial.say("it goes on once its place is in order", lambda: _goes_on(trial, store))


def _closed(trial: Trial) -> None:
    """Close a store twice, and ask it."""
    store = _made(trial)
    steps = _steps(trial, store)

    def twice() -> bool:
        store.close()
        store.close()
        return True

    trial.say("closing it twice is nothing", twice)
    silent = [name for name, step in steps.items() if not _fails(step)]
    trial.say(f"a closed store raises `StateError`{_named(silent)}", lambda: not silent)


def _steps(trial: Trial, store: StateStore) -> dict[str, Callable[[], object]]:
    """Return each operation as something that can be tried while it can't be done."""
    name, now = trial.name(), store.now()
    consent = request(store, name)
    answer = store.commit(spending(spend(name), releasable=True))
    reservation = answer.reservation if isinstance(answer, Committed) else None
    if reservation is None:
        raise AssertionError("what may be given back has a reservation")
    return {
        "now": store.now,
        "begin": lambda: store.begin(trial.name(), now, {"a": now}, keep=True),
        "read": lambda: store.read(name),
        "commit": lambda: store.commit(spending(spend(name))),
        "settle": lambda: store.settle(reservation, {}),
        "release": lambda: store.release(reservation),
        "mark": lambda: store.mark(name, "a"),
        "unmark": lambda: store.unmark(name, "a"),
        "finish": lambda: store.finish(name, "a"),
        "once": lambda: store.once(name, now + FAR),
        "revoke": lambda: store.revoke("token", name, ""),
        "revocations": lambda: store.revocations(0),
        "ask": lambda: store.ask(consent),
        "answer": lambda: store.answer(name, "approved", "{}"),
        "approval": lambda: store.approval(name),
        "approvals": lambda: store.approvals(binding=name),
    }


_OPERATIONS: Final = (
    "now", "begin", "read", "commit", "settle", "release", "mark", "unmark", "finish", "once", "revoke", "revocations",
    "ask", "answer", "approval", "approvals", "close",
)  # fmt: skip


def _fails(step: Callable[[], object]) -> bool:
    """Say whether a step raises `StateError` before anybody's patience is over."""
    ended: list[bool] = []

    def attempt() -> None:
        try:
            step()
        except StateError:
            ended.append(True)
        except BaseException:
            ended.append(False)
        else:
            ended.append(False)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return ended == [True]


def _done(trial: Trial, store: StateStore) -> bool:
    try:
        return taken(store.commit(spending(spend(trial.name()))))
    except StateError:
        return False


def _goes_on(trial: Trial, store: StateStore) -> bool:
    ends = time.monotonic() + _PATIENCE
    while not (done := _done(trial, store)) and time.monotonic() < ends:
        time.sleep(0.1)
    return done


def _named(silent: Sequence[str]) -> str:
    return f" ({', '.join(silent)} did not)" if silent else ""
