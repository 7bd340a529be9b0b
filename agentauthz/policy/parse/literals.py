"""Decode the literals of the language: numbers, durations, strings and the patterns of `like`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Final, final

from agentauthz.values import INVALID, MAX_DIGITS, MAX_PLACES, number

_UNITS: Final = {
    "ms": dt.timedelta(milliseconds=1),
    "s": dt.timedelta(seconds=1),
    "m": dt.timedelta(minutes=1),
    "h": dt.timedelta(hours=1),
    "d": dt.timedelta(days=1),
    "w": dt.timedelta(weeks=1),
}
_PLAIN: Final = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}
_ESCAPE: Final = re.compile(r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|(.))", re.DOTALL)
_PIECE: Final = re.compile(r"\*|[^*\\]+|\\(?:u\{[^}\"]*\}?|.)", re.DOTALL)


@final
class BadLiteral(Exception):
    """Carry what is wrong in a literal, and where: offsets from the literal's first character."""

    def __init__(self, code: str, message: str, tip: str, start: int = 0, end: int | None = None) -> None:
        super().__init__(code, message, tip, start, end)
        self.code, self.message, self.help, self.start, self.end = code, message, tip, start, end


def read_number(text: str) -> int | Decimal:
    """Return the number that digits, perhaps with a point, stand for.

    Raises:
        BadLiteral: a leading zero, or more digits than numbers have.
    """
    whole, _, fraction = text.partition(".")
    if len(whole) > 1 and whole[0] == "0":
        raise BadLiteral("bad-number", "a number has no leading zeros", f"write `{_without_zeros(text)}`")
    value = INVALID if len(whole) > MAX_DIGITS else number(Decimal(text) if fraction else int(text))
    if not isinstance(value, int | Decimal):
        limits = f"numbers have at most {MAX_DIGITS} digits, {MAX_PLACES} of them after the point"
        raise BadLiteral("bad-number", "the number has too many digits", limits)
    return value


def _without_zeros(text: str) -> str:
    shown = text.lstrip("0")
    shown = shown if shown[:1].isdigit() else "0" + shown
    return shown if len(shown) <= 40 else shown[:37] + "..."


def read_duration(text: str) -> dt.timedelta:
    """Return the duration that digits and a unit stand for.

    Raises:
        BadLiteral: a leading zero, or longer than durations get.
    """
    digits = text.rstrip("mshdw")
    if len(digits) > 1 and digits[0] == "0":
        raise BadLiteral("bad-duration", "a duration has no leading zeros", f"write `{_without_zeros(text)}`")
    try:
        return int(digits[:20]) * _UNITS[text[len(digits) :]]
    except OverflowError:
        raise BadLiteral("bad-duration", "the duration is too long", "durations have at most 999999999 days") from None


def read_string(text: str) -> str:
    """Return what the string literal `text`, quotes included, stands for.

    Raises:
        BadLiteral: an escape that isn't one of strings.
    """
    if "\\" not in text:
        return text[1:-1]
    return "".join(_decode(piece, start, in_pattern=False) for piece, start in _pieces(text))


def read_pattern(text: str) -> tuple[str, ...]:
    r"""Return the runs between the stars of a `like` pattern, quotes included; `\*` is no star.

    Raises:
        BadLiteral: an escape that isn't one of patterns.
    """
    runs = [""]
    for piece, start in _pieces(text):
        if piece == "*":
            runs.append("")
        else:
            runs[-1] += _decode(piece, start, in_pattern=True)
    return tuple(runs)


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    return ((found[0], found.start()) for found in _PIECE.finditer(text, 1, len(text) - 1))


def _decode(piece: str, start: int, in_pattern: bool) -> str:
    if piece[0] != "\\":
        return piece
    found = _ESCAPE.fullmatch(piece)
    if found and found[1]:
        return _scalar(int(found[1], 16), piece, start)
    if found and found[2] == "*" and in_pattern:
        return "*"
    if found is None or found[2] not in _PLAIN:
        raise _bad_escape(piece, start)
    return _PLAIN[found[2]]


def _scalar(code: int, piece: str, start: int) -> str:
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise BadLiteral("bad-escape", f"`{piece}` is no character", "characters are 0 to 10ffff, without d800 to dfff",
                         start, start + len(piece))  # fmt: skip
    return chr(code)


def _bad_escape(piece: str, start: int) -> BadLiteral:
    shown = piece if len(piece) <= 40 else piece[:37] + "..."
    tip = 'strings know `\\"`, `\\\\`, `\\n`, `\\t` and `\\u{...}` with one to six hexadecimal digits'
    if piece == "\\*":
        tip = "a star needs its escape only in a pattern after `like`: write `*`"
    return BadLiteral("bad-escape", f"`{shown}` is not an escape that fits here", tip, start, start + len(piece))
