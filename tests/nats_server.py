"""Run a real NATS server for tests, with JetStream in a temporary folder."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import nats
import pytest


@final
class Nats:
    """Be one server, which keeps its port and what it stored when it is stopped and started again."""

    def __init__(self, program: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._command = [
            program,
            "-js",
            "-sd",
            str(folder),
            "-a",
            "127.0.0.1",
            "-p",
            str(self._port),
            "--user",
            "tests",
        ]
        self._command += ["--pass", "CANARY"]
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"nats://127.0.0.1:{self._port}"
        self.options = {"user": "tests", "password": "CANARY"}

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._server = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                assert time.monotonic() < ends, "the server doesn't start"
                time.sleep(0.02)

    def stop(self) -> None:
        """Kill it."""
        server, self._server = self._server, None
        if server is not None:
            server.kill()
            server.wait(20)

    def make_stream(self) -> None:
        """Make the stream that keeps records."""
        asyncio.run(self._with(lambda stream: stream.add_stream(name="RECORDS", subjects=["agentauthz.>"])))

    def kept(self) -> list[Any]:
        """Return all messages that the stream keeps, in order."""

        async def read(stream: Any) -> list[Any]:
            info = await stream.stream_info("RECORDS")
            return [await stream.get_msg("RECORDS", seq) for seq in range(1, info.state.messages + 1)]

        found: list[Any] = asyncio.run(self._with(read))
        return found

    async def _with(self, work: Any) -> Any:
        client = await nats.connect(self.url, **self.options)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[Nats]:
    """Run a server; skip where there is none to be had."""
    program = shutil.which("nats-server", path="/usr/sbin:/usr/local/bin:/usr/bin") or shutil.which("nats-server")
    if program is None:
        pytest.skip("no nats-server here; Debian has it as the package `nats-server`")
    server = Nats(program, tmp_path / "jetstream")
    server.start()
    yield server
    server.stop()
