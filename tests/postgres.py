"""Run a real PostgreSQL for tests: the system's, as a user without privileges, on a socket in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, final

import psycopg
import pytest

from agentauthz.state.postgres import init

NO_SERVER: Final = "no PostgreSQL here: `initdb` is neither in /usr/lib/postgresql/*/bin nor on the PATH"


def binaries() -> Path | None:
    """Return the folder of the newest PostgreSQL on this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@final
class Postgres:
    """Be one server; it may be stopped, killed and started again."""

    def __init__(
        self,
        folder: Path,
        programs: Path,
        settings: tuple[str, ...] = ("-c", "fsync=off"),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder = folder
        self._environment = os.environ | environment
        self._settings = settings  # no test cuts the power: what the system has of a file, it keeps
        self._programs = programs
        # PostgreSQL refuses to run as root
        self._user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
        os.chown(folder, self._user, -1)
        self._run(
            "initdb",
            "-D",
            str(folder / "data"),
            "-U",
            "tests",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale",
            "C",
        )
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """Return where it listens; there is a password in it, which the server never asks for."""
        return f"postgresql://tests:CANARY@/postgres?host={self._folder}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [
            "-D",
            str(self._folder / "data"),
            "-k",
            str(self._folder),
            "-c",
            "listen_addresses=",
            *self._settings,
        ]
        self._server = subprocess.Popen(
            [self._programs / "postgres", *options],
            user=self._user,
            cwd=self._folder,
            env=self._environment,
            stderr=subprocess.DEVNULL,
        )
        ends = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < ends, "the server doesn't start"
                assert self._server.poll() is None, "the server ended"
                time.sleep(0.05)

    @property
    def runs(self) -> bool:
        """Say whether it hasn't ended by itself."""
        return self._server is not None and self._server.poll() is None

    def stop(self) -> None:
        """Stop it: connections are cut."""
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(signal.SIGINT)
            server.wait(30)

    def crash(self) -> None:
        """Let it end as in a crash, without shutting down."""
        self._signal(signal.SIGQUIT)
        server, self._server = self._server, None
        if server is not None:
            server.wait(30)

    def pause(self) -> None:
        """Let it and all that serve its connections stand still."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._server is None:
            return
        for process in (*_children(self._server.pid), self._server.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def prepared(self) -> str:
        """Return where its database is, which keeps no state yet."""
        self.run("DROP SCHEMA IF EXISTS agentauthz CASCADE")
        init(self.dsn)
        return self.dsn

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Return what a query finds."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(query.encode(), values or None).fetchall()

    def run(self, query: str) -> None:
        """Run a statement that returns nothing."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(query.encode())

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command, user=self._user, cwd=self._folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in told.stdout.split()]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """Run one server for all tests; skip those that need it where there is none to be had."""
    programs = binaries()
    if programs is None:
        pytest.skip(NO_SERVER)
    folder = Path(tempfile.mkdtemp(prefix="agentauthz-pg-"))  # short: a socket's path is at most 107 bytes
    try:
        server = Postgres(folder, programs)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: Postgres) -> Postgres:
    """Return the server, running, without the tables of records that a test before has left."""
    if postgres_server._server is None:
        postgres_server.start()
    postgres_server.run("DROP TABLE IF EXISTS agentauthz_records")
    return postgres_server
