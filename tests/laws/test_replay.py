"""The law of replay: a record holds all that its decision rested on."""

from __future__ import annotations

from agentauthz.authorizer import Authorizer
from agentauthz.records import MemorySink
from tests.laws.counting import TALLY, law
from tests.replaying import disagreement
from tests.strategies.cases import Case, cases


@law(cases(requests=8), pairs=100_000, quick=300, each=8)
def test_a_record_replays_under_its_own_policies(shard: int, case: Case) -> None:
    """What is read back from a record's line and asked again gives the same outcome, basis and lists of rules."""
    sink = MemorySink()
    authorizer = Authorizer(case.made, sinks=[sink])
    for plan in case.plans:
        TALLY.pair(authorizer.decide_verified(plan.request()))
        TALLY.applied()
    for record in sink.decisions:
        assert disagreement(record.line(), case.made) is None, record.line()
