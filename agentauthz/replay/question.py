"""Go from a decision record back to what the policies were asked, exactly or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast, final

from attrs import define, field, frozen

from agentauthz.errors import AgentAuthzError, NotReplayable
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.policyset import PolicySet
from agentauthz.policy.reads import asks_for_handoff
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.records.redaction import steps_of
from agentauthz.replay.decoding import Gaps, Hidden, Times, decoded, filled, moment, principal, step
from agentauthz.request import Request, SessionFacts
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Entity, Record, Sentinel, Value

Tree: TypeAlias = Mapping[str, Any]  # a decision record's JSON

TIME: Final = re.compile(r'(began|done|tracked)\("(.*)"\)', re.DOTALL)
_STATES: Final[Mapping[str, Sentinel]] = {"absent": ABSENT, "unknown": UNKNOWN, "invalid": INVALID}
_EXACT: Final = ("/action/name", "/actors", "/chain", "/bounds", "/purpose", "/route")  # without these, no question


@final
@define(eq=False)
class _Node:
    """Be a place in what the record holds: its value, if it has one of its own, and what is below."""

    tree: Any = None
    state: str | None = None
    below: dict[str, _Node] = field(factory=dict)


@final
@frozen(eq=False)
class Question:
    """Be what a record says that the policies were asked. Whatever is read that it doesn't hold gets into `gaps`."""

    inputs: Inputs
    gaps: Gaps


def question(tree: Tree, policies: PolicySet) -> Question:
    """Return what the policies were asked, for `policies` to be asked the same.

    Raises:
        NotReplayable: the record doesn't hold it all, or is damaged.
    """
    try:
        _ensure_exact(tree)
        return _question(tree, policies)
    except Hidden as place:
        raise NotReplayable(why(str(place), tree)) from None
    except (
        AgentAuthzError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError,
    ) as cause:  # fmt: skip
        if isinstance(cause, NotReplayable):
            raise
        raise NotReplayable(f"the record is damaged ({type(cause).__name__})") from None


def _ensure_exact(tree: Tree) -> None:
    meta = tree.get("meta", {})
    for pointer in (*meta.get("oversized", ()), *meta.get("more", ())):
        for whole in _EXACT:
            if pointer == whole or pointer.startswith(whole + "/"):
                raise NotReplayable(f"`{whole[1:].partition('/')[0]}` isn't whole in the record")


def _question(tree: Tree, policies: PolicySet) -> Question:
    gaps = Gaps()
    roots, times = _tree_of(tree.get("inputs", ()), {} if tree.get("chain") else {"actor": "subject"})
    chain = _chain(tree, roots, gaps)
    args = _args(tree, roots, policies)
    session = _session(tree, roots, times, gaps)
    request = Request.trusted(
        tree["action"]["name"], chain, args, None, UNKNOWN if _unknown(roots, "route") else tree.get("route"),
        UNKNOWN if _unknown(roots, "purpose") else tree.get("purpose"),
        session, UNKNOWN if _unknown(roots, "context") else {}, moment(tree["ts"]),
    )  # fmt: skip
    inputs = policies.asked(request)
    if args is not UNKNOWN:
        inputs.args = _members("args", roots, gaps, given=None if _cut(tree, "/action/given") else frozenset(args))
    if request.context is not UNKNOWN:
        inputs.context = _members("context", roots, gaps)
    if type(session) is SessionFacts:
        inputs.session = known = _members("session", roots, gaps)
        if not _cut(tree, "/session"):
            known["id"] = session.id
    if "resource" in tree:
        inputs.resource = _resource(tree, roots, gaps)
    for reads in policies.reads(request.action, handing=asks_for_handoff(chain)):
        for root, *steps in reads.places(chain):
            if _only_above(roots, root, steps):
                gaps.add("".join((root, *(step("", one) for one in steps))))
    return Question(inputs, gaps)


# ---- the inputs as one tree


def _tree_of(
    inputs: Sequence[Mapping[str, Any]], alike: Mapping[str, str]
) -> tuple[dict[str, _Node], dict[str, Mapping[str, Any]]]:
    """Return the recorded inputs by root and step, and the last-seen times among them by their names.

    `alike` says which root is another one.
    """
    roots: dict[str, _Node] = {}
    times: dict[str, Mapping[str, Any]] = {}
    seen: set[str] = set()
    for each in inputs:
        name = each["name"]
        if TIME.fullmatch(name) is not None:
            if name in times:
                raise ValueError(name)
            times[name] = each
        elif (steps := steps_of(name)) is not None:
            node = roots.setdefault(alike.get(steps[0], steps[0]), _Node())
            for one in steps[1:]:
                node = node.below.setdefault(one, _Node())
            if node.state is not None and (
                name in seen or (node.state, node.tree) != (each["state"], each.get("value"))
            ):
                raise ValueError(name)  # which of two is it?
            seen.add(name)
            node.state, node.tree = each["state"], each.get("value")
    roots.update((root, roots[other]) for root, other in alike.items() if other in roots)
    return roots, times


def _only_above(roots: Mapping[str, _Node], root: str, steps: Sequence[str]) -> bool:
    """Say whether the record holds something below a place, and nothing of the place itself."""
    node = roots.get(root)
    for one in steps:
        node = None if node is None else node.below.get(one)
    return node is not None and node.state is None


def _unknown(roots: Mapping[str, _Node], root: str) -> bool:
    return root in roots and roots[root].state == "unknown"


def _grown(node: _Node, place: str, gaps: Gaps) -> Value:
    """Return the value at a place with all that is known below it.

    Raises:
        Hidden: the record has no value for the place itself.
    """
    if node.state is None:
        # INVARIANT: what it is itself nobody knows, so `_only_above` keeps rules from asking for it
        return filled(Record(), _grown_below(node, place, gaps), place, gaps)
    if node.state != "value":
        return _STATES[node.state]
    value = decoded(node.tree, place, gaps)
    below = value.facts if type(value) is Principal else value
    if isinstance(below, Record):
        below.update(_grown_below(node, place, gaps))
    return value


def _grown_below(node: _Node, place: str, gaps: Gaps) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, below in node.below.items():
        try:
            found[name] = _grown(below, step(place, name), gaps)
        except Hidden:
            continue  # it isn't there, so whoever reads it is noted
    return found


def _members(root: str, roots: Mapping[str, _Node], gaps: Gaps, *, given: frozenset[str] | None = None) -> Record:
    """Return the record that stands at a root; where `given` names all its members, others are absent."""
    known = _grown_below(roots.get(root, _Node()), root, gaps)
    made = filled(Record(), known, root, gaps)
    if given is not None:
        note = made.reader
        made.reader = lambda name: note(name) if name in given else None
    return made


# ---- the parts of a request


def _chain(tree: Tree, roots: Mapping[str, _Node], gaps: Gaps) -> Chain:
    actors, hops = tree.get("actors", ()), tree.get("chain", ())
    if len(actors) != len(hops) + 1:
        raise NotReplayable("its actors and its delegations don't fit")
    parties = [_party(actor, _party_name(i, len(hops)), roots, gaps) for i, actor in enumerate(actors)]
    delegations = [
        Delegation(
            to,
            tuple(hop["actions"]),
            hop.get("purpose"),
            moment(hop["expires"]) if "expires" in hop else None,
            hop.get("handoff", False),
            hop["via"],
        )
        for to, hop in zip(parties[1:], hops, strict=True)
    ]
    return Chain(parties[0], delegations)


def _party_name(place: int, depth: int) -> str:
    """Return how records call the party that stands at `place` of a chain."""
    if place == 0:
        return "subject"
    return "actor" if place == depth else f"chain[{place - 1}].to"


def _party(actor: Mapping[str, Any], name: str, roots: Mapping[str, _Node], gaps: Gaps) -> Principal:
    made = principal(actor["kind"], actor["sub"], actor.get("iss"), name, gaps)
    known = _grown_below(roots.get(name, _Node()), name, gaps)
    made.facts.update((key, value) for key, value in known.items() if key not in ("kind", "id", "issuer"))
    return made


def _args(tree: Tree, roots: Mapping[str, _Node], policies: PolicySet) -> Any:
    if _unknown(roots, "args"):
        return UNKNOWN
    action = tree["action"]
    if policies.arguments(action["name"]) is not None and _cut(tree, "/action/given"):
        raise NotReplayable("not all names of its arguments are in the record")
    return dict.fromkeys(action.get("given", ()))


def _resource(tree: Tree, roots: Mapping[str, _Node], gaps: Gaps) -> Value:
    told = tree["resource"]
    if "state" in told:
        return _STATES[told["state"]]
    known = _grown_below(roots.get("resource", _Node()), "resource", gaps)
    exact = {name: told[name] for name in ("type", "id") if not _cut(tree, f"/resource/{name}")}
    for name in ("type", "id"):
        known.pop(name, None)
    return filled(Entity(), {**known, **exact}, "resource", gaps)


def _session(tree: Tree, roots: Mapping[str, _Node], times: Mapping[str, Mapping[str, Any]], gaps: Gaps) -> Any:
    if "session" not in tree:
        return UNKNOWN if _unknown(roots, "session") else None
    bounds = tree.get("bounds", {})
    started = roots.get("session", _Node()).below.get("started", _Node())
    now = moment(tree["ts"])
    since = decoded(started.tree, "session.started", gaps) if started.state == "value" else now
    ceiling = bounds.get("ceiling")
    return SessionFacts.trusted(
        tree["session"], cast(Any, since), moment(bounds["expires"]) if "expires" in bounds else None, {}, UNKNOWN,
        _times("began", times, gaps), _times("done", times, gaps), cast(Any, _known("tracked", times, gaps)),
        None if ceiling is None else tuple(ceiling),
    )  # fmt: skip


def _times(state: str, times: Mapping[str, Mapping[str, Any]], gaps: Gaps) -> Any:
    if any(each["state"] == "unknown" for name, each in times.items() if name.startswith(state + "(")):
        return UNKNOWN
    return Times(state, _known(state, times, gaps), gaps)


def _known(state: str, times: Mapping[str, Mapping[str, Any]], gaps: Gaps) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, each in times.items():
        kind, action = cast(re.Match[str], TIME.fullmatch(name)).groups()
        if kind == state:
            found[action] = decoded(each["value"], name, gaps) if each["state"] == "value" else None
    return found


# ---- why not


def _cut(tree: Tree, pointer: str) -> bool:
    """Say whether the record doesn't hold all of what stands at `pointer`."""
    meta = tree.get("meta", {})
    told = (*meta.get("redacted", ()), *meta.get("oversized", ()), *meta.get("more", ()))
    return any(one == pointer or one.startswith(pointer + "/") for one in told)


def why(place: str, tree: Tree) -> str:
    """Return why what stands at `place` isn't known."""
    meta = tree.get("meta", {})
    steps = steps_of(place)
    if steps is not None and steps[0] == "args" and f"/action/args/{steps[1]}" in meta.get("redacted", ()):
        return f"`{place}` is kept secret"
    for i, each in enumerate(tree.get("inputs", ())):
        if each["name"] == place and each["state"] == "value":
            return f"`{place}` {_held_back(each.get('value'), meta, f'/inputs/{i}/value')}"
    if "/inputs" in meta.get("oversized", ()) or "/inputs" in meta.get("more", ()):
        return f"`{place}` was too much for the record"
    return f"`{place}` isn't in the record" if steps is not None or TIME.fullmatch(place) else f"nobody knows {place}"


def _held_back(value: Any, meta: Mapping[str, Any], pointer: str) -> str:
    """Return in which way a record holds back what it has a value for."""
    if pointer in meta.get("oversized", ()):
        return "was too big for the record"
    held = value if isinstance(value, Mapping) else {}
    if "$s" in held:
        return "was erased" if held["$s"] == "erased" else "can be shredded, and what opens it isn't here"
    return "is only a keyed hash in the record" if "$c" in held else "is kept secret"
