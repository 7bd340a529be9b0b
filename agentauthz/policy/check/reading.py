"""Check the paths of a rule: whether they can be there, and whether absence is provided for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentauthz.policy.check.facts import Facts
from agentauthz.policy.check.places import PRINCIPALS, Place, Reading, look_up
from agentauthz.policy.check.report import step_span, text_of
from agentauthz.policy.check.static import Kinds, called
from agentauthz.policy.syntax import ROOTS, Path
from agentauthz.policy.types import Scalar

if TYPE_CHECKING:
    from agentauthz.policy.check.infer import Around, Typer

_WORDS: Final = {"args": ("unknown-argument", "argument"), "chain": ("unknown-attribute", "part")}


def read_path(typer: Typer, path: Path, around: Around, *, guarded: bool) -> Kinds:
    """Return the types that a path may have; `guarded` says that its absence is what is asked."""
    root = path.root
    if root not in ROOTS and root not in around.variables:
        return ()
    if root not in around.variables:
        typer.roots.add(root)
    if root == "approver" and not typer.approver:
        typer.report.error(
            "misplaced-approver",
            "`approver` is known only in `by`",
            path.span,
            "use `subject` or `actor`, or move this to `by`",
        )
        return ()
    if not _plain_names(typer, path):
        return ()
    key = (root, *path.steps)
    place = look_up(typer.selection, key, around.variables.get(root))
    if place.declared is not None:
        typer.declared[id(path)] = place.declared
    reading = place.reading(_tags(place, key, around.facts))
    if reading.unknown:
        _report_unknown(typer, path, place, reading)
        return ()
    if not guarded and reading.optional:
        _check_guard(typer, path, key, place, reading, around.facts)
    return reading.kinds


def _tags(place: Place, key: tuple[str, ...], facts: Facts) -> frozenset[str] | None:
    return facts.tags.get(key[: place.prefix]) if place.owner in ("principal", "resource") and facts.tags else None


def _plain_names(typer: Typer, path: Path) -> bool:
    for index, step in enumerate(path.steps):
        if step.startswith("_"):
            hint = "only data can be read, and such names are never data"
            message = f"a name that begins with `_` doesn't exist: `{step}`"
            typer.report.error("private-name", message, step_span(path, index), hint)
            return False
    return True


def _report_unknown(typer: Typer, path: Path, place: Place, reading: Reading) -> None:
    first = reading.lacking[0]
    index = (first.lacks or 2) - 2
    name, span = path.steps[index], step_span(path, index)
    whole = ".".join((path.root, *path.steps[:index]))
    if first.through is not None:
        message = f"`{whole}` is {called((first.through,))}, which has no attributes"
        hint = "use `any x in …: …` to look into a list" if not isinstance(first.through, Scalar) else None
        typer.report.error("unknown-attribute", message, span, hint)
        return
    code, what = _WORDS.get(path.root, ("unknown-attribute", "attribute"))
    if place.closed or place.owner == "principal":
        where = _owner(typer, path, place, reading, whole)
        having = sorted({b.tag for b in place.branches if b.tag is not None and b.lacks is None})
        hint = f"`{'` and `'.join(having)}` would have it" if having else typer.report.suggestion(name, place.known)
        typer.report.error(code, f"{where} has no {what} `{name}`", span, hint)
    elif place.owner == "resource":
        hint = typer.report.suggestion(name, place.known)
        typer.report.warning(code, f"no declared type has the attribute `{name}`", span, hint)


def _owner(typer: Typer, path: Path, place: Place, reading: Reading, whole: str) -> str:
    if path.root == "args" and whole == "args" and len(typer.selection.actions) == 1:
        return f"`{typer.selection.actions[0].name}`"
    tags = sorted({branch.tag for branch in reading.lacking if branch.tag is not None})
    if place.owner in ("principal", "resource") and len(tags) == 1:
        return f"`{whole}`, of type `{tags[0]}`,"
    return f"`{whole}`"


def _check_guard(typer: Typer, path: Path, key: tuple[str, ...], place: Place, reading: Reading, facts: Facts) -> None:
    open_prefixes = [length for length in sorted(reading.optional) if key[:length] not in facts.exists]
    if not open_prefixes:
        return
    absent = Path(key[0], key[1 : open_prefixes[0]], span=path.span)
    lacking = sorted({branch.tag for branch in reading.lacking if branch.tag is not None})
    why = f", since `{'`, `'.join(lacking)}` has no such {_word(path)}" if lacking and place.owner != "args" else ""
    hint = f"add `exists {absent} and …` beside it, or a default: `{path} ?? …`"
    if lacking and place.owner in ("principal", "resource"):
        having = sorted({b.tag for b in place.branches if b.tag is not None and b.tag not in lacking})
        owner = Path(key[0], key[1 : place.prefix], span=path.span)
        hint = f"add `{owner} is {having[0]} and …` beside it, or `exists {absent} and …`" if having else hint
    typer.report.error("unguarded", f"{text_of(absent)} may be absent{why}", path.span, hint)


def _word(path: Path) -> str:
    return "argument" if path.root == "args" else "attribute"


def principal_help(path: Path, facts: Facts, literal: str) -> str:
    """Return how to name the principal at `path` whose id is `literal`."""
    known = facts.tags.get((path.root, *path.steps), frozenset())
    by_root = "user" if path.root in PRINCIPALS - {"actor"} else "agent"
    kind = next(iter(known)) if len(known) == 1 else by_root
    return f"compare the principal itself: `{path} == {kind}({literal})`"
