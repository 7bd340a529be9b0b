"""Set up what tests share: Hypothesis profiles, `quick` (the default) and `long` (`make laws`); coroutines; `form`."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.deciding import FORMS, Form
from tests.faults.failing import failing as failing
from tests.nats_server import nats_server as nats_server
from tests.postgres import postgres as postgres
from tests.postgres import postgres_server as postgres_server
from tests.record_schema import checked_lines
from tests.replaying import replayed_records

# Hypothesis has a profile of its own for CI, whose examples are always the same: ours search everywhere
_PARENT = settings.get_profile("default")
settings.register_profile("quick", _PARENT, deadline=None, print_blob=True)
settings.register_profile(
    "long", _PARENT, deadline=None, print_blob=True, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(params=sorted(FORMS))
def form(request: pytest.FixtureRequest) -> Form:
    """Return what puts a policy set into one of its two forms: what holds must hold in both."""
    return FORMS[request.param]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests that are coroutine functions, each in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True)
def _valid_records() -> Iterator[None]:
    """Hold every record that a test writes to the schema that is shipped, and replay it under its own policies."""
    with checked_lines(), replayed_records():
        yield
