"""Cut out of a record's line what policies don't read, so that lines that ask the same become the same bytes.

A cut is safe whatever a line holds: where two lines are the same bytes but for the cuts, each of which is one whole
JSON text, then their JSON is the same but for the values there. `decoded_cut` makes sure where in the JSON they stand.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, Final, TypeAlias

from agentauthz.replay.same import Reads

Asked: TypeAlias = Callable[[bytes], Reads]  # what the policies read for an action, by its JSON text
# a record's id and moment; its line with a mark for each cut; and what was found in the line
Line: TypeAlias = tuple[str, str, bytes, re.Match[bytes], re.Match[bytes]]

CUT: Final = object()  # what stands in the JSON where something was cut out: nothing can be made of it
_MARK: Final = b"NaN"  # what stands there in the line: no record holds it
_LONGEST: Final = 4096  # bytes: of longer lines, few are alike
_BEGINNING: Final = b'{"type":"decision","id":'  # where a line stands in its stream, nobody asks
_PLACES: Final[Sequence[tuple[str | int, ...]]] = (  # of what may be cut out, as they stand in a line
    ("id",), ("ts",), ("action", "args_digest"), ("resource", "id"), ("actors", 0, "sub"), ("actors", 1, "sub"),
    ("chain", 0, "to"), ("session",),
)  # fmt: skip

# ---- patterns: what is in a group is kept, and what stands between two groups is cut out

_TEXT: Final = r'"[ !#-\[\]-~]*+"'  # JSON without an escape
_NAME: Final = r'"[ !#-\[\]-~]++"'
_COUNT: Final = "(?:0|[1-9][0-9]{0,18})"
_OBJECT: Final = r"\{(?:[^{}]++|\{[^{}]*+\})*+\}"
_LIST: Final = r"\[(?:[^\[\]]++|\[[^\[\]]*+\])*+\]"
_HEAD: Final = re.compile(
    rf'\{{"v":"1\.[0-9]{{1,3}}","stream":{_TEXT},"seq":{_COUNT},"prev":{_TEXT},"mono_ns":{_COUNT},"type":"decision",'
    rf'"id":({_TEXT}),"ts":"(([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})T(?:[01][0-9]|2[0-3])(?::[0-5][0-9]){{2}}(?:\.[0-9]{{6}})?Z)"'
    rf'(,"outcome":{_TEXT},"basis":{_TEXT},"mode":{_TEXT},"enforced":(?:true|false),(?:"cause":{_TEXT},)?'
    rf'"policy":{_OBJECT},"action":\{{"name":({_TEXT}),"args_digest":){_TEXT}'.encode()
)


@cache
def _tail(resource: bool, parties: bool, session: bool) -> re.Pattern[bytes]:
    """Return the pattern of what follows; the flags say what is read, and so not cut out."""
    given = rf'(?:,"given":{_LIST})?(?:,"args":{_OBJECT})?\}}'
    if resource:
        cut_id, rest = "", rf'{given}(?:,"resource":{_OBJECT})?'
    else:
        cut_id = rf'(?:({given},"resource":\{{"type":{_TEXT},"id":){_TEXT})?+'
        rest = rf'(?:{given}|(?:,"attributes":{_OBJECT})?\}})(?:,"resource":{_OBJECT})?'
    if parties:
        cut_names, chain = "", rf'{rest},"actors":{_LIST},"depth":{_COUNT}(?:,"chain":{_LIST})?'
    else:
        # of no delegation, or of one from a person or a service: the names of other parties decide
        kind = r',"kind":"(?:user|service)"[^{}]*+\}'
        hop = rf'(,"kind":{_TEXT}[^{{}}]*+\}}\],"depth":1,"chain":\[\{{"to":)"(?:[ !#-\[\]-~]|\\")*+"'
        cut_names = rf'({rest},"actors":\[\{{"sub":){_NAME}(?={kind})(?:({kind},\{{"sub":){_NAME}{hop})?+'
        chain = rf'(?:,"actions":\[[^\[\]]*+\][^{{}}\[\]]*+\}}\]|{kind}\],"depth":0)'
    cut_session = "" if session else rf'(?:({chain},"session":){_TEXT})?+'
    return re.compile(f"{cut_id}{cut_names}{cut_session}(.*+)".encode(), re.DOTALL)


def cut(line: bytes, asked: Asked) -> Line | None:
    """Return a decision's line with cuts; None: it isn't written as this library does, or its moment is asked for."""
    if len(line) > _LONGEST or (head := _HEAD.match(line)) is None:
        return None
    own, ts, date, between, action = head.groups()
    reads = asked(action)
    if reads.timed or not _is_date(date):
        return None
    tail = _tail(reads.names_resource, reads.names_parties, reads.names_session).match(line, head.end())
    if tail is None:
        return None
    left = _MARK.join((_BEGINNING, b',"ts":', between, *filter(None, tail.groups())))
    return own[1:-1].decode(), ts.decode(), left, head, tail


@lru_cache(maxsize=64)
def _is_date(text: bytes) -> bool:
    try:
        dt.date.fromisoformat(text.decode())
    except ValueError:
        return False
    return True


def decoded_cut(line: Line) -> tuple[dict[str, Any], list[tuple[Any, str | int]]] | None:
    """Return the JSON of a line, and the places of the cuts, at which it has `CUT`; None: some stand elsewhere.

    What the bytes only seem to say, such as a member that comes again further on, shows here.
    """
    left = line[2]
    try:
        tree = _DECODER.decode(left.decode())
        if tree["type"] != "decision" or "v" in tree:
            return None
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    places = [found for place in _PLACES if (found := _place(tree, place)) is not None]
    return (tree, places) if len(places) == left.count(_MARK) else None


def _place(tree: Any, path: Sequence[str | int]) -> tuple[Any, str | int] | None:
    """Return what holds a place, and its name there; None: nothing was cut out of it."""
    *above, own = path
    try:
        for one in above:
            tree = tree[one]
        return (tree, own) if tree[own] is CUT else None
    except (LookupError, TypeError):
        return None


def fill(places: Sequence[tuple[Any, str | int]], line: Line) -> None:
    """Put back what was cut out."""
    own, ts, _, head, tail = line
    kept = [head.span(4), *(span for span in tail.regs[1:] if span[0] < span[1])]
    held = [json.loads(head.string[end:begin]) for (_, end), (begin, _) in pairwise(kept)]
    for (holder, name), value in zip(places, (own, ts, *held), strict=True):
        holder[name] = value


_DECODER: Final = json.JSONDecoder(parse_constant=lambda name: CUT if name == _MARK.decode() else float(name))
