"""From rules to a decision, step by step, on both forms of the policy."""

from __future__ import annotations

import datetime as dt
import sys
from types import FrameType
from typing import Any

import pytest

from agentauthz import (
    UNKNOWN,
    Basis,
    Chain,
    Decision,
    Delegation,
    InvalidArgument,
    Outcome,
    PolicySet,
    Principal,
    Resource,
    SessionFacts,
)
from agentauthz.policy.decide import MAX_NAMED, decide
from tests.deciding import Form, decided, requested
from tests.support import BOT, HELPER, MARIA, NOON

ALL = "permit all on * when true"
PASSED = NOON - dt.timedelta(seconds=1)


def asked(form: Form, text: str, action: str = "t.do", **given: Any) -> Decision:
    """Return the decision on a request under these policies."""
    return decided(form(PolicySet.parse(text)), requested(action, **given))


def settled(decision: Decision) -> tuple[Outcome, Basis, tuple[str, ...]]:
    """Return what a decision comes to."""
    return decision.outcome, decision.basis, decision.rules


# ---- each step, and that it comes before the next

# each line stops a call at its step; all lines together show which one comes first
EXPIRED = SessionFacts("s", NOON - dt.timedelta(hours=1), expires=NOON)
NARROW = Chain(MARIA, (Delegation(BOT, ("other.*",)),))
DECLARED = "action t.do(n: int)"
FORBID = "forbid f on t.do when args.n == 1"
LIMIT = "limit l on t.do when args.n <= 2 to count <= 1 per subject every 1d"
REVIEW = "review r on t.do when args.n <= 3 by approver != subject"
PERMIT = "permit p on t.do when args.n <= 4"
EVERYTHING = "\n".join([DECLARED, FORBID, LIMIT, REVIEW, PERMIT])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"args": {"n": 1, "x": 1}, "chain": NARROW, "session": EXPIRED}, (Outcome.DENY, Basis.REVOKED, ())),
        ({"args": {"n": 1, "x": 1}, "chain": NARROW}, (Outcome.DENY, Basis.AUTHORITY, ())),
        ({"args": {"n": 1, "x": 1}}, (Outcome.DENY, Basis.ERROR, ())),
        ({"args": {"n": 1}}, (Outcome.DENY, Basis.RULE, ("f",))),
        ({"args": {"n": 5}}, (Outcome.DENY, Basis.DEFAULT, ())),
        ({"args": {"n": 2}}, (Outcome.DENY, Basis.LIMIT, ("l",))),
        ({"args": {"n": 3}}, (Outcome.REVIEW, Basis.RULE, ("r",))),
        ({"args": {"n": 4}}, (Outcome.ALLOW, Basis.RULE, ("p",))),
    ],
)  # fmt: skip
def test_the_first_step_that_stops_decides(given: dict[str, Any], expected: Any, form: Form) -> None:
    """Expiry, delegation, arguments, forbids, permits, limits, reviews: in this order, whatever comes later."""
    assert settled(asked(form, EVERYTHING, **given)) == expected


def test_an_empty_set_denies_everything(form: Form) -> None:
    """Where nobody permits anything nothing happens."""
    for text in ("", "# nothing", "type user { a: int }"):
        assert settled(asked(form, text)) == (Outcome.DENY, Basis.DEFAULT, ())


@pytest.mark.parametrize(
    ("effect", "outcome", "basis", "code"),
    [
        ("forbid x on t.do when {}", Outcome.DENY, Basis.UNDETERMINED, "forbidden_undetermined"),
        ("limit x on t.do when {} to count <= 1 per subject every 1d", Outcome.DENY, Basis.LIMIT, "no_budget"),
        ("review x on t.do when {} by approver != subject", Outcome.REVIEW, Basis.RULE, "review_undetermined"),
        ("mark x on t.do when {}", Outcome.ALLOW, Basis.RULE, "permitted"),
        ("permit x on t.do when {} with log()", Outcome.ALLOW, Basis.RULE, "permitted"),
    ],
)  # fmt: skip
def test_an_undetermined_rule_stops_as_a_true_one_does(
    effect: str, outcome: Outcome, basis: Basis, code: str, form: Form
) -> None:
    """Forbids deny, limits count, reviews ask, marks mark and obligations bind where nobody knows."""
    decision = asked(form, f"{ALL}\n{effect.format('args.gone')}")
    assert (decision.outcome, decision.basis) == (outcome, basis)
    assert decision.undetermined == ("x",)
    assert decision.reasons[0].code == code
    stops = outcome is not Outcome.ALLOW
    assert decision.rules == (("x",) if stops else ("all",))
    # a limit counts as if its condition were true: what it takes is known
    assert decision.missing == (("args.gone (absent)",) if stops and basis is not Basis.LIMIT else ())
    assert decision.marks == (("x",) if effect.startswith("mark") else ())
    assert [one.type for one in decision.obligations] == (["log"] if "log()" in effect else [])


def test_true_rules_are_named_before_undetermined_ones(form: Form) -> None:
    """Where a rule stops for certain, those that may stop are told apart from it."""
    decision = asked(form, f"{ALL}\nforbid a on t.do when args.gone\nforbid b on t.do\nforbid c on t.do")
    assert settled(decision) == (Outcome.DENY, Basis.RULE, ("b", "c"))
    assert decision.undetermined == ("a",)
    assert decision.missing == ()


def test_undetermined_rules_are_told_whichever_step_decides(form: Form) -> None:
    """But for authority and errors, where no rule was asked."""
    text = (
        "review r on t.do when args.gone by approver != subject\nmark m on t.do when args.gone\n"
        "limit l on t.do when args.gone to count <= 1 per subject every 1d\npermit o on t.do when args.gone with log()"
    )
    assert asked(form, text).undetermined == ("l", "m", "o", "r")
    assert asked(form, f"{text}\nforbid f on t.do").undetermined == ("l", "m", "o", "r")
    assert asked(form, f"{text}\n{ALL}").undetermined == ("l", "m", "o", "r")
    assert asked(form, text, chain=NARROW).undetermined == ()


def test_a_default_deny_names_what_its_permits_lack(form: Form) -> None:
    """The inputs of permits that could be true are named; those of permits that are false are not."""
    text = "permit a on t.do when args.x == 1\npermit b on t.do when args.y == 1 and args.n == 1"
    assert asked(form, text, args={"n": 2}).missing == ("args.x (absent)",)
    assert asked(form, text, args={"n": UNKNOWN, "y": 1}).missing == ("args.n (unknown)", "args.x (absent)")


def test_inputs_of_sixteen_permits_are_named(form: Form) -> None:
    """Of many permits that lack something the first sixteen by name are looked into, however they were written."""
    numbers = list(range(40, 0, -1))
    text = "\n".join(f"permit p{number:02} on t.do when args.a{number:02} == 1" for number in numbers)
    assert asked(form, text).missing == tuple(f"args.a{number:02} (absent)" for number in range(1, MAX_NAMED + 1))
    text = ALL + "\n" + text.replace("permit", "forbid")
    assert asked(form, text).missing == tuple(f"args.a{number:02} (absent)" for number in range(1, MAX_NAMED + 1))


def test_reasons_name_the_rule_its_place_and_its_words(form: Form) -> None:
    """A reason has a code, a text for people, the rule, where it stands, and what its author says."""
    decision = asked(form, f'{ALL}\nforbid f on t.do because "Not today"\nforbid g on t.do')
    first, second = decision.reasons
    assert (first.code, first.text, first.rule, first.at, first.because) == (
        "forbidden", "Not today", "f", "<policy>:2:1", "Not today",
    )  # fmt: skip
    assert (second.rule, second.because) == ("g", None)
    assert "`g`" in second.text


# ---- expiry, hops, arguments


@pytest.mark.parametrize(
    ("expires", "expired"), [(None, False), (NOON + dt.timedelta(microseconds=1), False), (NOON, True)]
)
def test_a_session_ends_at_its_expiry(expires: dt.datetime | None, expired: bool, form: Form) -> None:
    """The moment of expiry itself is too late."""
    decision = asked(form, ALL, session=SessionFacts("s", NOON - dt.timedelta(hours=1), expires=expires))
    assert (decision.basis is Basis.REVOKED) is expired


def test_the_hop_that_stops_is_named(form: Form) -> None:
    """The message says which delegation it is, and to whom."""
    chain = Chain(MARIA, (Delegation(BOT), Delegation(HELPER, ("docs.*",), "audit", PASSED)))
    assert asked(form, ALL, chain=chain).reasons[0].text == 'delegation 2, to agent("helper"), has expired'
    chain = Chain(MARIA, (Delegation(BOT), Delegation(HELPER, ("docs.*",), "audit")))
    assert (
        asked(form, ALL, chain=chain).reasons[0].text == 'delegation 2, to agent("helper"), doesn\'t cover this action'
    )
    reason = asked(form, ALL, action="docs.read", chain=chain).reasons[0]
    assert reason.text == 'delegation 2, to agent("helper"), doesn\'t cover this purpose'
    assert asked(form, ALL, action="docs.read", chain=chain, purpose="audit").allowed


@pytest.mark.parametrize("action", ["delegation.handoff", "token.exchange"])
def test_every_hop_covers_the_librarys_own_actions_and_no_star_permits_them(action: str, form: Form) -> None:
    """They are narrowed instead of being covered, and only a rule that names them permits them."""
    assert settled(asked(form, ALL, action=action, chain=NARROW)) == (Outcome.DENY, Basis.DEFAULT, ())
    for pattern in (action, action.split(".")[0] + ".*"):
        assert asked(form, f"permit own on {pattern} when true", action=action, chain=NARROW).allowed
    assert asked(form, f"permit own on {action} when true\nforbid all on *", action=action, chain=NARROW).allowed


@pytest.mark.parametrize(
    ("args", "basis"),
    [
        ({"n": 1}, Basis.RULE), ({}, Basis.RULE), (UNKNOWN, Basis.RULE), ({"n": 1, "m": 2}, Basis.ERROR),
        ({"n": 1, "_n": 2}, Basis.ERROR), ({"n": 1, "m": None}, Basis.ERROR), ({"N": 1}, Basis.ERROR),
        ({"": 1}, Basis.ERROR),
    ],
)  # fmt: skip
def test_a_declared_action_has_no_other_arguments(args: Any, basis: Basis, form: Form) -> None:
    """An argument that the declaration doesn't have is an error; where nothing is declared any may come."""
    assert asked(form, f"action t.do(n: int)\n{ALL}", args=args).basis is basis
    assert asked(form, f"action t.do\n{ALL}", args=args).allowed
    assert asked(form, ALL, args=args).allowed


# ---- who is judged


def chain(*hops: Delegation, subject: Principal = MARIA) -> dict[str, Any]:
    """Return the parts of a request for a chain."""
    return {"subject": subject, "chain": Chain(subject, hops)}


ONLY_HELPER = 'permit p on t.do when actor == agent("helper")'
NOT_BOT = f'{ALL}\nforbid f on t.do when actor == agent("bot")'


@pytest.mark.parametrize(
    ("given", "judged"),
    [
        (chain(Delegation(HELPER)), False),  # a person's own right isn't asked for
        (chain(Delegation(BOT), Delegation(HELPER)), True),
        (chain(Delegation(HELPER), subject=BOT), True),  # an agent as subject is
        (chain(Delegation(HELPER), subject=Principal.service("bot")), False),
        (chain(Delegation(BOT), Delegation(HELPER, via="token")), False),
        (chain(Delegation(HELPER, via="token"), subject=BOT), False),
        (chain(Delegation(BOT, via="token"), Delegation(HELPER)), True),
        (chain(Delegation(BOT), Delegation(HELPER, via="token"), Delegation(HELPER)), False),
        (chain(Delegation(BOT), Delegation(HELPER, via="session")), True),
        (chain(Delegation(BOT), Delegation(HELPER, handoff=True, via="session")), False),
        (chain(Delegation(BOT), Delegation(HELPER, handoff=True)), True),  # nobody permits the hand-off
    ],
)  # fmt: skip
def test_who_is_judged_beside_the_actor(given: dict[str, Any], judged: bool, form: Form) -> None:
    """Whoever passed on is: each needs a permit, and any forbid stops. A token or a hand-off ends it."""
    assert asked(form, ONLY_HELPER, **given).allowed is not judged
    assert asked(form, NOT_BOT, **given).allowed is not judged


@pytest.mark.parametrize(
    ("permit", "allowed"),
    [
        ("permit h on delegation.handoff when true", True),
        ('permit h on delegation.handoff when actor == agent("bot") and args.to == agent("helper")', True),
        ('permit h on delegation.handoff when "t.do" in args.actions and args.purpose == "audit"', True),
        ('permit h on delegation.handoff when actor == agent("helper")', False),
        ('permit h on delegation.handoff when args.purpose == "else"', False),
        ("permit h on delegation.handoff when exists resource", False),
        ("permit h on delegation.handoff when args.n == 1", False),
        ("permit h on delegation.handoff when true\nforbid g on delegation.handoff when args.gone", False),
        ("permit h on delegation.handoff when true\nreview g on delegation.handoff by approver != subject", False),
        ("permit h on delegation.handoff when true\nlimit g on delegation.* to count <= 9 per subject every 1d", False),
        ("permit h on * when true", False),
    ],
)  # fmt: skip
def test_a_hand_off_by_the_host_is_asked_of_its_giver(permit: str, allowed: bool, form: Form) -> None:
    """`delegation.handoff` is decided with its own arguments and no resource; only an allow hands off."""
    hops = chain(Delegation(BOT, purpose="audit"), Delegation(HELPER, ("t.do",), "audit", handoff=True))
    given = {**hops, "args": {"n": 1}, "purpose": "audit", "resource": Resource("Order", "o-1")}
    text = f'{permit}\npermit p on t.do when actor == agent("helper")'
    if "on *" in permit:  # it would permit the bot as well
        text = text.replace("when true", 'when action.name != "t.do"')
    assert asked(form, text, **given).allowed is allowed


def test_a_hand_off_is_judged_for_all_who_passed_on_to_the_giver(form: Form) -> None:
    """A forbid on an agent before the giver stops the hand-off, and so the call."""
    third = Principal.agent("third")
    hops = chain(Delegation(third), Delegation(BOT), Delegation(HELPER, handoff=True))
    text = f"{ONLY_HELPER}\npermit h on delegation.handoff when true"
    assert asked(form, text, **hops).allowed
    stopped = f'{text}\nforbid g on delegation.handoff when actor == agent("third")'
    assert not asked(form, stopped, **hops).allowed


def test_hops_before_a_hand_off_still_narrow(form: Form) -> None:
    """Their actions, purpose and expiry bind, though nobody judges those agents."""
    text = f"{ONLY_HELPER}\npermit h on delegation.handoff when true"
    for hop in (Delegation(BOT, ("x.*",)), Delegation(BOT, purpose="x"), Delegation(BOT, expires=PASSED)):
        assert not asked(form, text, **chain(hop, Delegation(HELPER, handoff=True))).allowed


def test_unions_over_all_who_are_judged(form: Form) -> None:
    """Permits, reviews, marks and obligations of each judged call come together, each once and in order."""
    text = """
permit a on t.do when actor == agent("helper") with log(who: "helper")
permit b on t.do when actor == agent("bot") with log(who: "bot")
mark m on t.do when actor == agent("bot")
mark n on t.do
"""
    decision = asked(form, text, **chain(Delegation(BOT), Delegation(HELPER)))
    assert settled(decision) == (Outcome.ALLOW, Basis.RULE, ("a", "b"))
    assert decision.marks == ("m", "n")
    assert [(one.id, one.properties["who"]) for one in decision.obligations] == [("a.0", "helper"), ("b.0", "bot")]
    review = asked(form, text + "review r on t.do when actor == agent(\"bot\") by approver != subject",
                   **chain(Delegation(BOT), Delegation(HELPER)))  # fmt: skip
    assert settled(review) == (Outcome.REVIEW, Basis.RULE, ("r",))


def test_the_one_without_a_permit_is_named(form: Form) -> None:
    """A default deny among several says for whom no permit was found."""
    decision = asked(form, ONLY_HELPER, **chain(Delegation(BOT), Delegation(HELPER)))
    assert decision.reasons[0].text == 'no permit allows this for agent("bot")'


# ---- the rest


def test_each_decision_carries_the_digest(form: Form) -> None:
    """Whatever it comes to, a decision says by which policies."""
    for given in ({}, {"chain": NARROW}, {"action": "other"}):
        policies = form(PolicySet.parse("permit p on t.do when true"))
        assert decided(policies, requested(**given)).policy_digest == policies.digest


@pytest.mark.parametrize("request_", [None, "t.do", {}, object(), 7])
def test_only_a_request_is_decided(request_: Any, form: Form) -> None:
    """Anything else is refused with a clear error."""
    with pytest.raises(InvalidArgument, match="must be a Request"):
        form(PolicySet.parse(ALL)).decide(request_)


# ---- what calls share


def test_a_rule_for_several_actions_allows_each_under_its_own_name(form: Form) -> None:
    """An allow is shared by the calls of one action, not by all that the same rules allow."""
    policies = form(PolicySet.parse("permit p on t.* when true"))
    names = ["t.a", "t.b", "t.b", "t.a", "t.a"]
    assert [decided(policies, requested(name)).action for name in names] == names


def test_what_other_threads_decide_meanwhile_changes_no_allow(form: Form) -> None:
    """Between any two lines of a decision another may be taken by the same rules; each keeps its own action."""
    policies = form(PolicySet.parse("permit p on t.* when true"))
    decided(policies, requested("t.a"))
    others: list[str] = []

    def meanwhile(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            others.append(policies.decide(requested(f"t.other{len(others)}")).action)
        return meanwhile if frame.f_code is decide.__code__ else None

    tracing = sys.gettrace()
    sys.settrace(meanwhile)
    try:
        decision = policies.decide(requested("t.b"))
    finally:
        sys.settrace(tracing)
    assert decision.action == "t.b"
    assert others == [f"t.other{place}" for place in range(len(others))]
    assert len(others) > 5


def test_what_is_done_to_an_obligation_changes_no_later_one(form: Form) -> None:
    """Who carries an obligation out gets its own properties, not those of the rule."""
    policies = form(PolicySet.parse('permit p on t.do when true with log(to: "audit", days: [1, 2])'))
    for _ in range(3):
        [obligation] = policies.decide(requested()).obligations
        assert obligation.properties == {"to": "audit", "days": (1, 2)}
        obligation.properties.clear()  # type: ignore[attr-defined]  # it is a dict, as records and JSON want it
