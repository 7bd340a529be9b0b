"""The report: one page that tells what happened, who acted for whom, why, and what the log proves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agentauthz.errors import InvalidArgument
from agentauthz.records import DecisionRecord, PolicyRecord, read_record
from agentauthz.records.story import story
from agentauthz.replay.clauses import Accounts
from agentauthz.replay.report import report
from tests import logs
from tests.commands import decisions, ran, written
from tests.faults.logged import VKEY


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the log of two sessions, and what a witness kept."""
    folder = tmp_path_factory.mktemp("log") / "records"
    return folder, "\n".join(written(folder))


def _section(page: str, own: str) -> str:
    found = re.search(f'<section id="{own}".*?</section>', page, re.DOTALL)
    assert found is not None
    return re.sub(r"<[^>]+>", "|", found[0])


def test_the_banner_says_what_is_proven(log: tuple[Path, str]) -> None:
    """With a witness the banner says ok, without one that nobody can tell, and after an edit that it was tampered."""
    folder, notes = log
    assert "|Ok: every record up to" in _section(
        report(folder, "conversation-7", checkpoint=notes, keys=[VKEY]), "integrity"
    )
    assert "|Unwitnessed: " in _section(report(folder, "conversation-7"), "integrity")
    [path] = logs.segments(folder)
    before = path.read_bytes()
    try:
        path.write_bytes(before.replace(b'"outcome":"deny"', b'"outcome":"DENY"', 1))
        found = _section(report(folder, "conversation-7"), "integrity")
    finally:
        path.write_bytes(before)
    assert "|Tampered: " in found
    assert "edited: stream " in found


def test_the_page_tells_the_session(log: tuple[Path, str]) -> None:
    """Decisions stand with effects and reasons, inline ones apart, and the tree with each hop's narrowing."""
    page = report(log[0], "conversation-7")
    happened, inline = _section(page, "timeline"), _section(page, "inline")
    assert happened.count("|shop.refund|") == 5
    assert inline.count("|shop.find|") == 2
    for told in ("done in", "failed with LookupError", "rule: Not to strangers", "rule: Somebody has to look"):
        assert told in happened
    assert "args.amount &lt;= 1000" in happened
    assert "args.amount = 5" in happened
    assert "|It would be allowed if `args.to == &quot;mallory&quot;` were false.|" in happened
    assert "|It would be denied if `args.to == &quot;mallory&quot;` were true" in happened
    parties = _section(page, "parties")
    assert "|user(maria)|" in parties
    assert "only shop.find, of *; only for search; only until " in parties
    assert "1 call refused at this hop" in parties
    assert "forbid stranger on shop.refund" in _section(page, "policies")
    assert "user(otto)" not in page


def test_the_page_is_the_same_each_time_and_needs_nothing(log: tuple[Path, str]) -> None:
    """The page is a function of the log, without a script, a link to elsewhere, or anything to load."""
    page = report(log[0], "conversation-7")
    assert page == report(log[0], "conversation-7")
    for wanted in ("<script", "http:", "https:", "url(", "@import", "src="):
        assert wanted not in page
    for landmark in ("<header>", "<main ", "<nav ", "<footer>", 'lang="en"', "<h1>"):
        assert page.count(landmark) == 1
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r' id="([^"]+)"', page))
    assert len(re.findall(r' id="([^"]+)"', page)) == len(set(re.findall(r' id="([^"]+)"', page)))
    assert "prefers-color-scheme: dark" in page


def test_the_why_is_derived_or_says_that_it_is_not(log: tuple[Path, str]) -> None:
    """Clauses come from the recorded policies; without their text, from the record, and the page says so."""
    records = logs.records(log[0])
    denied = next(each for each in decisions(log[0]) if each.rules == ("stranger",))
    told = Accounts([each for each in records if isinstance(each, PolicyRecord)]).why(denied)
    assert told.recorded is None
    assert (told.rules[0].name, told.rules[0].named) == ("stranger", True)
    assert told.rules[0].clauses[0].saw == (("args.to", '"mallory"'),)
    alone = Accounts([]).why(denied)
    assert alone.recorded == f"the text of the policies {denied.policy.digest} isn't among the records"
    assert [rule.name for rule in alone.rules] == ["stranger"]
    assert alone.rules[0].clauses[0].expr == told.rules[0].clauses[0].expr


def test_a_why_that_contradicts_the_record_is_not_shown(log: tuple[Path, str]) -> None:
    """Where the policies decide in another way than the record says, only what was recorded is shown."""
    lines = [line for line in logs.lines(log[0]) if b'"rules":["stranger"]' in line]
    tree = json.loads(lines[0]) | {"outcome": "allow"}
    forged = read_record(json.dumps(tree).encode())
    assert isinstance(forged, DecisionRecord)
    told = Accounts(story(logs.lines(log[0]), "conversation-7").policies).why(forged)
    assert told.recorded == "derived again, it comes out in another way"


def test_the_command_writes_the_page(log: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`records report` writes what `report` returns; a session that isn't there is usage."""
    page = tmp_path / "page.html"
    assert ran(capsys, "report", log[0], "--session", "conversation-7", "-o", page).code == 0
    assert page.read_text("utf-8") == report(log[0], "conversation-7")
    assert ran(capsys, "report", log[0], "--session", "none", "-o", page).code == 4
    assert ran(capsys, "report", log[0], "--session", "conversation-7").code == 4
    with pytest.raises(InvalidArgument):
        report(log[0], "none")
