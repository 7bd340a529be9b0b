"""Test that readers survive and disarm what logs hold: rows 25, 26, 35 and 37 of the table of faults."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz import Authorizer, PolicySet, Principal
from agentauthz.records import FileSink
from agentauthz.records.export import FORMS
from agentauthz.records.query import Query, query
from agentauthz.replay.report import report
from tests import logs
from tests.commands import BOT, POLICY, Ran, decisions, ran, refund, written
from tests.faults.logged import VKEY, run

EVIL: Final = "x\r\n2026-11-25  allow\x1b[2K\x1b]0;owned\x07\x00\u202e\u2066\u200f\x7f\x9b\u2028\u0085\ufeff"
SCRIPT: Final = (
    '</script></style></title><script>document.title="owned"</script><img src=x onerror=alert(1)>"\' onclick=\'a()'
)


def _hostile(folder: Path, text: str) -> None:
    """Write a log in which everything that others choose is `text`."""
    policy = POLICY.replace("Not to strangers", "no")
    with Authorizer(PolicySet.parse(policy, name="shop.authz"), sinks=[FileSink(folder)]) as authorizer:
        user, agent = Principal.user(text, issuer=text), Principal.agent(text)
        with authorizer.session(user, agent, id="s") as session:
            refund(text, 5, text)
            with session.delegate(Principal.agent("below" + text), purpose=text) as below:
                below.decide(text, args={text: text})
                below.decide("shop.find")
        authorizer.session(user, agent, id=text).decide("shop.find")


def _every(capsys: pytest.CaptureFixture[str], folder: Path, session: str, one: str | None = None) -> list[Ran]:
    """Run each command that reads a log."""
    one = next(query(logs.lines(folder), Query())).id if one is None else one
    page = folder.parent / "report.html"
    return [
        ran(capsys, "verify", folder),
        ran(capsys, "show", session, folder),
        ran(capsys, "query", folder),
        ran(capsys, "query", folder, "--json"),
        ran(capsys, "explain", one, folder),
        ran(capsys, "report", folder, "--session", session, "-o", page),
        ran(capsys, "tail", folder, "-n", 1_000),
        *(ran(capsys, "export", folder, "--format", form) for form in FORMS),
        ran(capsys, "prove", one, folder, "--key", VKEY),
        ran(capsys, "prune", folder, "--before", "2100-01-01T00:00:00Z", "--dry-run"),
        ran(capsys, "repair", folder, "--dry-run"),
    ]


def test_row_25_names_are_shown_and_never_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Line feeds, ANSI sequences, NUL, marks of direction in names: one line each in the log, escapes when shown."""
    folder = tmp_path / "log"
    _hostile(folder, EVIL)
    for line in logs.lines(folder):
        text = line.decode()
        assert text.count("\n") == 1
        assert all(c.isprintable() for c in text[:-1])
    shown = _every(capsys, folder, "s")
    assert all(found.code in (0, 1, 2, 4) for found in shown)  # 4: nobody signed it, so nothing can be proven
    out = shown[1].out
    assert "user(x\\u000d\\u000a2026-11-25  allow\\u001b[2K" in out
    assert not any(line.startswith("2026-11-25  allow") for line in out.splitlines())
    found = ran(capsys, "show", EVIL, folder)
    assert (found.code, found.err) == (0, "")
    page = report(folder, EVIL)
    assert all(c == "\n" or c.isprintable() for c in page)


class _Page(HTMLParser):
    """Collect what a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


KNOWN: Final = set(
    "html head meta title style body a header h1 h2 h3 p nav ul ol li main section div details summary pre code span "
    "time strong table caption thead tbody tr th td dl dt dd footer".split()
)


@pytest.mark.parametrize("text", [SCRIPT, "javascript:alert(1)", "]]><!--" + SCRIPT, "&lt;script&gt;"])
def test_row_26_a_report_is_inert(text: str, tmp_path: Path) -> None:
    """Whatever arguments and names hold, the page has our elements only, loads nothing, and forbids scripts."""
    folder = tmp_path / "log"
    _hostile(folder, text)
    page = _Page(report(folder, "s"))
    assert {tag for tag, _ in page.tags} <= KNOWN
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("style", "src", "srcdoc") for name in attributes)
        assert tag != "a" or str(attributes["href"]).startswith("#")
    [policy] = [each["content"] for _, each in page.tags if each.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; style-src 'sha256-")
    assert text in "".join(page.texts)


def _line(number: int, **told: Any) -> bytes:
    tree = {"v": "1.0", "stream": "0" * 26, "seq": number, "prev": "0" * 64, "mono_ns": 1, "id": f"r-{number}"}
    return json.dumps({**tree, "ts": "2026-11-23T09:00:00.000000Z", **told}).encode() + b"\n"


_DECISION: Final[dict[str, Any]] = {
    "type": "decision", "outcome": "allow", "basis": "rule", "policy": {"digest": "sha256:0"}, "session": "s",
    "action": {"name": "shop.find", "args_digest": ""}, "actors": [{"sub": "maria", "kind": "user"}],
}  # fmt: skip


def test_row_35_readers_read_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A newer minor version, unknown types and fields, and a corrupt segment in the middle are read over, and told."""
    folder = tmp_path / "log"
    sink = FileSink(folder, segment_size=4_000)
    authorizer = Authorizer(PolicySet.parse(POLICY, name="shop.authz"), sinks=[sink])
    with authorizer, authorizer.session(Principal.user("maria"), BOT, id="s"):
        for number in range(12):
            refund(f"o-{number}", number)
    first, middle, *_, last = logs.segments(folder)
    middle.write_bytes(random.Random(35).randbytes(3_000) + b"\n" + b"[" * 50_000 + b"\n")
    with last.open("ab") as file:
        file.write(_line(900, type="of.the.future", about={"deep": [{"x": None}]}))
        file.write(_line(901, **_DECISION, v="1.9", future={"a": 1}))
        file.write(_line(902, **{**_DECISION, "v": "2.0"}))
        file.write(_line(903, **{**_DECISION, "actors": "maria", "explain": 7}))
        file.write(_line(904, **{**_DECISION, "ts": "2026-11-23T09:00:00", "chain": [{}], "explain": [{"rule": []}]}))
    verified, shown, queried, _, explained, reported, tailed, *_ = _every(capsys, folder, "s")
    assert (verified.code, verified.out.splitlines()[0]) == (1, "tampered: the log isn't as it was written")
    assert shown.code == 1  # the effects of some calls were in the corrupt segment, or never there
    assert "lines of the log can't be read" in shown.out
    assert "r-901" in queried.out
    assert (explained.code, reported.code, tailed.code) == (0, 0, 0)
    assert "of.the.future" in tailed.out
    assert "can&#x27;t be read" in (tmp_path / "report.html").read_text("utf-8")
    assert first.exists()


@pytest.mark.parametrize("seed", range(20))
def test_row_35_readers_never_crash(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are overwritten, cut, doubled or added anywhere in a log stop no command."""
    folder, chance = tmp_path / "log", random.Random(seed)
    written(folder)
    one = decisions(folder)[0].id
    [path] = logs.segments(folder)
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 30)):
        at, length = chance.randrange(len(data)), chance.randint(0, 40)
        data[at : at + length] = chance.choice([chance.randbytes(length), b"", b"\n", b"[]", b"null", b'{"v":"1.0"}'])
    path.write_bytes(data)
    for found in _every(capsys, folder, "conversation-7", one):
        assert found.code in (0, 1, 2, 3, 4)


def test_row_37_a_call_that_nobody_knows_the_end_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A process that dies within a tool leaves a decision of which the effect is unknown, and that is said."""
    run(
        """
        import os, sys
        from agentauthz import Authorizer, PolicySet, authorize
        from agentauthz.records import FileSink
        from tests.commands import BOT, MARIA, POLICY

        @authorize("shop.refund")
        def die(amount: int, to: str) -> None:
            os._exit(0)

        with Authorizer(PolicySet.parse(POLICY), sinks=[FileSink(sys.argv[1])]).session(MARIA, BOT, id="s-1"):
            die(5, "maria")
        """,
        tmp_path,
    )
    found = ran(capsys, "show", "s-1", tmp_path)
    assert found.code == 1
    assert "    -> ALLOWED, EFFECT UNKNOWN\n" in found.out
    assert found.out.endswith("1 call allowed, effect unknown\n")
