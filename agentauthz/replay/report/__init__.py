"""Draw one session as one self-contained page: what happened, who acted for whom, why, and what the log proves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from agentauthz.records.delegations import delegations
from agentauthz.records.reading import log_lines
from agentauthz.records.story import Step, Story, story
from agentauthz.records.verify import Report, verify
from agentauthz.records.witnessed import Kept
from agentauthz.records.words import count, when
from agentauthz.replay.clauses import Accounts
from agentauthz.replay.report.html import Html, Part, page, tag
from agentauthz.replay.report.sections import banner, policies, timeline, tree


def report(
    folder: str | os.PathLike[str],
    session: str,
    *,
    checkpoint: Kept = None,
    keys: Iterable[str] = (),
) -> str:
    """Return the account of a session as one HTML page, which needs no network and no scripts.

    The log is verified as `verify` does, with its `checkpoint` and `keys`. The same log gives the same page.

    Raises:
        InvalidArgument: the log has nothing of the session, or as for `verify`.
    """
    found = story(log_lines(Path(folder)), session)
    return drawn(found, verify(folder, checkpoint=checkpoint, keys=keys))


def drawn(found: Story, verified: Report) -> str:
    """Return the page of a session, and of what the verification of its log found."""
    sections = list(_sections(found, verified))
    links = [tag("li", tag("a", title, href=f"#{own}")) for own, title, _ in sections]
    style = (files(__name__) / "report.css").read_text("utf-8")
    return page(
        f"Session {found.session}",
        style,
        tag("a", "Skip to what happened", class_="skip", href="#timeline"),
        tag(
            "header",
            tag("h1", "Session ", tag("code", found.session)),
            tag("p", _summary(found), class_="soft"),
            tag("nav", tag("ul", *links), aria_label="On this page"),
        ),
        tag("main", *(_section(own, title, body) for own, title, body in sections), id="main"),
        tag("footer", tag("p", "Made of the records alone, by agentauthz. Nothing on this page was loaded or run.")),
    ).source


def _sections(found: Story, verified: Report) -> Iterator[tuple[str, str, Part]]:
    accounts = Accounts(found.policies)
    names = {digest: f"P{number}" for number, digest in enumerate(found.digests, 1)}
    inline = [step for step in found.steps if step.fate == "inline"]
    yield "integrity", "What the log proves", banner(verified, found.unreadable)
    yield "parties", "Who acted for whom", tree(delegations((step.decision for step in found.steps), found.passed))
    yield "policies", "Policies", policies(found, accounts, names)
    guarded = [step for step in found.steps if step.fate != "inline"]
    yield "timeline", "What happened", timeline(guarded, accounts, names, "g", found.strays)
    if inline:
        yield "inline", "Decided inline, where no effect is recorded", timeline(inline, accounts, names, "i")


def _section(own: str, title: str, body: Part) -> Html:
    return tag("section", tag("h2", title, id=f"{own}-title"), body, id=own, aria_labelledby=f"{own}-title")


def _summary(found: Story) -> str:
    steps = found.steps
    if not steps:
        return "No decision of it is in the log"
    unknown = f", {count(len(found.unknown), 'effect')} unknown" if found.unknown else ""
    return f"{count(len(steps), 'decision')} ({_outcomes(steps)}){unknown}, {_span(steps)}"


def _outcomes(steps: Iterable[Step]) -> str:
    outcomes = [step.decision.outcome for step in steps]
    return ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes))


def _span(steps: tuple[Step, ...]) -> str:
    return f"from {when(steps[0].decision)} to {when(steps[-1].decision)}"
