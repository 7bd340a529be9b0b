"""Witnesses: a real server of somebody else that takes checkpoints, fails, stalls and recovers; and a file."""

from __future__ import annotations

import base64
import hashlib
import logging
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.keys.signing import SigningKey
from agentauthz.records import FileSink, keeper, witnessed
from agentauthz.records.checkpoints import read_checkpoints, signed_note
from agentauthz.records.verify import Verdict, verify
from agentauthz.records.witness import FileWitness, HttpWitness, PostgresWitness
from tests import logs
from tests.faults.logged import SIGNER, VKEY, append, checked, sealed
from tests.loopback import HOSTILE, Loopback, answer, everything_told, never
from tests.postgres import Postgres
from tests.recording import until

OK = answer({})


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(OK) as running:
        yield running


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a witness be asked again soon."""
    monkeypatch.setattr(keeper, "_FIRST_PAUSE", 0.02)


def _sink(folder: Path, server: Loopback, timeout: float = 5.0) -> FileSink:
    headers = {"Authorization": "Bearer CANARY"}
    told = HttpWitness(server.url, headers=headers, loopback_http=True, timeout=timeout)
    return FileSink(folder, key=SIGNER, witness=told, checkpoint_every=5, checkpoint_idle=0.05)


def _fill(sink: FileSink, first: int, count: int = 5) -> None:
    for number in range(first, first + count):
        append(sink, f"{number:026}")


def _bodies(server: Loopback) -> str:
    return "\n".join(seen.body.decode() for seen in server.seen)


def test_a_witness_that_hangs_holds_up_no_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A log is closed and sealed though its witness never returns; what no witness has seen is told."""
    monkeypatch.setattr("agentauthz.records.keeper._LAST", 0.3)
    hanging, there = threading.Event(), threading.Event()

    def witness(_: str) -> None:
        there.set()
        hanging.wait(60)

    sink = FileSink(tmp_path, key=SIGNER, witness=witness, checkpoint_every=1)
    append(sink, "0" * 26)
    assert there.wait(10)
    began = time.monotonic()
    sink.close()
    hanging.set()
    assert time.monotonic() - began < 10
    assert "no witness has 3 records" in caplog.text
    assert checked(tmp_path).damages == ()


def test_each_checkpoint_is_posted(tmp_path: Path, server: Loopback) -> None:
    """The witness gets signed notes that verify the log, and nothing of the records."""
    with closing(_sink(tmp_path / "log", server)) as sink:
        _fill(sink, 0)
        until(lambda: sink.exposure is not None and sink.exposure.records == 0)
    assert {seen.method for seen in server.seen} == {"POST"}
    headers = {name.lower(): value for name, value in server.seen[0].headers.items()}
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["authorization"] == "Bearer CANARY"
    assert "payments" not in _bodies(server)
    report = verify(tmp_path / "log", keys=[VKEY], checkpoint=_bodies(server))
    assert report.verdict is Verdict.OK
    assert report.streams[0].exposed == 0


def test_a_witness_that_fails_is_counted_alarmed_and_asked_again(
    tmp_path: Path, server: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    """Failures are counted, logged and recorded once; what is exposed grows, and is nothing after the recovery."""
    server.answer = answer({}, 503)
    with closing(_sink(tmp_path / "log", server)) as sink:
        _fill(sink, 0)
        until(lambda: sink.exposure is not None and sink.exposure.failures >= 3)
        _fill(sink, 5)
        exposed = sink.exposure
        assert exposed is not None
        assert exposed.records >= 10
        assert exposed.seconds > 0
        server.answer = OK
        until(lambda: sink.exposure is not None and sink.exposure.records == 0)
        assert sink.exposure is not None
        assert sink.exposure.seconds == 0.0
        assert sink.exposure.failures >= 3
    failed = [one for one in logs.records(tmp_path / "log") if one.as_dict()["type"] == "sink.failed"]
    assert [one.as_dict()["about"]["sink"] for one in failed] == ["witness"]
    assert failed[0].as_dict()["about"]["error"] == "ConnectionError"
    assert failed[0].as_dict()["about"]["exposed"] > 0
    told = [one for one in caplog.records if one.name == "agentauthz.records"]
    assert [one.levelno for one in told] == [logging.ERROR, logging.WARNING]
    assert "CANARY" not in caplog.text
    assert "CANARY" not in str([one.as_dict() for one in failed])


def test_a_witness_that_failed_is_asked_after_ever_longer_pauses(
    tmp_path: Path, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many records come, it is asked again only after the pause; at the end once more, at once."""
    monkeypatch.setattr(keeper, "_FIRST_PAUSE", 60.0)
    server.answer = answer({}, 500)
    with closing(_sink(tmp_path / "log", server)) as sink:
        for number in range(20):
            _fill(sink, 5 * number)
            time.sleep(0.01)
        until(lambda: len(server.seen) == 1)
        server.answer = OK
    assert len(server.seen) == 2
    assert verify(tmp_path / "log", keys=[VKEY], checkpoint=server.seen[1].body.decode()).verdict is Verdict.OK


@pytest.mark.parametrize("how", ["says nothing", "drips its status line", "says 100 for ever", "hangs up"])
def test_a_witness_that_stalls_delays_no_record(tmp_path: Path, server: Loopback, how: str) -> None:
    """Records are taken while the witness hangs, and it is given up in time."""
    server.answer = HOSTILE[how][0]
    with closing(_sink(tmp_path / "log", server, timeout=0.3)) as sink:
        _fill(sink, 0)
        until(lambda: len(server.connections) >= 1)
        taken = threading.Thread(target=_fill, args=(sink, 5, 50))
        taken.start()
        taken.join(10)
        assert not taken.is_alive()
        until(lambda: sink.exposure is not None and sink.exposure.failures >= 1)
        server.answer = OK
        until(lambda: sink.exposure is not None and sink.exposure.records == 0)


def test_records_are_taken_while_the_witness_hangs(tmp_path: Path) -> None:
    """No append waits for a witness: with one that never returns, hundreds of records are taken."""
    go, entered = threading.Event(), threading.Event()

    def hanging(_: str) -> None:
        entered.set()
        go.wait(30)

    sink = FileSink(tmp_path / "log", key=SIGNER, witness=hanging, checkpoint_every=5, checkpoint_idle=0.05)
    _fill(sink, 0)
    assert entered.wait(20)
    _fill(sink, 5, 300)
    exposure = sink.exposure
    assert exposure is not None
    assert exposure.records >= 305
    go.set()
    sink.close()
    assert len(logs.ids(tmp_path / "log")) == 305


def test_an_answer_that_goes_elsewhere_is_not_followed(tmp_path: Path, server: Loopback) -> None:
    """A redirect is a failure: the headers' secrets are for one address."""
    with Loopback(OK) as other:
        server.answer = answer({}, 307, location=other.url)
        witness = HttpWitness(server.url, loopback_http=True)
        with pytest.raises(ConnectionError, match="it answered 307") as error:
            witness("note\n")
        assert other.seen == []
    assert "CANARY" not in everything_told(error.value)


def test_what_is_no_witness_is_refused(server: Loopback) -> None:
    """Plain http elsewhere, headers that can't be sent, a time-out of nothing, and a TLS that verifies nothing."""
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    for given in (
        {"url": "http://witness.example/"}, {"url": server.url}, {"url": "ftp://x/"},
        {"url": "https://witness.example/", "headers": {"a b": "c"}},
        {"url": "https://witness.example/", "headers": {"a": "c\nd"}},
        {"url": "https://witness.example/", "timeout": 0}, {"url": "https://witness.example/", "timeout": float("inf")},
        {"url": "https://witness.example/", "tls": unverified},
    ):  # fmt: skip
        with pytest.raises(InvalidArgument):
            HttpWitness(**given)


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    """Each checkpoint is added to the file, which `verify` takes; where it can't be, that is a failure."""
    path = tmp_path / "elsewhere" / "witness"
    witness = FileWitness(path)
    with pytest.raises(FileNotFoundError):
        witness("note\n")
    path.parent.mkdir()
    sink = FileSink(tmp_path / "log", key=SIGNER, witness=witness, checkpoint_every=5)
    _fill(sink, 0, 20)
    sink.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(read_checkpoints(path.read_text())) >= 1
    assert verify(tmp_path / "log", keys=[VKEY], checkpoint=path).verdict is Verdict.OK


def test_nobody_is_exposed_to_nobody(tmp_path: Path) -> None:
    """Without a witness there is no exposure to tell."""
    sink = FileSink(tmp_path / "log", key=SIGNER)
    assert sink.exposure is None
    sink.close()


# ---- reading from such places


def _served(notes: list[str]) -> bytes:
    return "\n".join(notes).encode()


def test_checkpoints_are_read_from_an_address(tmp_path: Path, server: Loopback) -> None:
    """`verify` takes an address, and several sources: an address, a file and a text."""
    notes = sealed(tmp_path / "log", checkpoint_every=5)
    server.answer = answer(_served(notes), content_type="text/plain")
    assert verify(tmp_path / "log", keys=[VKEY], checkpoint=server.url).verdict is Verdict.OK
    path = tmp_path / "witness"
    path.write_text(notes[0])
    report = verify(tmp_path / "log", keys=[VKEY], checkpoint=[path, server.url, notes[-1]])
    assert report.verdict is Verdict.OK
    assert {seen.method for seen in server.seen} == {"GET"}


def test_sources_that_contradict_each_other_show_a_fork(tmp_path: Path) -> None:
    """Two witnesses that were told different states of one stream prove that the log is inconsistent."""
    notes = sealed(tmp_path / "log")
    [stream] = [path.parent.name for path in logs.segments(tmp_path / "log")]
    other = signed_note(SIGNER, "local", stream, read_checkpoints(notes[-1])[0].size, bytes(32))
    report = verify(tmp_path / "log", keys=[VKEY], checkpoint=[notes[-1], other])
    assert report.verdict is Verdict.TAMPERED
    assert report.first is not None
    assert report.first.kind == "inconsistent"


@pytest.mark.parametrize("how", sorted(HOSTILE))
def test_an_address_that_misbehaves(
    tmp_path: Path, server: Loopback, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it stalls, lies or breaks off, one error that people can read comes in time, without the address."""
    monkeypatch.setattr(witnessed, "TIMEOUT", 0.5)
    monkeypatch.setattr(witnessed, "MOST", 200_000)
    sealed(tmp_path / "log", 1)
    server.answer = HOSTILE[how][0]
    with pytest.raises(InvalidArgument, match="`checkpoint`") as error:
        verify(tmp_path / "log", keys=[VKEY], checkpoint=server.url)
    assert "CANARY" not in str(error.value)


@pytest.mark.parametrize("status", [301, 307, 404, 500])
def test_another_status_is_an_error(tmp_path: Path, server: Loopback, status: int) -> None:
    """Nothing is followed, and what isn't there isn't taken for nothing."""
    sealed(tmp_path / "log", 1)
    server.answer = answer({}, status, location="https://elsewhere.example/")
    with pytest.raises(InvalidArgument, match=f"can't be had from its address: it answered {status}"):
        verify(tmp_path / "log", keys=[VKEY], checkpoint=server.url)


@pytest.mark.parametrize("url", ["http://witness.example/notes", "https://user@witness.example/", "https://x/#y"])
def test_an_address_that_is_not_asked(tmp_path: Path, url: str) -> None:
    """Plain http elsewhere than on this machine, names of users and fragments are refused."""
    sealed(tmp_path / "log", 1)
    with pytest.raises(InvalidArgument, match="checkpoint"):
        verify(tmp_path / "log", keys=[VKEY], checkpoint=url)


def test_every_source_must_hold_something(tmp_path: Path) -> None:
    """A source that none of the keys signed is an error, however good the others are."""
    notes = sealed(tmp_path / "log")
    with pytest.raises(InvalidArgument, match="none that one of `keys` signed"):
        verify(tmp_path / "log", keys=[VKEY], checkpoint=[notes[-1], "nothing\n"])


# ---- cosignatures


def _witness_key(name: str) -> tuple[SigningKey, str]:
    """Return a witness's key and the text with which others verify it, by the words of C2SP tlog-cosignature."""
    key = SigningKey.generate("Ed25519")
    public = base64.urlsafe_b64decode(key.public_jwk()["x"] + "=")
    shown = hashlib.sha256(name.encode() + b"\n\x04" + public).hexdigest()[:8]
    encoded = base64.b64encode(b"\x04" + public).decode()
    return key, f"{name}+{shown}+{encoded}"


def _cosigned(note: str, key: SigningKey, verifier: str, moment: int = 1_764_000_000) -> str:
    """Return a checkpoint with a witness's line."""
    name, shown, _ = verifier.split("+", 2)
    text = note[: note.rindex("\n\n") + 1]
    signature = key.sign(f"cosignature/v1\ntime {moment}\n{text}".encode())
    blob = bytes.fromhex(shown) + moment.to_bytes(8) + signature
    return f"{note}\u2014 {name} {base64.b64encode(blob).decode()}\n"


def test_a_cosignature_is_checked_where_its_key_is_given(tmp_path: Path) -> None:
    """What a witness signed too is counted; without its key the line is passed over."""
    key, verifier = _witness_key("witness.example/w1")
    notes = sealed(tmp_path / "log")
    cosigned = _cosigned(notes[-1], key, verifier)
    report = verify(tmp_path / "log", keys=[VKEY, verifier], checkpoint=cosigned)
    assert report.verdict is Verdict.OK
    assert report.streams[0].cosigned == report.streams[0].size
    assert verify(tmp_path / "log", keys=[VKEY, verifier], checkpoint=notes[-1]).streams[0].cosigned == 0
    unasked = verify(tmp_path / "log", keys=[VKEY], checkpoint=cosigned)
    assert (unasked.verdict, unasked.streams[0].cosigned) == (Verdict.OK, None)
    # a witness signs only what the log signed: its word alone is enough
    assert verify(tmp_path / "log", keys=[verifier], checkpoint=cosigned).verdict is Verdict.OK


@pytest.mark.parametrize("wrong", ["moment", "key", "note"])
def test_a_false_cosignature_spoils_its_checkpoint(tmp_path: Path, wrong: str) -> None:
    """A line that names a trusted witness and isn't its signature is no checkpoint, whoever else signed it."""
    key, verifier = _witness_key("witness.example/w1")
    notes = sealed(tmp_path / "log", checkpoint_every=5)
    other = SigningKey.generate("Ed25519")
    false = {
        "moment": _cosigned(notes[-1], key, verifier)[:-8] + "AAAAAA=\n",
        "key": _cosigned(notes[-1], other, verifier),
        "note": notes[-1] + _cosigned(notes[0].replace("\n", "x\n", 1), key, verifier).splitlines(keepends=True)[-1],
    }[wrong]
    assert verify(tmp_path / "log", keys=[VKEY], checkpoint=false).verdict is Verdict.OK
    with pytest.raises(InvalidArgument, match="none that one of `keys` signed"):
        verify(tmp_path / "log", keys=[VKEY, verifier], checkpoint=false)


def test_never_is_given_up(server: Loopback) -> None:
    """A witness that says nothing is given up after its time-out."""
    server.answer = never
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        HttpWitness(server.url, loopback_http=True, timeout=0.2)("note\n")
    assert time.monotonic() - begun < 8


# ---- PostgreSQL


def test_a_database_of_somebody_else(tmp_path: Path, postgres: Postgres) -> None:
    """Each checkpoint is a row; a role that may only insert is enough, and what was kept verifies the log."""
    postgres.run("DROP TABLE IF EXISTS agentauthz_checkpoints")
    PostgresWitness(postgres.dsn)(sealed(tmp_path / "first", 1)[0])  # its owner makes the table
    postgres.run("CREATE ROLE log_writer LOGIN; GRANT INSERT ON agentauthz_checkpoints TO log_writer")
    writer = PostgresWitness(postgres.dsn.replace("tests:CANARY", "log_writer"))
    sink = FileSink(tmp_path / "log", key=SIGNER, witness=writer, checkpoint_every=5)
    _fill(sink, 0, 20)
    sink.close()
    assert verify(tmp_path / "log", keys=[VKEY], checkpoint=_of(tmp_path, postgres)).streams[0].exposed == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.notes()
    postgres.run("DROP TABLE agentauthz_checkpoints; DROP ROLE log_writer")


def _of(folder: Path, postgres: Postgres) -> str:
    """Return what the database keeps of the log in a folder; it has another's, too."""
    found = read_checkpoints(PostgresWitness(postgres.dsn).notes())
    [stream] = [path.parent.name for path in logs.segments(folder / "log")]
    assert {each.stream for each in found} > {stream}
    return "\n".join(each.note for each in found if each.stream == stream)


def test_a_database_that_is_gone_is_exposure(tmp_path: Path, postgres: Postgres) -> None:
    """While the server is down records are taken, and failures counted; the newest checkpoint is kept afterwards."""
    postgres.run("DROP TABLE IF EXISTS agentauthz_checkpoints")
    witness = PostgresWitness(postgres.dsn)
    postgres.stop()
    sink = FileSink(tmp_path / "log", key=SIGNER, witness=witness, checkpoint_every=5, checkpoint_idle=0.05)
    with closing(sink):
        _fill(sink, 0, 20)
        until(lambda: sink.exposure is not None and sink.exposure.failures >= 1)
        postgres.start()
        until(lambda: sink.exposure is not None and sink.exposure.records == 0)
    assert verify(tmp_path / "log", keys=[VKEY], checkpoint=witness.notes()).verdict is Verdict.OK
    postgres.run("DROP TABLE agentauthz_checkpoints")


def test_what_is_no_database_is_refused() -> None:
    """A string that is no connection's, a table's name that would need quotes, a time-out of nothing."""
    for given in ({"dsn": "not a dsn CANARY"}, {"dsn": "dbname=x", "table": 'a"b'}, {"dsn": "dbname=x", "timeout": -1}):
        with pytest.raises(InvalidArgument) as error:
            PostgresWitness(**given)
        assert "CANARY" not in everything_told(error.value)
