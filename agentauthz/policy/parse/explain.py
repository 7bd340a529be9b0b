"""Say in the words of the language what is wrong where the grammar doesn't go on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Set
from typing import Final, TypeAlias, final

from attrs import frozen

from agentauthz.policy.builtins import KEYWORDS, RESERVED
from agentauthz.policy.parse.chunks import STATEMENTS, Overview, overview, token_at
from agentauthz.policy.parse.codes import problem, quoted
from agentauthz.policy.parse.tables import END
from agentauthz.policy.source import Diagnostic, Source, Span

Finding: TypeAlias = tuple[str, str, int, int, str | None]  # code, message, start, end, help

_COMPARISONS: Final = frozenset({"COMPARE", "AT_MOST", "IN", "NOT", "LIKE", "IS"})
_CLAUSES: Final = frozenset({"WHEN", "UNLESS", "WITH", "BY", "WITHIN", "TO", "PER", "EVERY", "BECAUSE"})
_CLOSING: Final = {"RPAR": "(", "RSQB": "[", "RBRACE": "{"}
_PARTNER: Final = {"(": ")", "[": "]", "{": "}"}
_PUNCTUATION: Final = {
    "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]", "LBRACE": "{", "RBRACE": "}", "COMMA": ",", "COLON": ":",
    "DOT": ".", "EQUAL": "=", "VBAR": "|", "AT_MOST": "<=", "STAR": "*", "OPTIONAL": "?",
}  # fmt: skip

# What people write who come from another language, longest first, and what to write here.
_OPERATORS: Final[Mapping[str, str]] = {
    "===": "compare with `==`", "!==": "compare with `!=`", "<>": "compare with `!=`",
    "=>": "compare with `>=`", "=<": "compare with `<=`", ":=": "compare with `==`; `let` names an expression with `=`",
    "=": "compare with `==`", "&&": "write `and`", "&": "write `and`", "||": "write `or`", "|": "write `or`",
    "!": "write `not`", ";": "statements and clauses end by themselves: leave it out",
    "//": "a comment starts with `#`", "/*": "a comment starts with `#` and ends with its line",
    "**": "there are `+`, `-` and `*`", "/": "there is no division: multiply the other side",
    "%": "there is no remainder",
    "?": "there is no conditional expression: `P ?? B` is B where P is absent",
    "\N{NOT EQUAL TO}": "write `!=`", "\N{LESS-THAN OR EQUAL TO}": "write `<=`",
    "\N{GREATER-THAN OR EQUAL TO}": "write `>=`", "\N{MULTIPLICATION SIGN}": "write `*`",
    "\N{MINUS SIGN}": "write `-`", "\N{EN DASH}": "write `-`", "\N{LOGICAL AND}": "write `and`",
    "\N{LOGICAL OR}": "write `or`", "\N{NOT SIGN}": "write `not`",
}  # fmt: skip
_QUOTES: Final = "'`\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}"
_WORDS: Final[Mapping[str, str]] = {
    "else": "rules have no alternative: write a second rule",
    "elif": "rules have no alternative: write a second rule",
    "elseif": "rules have no alternative: write a second rule",
    "if": "a condition follows `when`",
    "then": "a rule's effect is its first word",
    "where": "a condition follows `when`",
    "allow": "a rule that lets a call happen begins with `permit`",
    "deny": "a rule that stops a call begins with `forbid`",
    "import": "the files of a folder are read together: nothing is imported",
}


@final
@frozen
class Place:
    """Be where parsing stopped: the statement's text, the offset, the kind of token found, and what would fit.

    `kind` is empty where no token begins at the offset.
    """

    text: str
    at: int
    kind: str
    expected: Set[str]
    before: Overview

    @property
    def token(self) -> str:
        """Return the token's characters."""
        return token_at(self.text, self.at)

    @property
    def previous(self) -> str:
        """Return the characters of the token before, or nothing."""
        return self.text[slice(*self.before.last)] if self.before.last else ""

    def finding(self, code: str, message: str, tip: str | None, length: int | None = None) -> Finding:
        """Return a finding about the token."""
        return code, message, self.at, self.at + (len(self.token) if length is None else length), tip


def explain(source: Source, base: int, text: str, at: int, kind: str, expected: Set[str]) -> Diagnostic:
    """Return what is wrong at offset `at` of the statement `text`, which begins at offset `base` of `source`."""
    before = overview(text, len(text) if kind == END else at)
    if kind == END and before.last:
        at = before.last[1]
    place = Place(text, at, kind, expected, before)
    bracket = _unclosed(place)
    if bracket is not None:
        code, message, start, end, tip = bracket
        stop = Span(source, base + at, base + at + len(place.token))
        related = (("it should be closed before this", stop),)
        return Diagnostic(code, message, Span(source, base + start, base + end), tip, related=related)
    finding = next(found for detect in _DETECTORS if (found := detect(place)) is not None)
    code, message, start, end, tip = finding
    return problem(code, message, source, base + start, base + end, tip)


# ---- the usual mistakes, each with its own words


def _unclosed(place: Place) -> Finding | None:
    if not place.before.opened:
        return None
    start = place.before.opened[-1]
    opening = place.text[start]
    wrong_partner = _CLOSING.get(place.kind, opening) != opening and place.kind not in place.expected
    if place.kind != END and place.kind not in _CLAUSES and not wrong_partner:
        return None
    return "unclosed-bracket", f"`{opening}` is not closed", start, start + 1, f"close it with `{_PARTNER[opening]}`"


def _unopened(place: Place) -> Finding | None:
    if place.kind not in _CLOSING or place.before.opened:
        return None
    return place.finding("unopened-bracket", f"`{place.token}` closes nothing", "remove it, or open it further up")


def _quote(place: Place) -> Finding | None:
    char = place.text[place.at : place.at + 1]
    if char == '"' and not place.kind:
        return place.finding("unclosed-string", "the string is not closed", 'close it with `"` on the same line')
    if char and char in _QUOTES:
        message = f"`{char}` doesn't quote a string"
        return place.finding("unknown-operator", message, "strings stand in double quotes", 1)
    return None


def _operator(place: Place) -> Finding | None:
    if place.kind == "COMPARE" and place.text[place.at - 1 : place.at + 1] == "<>":
        return "unknown-operator", "`<>` is not an operator", place.at - 1, place.at + 1, _OPERATORS["<>"]
    if place.kind == "EQUAL" and place.text[place.at - 2 : place.at] in ("==", "!="):
        shown = place.text[place.at - 2 : place.at + 1]
        return "unknown-operator", f"`{shown}` is not an operator", place.at - 2, place.at + 1, _OPERATORS[shown]
    if place.kind in place.expected or place.text.startswith(("==", "!=", "??"), place.at):
        return None
    found = next((sign for sign in _OPERATORS if place.text.startswith(sign, place.at)), None)
    if found is None or (found == "=" and "COMPARE" not in place.expected):
        return None
    return place.finding("unknown-operator", f"`{found}` is not an operator here", _OPERATORS[found], len(found))


def _number(place: Place) -> Finding | None:
    if place.kind == "DOT" and (digits := re.match(r"\.[0-9]+", place.text[place.at : place.at + 64])):
        return place.finding("bad-number", "a number begins with a digit", f"write `0{digits[0]}`", digits.end())
    token = place.token
    if place.kind or not token[:1].isdecimal() or not token[:1].isascii():
        return None
    if re.fullmatch(r"(?:[0-9]+(?:ms|s|m|h|d|w)){2,}", token[:64]):
        return place.finding("bad-duration", f"{quoted(token)} is not a duration", "write it in one unit: `90m`")
    if re.fullmatch(r"[0-9.]+[A-Za-z]+", token[:64]) and not re.fullmatch(r"[0-9.]+[eExX][A-Za-z]*", token[:64]):
        tip = "a duration is a whole number and a unit: `ms`, `s`, `m`, `h`, `d` or `w`"
        return place.finding("bad-duration", f"{quoted(token)} is not a duration", tip)
    tip = "a number is digits, perhaps with one point between them: `1500`, `2.50`"
    return place.finding("bad-number", f"{quoted(token)} is not a number", tip)


def _name(place: Place) -> Finding | None:
    found = re.compile(r"\w+").match(place.text, place.at)
    if place.kind or found is None:
        return None
    word = found[0]
    if word.startswith("_"):
        return place.finding("hidden-name", f"{quoted(word)} begins with an underscore",
                             "names that begin with an underscore don't exist in policies", len(word))  # fmt: skip
    odd = next((char for char in word if not char.isascii()), None)
    if odd is None:
        return None
    tip = f'names have A to Z, a to z, digits and underscores, not `{odd}`: other keys stand in quotes, `args["key"]`'
    return place.finding("bad-character", f"{quoted(word)} is not a name", tip, len(word))


def _character(place: Place) -> Finding | None:
    char = place.text[place.at : place.at + 1]
    if place.kind or not char:
        return None
    if char.isspace():
        shown = f"`\\u{{{ord(char):x}}}`"
        return place.finding("bad-character", f"{shown} is not an ordinary space", "write a space", 1)
    return place.finding("bad-character", f"`{char}` means nothing outside quotes", None, 1)


def _chained(place: Place) -> Finding | None:
    if place.kind not in _COMPARISONS or "AND" not in place.expected:
        return None
    tip = "compare twice, with `and` between, or put one comparison in parentheses"
    return place.finding("chained-comparison", f"{quoted(place.token)} can't follow a comparison", tip)


def _statement(place: Place) -> Finding | None:
    word = place.token
    if place.before.last is None and word in RESERVED:
        tip = "statements begin with " + _listed(STATEMENTS)
        return place.finding("reserved-word", f"`{word}` is reserved for later", tip)
    if place.before.last is None or word not in STATEMENTS or place.kind == "NAME" or not place.kind:
        return None
    line = place.text[place.text.rfind("\n", 0, place.at) + 1 : place.at]
    if not line.strip():
        tip = f"write `{word}` and the name that follows it on one line"
        return place.finding("second-statement", f"`{word}` stands alone on its line", tip)
    return place.finding("second-statement", f"`{word}` begins a second statement on this line",
                         "begin each statement on its own line")  # fmt: skip


def _foreign(place: Place) -> Finding | None:
    tip = _WORDS.get(place.token.lower())
    if tip is None or place.kind != "NAME":
        return None
    return place.finding("syntax", f"`{place.token}` is not a word of the language", tip)


# ---- everything else: what would fit, what was found, and the nearest word


def _mismatch(place: Place) -> Finding:
    found = quoted(place.token) if place.kind != END else "the end of the statement"
    length = 0 if place.kind == END else None
    return place.finding("syntax", f"expected {_phrase(place)}, found {found}", _nearest(place), length)


def _nearest(place: Place) -> str | None:
    inside = _CLAUSES if place.before.opened else frozenset()
    words = [name.lower() for name in place.expected - inside if name.lower() in KEYWORDS]
    near = difflib.get_close_matches(place.token[:64].lower(), words, n=1, cutoff=0.65) if place.kind == "NAME" else []
    return f"did you mean `{near[0]}`?" if near else None


_AFTER: Final[Mapping[str, str]] = {
    **dict.fromkeys(("permit", "forbid", "review", "limit", "mark"), "the rule's name"),
    "let": "the name that the expression gets",
    "type": "the type's name, or `user`, `agent`, `service`, `session`, `context`",
    "with": "the obligation's name",
    "as": "the mark's name",
    "any": "a variable's name",
    "every": "a variable's name",
    "is": "a type's name",
    ".": "a name after the dot",
    "exists": "a path such as `args.amount`",
}
_FITS: Final[tuple[tuple[Set[str], str], ...]] = (
    ({"PERMIT"}, "a statement: " + ", ".join(f"`{word}`" for word in STATEMENTS[:-1]) + f" or `{STATEMENTS[-1]}`"),
    ({"ON", "AS"}, "`on` and the actions that the rule is about"),
    ({"EXISTS"}, "a value or a condition"),
    ({"COUNT"}, "`count <= ...` or `sum(...) <= ...`"),
    ({"LBRACE", "LSQB", "STRING"}, 'a type such as `string`, `[string]`, `"a" | "b"` or `{ name: string }`'),
    ({"STRING", "STAR"}, "an action such as `payments.refund`, `payments.*` or `*`"),
    ({"STRING", "NAME"}, "the action's name"),
    ({"INT"}, "a value"),
)


def _phrase(place: Place) -> str:
    expected, opened = place.expected, place.before.opened
    if expected == {"NAME"} or expected == {"NAME", "STAR"}:
        return _AFTER.get(place.previous, "a name") + (" or a star" if "STAR" in expected else "")
    if expected == {"DURATION"}:
        return "a duration such as `15m`"
    if expected == {"STRING"}:
        return {"like": "a pattern in quotes", "because": "a text in quotes"}.get(place.previous, "a key in quotes")
    for fits, phrase in _FITS:
        if fits <= expected:
            return phrase
    if expected & {"OR", "AND", "COMPARE"}:
        if opened:
            return f"an operator, `,` or `{_PARTNER[place.text[opened[-1]]]}`"
        return "an operator, another clause or the end of the statement"
    if "WHEN" in expected:
        return "`when`, another clause or the end of the rule"
    return _listed(sorted(_PUNCTUATION.get(name, name.lower()) for name in expected if name != END)) or "the end"


def _listed(words: tuple[str, ...] | list[str]) -> str:
    shown = [f"`{word}`" for word in words]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + f" or {shown[-1]}" if shown else ""


_DETECTORS: Final[tuple[Callable[[Place], Finding | None], ...]] = (
    _quote, _number, _name, _operator, _character, _unopened, _chained, _statement, _foreign, _mismatch,
)  # fmt: skip
