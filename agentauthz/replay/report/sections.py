"""Draw the parts of a report: the banner, the tree of parties, the policies, and the timeline with its whys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agentauthz.errors import NotReplayable
from agentauthz.records import DecisionRecord, EffectRecord, PolicyRecord
from agentauthz.records.delegations import Party
from agentauthz.records.findings import meaning, place, proven
from agentauthz.records.record import Input, Obliged
from agentauthz.records.story import Step, Story
from agentauthz.records.verify import Report, Verdict
from agentauthz.records.words import count, effect_words, party, refusal_words, value_words, when, why
from agentauthz.replay.clauses import Accounts, ToldRule, Why
from agentauthz.replay.report.html import Html, Part, joined, lines, tag

_OUTCOMES: Final = {"allow": "good", "deny": "bad", "review": "wait"}
_DAMAGES: Final = 50
_DEEP: Final = 100  # parties below each other that are drawn within each other


def banner(report: Report, unreadable: int) -> Html:
    """Draw what verification found."""
    kind = {Verdict.OK: "good", Verdict.TAMPERED: "bad", Verdict.INCOMPLETE: "bad"}.get(report.verdict, "wait")
    damages = [tag("li", place(damage)) for damage in report.damages[:_DAMAGES]]
    left = len(report.damages) - len(damages)
    return tag(
        "div",
        tag("p", _sentence(meaning(report))),
        tag("p", f"{count(unreadable, 'line')} of the log can't be read, so something may be missing below.")
        if unreadable
        else None,
        tag("ul", *damages, tag("li", f"… and {left} more") if left else None) if damages else None,
        tag(
            "details",
            tag("summary", "What is proven, and what is exposed"),
            tag("pre", lines("\n".join(proven(report)))),
        ),
        class_=f"banner {kind}",
    )


def _pre(text: str) -> Html:
    return tag("pre", lines(text))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


# ---- who acted for whom


def tree(roots: Sequence[Party]) -> Html:
    """Draw the parties, each below who passed authority on to it."""
    if not roots:
        return tag("p", "Nobody is named.")
    return tag("ul", *(_party(root, 0) for root in roots), class_="tree")


def _party(one: Party, depth: int) -> Html:
    below = [_party(each, depth + 1) for each in one.below.values()] if depth < _DEEP else []
    return tag("li", *_about(one), tag("ul", *below) if below else None)


def _about(one: Party) -> Iterator[Part]:
    yield tag("strong", party(one.actor))
    yield f": {count(one.acted, 'decision')}" if one.acted else None
    if one.hop is not None:
        narrowing = one.narrowing()
        words = "; ".join(narrowing) if narrowing else "with all that was there"
        yield tag("div", words, class_="small" if narrowing else "small soft")
    if one.lost:
        yield tag("div", f"{count(len(one.lost), 'call')} refused at this hop", class_="small lost")
    yield from (tag("div", refusal_words(each), class_="small lost") for each in one.refused)


# ---- policies


def policies(found: Story, accounts: Accounts, names: Mapping[str, str]) -> Html:
    """Draw which policies decided when, with their texts as far as the log has them."""
    used: dict[str, list[DecisionRecord]] = {digest: [] for digest in names}
    for step in found.steps:
        used[step.decision.policy.digest].append(step.decision)
    texts: dict[str, list[PolicyRecord]] = {}
    for one in found.policies:
        texts.setdefault(one.digest, []).append(one)
    return tag(
        "ul",
        *(_policy(used[digest], texts.get(digest, []), accounts, digest, name) for digest, name in names.items()),
        class_="plain",
    )


def _policy(
    used: Sequence[DecisionRecord], texts: Sequence[PolicyRecord], accounts: Accounts, digest: str, name: str
) -> Html:
    return tag(
        "li",
        tag("strong", name),
        " ",
        tag("code", digest or "none was asked"),
        tag("div", f"{count(len(used), 'decision')}, from {when(used[0])} to {when(used[-1])}", class_="small soft"),
        _texts(texts, accounts, digest, name),
    )


def _texts(texts: Sequence[PolicyRecord], accounts: Accounts, digest: str, name: str) -> Html | None:
    parts = {(one.source, one.part): one for one in texts}
    if not parts:
        return tag("p", f"The text of {name} isn't in the log.", class_="small soft") if digest else None
    files: dict[str, str] = {}
    for _, one in sorted(parts.items(), key=lambda item: item[0]):
        files[one.name] = files.get(one.name, "") + one.text
    try:
        accounts.policies(digest)
    except NotReplayable as cause:  # SECURITY: whoever reads a text takes it for what decided
        return tag("p", f"The text of {name} can't be shown: {cause.reason}.", class_="small lost")
    bodies = [
        joined([tag("p", tag("code", file), class_="small"), tag("pre", lines(text))]) for file, text in files.items()
    ]
    return tag("details", tag("summary", f"Text of {name}"), *bodies)


# ---- what happened


def timeline(
    steps: Sequence[Step],
    accounts: Accounts,
    names: Mapping[str, str],
    prefix: str,
    strays: Sequence[EffectRecord] = (),
) -> Html:
    """Draw decisions in order, each with its effect and its why, and where the policies changed."""
    items: list[Html] = []
    before = None
    for number, step in enumerate(steps, 1):
        digest = step.decision.policy.digest
        if before not in (None, digest):
            items.append(tag("li", f"From here on {names[digest]} decides", class_="turn small"))
        before = digest
        items.append(_step(step, accounts, names[digest], f"{prefix}{number}"))
    items += [_stray(effect) for effect in strays]
    return tag("ol", *items, class_="steps") if items else tag("p", "Nothing.")


def _step(step: Step, accounts: Accounts, policy: str, own: str) -> Html:
    record = step.decision
    resource = record.resource
    on = "" if resource is None or resource.id is None else f" on {resource.type}:{resource.id}"
    title = tag("h3", record.action.name, on, id=own)
    line = tag(
        "div",
        title,
        tag("span", record.outcome, class_=f"badge {_OUTCOMES.get(record.outcome, 'wait')}"),
        tag("time", when(record), datetime=record.ts.isoformat()),
        tag("span", "order by the clock only", class_="small soft") if step.by_clock else None,
        class_="line",
    )
    return tag(
        "li",
        line,
        tag("p", " → ".join(map(party, record.actors)) or "nobody", class_="small"),
        tag("p", f"by {why(record)}" if record.rules and record.outcome == "allow" else why(record)),
        tag("p", "Observed only, so it ran.", class_="small") if not record.enforced else None,
        *_effects(step),
        _details(record, accounts.why(record), policy, own),
        class_="unknown" if step.fate == "unknown" else None,
    )


def _effects(step: Step) -> Iterator[Html]:
    for effect in step.effects:
        yield tag("p", "→ ", effect_words(effect), class_="effect")
    if step.fate == "unknown":
        yield tag("p", "→ allowed, effect unknown", class_="effect lost")


def _stray(effect: EffectRecord) -> Html:
    told = f"An effect whose decision isn't in the log: {effect.action or 'a call'}, {effect_words(effect)}"
    return tag("li", tag("p", told), tag("p", when(effect), class_="small soft"))


def _details(record: DecisionRecord, told: Why, policy: str, own: str) -> Html:
    return tag(
        "details",
        tag("summary", "Why"),
        *(tag("p", f"{reason.code}: {reason.text}", class_="small") for reason in record.reasons),
        tag("p", f"As it was recorded; not derived again: {told.recorded}", class_="small soft")
        if told.recorded is not None
        else None,
        tag("ul", *(tag("li", _sentence(flip)) for flip in told.flips), class_="plain flips") if told.flips else None,
        *(_rule(rule) for rule in told.rules),
        tag("p", f"… and {count(told.more, 'rule')} more that match this action", class_="small soft")
        if told.more
        else None,
        _facts(record, policy),
        aria_labelledby=own,
    )


def _rule(rule: ToldRule) -> Html:
    heads = tag("tr", *(tag("th", title, scope="col") for title in ("clause", "came out", "saw")))
    rows = [
        tag(
            "tr",
            tag("td", tag("code", clause.expr)),
            tag("td", clause.result),
            tag("td", *(tag("div", tag("code", f"{path} = {value}")) for path, value in clause.saw)),
        )
        for clause in rule.clauses
    ]
    decisive = ", which decided" if rule.named else ""
    caption = tag("caption", f"{rule.name}{decisive}, as ", tag("code", rule.actor))
    return tag("table", caption, tag("thead", heads), tag("tbody", *rows))


def _facts(record: DecisionRecord, policy: str) -> Html:
    facts: list[tuple[str, str]] = [
        ("record", record.id),
        ("place", f"number {record.seq} of stream {record.stream}"),
        ("policies", policy),
        ("basis", record.basis),
        ("purpose", record.purpose or ""),
        ("marks set", ", ".join(record.marks)),
        ("missing", ", ".join(record.missing)),
        (
            "obligations",
            ", ".join(map(_obliged, record.obligations)),
        ),
        ("arguments", ", ".join(record.action.given)),
        ("inputs", "; ".join(map(_input, record.inputs))),
        ("hidden", ", ".join(record.meta.redacted)),
    ]
    return tag("dl", *(part for name, value in facts if value for part in (tag("dt", name), tag("dd", value))))


def _obliged(one: Obliged) -> str:
    return f"{one.type} (not carried out)" if one.left else one.type


def _input(one: Input) -> str:
    return f"{one.name} = {value_words(one.value)}" if one.state == "value" else f"{one.name} ({one.state})"
