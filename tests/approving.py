"""Offer what tests of approvals need: reviews that ask, people who may answer, and a store that processes share."""

from __future__ import annotations

import contextlib
import fcntl
import pickle
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz import InstanceKey, Principal, ReviewRequired, authorize
from agentauthz.approvals import Review
from agentauthz.state.memory import MemoryState
from tests.support import Recorded

POLICY: Final = """
permit refunds on shop.* when true
review big
  on shop.*
  when args.amount > 500
  by "lead" in approver.roles and approver != subject
  within 10m
  because "Finance looks at large refunds"
"""
KEY: Final = InstanceKey.from_bytes(b"an instance key for tests, 32 B.")
LEAD: Final = Principal.user("lena", roles=["lead"])
OTHER: Final = Principal.user("otto", roles=["lead"])


@authorize("shop.refund", sensitive=["card"])
def refund(order: str, amount: Decimal | int, note: str = "", card: str = "none") -> str:
    """Give money back."""
    return f"refunded {order} {amount}"


def asked(session: Any, *args: Any, **kwargs: Any) -> Review:
    """Return what a person is asked about a refund that is stopped."""
    with pytest.raises(ReviewRequired) as error:
        session.bind(refund)(*args, **kwargs)
    assert error.value.review is not None
    return error.value.review


def shop(policy: str = POLICY, **options: Any) -> Recorded:
    """Return an authorizer with the tests' key."""
    return Recorded(policy, **{"key": KEY, **options})


def codes(decision: Any) -> list[str]:
    """Return the codes of a decision's reasons."""
    return [reason.code for reason in decision.reasons]


class FileState:
    """Keep approvals in a file that processes share, everything else in memory: as small as a test can have it."""

    blocking = True

    def __init__(self, path: Path, **options: Any) -> None:
        self._path = path
        self._inner: Any = MemoryState(**options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            self._inner._approvals.clear()
            self._inner._approvals.update(pickle.loads(content) if content else {})
            yield
            file.truncate(0)
            file.write(pickle.dumps(self._inner._approvals))

    def commit(self, intent: Any) -> Any:
        with self._locked():
            return self._inner.commit(intent)

    def ask(self, approval: Any) -> Any:
        with self._locked():
            return self._inner.ask(approval)

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        with self._locked():
            return self._inner.answer(*args, **kwargs)

    def approval(self, id: str) -> Any:
        with self._locked():
            return self._inner.approval(id)

    def approvals(self, **given: Any) -> Any:
        with self._locked():
            return self._inner.approvals(**given)

    def rows(self) -> Mapping[str, Any]:
        with self._locked():
            return dict(self._inner._approvals)
