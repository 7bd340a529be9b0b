"""The parser: what each construct becomes, where its nodes are, and what is said of what can't be read."""

from __future__ import annotations

import datetime as dt
import threading
import unicodedata
from decimal import Decimal

import pytest
from lark import Lark
from lark.exceptions import UnexpectedInput

from agentauthz.errors import PolicySyntaxError
from agentauthz.policy import syntax
from agentauthz.policy.parse import CODES, decode, parse, tables
from agentauthz.policy.source import HIDDEN, Diagnostic, Source, Span
from agentauthz.policy.syntax import Arithmetic, Call, Compare, Expr, Is, ListOf, Literal_, Negate, Not, Path, Statement
from tests.strategies_syntax import NOWHERE


def _parsed(text: str) -> tuple[Statement, ...]:
    found, problems = parse(Source("text", text))
    assert [problem.render() for problem in problems] == []
    return found


def _problems(text: str) -> tuple[Diagnostic, ...]:
    return parse(Source("text", text))[1]


def _rule(text: str) -> syntax.Rule:
    (rule,) = _parsed(text)
    assert isinstance(rule, syntax.Rule)
    return rule


def _expr(text: str) -> Expr:
    (when,) = _rule(f"permit r on a when {text}").clauses
    assert isinstance(when, syntax.When)
    return when.condition


def path(name: str, *steps: str) -> Path:
    return Path(name, steps, span=NOWHERE)


def lit(value: bool | int | Decimal | str | dt.timedelta) -> Literal_:
    return Literal_(value, span=NOWHERE)


A, B, C = path("a"), path("b"), path("c")
EXPRESSIONS: dict[str, Expr] = {
    "a or b or c": syntax.Or((A, B, C), span=NOWHERE),
    "a or b and c": syntax.Or((A, syntax.And((B, C), span=NOWHERE)), span=NOWHERE),
    "not a and b": syntax.And((Not(A, span=NOWHERE), B), span=NOWHERE),
    "not a == b": Not(Compare("==", A, B, span=NOWHERE), span=NOWHERE),
    "a not in b": Compare("not in", A, B, span=NOWHERE),
    "a in b": Compare("in", A, B, span=NOWHERE),
    "a <= b": Compare("<=", A, B, span=NOWHERE),
    "a<b": Compare("<", A, B, span=NOWHERE),
    "a is user": Is(A, "user", span=NOWHERE),
    r'a like "x\*y*\u{41}"': syntax.Like(A, ("x*y", "A"), span=NOWHERE),
    "a + b == c": Compare("==", Arithmetic("+", A, B, span=NOWHERE), C, span=NOWHERE),
    "a - b - c": Arithmetic("-", Arithmetic("-", A, B, span=NOWHERE), C, span=NOWHERE),
    "a + b * c": Arithmetic("+", A, Arithmetic("*", B, C, span=NOWHERE), span=NOWHERE),
    "-a * b": Arithmetic("*", Negate(A, span=NOWHERE), B, span=NOWHERE),
    "-a ?? b": Negate(syntax.Default(A, B, span=NOWHERE), span=NOWHERE),
    "a ?? b ?? c": syntax.Default(A, syntax.Default(B, C, span=NOWHERE), span=NOWHERE),
    "a ?? -b": syntax.Default(A, Negate(B, span=NOWHERE), span=NOWHERE),
    "a ?? b * c": Arithmetic("*", syntax.Default(A, B, span=NOWHERE), C, span=NOWHERE),
    "exists a.b": syntax.Exists(path("a", "b"), span=NOWHERE),
    'a.when["file-path"].on': path("a", "when", "file-path", "on"),
    "any x in a: x and b": syntax.And((syntax.Quantifier("any", "x", A, path("x"), span=NOWHERE, variable_span=NOWHERE),
                                       B), span=NOWHERE),
    "every every in a: not b": syntax.Quantifier("every", "every", A, Not(B, span=NOWHERE), span=NOWHERE,
                                                 variable_span=NOWHERE),
    'agent("b", to: c,)': Call("agent", (lit("b"),), (("to", C),), span=NOWHERE),
    "f()": Call("f", (), span=NOWHERE),
    "[a, 1,]": ListOf((A, lit(1)), span=NOWHERE),
    "[]": ListOf((), span=NOWHERE),
    "true": lit(True),
    "2.50": lit(Decimal("2.5")),
    "2.00": lit(2),
    "0": lit(0),
    "90m": lit(dt.timedelta(minutes=90)),
    "2w": lit(dt.timedelta(weeks=2)),
    r'"\"\\\n\t\u{1F600}\u{0}"': lit('"\\\n\t\U0001f600\0'),
    "limit.permit == mark": Compare("==", path("limit", "permit"), path("mark"), span=NOWHERE),
    "a# comment\n and # and b\n b": syntax.And((A, B), span=NOWHERE),
}  # fmt: skip


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions(text: str) -> None:
    """Each form of expression becomes its node, by the precedence of the language."""
    assert _expr(text) == EXPRESSIONS[text]
    assert type(_expr(text)) is type(EXPRESSIONS[text])


def test_literal_kinds_are_kept_apart() -> None:
    """A true is a bool and a 1 an int, though Python finds them equal."""
    assert [type(item.value) for item in _expr("[true, 1, 1.0, 1.5]").items] == [bool, int, int, Decimal]  # type: ignore[union-attr]


def test_rules() -> None:
    """A rule has its effect, names, patterns, and its clauses in the order of the text."""
    rule = _rule(
        'limit on as as on on.*, *, "mcp.a/b-c", x.y when a unless b with n(to: 1,) with m() by c within 15m '
        'to count <= 3 to sum(a) <= b + 1 per a, b every 1d because "t"'
    )
    assert (rule.effect, rule.name, rule.mark) == ("limit", "on", "as")
    assert [(p.kind, p.name) for p in rule.patterns] == [
        ("prefix", "on"), ("all", ""), ("exact", "mcp.a/b-c"), ("exact", "x.y"),
    ]  # fmt: skip
    assert rule.clauses == (
        syntax.When(A, span=NOWHERE),
        syntax.Unless(B, span=NOWHERE),
        syntax.With("n", (("to", lit(1)),), span=NOWHERE, name_span=NOWHERE),
        syntax.With("m", (), span=NOWHERE, name_span=NOWHERE),
        syntax.By(C, span=NOWHERE),
        syntax.Within(dt.timedelta(minutes=15), span=NOWHERE),
        syntax.ToCount(lit(3), span=NOWHERE),
        syntax.ToSum(A, Arithmetic("+", B, lit(1), span=NOWHERE), span=NOWHERE),
        syntax.Per((A, B), span=NOWHERE),
        syntax.Every(dt.timedelta(days=1), span=NOWHERE),
        syntax.Because("t", span=NOWHERE),
    )


def test_declarations() -> None:
    """Lets, types and actions keep every part, and tell no parentheses from empty ones."""
    let, plain, declared, action, bare, empty = _parsed(
        'let f(p, q) = p\nlet g = 1\ntype Order { limit: int, on?: [string], s: "a" | "b", r: { x: T, }, }\n'
        'action pay.on(id: string, why?: string) on Order\naction "mcp.a/b"\naction x() on on'
    )
    assert isinstance(let, syntax.Let)
    assert (let.name, let.params) == ("f", ("p", "q"))
    assert isinstance(plain, syntax.Let)
    assert plain.params is None
    assert isinstance(declared, syntax.TypeDecl)
    assert [(f.name, f.optional, type(f.type)) for f in declared.fields] == [
        ("limit", False, syntax.NamedType), ("on", True, syntax.ListType), ("s", False, syntax.EnumType),
        ("r", False, syntax.RecordType),
    ]  # fmt: skip
    assert isinstance(action, syntax.ActionDecl)
    assert (action.name, [f.name for f in action.params or ()], action.on) == ("pay.on", ["id", "why"], "Order")
    assert isinstance(bare, syntax.ActionDecl)
    assert (bare.name, bare.params, bare.on) == ("mcp.a/b", None, None)
    assert isinstance(empty, syntax.ActionDecl)
    assert (empty.params, empty.on) == ((), "on")


def test_spans_are_exact() -> None:
    """Each place holds the characters of its own node, parentheses around it left out."""
    text = (
        '# c\r\nmark r as m on a.*, "q"\r\n when (a or b) and not c.d with n(k: 1) # e\r\n\r\n'
        "action p(i?: [T],) on O # f\nlet l = (1)"
    )
    rule, action, let = _parsed(text)
    assert isinstance(rule, syntax.Rule)
    assert isinstance(action, syntax.ActionDecl)
    assert isinstance(let, syntax.Let)
    when, with_ = rule.clauses
    assert isinstance(when, syntax.When)
    assert isinstance(when.condition, syntax.And)
    assert isinstance(with_, syntax.With)
    assert rule.mark_span is not None
    assert action.params is not None
    assert action.on_span is not None
    spans: list[tuple[Span, str]] = [
        (rule.span, text[text.index("mark") : text.index(" # e")]), (rule.name_span, "r"), (rule.mark_span, "m"),
        *zip((pattern.span for pattern in rule.patterns), ("a.*", '"q"'), strict=True),
        (when.span, "when (a or b) and not c.d"), (when.condition.span, "(a or b) and not c.d"),
        *zip((operand.span for operand in when.condition.operands), ("a or b", "not c.d"), strict=True),
        (with_.span, "with n(k: 1)"), (with_.name_span, "n"), (action.span, "action p(i?: [T],) on O"),
        (action.name_span, "p"), (action.params[0].span, "i?: [T]"), (action.params[0].name_span, "i"),
        (action.params[0].type.span, "[T]"), (action.on_span, "O"), (let.span, "let l = (1)"), (let.body.span, "1"),
    ]  # fmt: skip
    assert [span.text for span, _ in spans] == [expected for _, expected in spans]
    assert str(rule.name_span) == "text:2:6"


# text, the code, the characters that it points at, and words of the message or help
MISTAKES = [
    ("premit a on b", "syntax", "premit", "did you mean `permit`?"),
    ("tpye Order { }", "syntax", "tpye", "did you mean `type`?"),
    ("permit a onn b", "syntax", "onn", "expected `on` and the actions that the rule is about, found `onn`"),
    ("permit a on b whn true", "syntax", "whn", "did you mean `when`?"),
    ("permit a on b when a adn b", "syntax", "adn", "did you mean `and`?"),
    ("permit a", "syntax", "", "expected `on` and the actions that the rule is about, found the end of the statement"),
    ("permit", "syntax", "", "expected the rule's name"),
    ("permit 1 on a", "syntax", "1", "expected the rule's name, found `1`"),
    ("limit a on b to cuont <= 1", "syntax", "cuont", "did you mean `count`?"),
    ("permit a on b when", "syntax", "", "expected a value or a condition"),
    ("permit a on b when a like b", "syntax", "b", "expected a pattern in quotes"),
    ("permit a on b because 1", "syntax", "1", "expected a text in quotes"),
    ("permit a on b within 3", "syntax", "3", "expected a duration such as `15m`"),
    ("permit a on b when any x of y: z", "syntax", "of", "expected `in`, found `of`"),
    ("permit a on 3", "syntax", "3", "expected an action such as"),
    ("type t { a }", "syntax", "}", "expected `:` or `?`"),
    ("type t { a: 3 }", "syntax", "3", "expected a type such as"),
    ("action 3", "syntax", "3", "expected the action's name"),
    ("permit a on b when .5 == a", "bad-number", ".5", "write `0.5`"),
    ("permit a on b when a.3", "syntax", "3", "expected a name after the dot"),
    ("let x() = 1", "syntax", ")", "expected a name"),
    ("permit a on b when x else y", "syntax", "else", "rules have no alternative"),
    ("permit a on b elif y", "syntax", "elif", "rules have no alternative"),
    ("allow a on b", "syntax", "allow", "begins with `permit`"),
    ("permit a on b when a = 1", "unknown-operator", "=", "compare with `==`"),
    ("permit a on b when a === 1", "unknown-operator", "===", "compare with `==`"),
    ("permit a on b when a && b", "unknown-operator", "&&", "write `and`"),
    ("permit a on b when a || b", "unknown-operator", "||", "write `or`"),
    ("permit a on b when !a", "unknown-operator", "!", "write `not`"),
    ("permit a on b when a <> b", "unknown-operator", "<>", "compare with `!=`"),
    ("permit a on b when a => b", "unknown-operator", "=>", "compare with `>=`"),
    ("permit a on b when a ? b : c", "unknown-operator", "?", "conditional"),
    ("permit a on b when a / b", "unknown-operator", "/", "division"),
    ("permit a on b when a \u2264 b", "unknown-operator", "\u2264", "write `<=`"),
    ("permit a on b when true;", "unknown-operator", ";", "leave it out"),
    ("permit a on b when 'x' == a", "unknown-operator", "'", "strings stand in double quotes"),
    ("permit a on b when a < b < c", "chained-comparison", "<", "compare twice"),
    ("permit a on b when a != b != c", "chained-comparison", "!=", "compare twice"),
    ("permit a on b when a == b in c", "chained-comparison", "in", "compare twice"),
    ("permit a on b when true permit c on d when true", "second-statement", "permit", "own line"),
    ("permit a on b when true\n  permit\n  c on d", "second-statement", "permit", "on one line"),
    ("test a on b", "reserved-word", "test", "reserved for later"),
    ("never b on c", "reserved-word", "never", "reserved for later"),
    ("assert b", "reserved-word", "assert", "reserved for later"),
    ('permit a on b when "x', "unclosed-string", '"x', "not closed"),
    ('permit a on b because "x\\"', "unclosed-string", '"x\\"', "not closed"),
    ("permit a on b when (a", "unclosed-bracket", "(", "close it with `)`"),
    ('permit a on b when f([1, 2\n  because "x"', "unclosed-bracket", "[", "close it with `]`"),
    ("permit a on b when (a]", "unclosed-bracket", "(", "close it with `)`"),
    ("type t { a: int", "unclosed-bracket", "{", "close it with `}`"),
    ("permit a on b when a)", "unopened-bracket", ")", "closes nothing"),
    ("permit a on b when _a", "hidden-name", "_a", "underscore"),
    ("permit a on b when a._b", "hidden-name", "_b", "underscore"),
    ("permit a on b when na\u00efve", "bad-character", "na\u00efve", "A to Z"),
    ("permit a on b when\u00a0true", "bad-character", "\u00a0", "ordinary space"),
    ("permit a on b when a @ b", "bad-character", "@", "outside quotes"),
    ("permit a on b when 5 andx", "syntax", "andx", "did you mean `and`?"),
    ('permit a on "mcp.*"', "quoted-star", '"mcp.*"', "a star stands outside"),
    ('action "a*"', "quoted-star", '"a*"', "a star stands outside"),
    ('permit a on ""', "empty-name", '""', "empty name"),
    ('permit a on b when "\\q"', "bad-escape", "\\q", "not an escape"),
    ('permit a on b when "x\\*"', "bad-escape", "\\*", "after `like`"),
    ('permit a on b when "\\u{d800}"', "bad-escape", "\\u{d800}", "no character"),
    ('permit a on b when "\\u{110000}"', "bad-escape", "\\u{110000}", "no character"),
    ('permit a on b when "\\u{}"', "bad-escape", "\\u{}", "hexadecimal"),
    ('permit a on b when "\\u0041"', "bad-escape", "\\u", "hexadecimal"),
    ('permit a on b when a like "\\q"', "bad-escape", "\\q", "not an escape"),
    ("permit a on b when 007 == a", "bad-number", "007", "write `7`"),
    ("permit a on b when 00.5 == a", "bad-number", "00.5", "write `0.5`"),
    ("permit a on b when 1_000 == a", "bad-number", "1_000", "digits"),
    ("permit a on b when 1e5 == a", "bad-number", "1e5", "digits"),
    ("permit a on b when 1. == a", "bad-number", "1.", "digits"),
    (f"permit a on b when 1{'0' * 38} == a", "bad-number", "1" + "0" * 38, "at most 38 digits"),
    (f"permit a on b when 0.{'0' * 18}1 == a", "bad-number", f"0.{'0' * 18}1", "18 of them"),
    ("permit a on b when 5min == a", "bad-duration", "5min", "`ms`, `s`"),
    ("permit a on b within 015m", "bad-duration", "015m", "leading zeros"),
    ("permit a on b within 1000000000d", "bad-duration", "1000000000d", "too long"),
    (f"permit a on b within {'9' * 5000}ms", "bad-duration", "9" * 5000 + "ms", "too long"),
    ("permit a on b when f(k: 1, 2)", "argument-order", "2", "by name come last"),
    ("permit a on b when a\u202e", "control-character", "\u202e", "`\\u{202e}`"),
    ('permit a on b because "\x00"', "control-character", "\x00", "`\\u{0}`"),
    ("permit a on b # \ud800", "control-character", "\ud800", "`\\u{d800}`"),
    ("permit a on b\rlet x = 1", "control-character", "\r", "end lines with a line feed"),
    ("\ufeffpermit a on b", "byte-order-mark", "\ufeff", "without a byte order mark"),
]


@pytest.mark.parametrize(("text", "code", "at", "words"), MISTAKES)
def test_mistakes(text: str, code: str, at: str, words: str) -> None:
    """Each mistake has one problem, with its code, its exact characters, and what to do."""
    (problem,) = _problems(text)
    assert (problem.code, problem.span.text) == (code, at)
    assert words in f"{problem.message} {problem.help}"


BOUNDS = {
    "statement-size": "permit a on b when [" + "1, " * 30_000 + "1]",
    "nesting": "permit a on b when " + "not " * 200 + "a",
    "file-size": "#" * (64 * 1024 * 1024 + 1),
    "too-many-errors": "permit a onn b\n" * 200,
}


@pytest.mark.parametrize("code", BOUNDS)
def test_bounds(code: str) -> None:
    """Each bound is refused with its own code."""
    assert _problems(BOUNDS[code])[-1].code == code


def test_every_code_is_told() -> None:
    """The table of codes holds those of this file's mistakes and bounds, and no other."""
    assert {code for _, code, _, _ in MISTAKES} | set(BOUNDS) | {"not-utf8"} == set(CODES)


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        ("not " * 199 + "a", "not " * 200 + "a"), ("-" * 199 + "a", "-" * 200 + "a"),
        ("a ?? " * 199 + "a", "a ?? " * 200 + "a"), ("1 + " * 199 + "1", "1 + " * 200 + "1"),
        ("(" * 200 + "a" + ")" * 200, "(" * 201 + "a" + ")" * 201),
        ("[" * 199 + "a" + "]" * 199, "[" * 200 + "a" + "]" * 200),
    ],
)  # fmt: skip
def test_nesting_is_counted_exactly(within: str, beyond: str) -> None:
    """An expression nests 200 deep, and not one deeper."""
    _expr(within)
    assert [problem.code for problem in _problems(f"permit a on b when {beyond}")] == ["nesting"]


def test_sizes_are_counted_exactly() -> None:
    """A statement has 65,536 bytes of UTF-8, without the comments and blank lines that follow it."""
    head = 'let x = "'
    full = head + "\u00e4" * ((65_536 - len(head) - 1) // 2) + '"'
    tail = "\n\n" + "# comment\n" * 20_000
    assert len(full.encode()) == 65_536
    assert len(_parsed(f"{full}{tail}let y = 1{tail}")) == 2
    assert [problem.code for problem in _problems(full[:-1] + 'a"' + tail)] == ["statement-size"]


def test_long_flat_conditions_are_fine() -> None:
    """What doesn't nest has no bound but the statement's size."""
    assert len(_expr("a and " * 5_000 + "a").operands) == 5_001  # type: ignore[union-attr]
    assert len(_rule("permit a on " + "b, " * 5_000 + "b").patterns) == 5_001


def test_all_problems_at_once() -> None:
    """Problems stay in their own statement: the others are read, and all problems are told in order."""
    text = (
        "permit a on b when (x\npermit ok on c\n  when true\npremit d on e\nlet f = 007 + 1_0\n"
        'let g = "\ntype h { i: int }'
    )
    found, problems = parse(Source("text", text))
    assert [statement.name for statement in found] == ["ok", "h"]
    assert [(problem.code, problem.span.source.position(problem.span.start)) for problem in problems] == [
        ("unclosed-bracket", (1, 20)), ("syntax", (4, 1)), ("bad-number", (5, 9)), ("bad-number", (5, 15)),
        ("unclosed-string", (6, 9)),
    ]  # fmt: skip


def test_fields_and_continued_lines_start_no_statement() -> None:
    """A line that begins with a keyword as a field, a clause or a part of a condition goes on."""
    fields = "type t {\n  limit: int,\n  action : int,\n  let?: int\n}\n"
    assert len(_parsed(fields + "permit a on b\n  when\n    action.name\n ==\ntype\n")) == 2


def test_too_many_errors_say_what_was_not_read() -> None:
    """After a hundred problems the last one says how many bytes were left."""
    problems = _problems("permit a onn b\n" * 100 + "\n\u00e4let x = 1\n" + "permit a onn b\n")
    assert len(problems) == 101
    assert "15 bytes" in problems[-1].message


def test_hidden_characters_are_summed_up() -> None:
    """Twenty of the characters that can't be seen are told one by one, and the rest as a number."""
    problems = _problems("# \u200b\n" * 30 + "let x = 1")
    assert len(problems) == 21
    assert "10 more" in problems[-1].message


def test_which_characters_are_refused() -> None:
    """Every control, format, private and surrogate character, line separator and noncharacter is refused."""
    for code in range(0x110000):
        char = chr(code)
        category = unicodedata.category(char)
        hidden = category in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") and char not in "\t\n"
        hidden = hidden or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
        assert bool(HIDDEN.match(char)) is hidden or category == "Cn", hex(code)


@pytest.mark.parametrize(
    ("data", "code", "at"),
    [
        (b"let x = 1 # \xc3\xa4\xff", "not-utf8", 13), (b"\xed\xa0\x80", "not-utf8", 0),
        (b"\xef\xbb\xbflet", "byte-order-mark", 0), (b"\xff\xfel\0", "not-utf8", 0),
        pytest.param(b"#" * (64 * 1024 * 1024 + 1), "file-size", 0, id="large"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_source(data: bytes, code: str, at: int) -> None:
    """A file that is not UTF-8, has a byte order mark or is too large is refused at its place."""
    with pytest.raises(PolicySyntaxError) as caught:
        decode(data, "file.authz")
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.span.start, problem.span.source.name) == (code, at, "file.authz")


def test_nothing_is_no_problem() -> None:
    """Empty files, and files with nothing but comments, hold no statement and no problem."""
    assert [parse(Source("text", text)) for text in ("", "\n \t\r\n", "# permit a on b\n#")] == [((), ())] * 3


def test_threads_share_the_tables() -> None:
    """Many threads that parse at once, the first time too, each get their own statements."""
    names: list[str] = []

    def work(number: int) -> None:
        found = _parsed("\n".join(f"permit r{number}_{i} on a when x{number} == {i}" for i in range(50)))
        names.extend(statement.name for statement in found if statement.span.text.startswith(f"permit r{number}_"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == sorted(f"r{number}_{i}" for number in range(4) for i in range(50))


@pytest.fixture(scope="module")
def lark() -> Lark:
    """Return Lark's own parser of the grammar, with its own lexer."""
    return Lark(tables.grammar(), parser="lalr", lexer="contextual", start="statement")


@pytest.mark.parametrize("text", [*(f"let x = {text}" for text in EXPRESSIONS), *(text for text, *_ in MISTAKES)])
def test_the_driver_accepts_what_lark_accepts(lark: Lark, text: str) -> None:
    """The tables run here and Lark's own driver take and refuse the same texts."""
    codes = {problem.code for problem in _problems(text)}
    of_meaning = {"bad-escape", "quoted-star", "empty-name", "argument-order", "control-character", "bad-number"}
    try:
        lark.parse(text)
    except UnexpectedInput:
        assert codes
    else:
        assert codes <= of_meaning | {"bad-duration"}
