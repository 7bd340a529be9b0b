"""Generate conditions, as text: every operator, function and quantifier, in the places where polarity allows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias, final

from attrs import define, evolve, frozen

from tests.strategies.choose import Choose
from tests.strategies.reach import Place, Reach
from tests.strategies.terms import NUMBERS, Term, literal, quoted, read, term, words
from tests.strategies.world import ACTIONS, NAMES, TAGS, Kind

ORDERED: Final[tuple[Kind, ...]] = ("number", "number", "time", "duration")


@final
@frozen
class Function:
    """Be a `let` that conditions may use: `kind` of its parameter (None: it has none)."""

    name: str
    kind: Kind | Literal["principal"] | None


@final
@define
class Where:
    """Be where a condition stands: `sign` 1 in permits, -1 in the other rules, 0 where neither way is safe."""

    choose: Choose
    reach: Reach
    sign: int
    permit: bool
    lets: Sequence[Function] = ()
    quantifiers: int = 0

    def negated(self) -> Where:
        """Return the same place below a `not`."""
        return evolve(self, sign=-self.sign)

    def neutral(self) -> Where:
        """Return the same place where neither way of polarity is safe."""
        return evolve(self, sign=0)


Maker: TypeAlias = Callable[[Where, int], str]


def condition(place: Where, depth: int = 2) -> str:
    """Return a condition that can stand anywhere a `comparison` can (compound ones in parentheses)."""
    choose = place.choose
    if depth > 0 and choose.chance(45):
        return choose.weighted(_COMPOUND)(place, depth - 1)
    return choose.weighted(_ATOMS)(place, depth)


def _guarded(place: Where, guards: Sequence[str], text: str) -> str:
    if not guards:
        return text
    if place.choose.chance(80):
        return f"({' and '.join([*dict.fromkeys(guards), text])})"
    return f"(not ({' and '.join(dict.fromkeys(guards))}) or {text})"


# ---- compound conditions


def _and(place: Where, depth: int) -> str:
    return f"({' and '.join(condition(place, depth) for _ in range(2 + place.choose.up_to(1)))})"


def _or(place: Where, depth: int) -> str:
    return f"({' or '.join(condition(place, depth) for _ in range(2 + place.choose.up_to(1)))})"


def _not(place: Where, depth: int) -> str:
    return f"(not {condition(place.negated(), depth)})"


def _quantifier(place: Where, depth: int) -> str:
    choose = place.choose
    if place.quantifiers >= 2:
        return condition(place, 0)
    kind: Kind = choose.one(_LISTS)
    places = place.reach.of(kind)
    over = choose.one(places) if places else None
    if over is None or choose.chance(10):
        kind, over = "strings", Place(literal(choose, "strings"), "strings", "required", name="tags")
    source = read(choose, over, place.permit) if over.text[0] != "[" else Term(over.text)
    variable = f"v{place.quantifiers}"
    inner = evolve(place, reach=_with_variable(place.reach, variable, kind, over), quantifiers=place.quantifiers + 1)
    body = condition(inner, depth) if choose.chance(40) else _about_variable(inner, variable, kind, over.name)
    return _guarded(place, source.guards, f"({choose.one(('any', 'every'))} {variable} in {source.text}: ({body}))")


_LISTS: Final[tuple[Kind, ...]] = ("strings", "records", "numbers", "strings")


def _with_variable(reach: Reach, variable: str, kind: Kind, over: Place) -> Reach:
    variables: dict[Kind, list[Place]] = {key: list(places) for key, places in reach.variables.items()}
    declared = over.status != "free"
    if kind == "records":
        variables.setdefault("string", []).append(
            Place(f"{variable}.sku", "string", "required" if declared else "free", name="sku")
        )
        variables["string"].append(Place(f"{variable}.b", "string", "optional" if declared else "free", name="b"))
        variables.setdefault("number", []).append(
            Place(f"{variable}.n", "number", "required" if declared else "free", name="n")
        )
    else:
        variables.setdefault("number" if kind == "numbers" else "string", []).append(
            Place(variable, "number" if kind == "numbers" else "string", "required", name=over.name)
        )
    return evolve(reach, variables=variables)


def _about_variable(place: Where, variable: str, kind: Kind, name: str) -> str:
    choose = place.choose
    if kind == "numbers":
        return f"{variable} {choose.one(('<=', '>', '==', '!='))} {choose.one(NUMBERS)}"
    if kind == "records":
        return choose.one((
            f"{variable}.n {choose.one(('<=', '>'))} {choose.one(NUMBERS)}",
            f"{variable}.sku == {quoted(choose.one(TAGS))}",
            f'({variable}.b ?? "x") == {quoted(choose.one(("x", "y")))}',
        ))  # fmt: skip
    return f"{variable} {choose.one(('==', '!='))} {quoted(choose.one(words(name)))}"


def _let(place: Where, depth: int) -> str:
    if not place.lets:
        return condition(place, depth)
    used = place.choose.one(place.lets)
    if used.kind is None:
        return used.name
    if used.kind == "principal":
        return f"{used.name}({place.choose.one(('actor', 'subject'))})"
    of = term(place.choose, place.reach, used.kind, place.permit, 1)
    return _guarded(place, of.guards, f"{used.name}({of.text})")


def _compared(place: Where, depth: int) -> str:
    inner = place.neutral()
    operator = place.choose.one(("==", "!="))
    return f"(({condition(inner, depth)}) {operator} ({condition(inner, depth)}))"


# ---- atoms


def _order(place: Where, depth: int) -> str:
    choose = place.choose
    kind = choose.one(ORDERED)
    left = term(choose, place.reach, kind, place.permit)
    right = Term(literal(choose, kind)) if choose.chance(60) else term(choose, place.reach, kind, place.permit, 1)
    return _guarded(
        place,
        (*left.guards, *right.guards),
        f"{left.text} {choose.one(('<=', '>', '<', '>=', '==', '!='))} {right.text}",
    )


def _string(place: Where, depth: int) -> str:
    choose = place.choose
    left = term(choose, place.reach, "string", place.permit, 1)
    how = choose.up_to(5)
    if how <= 2:
        listed = [quoted(word) for word in choose.some(words(left.name), 60)] or [quoted(words(left.name)[0])]
        if how == 0:
            return _guarded(place, left.guards, f"{left.text} {choose.one(('==', '!='))} {listed[0]}")
        return _guarded(place, left.guards, f"{left.text} {choose.one(('in', 'not in'))} [{', '.join(listed)}]")
    if how == 3:
        pattern = choose.one(("*", "a*", "*e*", "*example*", "x", "m*a", "a\\*b", "/srv/*", "*com*"))
        return _guarded(place, left.guards, f'{left.text} like "{pattern}"')
    if how == 4:
        function = choose.one(("starts_with", "ends_with", "contains"))
        return _guarded(
            place, left.guards, f"{function}({left.text}, {quoted(choose.one(('a', 'e', 'maria', '', '.com')))})"
        )
    right = term(choose, place.reach, "string", place.permit, 0)
    if right.name != left.name and {right.name, left.name} & _ENUMERATED:
        return _about_kind(place, depth)
    return _guarded(place, (*left.guards, *right.guards), f"{left.text} == {right.text}")


_ENUMERATED: Final = frozenset({"org", "level", "env", "weekday", "vip"})


def _member(place: Where, depth: int) -> str:
    choose = place.choose
    places = place.reach.of("strings")
    if not places:
        return _string(place, depth)
    of = read(choose, choose.one(places), place.permit)
    if choose.chance(15):
        other = read(choose, choose.one(places), place.permit)
        return _guarded(place, (*of.guards, *other.guards), f"{of.text} {choose.one(('==', '!='))} {other.text}")
    word = quoted(choose.one(words(of.name)))
    return _guarded(place, of.guards, f"{word} {choose.one(('in', 'in', 'not in'))} {of.text}")


def _bool(place: Where, depth: int) -> str:
    of = term(place.choose, place.reach, "bool", place.permit, 0)
    if of.text in ("true", "false"):
        return _string(place, depth)
    if "??" in of.text:
        return _guarded(place, of.guards, f"({of.text})")
    return _guarded(place, of.guards, of.text)


def _about_kind(place: Where, depth: int) -> str:
    choose = place.choose
    if place.reach.types and choose.chance(40):
        return f"resource is {choose.one(place.reach.types)}"
    return f"{choose.one(('actor', 'subject'))} is {choose.one(('agent', 'user', 'service'))}"


def _principals(place: Where, depth: int) -> str:
    choose = place.choose
    how = choose.up_to(3)
    if how == 0:
        return choose.one(("actor != subject", "subject == actor", "actor.kind == subject.kind"))
    issuer = choose.one(("", "", ', issuer: "https://id.example"'))
    made = f"{choose.one(('agent', 'user', 'service'))}({quoted(choose.one(NAMES))}{issuer})"
    if how == 1:
        return f'{choose.one(("actor", "subject"))} in [{made}, agent("a1")]'
    return f"{choose.one(('actor', 'subject'))} {choose.one(('==', '!='))} {made}"


def _exists(place: Where, depth: int) -> str:
    choose = place.choose
    kind: Kind = choose.one(("string", "number", "strings", "bool"))
    places = [p for p in place.reach.of(kind) if p.guard is None and (p.status != "required" or not place.permit)]
    if not places:
        return _about_kind(place, depth)
    return f"{choose.one(('', 'not '))}exists {choose.one(places).text}"


def _looked_into(place: Where, depth: int) -> str:
    choose = place.choose
    name, text = choose.one((
        ("path", 'path_within({}, "/srv")'), ("path", 'path_within({}, "/srv/data")'),
        ("ip", 'ip_in({}, "10.0.0.0/8")'), ("ip", 'ip_in({}, "::/0")'),
    ))  # fmt: skip
    strings = place.reach.of("string")
    fitting = [p for p in strings if p.name == name]
    of = read(choose, choose.one(fitting or strings), place.permit)
    return _guarded(place, of.guards, text.format(of.text))


def _seen(place: Where, depth: int) -> str:
    choose = place.choose
    return f"{choose.one(('began', 'done'))}({quoted(choose.one(ACTIONS[:3]))}, {choose.one(('1h', '5m', '1d', '0s'))})"


def _mark(place: Where, depth: int) -> str:
    choose, marks = place.choose, place.reach.marks
    if not marks or place.sign == 0:
        return _seen(place, depth)
    mark = quoted(choose.one(marks))
    if place.sign < 0:
        return choose.one((
            f"{mark} in session.marks", f"not ({mark} not in session.marks)", f"(any k in session.marks: k == {mark})",
            f"(any k in session.marks: (k != {mark} and {condition(place.neutral(), 0)}))",
        ))  # fmt: skip
    return choose.one(
        (f"{mark} not in session.marks", f"not ({mark} in session.marks)", f"not (any k in session.marks: k == {mark})")
    )


def _chain(place: Where, depth: int) -> str:
    choose = place.choose
    if place.sign == 0 or place.quantifiers >= 2:
        return _principals(place, depth)
    if choose.chance(50):
        bound = choose.one(("1", "2", "0", "3", "4"))
        narrow = choose.one((f"chain.depth <= {bound}", f"chain.depth < {bound}", f"{bound} >= chain.depth"))
        if place.sign > 0:
            return narrow
        return choose.one((f"not ({narrow})", f"chain.depth > {bound}", f"{bound} <= chain.depth"))
    inner = evolve(place, quantifiers=place.quantifiers + 1)
    body = choose.one(_HOP_BODIES)(inner)
    return f"({'every' if place.sign > 0 else 'any'} h{place.quantifiers} in chain: ({body}))"


def _hop(place: Where) -> str:
    choose, hop = place.choose, f"h{place.quantifiers - 1}"
    texts = (
        f"{hop}.to is agent",
        f"{hop}.to != subject",
        f"{hop}.to == {choose.one(('agent', 'user'))}({quoted(choose.one(NAMES))})",
        f"{quoted(choose.one(('pay.refund', '*')))} in {hop}.actions",
        f'{hop}.purpose == "{choose.one(("support", "audit"))}"',
        f"{hop}.expires - now <= {choose.one(('1h', '1d'))}",
        f"len({hop}.actions) <= {choose.one(('1', '2'))}",
        f"{hop}.to.kind == actor.kind",
        f"{hop}.to.trust >= 2",
        f'"admin" in {hop}.to.roles',
        f"exists {hop}.{choose.one(('to.team', 'to.trust'))}" if not place.permit else f"{hop}.to != actor",
    )
    return choose.one(texts)


_HOP_BODIES: Final[tuple[Callable[[Where], str], ...]] = (
    _hop,
    _hop,
    _hop,
    lambda place: f"({_hop(place)} {place.choose.one(('or', 'and'))} {condition(place, 0)})",
    lambda place: f"(not {_hop(place)})",
)


def _permitted(place: Where, depth: int) -> str:
    if not place.permit or place.sign <= 0:
        return _principals(place, depth)
    return place.choose.one(("permitted(subject)", "permitted(actor)", "(permitted(subject) and permitted(actor))"))


_MIXED: Final[tuple[Kind, ...]] = ("number", "string", "bool", "strings")


def _mixed(place: Where, depth: int) -> str:
    """Compare what may well be of different types, where nothing is declared."""
    choose = place.choose
    free = [p for kind in _MIXED for p in place.reach.of(kind) if p.status == "free"]
    if len(free) < 2:
        return _member(place, depth)
    left, right = choose.one(free), choose.one(free)
    if left.guard or right.guard or left is right:
        return _order(place, depth)
    number = choose.one(NUMBERS)
    texts = (
        f"{left.text} {choose.one(('==', '!=', '<', '>='))} {right.text}",
        f"{left.text} in {right.text}",
        f"{left.text} in []",
        f'{left.text} in [{right.text}, {number}, "a"]',
        f"{left.text}.deeper == 1",
        f"len({left.text}) == len({right.text})",
        f"(any v9 in [{left.text}, {right.text}]: v9 == {number})",
    )
    return choose.one(texts)


_COMPOUND: Final[tuple[tuple[int, Maker], ...]] = (
    (4, _and), (4, _or), (3, _not), (3, _quantifier), (3, _let), (1, _compared),
)  # fmt: skip
_ATOMS: Final[tuple[tuple[int, Maker], ...]] = (
    (6, _order), (6, _string), (4, _member), (3, _bool), (3, _principals), (2, _about_kind), (2, _mark), (2, _chain),
    (2, _permitted), (2, _exists), (2, _looked_into), (1, _seen), (2, _mixed),
)  # fmt: skip


# ---- lets


def lets(choose: Choose, reach: Reach) -> tuple[list[str], list[Function]]:
    """Return `let` statements, and how conditions may use them."""
    texts: list[str] = []
    found: list[Function] = []
    place = Where(choose, reach, 0, permit=True)
    if choose.chance(50):
        texts.append(f"let big(p) = p > {choose.one(NUMBERS[:8])}")
        found.append(Function("big", "number"))
    if choose.chance(40):
        least = choose.one(("1", "2"))
        texts.append(f"let trusted(p) = p is agent and p.trust >= {least} and not p.quarantined")
        found.append(Function("trusted", "principal"))
    if choose.chance(40):
        # its variable has the name that callers give to theirs: expansion must not capture it
        texts.append("let known(p) = any v0 in subject.roles: v0 == p")
        found.append(Function("known", "string"))
    if choose.chance(50):
        texts.append(f"let plain = {condition(place, 1)}")
        found.append(Function("plain", None))
        if choose.chance(50):
            texts.append("let twice(p) = plain or " + ("big(p)" if found[0].name == "big" else "p <= 2"))
            found.append(Function("twice", "number"))
    return texts, found
