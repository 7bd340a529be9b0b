"""Test what is left of decisions when the file that keeps state is gone, full, locked, broken or not writable."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from agentauthz import Authorizer, Basis, Decision, PolicySet, Principal, Request, Session
from agentauthz.errors import StateError
from agentauthz.records import MemorySink
from agentauthz.state.sqlite import SqliteState
from agentauthz.testing.trying import FAR, spend, spending, taken, used
from tests.faults.mounted import mounted

POLICY: Final = """
type session { marks: ["secret"] }
permit pays on shop.pay when true
limit budget on shop.pay to count <= 100 per subject every 1h
permit looks on shop.look when true
permit sends on shop.send when true
forbid leaks on shop.send when "secret" in session.marks
"""
TIMEOUT: Final = 0.3


@contextlib.contextmanager
def _working(path: Path) -> Iterator[tuple[SqliteState, Session]]:
    state = SqliteState(path, timeout=TIMEOUT)
    policies = PolicySet.parse(POLICY)
    with (
        Authorizer(policies, state=state, sinks=[MemorySink()]) as authorizer,
        authorizer.session(Principal.user("maria"), id="s-1") as session,
    ):
        assert session.decide("shop.pay").allowed
        assert session.decide("shop.send").allowed
        yield state, session
    state.close()


def _denied(session: Session) -> None:
    """Hold the calls of a session whose store is out of order to what must become of them, in time."""
    began = time.monotonic()
    pays, sends, looks = (session.decide(action) for action in ("shop.pay", "shop.send", "shop.look"))
    assert time.monotonic() - began < 10
    assert (pays.allowed, pays.basis, _codes(pays)) == (False, Basis.ERROR, ["state_failed"])
    assert (sends.allowed, sends.basis) == (False, Basis.UNDETERMINED)
    assert looks.allowed, "what depends on no state goes on"


def _codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


def _deleted(path: Path) -> None:
    path.unlink()


def _replaced(path: Path) -> None:
    other = path.with_name("other.db")
    SqliteState(other).close()
    other.replace(path)


def _moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("fault", [_deleted, _replaced, _moved])
def test_row_40_a_file_of_state_that_is_gone_denies(fault: Callable[[Path], None], tmp_path: Path) -> None:
    """Once the file was deleted, replaced or moved, what depends on it is denied: a new one would have no marks."""
    (tmp_path / "place").mkdir()
    path = tmp_path / "place" / "state.db"
    with _working(path) as (state, session):
        fault(path)
        _denied(session)
        with pytest.raises(StateError):
            state.once("key", state.now() + FAR)


def test_row_40_a_locked_file_of_state_denies_in_time(tmp_path: Path) -> None:
    """While another program writes, what would write waits no longer than the time-out; what reads needn't wait."""
    path = tmp_path / "state.db"
    with _working(path) as (state, session):
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        pays = session.decide("shop.pay")
        assert TIMEOUT <= time.monotonic() - began < 10
        assert (pays.basis, _codes(pays)) == (Basis.ERROR, ["state_failed"])
        assert state.read("s-1").marks == frozenset()
        assert state.revocations(0) == []
        assert session.decide("shop.look").allowed
        other.execute("ROLLBACK")
        other.close()
        assert session.decide("shop.pay").allowed, "it goes on"


def test_row_40_a_full_disk_under_state_denies_and_goes_on(tmp_path: Path) -> None:
    """Without space nothing is granted and nothing lost; once there is some, it goes on."""
    with mounted(tmp_path, "tmpfs", "size=1m"), _working(tmp_path / "state.db") as (state, session):
        with pytest.raises(OSError, match="No space"):
            (tmp_path / "filler").write_bytes(bytes(2 << 20))
        granted = 0
        with contextlib.suppress(StateError):
            for number in range(100_000):  # the file's log may have some room of its own
                granted += taken(state.commit(spending(spend("many", bound="1E+6"), spend(f"k{number}"))))
        assert granted < 100_000
        assert _codes(session.decide("shop.pay")) == ["state_failed"]
        assert session.decide("shop.look").allowed
        (tmp_path / "filler").unlink()
        assert used(state, spend("many", bound="1E+6")) == [granted]
        assert session.decide("shop.pay").allowed


@pytest.mark.parametrize("offset", [0, 4096 * 2])
def test_row_40_a_corrupted_file_of_state_is_no_answer(offset: int, tmp_path: Path) -> None:
    """What is no database, or a broken one, raises: at the start, or at the first operation that meets it."""
    path = tmp_path / "state.db"
    with _working(path):
        pass
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"SECRET!!" * ((size - offset) // 8))
    with pytest.raises(StateError, match="can't be used: SQLITE_") as caught:
        SqliteState(path).commit(spending(spend("key")))
    assert "SECRET" not in str(caught.value)


def test_row_40_a_file_of_state_that_may_not_be_written_denies() -> None:
    """Who may only read the file has no store; one that becomes read-only later grants nothing more."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    folder = Path(tempfile.mkdtemp())
    try:
        nobody = pwd.getpwnam("nobody").pw_uid
        SqliteState(folder / "state.db").close()
        os.chown(folder / "state.db", nobody, -1)
        os.chown(folder, nobody, -1)
        assert _as(nobody, lambda: _can_write(folder / "state.db"))
        (folder / "state.db").chmod(0o400)
        assert not _as(nobody, lambda: _can_write(folder / "state.db"))
    finally:
        shutil.rmtree(folder)


def _can_write(path: Path) -> bool:
    try:
        state = SqliteState(path, timeout=TIMEOUT)
        return taken(state.commit(spending(spend("key"))))
    except StateError:
        return False


def _as(user: int, work: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            os.setuid(user)
            os._exit(0 if work() else 7)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 7)
    return code == 0


def test_row_40_without_a_session_a_limit_still_needs_the_store(tmp_path: Path) -> None:
    """A request of no session is denied too where its budget can't be asked."""
    path = tmp_path / "state.db"
    state = SqliteState(path, timeout=TIMEOUT)
    with Authorizer(PolicySet.parse(POLICY), state=state, sinks=[MemorySink()]) as authorizer:
        request = Request("shop.pay", subject=Principal.user("otto"))
        assert authorizer.decide(request).allowed
        path.unlink()
        assert _codes(authorizer.decide(request)) == ["state_failed"]
        state.close()
        assert _codes(authorizer.decide(request)) == ["state_failed"]
