"""Turn policy text into statements and syntax problems: every problem at once, and nothing raised."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, final

from attrs import Factory, define

from agentauthz.errors import PolicySyntaxError
from agentauthz.policy.parse import chunks
from agentauthz.policy.parse.build import Builder
from agentauthz.policy.parse.codes import CODES, MAX_ERRORS, MAX_FILE, MAX_HIDDEN, MAX_NESTING, MAX_STATEMENT, problem
from agentauthz.policy.parse.explain import explain
from agentauthz.policy.parse.tables import Stuck, load_tables
from agentauthz.policy.source import HIDDEN, Diagnostic, Source
from agentauthz.policy.syntax import Statement

__all__ = ["CODES", "decode", "parse"]

_BYTE_ORDER_MARK: Final = "\ufeff"


def decode(data: bytes, name: str) -> Source:
    """Return a policy file's bytes as a source, called `name` in messages.

    Raises:
        PolicySyntaxError: the bytes are not UTF-8, begin with a byte order mark, or are more than 64 MiB.
    """
    if len(data) > MAX_FILE:
        raise PolicySyntaxError([_file_too_large(Source(name, ""))])
    try:
        source = Source(name, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        source = Source(name, data.decode("utf-8", "replace"))
        at = len(data[: error.start].decode("utf-8"))
        message = f"the byte `0x{data[error.start]:02x}` is not UTF-8"
        raise PolicySyntaxError([problem("not-utf8", message, source, at, at + 1, "save the file as UTF-8")]) from None
    if source.text.startswith(_BYTE_ORDER_MARK):
        raise PolicySyntaxError([_byte_order_mark(source)])
    return source


def parse(source: Source) -> tuple[tuple[Statement, ...], tuple[Diagnostic, ...]]:
    """Return the statements of `source` that could be parsed, and every syntax problem, each in text order.

    Never raises. After 100 problems the rest isn't read, and the last problem says so.
    """
    size = len(source.text)
    if size * 4 > MAX_FILE and (size > MAX_FILE or _bytes(source.text) > MAX_FILE):
        return (), (_file_too_large(source),)
    return _Parsing(source).run()


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _file_too_large(source: Source) -> Diagnostic:
    message = f"the file has more than {MAX_FILE:,} bytes"
    return problem("file-size", message, source, 0, 0, "split it into several files in one folder")


def _byte_order_mark(source: Source) -> Diagnostic:
    tip = "save the file as UTF-8 without a byte order mark"
    return problem("byte-order-mark", "the file begins with a byte order mark", source, 0, 1, tip)


@final
@define
class _Parsing:
    """Be the work on one source."""

    source: Source
    statements: list[Statement] = Factory(list)
    problems: list[Diagnostic] = Factory(list)
    hidden: list[int] = Factory(list)  # offsets of characters that must not be there

    def run(self) -> tuple[tuple[Statement, ...], tuple[Diagnostic, ...]]:
        text = self.source.text
        if not text.isascii() or not text.isprintable():
            self.hidden = [found.start() for found in HIDDEN.finditer(text)]
            self.report_hidden()
        for start, end in chunks.split(text):
            if len(self.problems) >= MAX_ERRORS:
                self.report_rest(start)
                break
            if not self.has_hidden(start, end):
                self.read(start, text[start:end])
        return tuple(self.statements), tuple(self.problems)

    def has_hidden(self, start: int, end: int) -> bool:
        at = bisect_left(self.hidden, start)
        return at < len(self.hidden) and self.hidden[at] < end

    def report_hidden(self) -> None:
        for at in self.hidden[:MAX_HIDDEN]:
            self.problems.append(self.hidden_problem(at))
        more = len(self.hidden) - MAX_HIDDEN
        if more > 0:
            at = self.hidden[MAX_HIDDEN]
            self.add("control-character", f"{more} more characters that can't be seen follow from here on", at, at + 1)

    def hidden_problem(self, at: int) -> Diagnostic:
        char = self.source.text[at]
        if at == 0 and char == _BYTE_ORDER_MARK:
            return _byte_order_mark(self.source)
        escape = f"\\u{{{ord(char):x}}}"
        tip = f"write `{escape}` in a string, and remove it elsewhere"
        if char == "\r":
            tip = "end lines with a line feed, with or without a carriage return before it"
        message = f"`{escape}` can't be seen, or changes how other characters are seen"
        return problem("control-character", message, self.source, at, at + 1, tip)

    def add(self, code: str, message: str, start: int, end: int, tip: str | None = None) -> None:
        self.problems.append(problem(code, message, self.source, start, end, tip))

    def report_rest(self, start: int) -> None:
        rest = _bytes(self.source.text[start:])
        message = f"there are {MAX_ERRORS} errors or more, and the {rest} bytes from here on were not read"
        self.add("too-many-errors", message, start, start + 1, "mend these first")

    def read(self, base: int, text: str) -> None:
        """Parse one statement."""
        if chunks.too_large(text):
            first = base + len(text) - len(text.lstrip())
            message = f"the statement is larger than {MAX_STATEMENT} bytes"
            self.add("statement-size", message, first, first + 1, "split it, or name parts of it with `let`")
        elif (deep := chunks.too_deep(text)) is not None:
            tip = f"brackets nest at most {MAX_NESTING} deep"
            self.add("nesting", "the brackets nest too deep", base + deep, base + deep + 1, tip)
        else:
            self.read_sound(base, text)

    def read_sound(self, base: int, text: str) -> None:
        """Parse one statement that keeps to the bounds."""
        builder = Builder(self.source)
        try:
            statement = load_tables().parse(builder, self.source.text, base, base + len(text))
        except Stuck as stuck:
            builder.problems.append(explain(self.source, base, text, stuck.at - base, stuck.kind, stuck.expected))
        if builder.problems:
            self.problems += sorted(builder.problems, key=lambda found: found.span.start)[:MAX_ERRORS]
        else:
            self.statements.append(statement)
