"""Check the declarations, `type` and `action`, and make a `World` of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from agentauthz.policy.check.report import Reporter
from agentauthz.policy.check.world import ROOT_TYPES, Action, World, host_marks
from agentauthz.policy.source import Span
from agentauthz.policy.syntax import (
    ROOTS,
    ActionDecl,
    EnumType,
    Field,
    Let,
    ListType,
    NamedType,
    RecordType,
    Rule,
    Statement,
    TypeDecl,
    TypeExpr,
)
from agentauthz.policy.types import ANYTHING, SCALARS, STRING, TIME, Enumeration, Fields, Scalar, Type
from agentauthz.policy.types import Sequence as ListOfType
from agentauthz.principals import KINDS

Named = TypeVar("Named", bound="Rule | Let | ActionDecl | TypeDecl | Field")

_PRINCIPAL_BUILT_IN: Final = {"id": STRING, "kind": STRING, "issuer": STRING}
BUILT_IN: Final[Mapping[str, Mapping[str, Scalar]]] = {
    **dict.fromkeys(KINDS, _PRINCIPAL_BUILT_IN),
    "session": {"id": STRING, "started": TIME},
    "context": {},
}
_RESOURCE_BUILT_IN: Final = {"id": STRING, "type": STRING}
_NO_TYPE_NAMES: Final = (ROOTS | frozenset(SCALARS) | {"principal"}) - ROOT_TYPES
_HELP_ROOT: Final = {
    "subject": "declare `type user`, `type agent` and `type service`: the subject is one of them",
    "actor": "declare `type user`, `type agent` and `type service`: the actor is one of them",
    "approver": "declare `type user`, `type agent` and `type service`: the approver is one of them",
    "args": "declare the arguments with the action: `action some.name(amount: decimal)`",
    "resource": "declare a type for each kind of resource, and name it: `type Order { … }`",
}


def declare(statements: Sequence[Statement], report: Reporter) -> World:
    """Return what the statements declare, and report what is wrong with it."""
    decls = first_of((s for s in statements if isinstance(s, TypeDecl)), "type", report)
    actions = first_of((s for s in statements if isinstance(s, ActionDecl)), "action", report)
    types = {name: _type(decl, frozenset(decls), report) for name, decl in decls.items()}
    resources = frozenset(types) - ROOT_TYPES
    known = {name: _action(decl, frozenset(decls), resources, report) for name, decl in actions.items()}
    set_by_rules = {s.mark or s.name for s in statements if isinstance(s, Rule) and s.effect == "mark"}
    return World(types, known, host_marks(types) | set_by_rules, decls)


def first_of(items: Iterable[Named], what: str, report: Reporter) -> dict[str, Named]:
    """Return the first item of each name, and report the others."""
    found: dict[str, Named] = {}
    for item in items:
        first = found.setdefault(item.name, item)
        if first is not item:
            report.error(
                "duplicate-name",
                f"the {what} `{item.name}` is defined twice",
                item.name_span,
                "rename one of them, or remove it",
                [("first defined here", first.name_span)],
            )
    return found


def _type(decl: TypeDecl, declared: frozenset[str], report: Reporter) -> Fields:
    if decl.name in _NO_TYPE_NAMES:
        report.error(
            "reserved-name", f"`{decl.name}` can't be declared as a type", decl.name_span, _HELP_ROOT.get(decl.name)
        )
    fields = _fields(decl.fields, decl.name, "attribute", declared, report)
    built_in = BUILT_IN.get(decl.name, _RESOURCE_BUILT_IN)
    for item in decl.fields:
        own = built_in.get(item.name)
        if own is not None and fields.fields[item.name][0] not in (own, ANYTHING):
            report.error(
                "built-in-attribute",
                f"`{item.name}` of `{decl.name}` is built in, and is a {own}",
                item.name_span,
                "remove it: it needs no declaration",
            )
    _check_marks(decl, fields, report)
    return fields


def _check_marks(decl: TypeDecl, fields: Fields, report: Reporter) -> None:
    if decl.name != "session" or "marks" not in fields.fields:
        return
    kind = fields.fields["marks"][0]
    if isinstance(kind, ListOfType) and (isinstance(kind.item, Enumeration) or kind.item == ANYTHING):
        return
    span = next(item.type.span for item in decl.fields if item.name == "marks")
    report.error("bad-marks", "the host's marks are declared by name", span, 'write `marks: ["vip" | "trusted"]`')


def _action(decl: ActionDecl, declared: frozenset[str], resources: frozenset[str], report: Reporter) -> Action:
    check_action_name(decl.name, decl.name_span, report)
    if decl.on is not None and decl.on not in resources:
        assert decl.on_span is not None
        report.error(
            "unknown-type",
            f"there is no resource type `{decl.on}`",
            decl.on_span,
            report.suggestion(decl.on, resources, else_=f"declare it: `type {decl.on} {{ … }}`"),
        )
    params = None if decl.params is None else _fields(decl.params, decl.name, "argument", declared, report)
    return Action(decl.name, params, decl.on if decl.on in resources else None, decl)


def check_action_name(name: str, span: Span, report: Reporter) -> bool:
    """Say whether `name` can be one action's name, and report it where it can't."""
    if not name:
        report.error("empty-name", "an action's name is empty", span)
    elif "*" in name:
        hint = "write a pattern without quotes, such as `files.*`, to cover every name below"
        report.error("star-in-name", f"a star has no meaning in the exact name `{name}`", span, hint)
    return bool(name) and "*" not in name


def _fields(items: tuple[Field, ...], owner: str, what: str, declared: frozenset[str], report: Reporter) -> Fields:
    first = first_of(items, f"{what}", report)
    return Fields({name: (_read(item.type, declared, report), item.optional) for name, item in first.items()}, owner)


def _read(written: TypeExpr, declared: frozenset[str], report: Reporter) -> Type:
    match written:
        case NamedType(name):
            return SCALARS[name] if name in SCALARS else _unknown(written, declared, report)
        case ListType(item):
            return ListOfType(_read(item, declared, report))
        case EnumType(values):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                report.error(
                    "duplicate-name", f'the value "{twice[0]}" is listed twice', written.span, "remove one of them"
                )
            return Enumeration(frozenset(values))
        case RecordType(fields):
            return _fields(fields, "record", "attribute", declared, report)


def _unknown(written: NamedType, declared: frozenset[str], report: Reporter) -> Type:
    name, span = written.name, written.span
    if name in declared:
        hint = "write out the record, `{ name: string }`, or hold its id as a string"
        report.error(
            "unknown-type", f"`{name}` describes a resource or a root, so no value can have it as its type", span, hint
        )
    else:
        report.error("unknown-type", f"there is no type `{name}`", span, report.suggestion(name, SCALARS))
    return ANYTHING
