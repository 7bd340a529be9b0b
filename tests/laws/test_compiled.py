"""The law of the two evaluators."""

from __future__ import annotations

from agentauthz.policy import decide as deciding
from agentauthz.policy.policyset import PolicySet
from tests.laws.asking import account
from tests.laws.counting import TALLY, law
from tests.strategies.cases import Case, cases
from tests.strategies.plans import Plan


@law(cases(requests=10, compiled=True), pairs=200_000, quick=1_000, each=10)
def test_compile_equals_evaluate(shard: int, case: Case) -> None:
    """The compiled functions say all that the definition says, when first asked and from then on."""
    defined = case.made.on_definition()
    for plan in case.plans:
        expected = defined.decide(plan.request())
        TALLY.pair(expected)
        TALLY.applied()
        for _ in range(2):  # a group of rules may be compiled only when it is met again
            assert account(case.made.decide(plan.request())) == account(expected)
        _equal_verdicts(case.made, defined, plan)


def _equal_verdicts(compiled: PolicySet, defined: PolicySet, plan: Plan) -> None:
    """Check each judged call by itself, also where another one settled the decision."""
    fast, slow = (deciding.inputs_of(made._decider, plan.request()) for made in (compiled, defined))
    calls = zip(deciding.judged(compiled._decider, fast), deciding.judged(defined._decider, slow), strict=True)
    for one, other in calls:
        ours, theirs = compiled._decider.verdict(one), defined._decider.verdict(other)
        assert (dict(ours.true), dict(ours.undetermined)) == (dict(theirs.true), dict(theirs.undetermined))
        unsure = list(compiled._decider.undetermined_permits(one))
        assert unsure == list(defined._decider.undetermined_permits(other))
