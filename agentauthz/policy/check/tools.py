"""Check policies against the tools there are: then the set of actions is closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

from attrs import frozen

from agentauthz.policy.check.checked import Checked
from agentauthz.policy.check.infer import Typer
from agentauthz.policy.check.meaning import check_types
from agentauthz.policy.check.report import Reporter
from agentauthz.policy.check.static import category
from agentauthz.policy.check.world import Action, World
from agentauthz.policy.source import Diagnostic, Span
from agentauthz.policy.syntax import Call, CheckedRule, Expr, Literal_, Pattern, children
from agentauthz.policy.types import ANYTHING, Enumeration, Fields, Sequence, Type
from agentauthz.principals import OWN_NAMESPACES

_SHOWN: Final = 5  # actions of a star that a message names


@final
@frozen
class ToolSignature:
    """Be one tool as policies see it: `params` gives each argument's type, and whether it may be absent (None).

    `open` says that it takes any other argument too; `resource_type` None means that nobody says.
    """

    action: str
    params: Mapping[str, tuple[Type, bool]]
    open: bool = False
    resource_type: str | None = None


def check_tools(checked: Checked, tools: Iterable[ToolSignature]) -> tuple[Diagnostic, ...]:
    """Return what is wrong, and worth knowing, where there are no other actions than these tools'."""
    report = Reporter()
    signatures: dict[str, ToolSignature] = {}
    for tool in tools:
        before = signatures.get(tool.action)
        signatures[tool.action] = tool if before is None else _either(before, tool)
    for name, action in checked.actions.items():
        _check_declared(name, action, signatures, report)
    world = _closed(checked, signatures)
    for rule in checked.rules:
        with report.within(rule):
            _check_patterns(rule, world, signatures, report)
            check_types(rule, Typer(world.select(rule.patterns), rule.effect, report))
            _check_tracked(rule, signatures, report)
    known = {(found.code, found.span) for found in checked.diagnostics}
    return tuple(found for found in report.in_order() if (found.code, found.span) not in known)


def _either(one: ToolSignature, other: ToolSignature) -> ToolSignature:
    """Return what holds whichever of two tools with the same action is called."""
    params: dict[str, tuple[Type, bool]] = {}
    for name in sorted(one.params.keys() | other.params.keys()):
        here, there = (tool.params.get(name, (ANYTHING, True) if tool.open else None) for tool in (one, other))
        found = [param for param in (here, there) if param is not None]
        kind = found[0][0] if all(param[0] == found[0][0] for param in found) else ANYTHING
        params[name] = (kind, len(found) < 2 or any(param[1] for param in found))
    resource = one.resource_type if one.resource_type == other.resource_type else None
    return ToolSignature(one.action, params, one.open or other.open, resource)


def _closed(checked: Checked, signatures: Mapping[str, ToolSignature]) -> World:
    """Return the world of these tools; what the policy declares itself goes before a signature."""
    actions: dict[str, Action] = {}
    for name, tool in signatures.items():
        own = checked.actions.get(name)
        params = own.params if own is not None and own.params is not None else Fields(tool.params, name)
        resource = own.resource if own is not None and own.resource is not None else tool.resource_type
        resource = resource if resource in checked.types else None
        actions[name] = Action(name, params, resource, open=tool.open and (own is None or own.params is None))
    kept = {name: action for name, action in checked.actions.items() if name.startswith(OWN_NAMESPACES)}
    return World(checked.types, {**kept, **actions}, checked.marks, {}, closed=True)


# ---- actions that no tool has


def _check_patterns(rule: CheckedRule, world: World, signatures: Mapping[str, ToolSignature], report: Reporter) -> None:
    for pattern in rule.patterns:
        if pattern.name.startswith(OWN_NAMESPACES) or f"{pattern.name}." in OWN_NAMESPACES:
            continue
        if pattern.kind == "exact":
            if pattern.name not in signatures:
                _unknown(pattern, signatures, report)
            continue
        names = [action.name for action in world.matched(pattern)]
        if not names and pattern.kind == "prefix":
            message = f"no tool's action lies below `{pattern.name}`"
            heads = {name.rpartition(".")[0] for name in signatures} - {""}
            report.error("unknown-action", message, pattern.span, report.suggestion(pattern.name, heads))
        elif names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
            report.warning("star-matches", f"`{pattern}` matches {shown}{more} today", pattern.span)


def _unknown(pattern: Pattern, signatures: Mapping[str, ToolSignature], report: Reporter) -> None:
    hint = report.suggestion(pattern.name, signatures)
    report.error("unknown-action", f"no tool has the action `{pattern.name}`", pattern.span, hint)


def _check_tracked(rule: CheckedRule, signatures: Mapping[str, ToolSignature], report: Reporter) -> None:
    for expr in (rule.condition, rule.by, rule.amount, rule.bound, *rule.per):
        for call in _calls(expr) if expr is not None else ():
            name = call.args[0]
            if isinstance(name, Literal_) and isinstance(name.value, str) and name.value not in signatures:
                message = f"no tool has the action `{name.value}`"
                report.error("unknown-action", message, name.span, report.suggestion(name.value, signatures))


def _calls(expr: Expr) -> Iterable[Call]:
    if isinstance(expr, Call) and expr.name in ("began", "done"):
        yield expr
    for child in children(expr):
        yield from _calls(child)


# ---- declarations that disagree with a tool


def _check_declared(name: str, action: Action, signatures: Mapping[str, ToolSignature], report: Reporter) -> None:
    decl = action.decl
    assert decl is not None
    tool = signatures.get(name)
    if tool is None:
        if not name.startswith(OWN_NAMESPACES):
            report.error(
                "unknown-action",
                f"no tool has the action `{name}`",
                decl.name_span,
                report.suggestion(name, signatures),
            )
        return
    if decl.on is not None and decl.on_span is not None and tool.resource_type not in (None, decl.on):
        message = f"the tool's resource is a `{tool.resource_type}`, not a `{decl.on}`"
        report.error("signature-differs", message, decl.on_span, f"write `on {tool.resource_type}`")
    if decl.params is None or action.params is None:
        return
    for item in decl.params:
        written = action.params.fields[item.name]
        if item.name in tool.params:
            _compare(item.name, written, tool.params[item.name], item.name_span, item.type.span, report)
        elif not tool.open:
            message = f"the tool of `{name}` has no argument `{item.name}`"
            report.error("unknown-argument", message, item.name_span, report.suggestion(item.name, tool.params))
    missing = sorted(tool.params.keys() - action.params.fields.keys())
    if missing:
        listed = ", ".join(f"`{param}`" for param in missing)
        message = f"the tool of `{name}` also takes {listed}, and a call with it would be denied"
        report.error("signature-differs", message, decl.name_span, "declare all of its arguments")


def _compare(
    name: str, written: tuple[Type, bool], real: tuple[Type, bool], at: Span, type_at: Span, report: Reporter
) -> None:
    if not _fits(real[0], written[0]):
        message = f"the tool's argument `{name}` is {_named(real[0])}, not {_named(written[0])}"
        report.error("signature-differs", message, type_at, f"write `{name}: {real[0]}`")
    elif real[1] and not written[1]:
        message = f"the tool's argument `{name}` may be absent, but is declared as always there"
        report.error("signature-differs", message, at, f"write `{name}?: {written[0]}`")
    elif written[1] and not real[1]:
        message = f"the tool's argument `{name}` is always there, but is declared as optional"
        report.error("signature-differs", message, at, f"write `{name}: {written[0]}`")


def _fits(real: Type, written: Type) -> bool:
    """Say whether a value of the tool's type can have the declared one."""
    if ANYTHING in (real, written) or real == written:
        return True
    if isinstance(real, Sequence) and isinstance(written, Sequence):
        return _fits(real.item, written.item)
    if isinstance(real, Enumeration) and isinstance(written, Enumeration):
        return real.values <= written.values
    # a policy may know less than the tool (a string that is really one of a few), or more (an enumeration)
    return category(real) == category(written)


def _named(kind: Type) -> str:
    return f"`{kind}`" if not isinstance(kind, Fields) else "a record"
