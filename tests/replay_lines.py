"""Make lines of a log of every kind that a replay tells apart, for those tests that replay the same by several ways."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, Final

from agentauthz import Chain, Delegation, Denied, Principal, Request, Resource, authorize
from tests.support import BOT, HELPER, NOON, Recorded

OLD: Final = """
permit small on t.do when args.n <= 10 and "support" in subject.roles
permit named on t.name when subject == user("u1") or resource.id == "o-3" or args.note == "x"
permit timed on t.time when context.at < now
permit paid on t.pay when args.card != "4111"
permit sent on t.send when not done("t.do", 1h)
"""
NEW: Final = OLD.replace("<= 10", "<= 20").replace("small", "bigger") + (
    "forbid nine on t.do when args.n == 9\npermit risky on t.time when context.risk < 3\n"
)


@authorize("t.pay", sensitive=["card"])
def pay(card: str, n: int) -> None:
    """Take a secret, which no record holds."""


def lines(rounds: int) -> list[bytes]:
    """Return the lines of some 20 records for each of `rounds`, and at the end those that are damaged."""
    kept = Recorded(OLD)
    for turn in range(rounds):
        kept.clock.forward(seconds=1)
        _one_round(kept, turn)
    whole = [record.line() for record in kept.sink.records]
    sound = kept.decisions[0].line()
    return [*whole, *(_damaged(damage, sound) for damage in DAMAGES), *NO_RECORDS]


def _one_round(kept: Recorded, turn: int) -> None:
    order = Resource("Order", f"o-{turn % 7}", {"total": turn})
    who = Principal.user(f"u{turn % 5}", roles=["support"] if turn % 3 else [])
    with kept.session(subject=who, purpose="work", context={"at": NOON, "tür": "ü"}) as session:
        for n in (turn % 25, 9):
            session.decide("t.do", args={"n": n, "note": f'{turn} {{}}[] \\ " NaN'}, resource=order)
        session.decide("t.name", args={"note": "x" if turn % 4 else "ü\u2028"}, resource=order)
        session.decide("t.time")
        session.decide("t.send")
        if turn % 5 == 0:
            session.decide("t.do", args={"n": 1}, resource=object())
        with contextlib.suppress(Denied), session.perform("t.do", args={"n": 1}, resource=order):
            pass
        with contextlib.suppress(Denied):
            pay("4111", turn)
        with session.delegate(to=HELPER, actions=["t.*"], expires="10m") as narrower:
            narrower.decide("t.do", args={"n": turn % 30})
    session.decide("t.do", args={"n": 1})
    for subject in (who, BOT):
        kept.authorizer.decide(Request("t.do", subject=subject, args={"n": turn % 12}, now=kept.clock()))
    chain = Chain(who, [Delegation(BOT), Delegation(Principal.agent("x"), handoff=True)])
    kept.authorizer.decide(Request("t.do", subject=who, chain=chain, args={"n": turn % 12}, now=kept.clock()))


def _damaged(damage: Callable[[dict[str, Any]], object], line: bytes) -> bytes:
    tree = json.loads(line)
    damage(tree)
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


# each differs from a record that is sound in what its policies don't read
DAMAGES: Final[tuple[Callable[[dict[str, Any]], object], ...]] = (
    lambda tree: tree.update(ts="yesterday"),
    lambda tree: tree.update(ts="2026-13-45T12:00:00Z"),
    lambda tree: tree.update(session=7),
    lambda tree: tree.update(rules=[1]),
    lambda tree: tree.update(outcome=None),
    lambda tree: tree.update(id="a\ud800"),
    lambda tree: tree["resource"].update(id=7),
    lambda tree: tree["resource"].pop("id"),
    lambda tree: tree["actors"][0].update(sub=""),
    lambda tree: tree["actors"][1].update(iss=None),
    lambda tree: tree["inputs"].append({"name": "args.other", "state": "odd"}),
    lambda tree: tree.pop("policy"),
)
NO_RECORDS: Final = (
    b"\n", b"{\n", b"[]\n", b"\xff\xfe\n", b"{}\n", b"NaN\n", b'{"v":"2.0","type":"decision"}\n',
    b"[" * 100_000 + b"\n",
)  # fmt: skip
