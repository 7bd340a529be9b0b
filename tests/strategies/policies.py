"""Generate policy sets, as texts of statements: valid ones, from a vocabulary that the generated requests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

from attrs import field, frozen

from agentauthz.errors import PolicyCheckError
from agentauthz.policy.policyset import PolicySet
from tests.strategies.choose import Choose
from tests.strategies.conditions import Function, Where, condition, lets
from tests.strategies.reach import Reach, everywhere, reach
from tests.strategies.terms import NUMBERS
from tests.strategies.world import ACTIONS, HANDOFF, MARKS, World

EFFECTS: Final = ("permit", "forbid", "review", "limit", "mark")


@final
@frozen
class Policy:
    """Be a generated policy set: its statements, rules named by their effect first (`permit_0`), and what it means."""

    statements: tuple[str, ...]
    world: World
    functions: tuple[Function, ...] = ()
    dropped: tuple[str, ...] = field(default=(), eq=False)  # statements that the checker didn't take

    @property
    def text(self) -> str:
        """Return the policy set's text, a statement a line."""
        return "\n".join(self.statements)

    def rules(self, effect: str = "") -> list[str]:
        """Return the statements that are rules, of one effect if it is given."""
        wanted = (effect,) if effect else EFFECTS
        return [statement for statement in self.statements if statement.split(" ", 1)[0] in wanted]

    def without(self, statement: str) -> str:
        """Return the text without one statement."""
        return "\n".join(other for other in self.statements if other is not statement)

    def marks(self) -> tuple[str, ...]:
        """Return the marks that conditions may ask for."""
        words = [statement.split() for statement in self.rules("mark")]
        return (*dict.fromkeys(word[3] if word[2] == "as" else word[1] for word in words), *self.world.marks())


def pattern_text(choose: Choose) -> list[str]:
    """Return the patterns of one rule."""
    exact = [f'"{name}"' if "/" in name else name for name in ACTIONS]
    how = choose.weighted(((3, "all"), (5, "exact"), (2, "prefix"), (2, "two"), (1, "own")))
    if how == "all":
        return ["*"]
    if how == "exact":
        return [choose.one(exact)]
    if how == "prefix":
        return [choose.one(("pay.*", "crm.*", "mail.*"))]
    if how == "own":
        return [choose.one((HANDOFF, "delegation.*"))]
    return list(dict.fromkeys(choose.one([*exact, "pay.*"]) for _ in range(2)))


def rule_text(
    choose: Choose, effect: str, number: int, here: World, marks: Sequence[str], functions: Sequence[Function]
) -> str:
    """Return one rule."""
    patterns = pattern_text(choose)
    if effect == "permit" and choose.chance(50):
        patterns = ["*"] if choose.chance(80) else [HANDOFF]
    seen = reach(here, patterns, tuple(marks))
    where = Where(choose, seen, 1 if effect == "permit" else -1, effect == "permit", functions)
    head = f"{effect} {effect}_{number}{_mark(choose, effect)} on {', '.join(patterns)}"
    clauses = [_when(choose, effect, where), *_CLAUSES[effect](choose, seen)]
    if effect == "permit" and clauses[0] == "":
        clauses[0] = "when true"
    if choose.chance(20):
        clauses.append(f'because "reason {number}"')
    return " ".join([head, *filter(None, clauses)])


def _mark(choose: Choose, effect: str) -> str:
    return f" as {choose.one(MARKS)}" if effect == "mark" else ""


def _when(choose: Choose, effect: str, where: Where) -> str:
    """Return the condition: permits are mostly easy, the others mostly demand more than one thing."""
    if effect == "permit":
        how = choose.weighted(((3, "none"), (4, "one"), (4, "tree"), (1, "unless")))
    elif effect in ("review", "mark"):
        how = choose.weighted(((2, "none"), (4, "one"), (2, "both"), (3, "tree")))
    else:
        how = choose.weighted(((1, "none"), (2, "one"), (5, "both"), (4, "tree"), (2, "unless")))
    if how == "none":
        return ""
    if how == "one":
        return f"when {condition(where, 0)}"
    if how == "both":
        return f"when {condition(where, 0)} and {condition(where, 1)}"
    if how == "unless":
        return f"when {condition(where, 1)} unless {condition(where.negated(), 1)}"
    return f"when {condition(where, 3)}"


def _permit_clauses(choose: Choose, seen: Reach) -> list[str]:
    return ['with tell(to: "ops", level: 2)'] if choose.chance(15) else []


def _review_clauses(choose: Choose, seen: Reach) -> list[str]:
    by = choose.one(('"admin" in approver.roles and approver != subject', "approver != subject and approver is user"))
    return [f"by {by}", choose.one(("", "within 30m"))]


def _limit_clauses(choose: Choose, seen: Reach) -> list[str]:
    numbers = [place.text for place in seen.of("number") if place.guard is None and place.status != "optional"]
    words = [place.text for place in seen.of("string") if place.guard is None and place.status != "optional"]
    bound = choose.one(numbers) if numbers and choose.chance(15) else choose.one(NUMBERS[5:8])
    amount = choose.one(numbers) if numbers else "1"
    if choose.chance(25):
        amount = f"{amount} {choose.one('+-*')} {choose.one(NUMBERS[:9])}"
    to = f"to sum({amount}) <= {bound}" if choose.chance(60) else f"to count <= {bound}"
    keys = ["subject", *choose.some((*words[:3], *words[-2:], *numbers[:1], "actor", "now", "action.name"), 15)]
    return [to, *choose.one(((f"per {', '.join(dict.fromkeys(keys))}", "every 1d"), ("per session",)))]


_CLAUSES: Final[dict[str, Callable[[Choose, Reach], list[str]]]] = {
    "permit": _permit_clauses,
    "forbid": lambda choose, seen: [],
    "review": _review_clauses,
    "limit": _limit_clauses,
    "mark": lambda choose, seen: [],
}


def statements(choose: Choose, here: World, most: int = 3) -> tuple[list[str], list[Function]]:
    """Return the statements of a policy set in `here`, which may break a rule of the checker here and there."""
    texts, functions = lets(choose, everywhere(here))
    set_marks = choose.some(range(len(MARKS)), 40)
    marks: list[str] = list(here.marks())
    rules = [rule_text(choose, "mark", number, here, (), functions) for number in set_marks]
    marks += dict.fromkeys(text.split()[3] for text in rules)
    for effect, fewest, extra in (("permit", 1, most), ("forbid", 0, 2), ("review", 0, 3), ("limit", 0, 1)):
        how_many = fewest + choose.up_to(extra)
        rules += [rule_text(choose, effect, number, here, marks, functions) for number in range(how_many)]
    return [*here.statements(), *texts, *rules], functions


def valid(texts: Sequence[str], here: World, functions: Sequence[Function]) -> tuple[Policy, PolicySet]:
    """Return the policy of those statements that the checker takes, and the policy set that it is."""
    left, dropped = list(texts), list[str]()
    while True:
        try:
            made = PolicySet.parse("\n".join(left))
        except PolicyCheckError as error:
            wrong = {
                d.span.source.text.count("\n", 0, d.span.start) for d in error.diagnostics if d.severity == "error"
            }
            dropped += [left[line] for line in sorted(wrong)]
            left = [text for line, text in enumerate(left) if line not in wrong]
        else:
            return Policy(tuple(left), here, tuple(functions), tuple(dropped)), made
