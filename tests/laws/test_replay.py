"""The laws of replay: a record holds all that its decision rested on, and other policies are never guessed about."""

from __future__ import annotations

import json
from typing import Final

from hypothesis import strategies as st

from agentauthz.authorizer import Authorizer
from agentauthz.errors import NotReplayable
from agentauthz.obligations import Duty
from agentauthz.policy.policyset import PolicySet
from agentauthz.records import MemorySink
from agentauthz.replay.answer import Answer, Asker
from agentauthz.replay.question import Tree
from tests.laws.counting import TALLY, law
from tests.replaying import disagreement
from tests.strategies.cases import Case, cases
from tests.strategies.plans import Plan

HELD_BACK: Final = ("was too big for the record", "was too much for the record", "isn't whole in the record")


@law(cases(requests=8), pairs=100_000, quick=300, each=8)
def test_a_record_replays_under_its_own_policies(shard: int, case: Case) -> None:
    """What is read back from a record's line and asked again gives the same outcome, basis and lists of rules.

    Only one that holds back just what is asked for, since it is too large, can't be replayed.
    """
    for plan in case.plans:
        line = json.dumps(recorded(case.made, plan)).encode()
        TALLY.applied()
        assert wrong(line, case.made) is None, line


@law(st.tuples(cases(requests=8, compiled=True), cases(requests=1, compiled=True)), pairs=100_000, quick=300, each=8)
def test_what_replays_under_other_policies_is_what_they_decide(shard: int, two: tuple[Case, Case]) -> None:
    """Records of one policy set, replayed under another, come out as that one decides the calls, or not at all."""
    case, other = two
    asker = Asker(other.made)
    for plan in case.plans:
        then, now = recorded(case.made, plan), recorded(other.made, plan)
        if now.get("cause") == "approval":
            continue  # no person could be asked about this call, which isn't the policies' to say
        try:
            answer = asker.answer(then)
        except NotReplayable:
            continue
        TALLY.applied()
        assert answer == Answer.recorded(now)


def wrong(line: bytes, policies: PolicySet) -> str | None:
    """Return how a record fails to replay under its own policies; None: it doesn't, or it holds back what is asked."""
    try:
        return disagreement(line, policies)
    except NotReplayable as cause:
        return None if cause.reason.endswith(HELD_BACK) else cause.reason


def _tell(duty: Duty) -> bool:
    """Carry the obligation out for some calls, whatever the policies are, and fail for the others."""
    return duty.request.route is None


def recorded(policies: PolicySet, plan: Plan) -> Tree:
    """Return the record of one decision, in a session that remembers nothing else."""
    sink = MemorySink()
    TALLY.pair(Authorizer(policies, sinks=[sink], obligations={"tell": _tell}).decide_verified(plan.request()))
    tree: Tree = json.loads(sink.decisions[0].line())
    return tree
