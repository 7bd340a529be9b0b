"""Know which facts a record may not show as they are: a class for each path, in the words of policies."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, cast, final

from attrs import define, field, frozen

from agentauthz.canonical import Json, canonical, utf8
from agentauthz.errors import InvalidArgument
from agentauthz.keys import InstanceKey
from agentauthz.principals import Chain, Principal
from agentauthz.records.openings import Openings, Sealing
from agentauthz.request import Request
from agentauthz.values import ABSENT, Record, Unordered, Value, freeze

Kind: TypeAlias = Literal["public", "correlate", "shred", "secret"]
KINDS: Final[tuple[Kind, ...]] = ("public", "correlate", "shred", "secret")  # from the mildest to the strictest

_PARTY: Final = "party"  # subject, actor and who stands between them: rules look at one in the place of another
_PARTIES: Final = ("subject", "actor")
_ROOT: Final = r"subject|actor|args|resource|session|context|chain\[[0-9]+\]\.to"
_PLACE: Final = re.compile(rf'({_ROOT})((?:\.[A-Za-z_][A-Za-z0-9_]*|\["[^"]*"\])+)')
_STEP: Final = re.compile(r'\.([A-Za-z_][A-Za-z0-9_]*)|\["([^"]*)"\]')
_ROOTS: Final = ("args", "resource", "subject", "actor", "context", "session")
# What a record is found by: it can't be told without them
_NAMES: Final = {
    "resource": ("type", "id"), "subject": ("id", "kind", "issuer"), "actor": ("id", "kind", "issuer"),
    "session": ("id", "started", "marks"),
}  # fmt: skip


@lru_cache(maxsize=4096)
def steps_of(name: str) -> tuple[str, ...] | None:
    """Return the root and the steps of a place's name; None: it is none below which anything is known."""
    if (found := _PLACE.fullmatch(name)) is None:
        return (name,) if name.isidentifier() else None
    return (found[1], *(plain or quoted for plain, quoted in _STEP.findall(found[2])))


def escaped(name: str) -> str:
    """Return a name as a step of a JSON pointer (RFC 6901 §3), at most 64 characters of it."""
    return utf8(name[:64]).replace("~", "~0").replace("/", "~1")


@final
@frozen
class Shred:
    """Be the class "shred" for what belongs to another person than the session's subject.

    `subject` is the path of the fact that names whose it is, a principal or a user's id: `"resource.owner"`.
    """

    subject: str


Class: TypeAlias = Kind | Shred
PUBLIC: Final[Mapping[str, Class]] = MappingProxyType({})


@final
@define(eq=False)
class Place:
    """Be a place among the facts: the class of what stands there, and what is known of places below.

    `subject` is the path of whose it is, of something to shred; None: the session's subject.
    """

    kind: Kind
    subject: str | None = None
    below: dict[str, Place] = field(factory=dict)

    def at(self, steps: Iterable[str]) -> Place:
        """Return the place that `steps` lead to; what isn't classed on its own is of the class above it."""
        place = self
        for step in steps:
            place = place.below.get(step) or Place(place.kind, place.subject)
        return place

    @property
    def open(self) -> bool:
        """Say whether nothing here or below is to be kept back."""
        return self.kind == "public" and not self.below


OPEN: Final = Place("public")
SECRET: Final = Place("secret")

Leaf: TypeAlias = Callable[[Json, Place, str], Json]  # gives what stands in the place of a value with a class


@final
@frozen(eq=False)
class Held:
    """Be what one call holds at the places with a class, and whose it is."""

    redaction: Redaction
    values: tuple[tuple[Place, object], ...]
    subjects: Mapping[str | None, Principal | None]


@final
class Redaction:
    """Be the classes of an authorizer's facts; what has none is public. `openings` keep what is shredded.

    `subject.x` and `actor.x` are of one class, the stricter of both: who is one in this call is the other in the next.

    Raises:
        InvalidArgument: a path that leads to no fact, another class, or something to shred and no `openings`.
    """

    def __init__(self, given: Mapping[str, Class], openings: Openings | None = None) -> None:
        self._openings: Final = openings
        self._roots: Final[dict[str, Place]] = {}
        self._classed: Final[list[tuple[tuple[str, ...], Place]]] = []
        for steps, (kind, subject) in sorted(_classes(given).items(), key=lambda item: len(item[0])):
            self._add(steps, kind, subject)
        places = [place for _, place in self._classed if place.kind == "shred"]
        self._subjects: Final = tuple({place.subject for place in places if place.subject is not None})
        if (places or openings is not None) and type(openings) is not Openings:
            raise InvalidArgument("openings", "must be `Openings` where something is shredded: they keep what opens it")
        self.shreds: Final = bool(places)
        # how a condition begins to name what has a class
        self.texts: Final = tuple({text for steps, _ in self._classed for text in _texts(steps[0], steps[1])})

    def _add(self, steps: tuple[str, ...], kind: Kind, subject: str | None) -> None:
        place = self._roots.setdefault(steps[0], Place("public"))
        for step in steps[1:]:
            place = place.below.setdefault(step, Place(place.kind, place.subject))
        place.kind, place.subject = kind, subject
        self._classed.append((steps, place))

    def sealing(self) -> Sealing | None:
        """Return what commits to the shredded values of one record; None: there can be none."""
        return self._openings.sealing() if self.shreds and self._openings is not None else None

    def place(self, path: str) -> Place:
        """Return the place that a path as a policy writes it leads to."""
        steps = steps_of(path)
        if steps is None:
            return OPEN
        root = self._roots.get(_PARTY if steps[0] in _PARTIES or steps[0][:6] == "chain[" else steps[0])
        return OPEN if root is None else root.at(steps[1:])

    def held(self, root: Callable[[str], Value], request: Request) -> Held:
        """Return what a call holds; `root` returns what the policies see at a root."""
        chain, values = request.chain, list[tuple[Place, object]]()
        given = {"args": request.args, "context": request.context}
        for (name, *steps), place in self._classed:
            # of mappings policies see what rules have read; what else they hold must be recognised too
            whole = given.get(name)
            of: list[object] = [*_parties(chain)] if name == _PARTY else [whole if type(whole) is dict else root(name)]
            values += [(place, each) for one in of for each in _below(one, steps)]
        subjects: dict[str | None, Principal | None] = {None: chain.subject}
        for path in self._subjects:
            first, *more = steps_of(path) or ("",)
            subjects[path] = _person(next(_below(root(first), more), ABSENT))
        return Held(self, tuple(values), subjects)


def correlation(value: object, key: InstanceKey) -> str:
    """Return the keyed hash that stands for a value of the class "correlate": equal values have equal hashes."""
    return key.digest("value", canonical(freeze(value)))


def _classes(given: Mapping[str, Class]) -> dict[tuple[str, ...], tuple[Kind, str | None]]:
    """Return the classes by root and steps, the stricter one of subject's and actor's.

    Raises:
        InvalidArgument: as `Redaction`.
    """
    if not isinstance(given, Mapping):
        raise InvalidArgument("redact", "must be a mapping from paths to classes")
    found: dict[tuple[str, ...], tuple[Kind, str | None]] = {}
    for path, wanted in given.items():
        root, *steps = _checked(path)
        if isinstance(wanted, Shred):
            _checked(wanted.subject, names=True)
        elif wanted not in KINDS:
            raise InvalidArgument("redact", f"has no such class for `{path}`: {', '.join(KINDS)} are known, and Shred")
        own: tuple[Kind, str | None] = ("shred", wanted.subject) if isinstance(wanted, Shred) else (wanted, None)
        place = (_PARTY if root in _PARTIES else root, *steps)
        found[place] = max(own, found.get(place, own), key=lambda one: KINDS.index(one[0]))
    return found


def masked(tree: Json, place: Place, pointer: str, leaf: Leaf) -> Json:
    """Return a tree in which `leaf` has put something in the place of whatever has a class; lists are looked into."""
    if place.kind != "public":
        return leaf(tree, place, pointer)
    if not place.below:
        return tree
    if isinstance(tree, list):
        return [masked(each, place, f"{pointer}/{i}", leaf) for i, each in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1 and (tag := next(iter(tree)))[:1] == "$" and tag[:2] != "$$":
        return {tag: _masked_tag(tree[tag], tag, place, f"{pointer}/{tag}", leaf)}
    return {name: masked(each, _member(place, name), f"{pointer}/{escaped(name)}", leaf) for name, each in tree.items()}


def _masked_tag(held: Json, tag: str, place: Place, pointer: str, leaf: Leaf) -> Json:
    if tag == "$m":  # pairs, whose names are JSON too
        pairs = cast("list[tuple[Json, Json]]", held)
        return [
            [name, masked(each, _member(place, name), f"{pointer}/{i}", leaf)] for i, (name, each) in enumerate(pairs)
        ]
    return masked(held, place, pointer, leaf) if tag in ("$e", "$set") else held


def _member(place: Place, name: object) -> Place:
    own = name if isinstance(name, str) else ""
    return place.at([own[1:] if own[:1] == "$" else own])


def _below(value: object, steps: Sequence[str]) -> Iterator[object]:
    """Return the values that steps lead to: through a list, each element's."""
    if not steps:
        yield value
    elif type(value) in (list, tuple, Unordered):
        for item in cast("Iterable[object]", value):
            yield from _below(item, steps)
    else:
        found = value.facts if type(value) is Principal else value
        if isinstance(found, Record) or (type(found) is dict and steps[0] in found):
            yield from _below(found[steps[0]], steps[1:])


def _person(value: object) -> Principal | None:
    if type(value) is Principal:
        return value
    return Principal.user(value) if isinstance(value, str) and value else None


def _parties(chain: Chain) -> Iterator[Principal]:
    yield chain.subject
    yield from (hop.to for hop in chain.delegations)


def _texts(root: str, step: str) -> Iterator[str]:
    """Return how a condition that reads the place begins to name it."""
    for name in (*_PARTIES, ".to") if root == _PARTY else (root,):
        yield from (f"{name}.{step}", f'{name}["{step}"]')


def _checked(path: object, *, names: bool = False) -> tuple[str, ...]:
    """Return the root and the steps of a path that somebody gave.

    Raises:
        InvalidArgument: it leads to no fact, or to one that a record is found by, unless `names` are wanted.
    """
    steps = steps_of(path) if isinstance(path, str) else None
    if steps is None or len(steps) == 1 or steps[0] not in _ROOTS:
        first = re.split(r"[.\[]", str(path), maxsplit=1)[0]
        near = difflib.get_close_matches(first, _ROOTS, 1)
        hint = f"did you mean `{near[0]}.…`?" if near and near[0] != first else f"{', '.join(_ROOTS)} are the roots"
        raise InvalidArgument(
            "redact", f'has a path that leads to no fact, `{path}`: write it like "args.email"; {hint}'
        )
    root, first, *_ = steps
    if root == "session" and first == "attributes":
        raise InvalidArgument("redact", f"has `{path}`: a session's attribute is written `session.…`, as in policies")
    if not names and first in _NAMES.get(root, ()):
        raise InvalidArgument(
            "redact", f"can't have `{path}`, which records are found by: give a pseudonym in its place"
        )
    return steps
