"""Tell which records ask the same: facts that the policies don't read are left out."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from agentauthz.errors import NotReplayable
from agentauthz.policy.policyset import PolicySet
from agentauthz.records.redaction import steps_of
from agentauthz.replay.question import TIME, Tree

_PARTIES: Final = ("subject", "actor")
_IDENTITY: Final = frozenset({"id", "issuer"})
_MAX_KNOWN: Final = 10_000  # names that logs may hold any number of
_MARSHAL: Final = 2  # the last version that depends on nothing but the values


@final
class Sameness:
    """Make one key of all in a record that policies could read: the same key means the same answer."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies: Final = policies
        self._asked: Final[dict[tuple[str, bool], Reads]] = {}

    def key(self, tree: Tree) -> bytes:
        """Return the record's key.

        Raises:
            NotReplayable: the record is damaged.
        """
        try:
            return hashlib.blake2b(marshal.dumps(self._told(tree), _MARSHAL), digest_size=20).digest()
        except (LookupError, TypeError, ValueError, AttributeError) as cause:
            raise NotReplayable(f"the record is damaged ({type(cause).__name__})") from None

    def reads(self, action: str, handing: bool) -> Reads:
        """Return what the policies read for an action, or where it is handed off."""
        found = self._asked.get((action, handing))
        if found is None:
            if len(self._asked) >= _MAX_KNOWN:
                self._asked.clear()
            found = self._asked[action, handing] = Reads(self._policies, action, handing)
        return found

    def only_read(self, tree: Tree) -> Tree:
        """Return a record without the inputs that no rule reads: damage there makes no difference either."""
        reads = self.reads(tree["action"]["name"], handing(tree))
        return {**tree, "inputs": [each for each in tree.get("inputs", ()) if reads.reads(each)]}

    def _told(self, tree: Tree) -> list[Any]:
        action, hops, bounds = tree["action"], tree.get("chain", ()), tree.get("bounds")
        name = action["name"]
        reads = self.reads(name, handing(tree))
        budgets = tree.get("budgets")  # whose keys are made of what limits count for
        consents = tree.get("consents")
        names_parties = (
            budgets or consents or reads.names_parties or len(hops) > 1 or tree["actors"][0]["kind"] == "agent"
        )
        timed = reads.timed or bounds is not None or any("expires" in hop for hop in hops)
        resource = tree.get("resource")
        return [
            name,
            tree.get("mode"),
            tree.get("cause"),
            [each for each in tree.get("inputs", ()) if reads.reads(each)],
            tree["actors"] if names_parties else [actor["kind"] for actor in tree["actors"]],
            [[hop.get(each) for each in ("actions", "purpose", "expires", "handoff", "via")] for hop in hops],
            tree["ts"] if timed else None,
            bounds,
            "session" in tree and (tree["session"] if budgets or reads.names_session else True),
            budgets,
            consents,
            tree.get("purpose") if reads.purpose or hops else None,
            tree.get("route") if reads.route else None,
            resource if resource is None or "state" in resource else _told_resource(resource, reads),
            reads.given(action.get("given", ())),
            tree.get("obligations"),
            tree.get("meta"),
        ]


def handing(tree: Tree) -> bool:
    """Say whether a hand-off is asked about."""
    return any(hop.get("handoff") and hop["via"] == "host" for hop in tree.get("chain", ()))


def _told_resource(resource: Mapping[str, Any], reads: Reads) -> list[Any]:
    return [resource["type"], resource["id"] if reads.names_resource else None]


@final
class Reads:
    """Know what the rules for one action read."""

    def __init__(self, policies: PolicySet, action: str, handing: bool) -> None:
        own = policies.reads(action, handing=handing)
        paths = [(path.root, *path.steps) for reads in own for _, path in reads.paths]
        parties = [path.steps for reads in own for _, path in reads.parties]
        self._times: Final = {time for reads in own for time in reads.times}
        of_parties = {("party", *steps) for steps in (*parties, *(p[1:] for p in paths if p[0] in _PARTIES))}
        self._places: Final = {*paths, *of_parties}
        self._arguments: Final = policies.arguments(action)
        self._known: Final[dict[str, bool]] = {}
        self._given: Final[dict[tuple[str, ...], tuple[str, ...]]] = {}
        self.names_parties: Final = any(reads.widely for reads in own) or any(
            len(place) == 1 or place[1] in _IDENTITY for place in of_parties
        )
        self.names_session: Final = self._reads(("session",), ("session", "id"))
        self.names_resource: Final = self._reads(("resource",), ("resource", "id"))
        self.purpose: Final = self._reads(("purpose",))
        self.route: Final = self._reads(("route",))
        self.timed: Final = bool(self._times) or self._reads(("now",))

    def _reads(self, *places: tuple[str, ...]) -> bool:
        return not self._places.isdisjoint(places)

    def reads(self, each: Mapping[str, Any]) -> bool:
        """Say whether rules could read an input."""
        name = each["name"]
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = self._known[name] = self._could_read(name)
        return known or (each["state"] == "unknown" and name.isidentifier())

    def _could_read(self, name: str) -> bool:
        if (time := TIME.fullmatch(name)) is not None:
            return bool(self._times) and (time[1] == "tracked" or (time[1], time[2]) in self._times)
        if name == "session.started" and self._times:
            return True
        if (steps := steps_of(name)) is None or len(steps) == 1:
            return False  # what a root holds as a whole stands elsewhere in the record
        party = steps[0] in _PARTIES or steps[0].startswith("chain[")
        own = ("party", *steps[1:]) if party else steps
        return any(_along(own, place) for place in self._places)

    def given(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return those names of arguments that count."""
        own = tuple(names)
        found = self._given.get(own)
        if found is None:
            read = {place[1] for place in self._places if place[0] == "args" and len(place) > 1}
            found = own if self._arguments is not None else tuple(each for each in own if each in read)
            if len(self._given) >= _MAX_KNOWN:
                self._given.clear()
            self._given[own] = found
        return found


def _along(one: Sequence[str], other: Sequence[str]) -> bool:
    """Say whether one place is the other, above it or below it."""
    return all(ours == theirs for ours, theirs in zip(one, other, strict=False))
