"""Serve an ASGI application on loopback, in a thread, for tests that need real HTTP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


@contextmanager
def serving(application: Callable[[str], Any]) -> Iterator[str]:
    """Serve what `application` makes of its own address, and yield that address; the port is free, of the system."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(application(address), lifespan="on", log_level="critical", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            _wait(lambda: server.started or not thread.is_alive())
            assert server.started, "the server didn't start"
            yield address
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive(), "the server didn't stop"


def _wait(done: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)
