"""Operators and functions of the language, in tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz import Principal, Resource
from agentauthz.policy.builtins import (
    COMPARISONS,
    FUNCTIONS,
    KEYWORDS,
    RESERVED,
    add,
    all_of,
    any_of,
    equal,
    is_type,
    less,
    like,
    member,
    multiply,
    negate,
    negation,
    subtract,
    valid_zone,
)
from agentauthz.values import ABSENT, INVALID, UNKNOWN, Record, Sentinel, Unordered, freeze
from tests.support import BOT, MARIA, NOON

HOUR = dt.timedelta(hours=1)
BIG = 10**38 - 1  # the largest number
TINY = Decimal("1E-18")
VALUES: list[Any] = [
    True, False, 0, 1, Decimal("1.5"), "", "a", NOON, HOUR, (), (1,), Unordered((1,)), Record({"a": 1}), MARIA,
    freeze(Resource("Order", "1")), ABSENT, UNKNOWN, INVALID,
]  # fmt: skip


def call(name: str, *args: Any, **named: Any) -> Any:
    """Return what a function gives for these values."""
    return FUNCTIONS[name](args, named)


# ---- equality


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, 1, True), (1, 2, False), (2, Decimal("2.5"), False), (Decimal("2.5"), Decimal("2.5"), True),
        ("a", "a", True),
        ("a", "A", False), ("é", "e\u0301", False), (True, True, True), (True, False, False), (NOON, NOON, True),
        (HOUR, dt.timedelta(minutes=60), True), (MARIA, Principal.user("maria"), True), (MARIA, BOT, False),
        ((), (), True), ((1, 2), (1, 2), True), ((1, 2), (2, 1), False), ((1,), (1, 2), False), ((1, "a"),
        (1, "b"), False),
        ((1, "a"), (2, 7), False), ((1, "a"), (1, 7), None), ((1, ABSENT), (1, ABSENT), None), ((1, ABSENT),
        (2, ABSENT), False),
        ((1, ABSENT), (1,), False), (((1,),), ((1,),), True),
        (1, True, None), (0, False, None), (1, "1", None), ("a", ("a",), None), (NOON, HOUR, None),
        (MARIA, "maria", None),
        ((), Unordered(), None), (Unordered((1,)), Unordered((1,)), None), (Record({}), Record({}), None),
        (ABSENT, ABSENT, None), (UNKNOWN, UNKNOWN, None), (INVALID, 1, None), (1, ABSENT, None),
    ],
)  # fmt: skip
def test_equality(left: Any, right: Any, expected: bool | None) -> None:
    """Between values of one type it is true or false; between types, for records and sets undetermined."""
    assert equal(left, right) is equal(right, left) is expected
    assert COMPARISONS["!="](left, right) is negation(expected)


@pytest.mark.parametrize("left", VALUES, ids=repr)
@pytest.mark.parametrize("right", VALUES, ids=repr)
def test_no_comparison_raises_or_answers_anything_else(left: Any, right: Any) -> None:
    """Each pair of values gets True, False or None, and each operator agrees with its mirror image."""
    for name, mirror in (("==", "=="), ("!=", "!="), ("<", ">"), ("<=", ">=")):
        answer = COMPARISONS[name](left, right)
        assert answer in (True, False, None)
        assert answer is COMPARISONS[mirror](right, left)
    assert member(left, right) in (True, False, None)
    assert COMPARISONS["not in"](left, right) is negation(member(left, right))


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, 2, True), (2, 1, False), (1, 1, False), (1, Decimal("1.5"), True), (Decimal("1.5"), 1, False),
        (-BIG, BIG, True),
        (NOON, NOON + HOUR, True), (HOUR, 2 * HOUR, True), ("a", "b", None), (False, True, None), (1, HOUR, None),
        (NOON, HOUR, None), ((1,), (2,), None), (MARIA, BOT, None), (ABSENT, 1, None), (1, UNKNOWN, None),
        (1, True, None),
    ],
)  # fmt: skip
def test_order(left: Any, right: Any, expected: bool | None) -> None:
    """Numbers, times and durations are ordered among themselves, and nothing else is."""
    assert less(left, right) is expected


def test_membership_is_any_equality() -> None:
    """`in` follows Kleene over the elements, of lists and sets only."""
    table: list[tuple[Any, Any, bool | None]] = [
        (1, (1, 2), True), (3, (1, 2), False), (1, ("1", 1), True), (1, ("1", 2), None), (1, (), False),
        (UNKNOWN, (), False),
        (1, (ABSENT,), None), (1, (ABSENT, 1), True), (1, Unordered((1,)), True), ("a", "abc", None), (1, ABSENT, None),
        ((1,), ((1,), (2,)), True), (True, (1,), None), ("a", Record({"a": 1}), None),
    ]  # fmt: skip
    for item, collection, expected in table:
        assert member(item, collection) is expected, (item, collection)


def test_junctions() -> None:
    """`and` and `or` are Kleene's, over nothing true and false, and stand for each other through `not`."""
    answers = (True, False, None)
    assert all_of([]) is True
    assert any_of([]) is False
    for one in answers:
        for two in answers:
            both = False if False in (one, two) else None if None in (one, two) else True
            assert all_of([one, two]) is both
            assert any_of([one, two]) is negation(all_of([negation(one), negation(two)]))


# ---- like and is


@pytest.mark.parametrize(
    ("value", "parts", "expected"),
    [
        ("abc", ("abc",), True), ("abc", ("ab",), False), ("abc", ("a", "c"), True), ("ac", ("a", "c"), True),
        ("abcd", ("a", "c"), False),
        ("", ("", ""), True), ("x", ("", ""), True), ("", ("",), True), ("x", ("",), False),
        ("aXbXc", ("a", "b", "c"), True),
        ("ab", ("ab", "b"), False), ("aba", ("ab", "ba"), False), ("abba", ("ab", "ba"), True),
        ("aab", ("a", "ab", ""), True),
        ("a\nb", ("a", "b"), True), ("a*b", ("a*b",), True), ("axb", ("a*b",), False),
        ("ab", ("", "a", "a", ""), False),
        ("aa", ("", "a", "a", ""), True), ("abc", ("", "", "", "c"), True), ("ABC", ("a", ""), False),
        (7, ("", ""), None), (ABSENT, ("", ""), None), (("a",), ("", ""), None),
    ],
)  # fmt: skip
def test_like(value: Any, parts: tuple[str, ...], expected: bool | None) -> None:
    """A glob matches the whole text; each star is any run, of line ends too; other values are undetermined."""
    assert like(value, parts) is expected


@given(st.text("ab", max_size=12), st.lists(st.text("ab", max_size=3), min_size=1, max_size=5))
def test_like_is_the_glob_that_everybody_knows(text: str, parts: list[str]) -> None:
    """It agrees with the plainest definition there is."""

    def matches(rest: str, left: list[str]) -> bool:
        if not rest.startswith(left[0]):
            return False
        rest = rest[len(left[0]) :]
        return rest == "" if len(left) == 1 else any(matches(rest[at:], left[1:]) for at in range(len(rest) + 1))

    assert like(text, tuple(parts)) is matches(text, parts)


def test_like_is_linear_on_patterns_that_make_others_explode() -> None:
    """A hundred thousand characters against hundreds of stars end at once: no run is tried twice."""
    text = "a" * 100_000
    assert like(text, ("", *["a"] * 500, "b")) is False
    assert like(text, ("", *["aa"] * 500, "")) is True
    assert like(text + "b", ("a", *["a" * 50] * 900, "b")) is True


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        (MARIA, "user", True), (MARIA, "agent", False), (freeze(Resource("Order", "1")), "Order", True),
        (ABSENT, "Order", False),
        (freeze(Resource("Order", "1")), "Doc", False), ("user", "user", False),
        (Record({"type": "Order"}), "Order", False),
        (UNKNOWN, "user", None), (INVALID, "user", None), (1, "user", False),
    ],
)  # fmt: skip
def test_is(value: Any, name: str, expected: bool | None) -> None:
    """A principal has its kind, a resource its type, anything else none; only what nobody knows is undetermined."""
    assert is_type(value, name) is expected


# ---- arithmetic


@pytest.mark.parametrize(
    ("operation", "left", "right", "expected"),
    [
        (add, 1, 2, 3), (add, Decimal("0.1"), Decimal("0.2"), Decimal("0.3")), (add, Decimal("0.5"), Decimal("0.5"), 1),
        (add, BIG, 0, BIG), (add, BIG, 1, INVALID), (subtract, -BIG, 1, INVALID), (subtract, BIG, BIG, 0),
        (add, 10**20, TINY, INVALID), (add, 10**19, TINY, Decimal("10000000000000000000.000000000000000001")),
        (multiply, TINY, Decimal("0.5"), INVALID), (multiply, TINY, 10**18, 1), (multiply, 10**19, 10**19, INVALID),
        (multiply, 10**19, 10**18, 10**37), (multiply, 0, BIG, 0), (multiply, -1, 0, 0),
        (add, NOON, HOUR, NOON + HOUR), (add, HOUR, NOON, NOON + HOUR), (subtract, NOON, HOUR, NOON - HOUR),
        (subtract, NOON + HOUR, NOON, HOUR), (add, HOUR, HOUR, 2 * HOUR), (subtract, HOUR, 2 * HOUR, -HOUR),
        (multiply, HOUR, 3, 3 * HOUR), (multiply, Decimal("0.5"), HOUR, HOUR / 2),
        (multiply, HOUR, Decimal("1E-18"), INVALID),
        (multiply, dt.timedelta(microseconds=1), Decimal("0.5"), INVALID), (multiply, dt.timedelta.max, 2, INVALID),
        (add, dt.timedelta.max, HOUR, INVALID), (subtract, dt.timedelta.min, HOUR, INVALID),
        (add, dt.datetime.max.replace(tzinfo=dt.UTC), HOUR, INVALID),
        (subtract, dt.datetime.min.replace(tzinfo=dt.UTC), HOUR, INVALID),
        (add, NOON, NOON, INVALID), (subtract, HOUR, NOON, INVALID), (multiply, HOUR, HOUR, INVALID),
        (multiply, NOON, 2, INVALID),
        (add, "a", "b", INVALID), (add, 1, "1", INVALID), (add, True, 1, INVALID), (add, (1,), (2,), INVALID),
        (add, 1, ABSENT, INVALID), (multiply, UNKNOWN, 1, INVALID), (multiply, 2, "a", INVALID),
        (add, 1, HOUR, INVALID),
    ],
)  # fmt: skip
def test_arithmetic(operation: Callable[[Any, Any], Any], left: Any, right: Any, expected: Any) -> None:
    """Results are exact, or there is none: numbers within 38 digits, moments and durations as their kinds allow."""
    result = operation(left, right)
    assert result is expected if isinstance(expected, Sentinel) else result == expected
    assert type(result) is type(expected)


@given(st.integers(-(10**20), 10**20), st.integers(0, 18), st.integers(-(10**20), 10**20), st.integers(0, 18))
def test_arithmetic_is_exact(a: int, places: int, b: int, others: int) -> None:
    """A result is what whole numbers give when both sides are scaled up, or there is none."""
    left, right = freeze(Decimal(a).scaleb(-places)), freeze(Decimal(b).scaleb(-others))
    for operation, exact, scale in (
        (add, a * 10**others + b * 10**places, places + others),
        (subtract, a * 10**others - b * 10**places, places + others),
        (multiply, a * b, places + others),
    ):
        result = operation(left, right)
        if result is not INVALID:
            assert Decimal(str(result)).as_integer_ratio() == _ratio(exact, scale)


def _ratio(number: int, scale: int) -> tuple[int, int]:
    from fractions import Fraction

    fraction = Fraction(number, 10**scale)
    return fraction.numerator, fraction.denominator


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, -1), (0, 0), (Decimal("-2.5"), Decimal("2.5")), (HOUR, -HOUR), (dt.timedelta.max, INVALID),
        (dt.timedelta.min, dt.timedelta(days=999_999_999)),
        (-BIG, BIG), (NOON, INVALID), ("a", INVALID), (True, INVALID), (ABSENT, INVALID), ((1,), INVALID),
    ],
)  # fmt: skip
def test_unary_minus(value: Any, expected: Any) -> None:
    """Numbers and durations have a negative; that of the longest duration doesn't exist."""
    assert negate(value) == expected
    assert type(negate(value)) is type(expected)


# ---- functions


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"began", "done", "permitted"}))
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_no_function_raises_on_other_types(name: str, value: Any) -> None:
    """Whatever values come in, a function gives a value, or INVALID where a type isn't its own."""
    function = FUNCTIONS[name]
    result = function((value,) * len(function.params))
    assert result is not ABSENT
    if isinstance(value, Sentinel):
        assert result is INVALID


def test_no_name_has_two_meanings() -> None:
    """Functions, keywords and reserved words are apart from each other, but for the kinds that have a constructor."""
    assert not set(FUNCTIONS) & (KEYWORDS | RESERVED)
    assert not KEYWORDS & RESERVED


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("len", ("",), 0), ("len", ("aé\U0001f600",), 3), ("len", ((1, ABSENT),), 2), ("len", (Unordered((1,)),), 1),
        ("len", (5,), INVALID), ("len", (Record({"a": 1}),), INVALID), ("len", (ABSENT,), INVALID),
        ("len", (MARIA,), INVALID),
        ("lower", ("ABCzÄİ",), "abczÄİ"), ("lower", (7,), INVALID),
        ("starts_with", ("abc", "ab"), True), ("starts_with", ("abc", ""), True), ("starts_with", ("abc", "bc"), False),
        ("ends_with", ("abc", "bc"), True), ("ends_with", ("abc", "ab"), False), ("contains", ("abc", "b"), True),
        ("contains", ("abc", "x"), False), ("contains", (("a",), "a"), INVALID), ("contains", ("abc", 7), INVALID),
        ("user", ("maria",), Principal.user("maria")), ("agent", ("bot",), Principal.agent("bot")),
        ("user", ("",), INVALID),
        ("service", (7,), INVALID), ("time", ("2026-11-23T12:00:00Z",), NOON),
        ("time", ("2026-11-23T13:00:00.000000+01:00",), NOON),
        ("time", ("2026-11-23T12:00:00",), INVALID), ("time", ("2026-11-23",), INVALID),
        ("time", ("2026-02-30T12:00:00Z",), INVALID),
        ("time", ("0001-01-01T00:00:00+01:00",), INVALID), ("time", ("2026-11-23 12:00:00Z",), INVALID),
        ("time", ("٢٠٢٦-11-23T12:00:00Z",), INVALID), ("time", ("2026-11-23T12:00:00Z\n",), INVALID),
    ],
)  # fmt: skip
def test_small_functions(name: str, args: tuple[Any, ...], expected: Any) -> None:
    """Each gives what the language says, and nothing where a value isn't of its type."""
    result = call(name, *args)
    assert result == expected
    assert type(result) is type(expected)


def test_a_principal_may_name_its_issuer() -> None:
    """`agent("bot", issuer: "…")` is another principal than the host's."""
    assert call("agent", "bot", issuer="https://id.example") == Principal.agent("bot", issuer="https://id.example")
    assert call("agent", "bot", issuer="") is INVALID
    assert call("agent", "bot", issuer=7) is INVALID


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a@example.com", "example.com"), ("A.b+c@Mail.EXAMPLE.com", "mail.example.com"), ("a@localhost", "localhost"),
        ("a'b@example.com", "example.com"), ("a@10.0.0.1", "10.0.0.1"),
        ("", INVALID), ("a", INVALID), ("@example.com", INVALID), ("a@", INVALID), ("a@b@example.com", INVALID),
        ("a@example.com,b@evil.test", INVALID), ("a@example.com b@evil.test", INVALID),
        ("a@example.com\nBcc: b@evil.test", INVALID),
        ("Bob <a@example.com>", INVALID), ("<a@example.com>", INVALID), ("\"a b\"@example.com", INVALID),
        ("\"a@evil.test\"@example.com", INVALID),
        ("a(comment)@example.com", INVALID), ("a@(comment)example.com", INVALID), ("a@[10.0.0.1]", INVALID),
        ("a..b@example.com", INVALID),
        (".a@example.com", INVALID), ("a.@example.com", INVALID), ("a@example.com.", INVALID),
        ("a@-example.com", INVALID),
        ("a@example..com", INVALID), ("a@exämple.com", INVALID), ("a@xn--exmple-cua.com", "xn--exmple-cua.com"),
        ("a@example.com\0", INVALID),
        (" a@example.com", INVALID), ("a@example.com\n", INVALID), ("a@example.com;b@evil.test", INVALID),
        ("a@2130706433", INVALID),
        ("a@0x7f.1", INVALID), ("a@evil.test%example.com", INVALID), ("=?utf-8?q?a?=@example.com", "example.com"),
        ("a" * 320 + "@example.com", INVALID), ("a@" + "b" * 64 + ".com", INVALID), ("a@\uff45xample.com", INVALID),
    ],
)  # fmt: skip
def test_email_domain(address: str, expected: Any) -> None:
    """Only one plain address has a domain; whatever some parser could read as another one has none."""
    assert call("email_domain", address) == expected


@pytest.mark.parametrize(
    ("url", "scheme", "host"),
    [
        ("https://example.com", "https", "example.com"), ("HTTPS://Example.COM/a/b?c=d&e#f", "https", "example.com"),
        ("http://example.com:8080", "http", "example.com"), ("https://example.com?q", "https", "example.com"),
        ("https://10.0.0.1:443/", "https", "10.0.0.1"), ("git+ssh://example.com/x", "git+ssh", "example.com"),
        ("https://example.com/@evil.test", "https", "example.com"),
        ("https://example.com/a//b", "https", "example.com"),
        *((url, INVALID, INVALID) for url in [
            "", "example.com", "//example.com", "https:example.com", "https:/example.com", "https:///example.com",
            "https://",
            "https://user@example.com/", "https://example.com@evil.test/", "https://a:b@example.com/",
            "https://example.com\\@evil.test",
            "https://evil.test\\.example.com", "https://example.com\\evil", "https://exam ple.com",
            "https://example.com /", " https://example.com",
            "https://example.com\n", "https://exa\tmple.com", "ht\ntps://example.com",
            "https://example.com\0.evil.test",
            "https://example.com.", "https://.example.com", "https://example..com", "https://-a.com",
            "https://exämple.com",
            "https://ｅxample.com", "https://example。com", "https://example.com%2eevil.test", "https://%65xample.com",
            "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://127.1/", "https://0177.0.0.1/",
            "https://0x7f.0.0.1/",
            "https://2130706433/", "https://010.0.0.1/", "https://10.0.0.256/", "https://1.2.3.4.5/", "https://a.0x7f",
            "https://example.com:/", "https://example.com:99999/", "https://example.com:80:80/",
            "https://example.com:٨٠/",
            "https://example.com:80@evil.test/", "https://example.com#@evil.test/", "https://example.com?@evil.test/",
            "https://example.com/\u202e", "https://example.com/é", "javascript:alert(1)", "data:text/html,x",
            "https://a_b.com/",
            "https://example.com?a\\b", "1http://example.com", "https://" + "a" * 64 + ".com",
            "https://" + "a." * 130 + "com",
            "https://example.com/" + "a" * 70_000,
        ]),
    ],
)  # fmt: skip
def test_urls(url: str, scheme: Any, host: Any) -> None:
    """A plain URL has a scheme and a host; what two parsers read differently has neither."""
    assert (call("url_scheme", url), call("url_host", url)) == (scheme, host)


@given(st.text(max_size=40) | st.from_regex(r"https?://[a-z0-9@:\[\]\\./?#%]{0,20}", fullmatch=True))
def test_a_host_is_the_one_that_the_standard_library_reads(url: str) -> None:
    """Where a URL has a host, Python's own parser reads the same one."""
    from urllib.parse import urlsplit

    host = call("url_host", url)
    assert host is INVALID or urlsplit(url).hostname == host


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/a/b", "/a", True), ("/a", "/a", True), ("/a/", "/a", True), ("/a", "/a/", True), ("/ab", "/a", False),
        ("/a/../b", "/a", False),
        ("/a/./b", "/a", True), ("/a/b/../../a/c", "/a", True), ("/../a", "/a", True), ("/a/..", "/a", False),
        ("/", "/", True),
        ("/anything", "/", True), ("/a//b", "/a", True), ("///a/b", "/a", True), ("/a/b", "/a/../a", True),
        ("/A/b", "/a", False),
        ("/a/b\n", "/a", True), ("/a/...", "/a", True), ("/a\\..\\b", "/a", False),
        ("a/b", "/a", INVALID), ("/a/b", "a", INVALID), ("", "/a", INVALID), ("/a", "", INVALID),
        ("//a/b", "/a", INVALID), ("/a", "//a", INVALID),
        ("/a\0/b", "/a", INVALID), ("/a/b", "/\0", INVALID), ("~/a", "/a", INVALID), ("C:\\a", "/a", INVALID),
        (7, "/a", INVALID),
    ],
)  # fmt: skip
def test_path_within(path: Any, root: Any, expected: Any) -> None:
    """Both are absolute, dots are resolved by the text, and a name that only begins alike is outside."""
    assert call("path_within", path, root) == expected
    assert type(call("path_within", path, root)) is type(expected)


@pytest.mark.parametrize(
    ("address", "network", "expected"),
    [
        ("10.0.0.1", "10.0.0.0/8", True), ("11.0.0.1", "10.0.0.0/8", False), ("10.0.0.1", "10.0.0.1/32", True),
        ("1.2.3.4", "0.0.0.0/0", True),
        ("::1", "::1/128", True), ("2001:DB8::1", "2001:db8::/32", True), ("::1", "10.0.0.0/8", False),
        ("10.0.0.1", "::/0", False),
        ("::ffff:10.0.0.1", "10.0.0.0/8", INVALID), ("::ffff:10.0.0.1", "::ffff:0:0/96", INVALID),
        ("::ffff:a00:1", "::/0", INVALID),
        ("10.0.0.1", "::ffff:10.0.0.0/104", INVALID), ("fe80::1%eth0", "fe80::/10", INVALID),
        ("fe80::1", "fe80::%eth0/10", INVALID),
        ("10.0.0.1", "10.0.0.1/8", INVALID), ("10.0.0.1", "10.0.0.1", INVALID), ("10.0.0.1", "10.0.0.0/33", INVALID),
        ("010.0.0.1", "10.0.0.0/8", INVALID), ("10.1", "10.0.0.0/8", INVALID),
        ("167772161", "10.0.0.0/8", INVALID), (" 10.0.0.1", "10.0.0.0/8", INVALID),
        ("10.0.0.1\n", "10.0.0.0/8", INVALID), ("١٠.0.0.1", "10.0.0.0/8", INVALID), ("", "10.0.0.0/8", INVALID),
        (167772161, "10.0.0.0/8", INVALID),
        ("10.0.0.1/8", "10.0.0.0/8", INVALID), ("[::1]", "::1/128", INVALID), ("1" * 65, "10.0.0.0/8", INVALID),
    ],
)  # fmt: skip
def test_ip_in(address: Any, network: Any, expected: Any) -> None:
    """A strict network and a plain address; mapped addresses, zone ids and odd notations are undetermined."""
    assert call("ip_in", address, network) == expected
    assert type(call("ip_in", address, network)) is type(expected)


def at(text: str) -> dt.datetime:
    """Return a moment in UTC."""
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


@pytest.mark.parametrize(
    ("moment", "zone", "time", "day"),
    [
        ("2026-11-23T12:00:00Z", "UTC", dt.timedelta(hours=12), "mon"),
        ("2026-11-23T23:30:00Z", "Europe/Berlin", dt.timedelta(minutes=30), "tue"),
        ("2026-03-29T00:59:59Z", "Europe/Berlin", dt.timedelta(hours=1, minutes=59, seconds=59), "sun"),
        ("2026-03-29T01:00:00Z", "Europe/Berlin", dt.timedelta(hours=3), "sun"),
        ("2026-10-25T00:30:00Z", "Europe/Berlin", dt.timedelta(hours=2, minutes=30), "sun"),
        ("2026-10-25T01:30:00Z", "Europe/Berlin", dt.timedelta(hours=2, minutes=30), "sun"),
        ("2026-11-23T12:00:00Z", "Asia/Kathmandu", dt.timedelta(hours=17, minutes=45), "mon"),
        ("2026-11-23T12:00:00.000001Z", "UTC", dt.timedelta(hours=12, microseconds=1), "mon"),
        ("2026-11-23T12:00:00Z", "Mars/Base", INVALID, INVALID),
        ("2026-11-23T12:00:00Z", "../../etc/passwd", INVALID, INVALID),
        ("2026-11-23T12:00:00Z", "", INVALID, INVALID), ("2026-11-23T12:00:00Z", "\0", INVALID, INVALID),
        ("9999-12-31T23:59:59Z", "Asia/Tokyo", INVALID, INVALID),
        ("0001-01-01T00:00:00Z", "America/New_York", INVALID, INVALID),
    ],
)  # fmt: skip
def test_wall_clocks(moment: str, zone: str, time: Any, day: Any) -> None:
    """The time since 00:00 and the day are those on the wall there, also where clocks are put forward or back."""
    assert call("time_of_day", at(moment), zone) == time
    assert call("weekday", at(moment), zone) == day
    assert valid_zone(zone) is (zone in ("UTC", "Europe/Berlin", "Asia/Kathmandu", "Asia/Tokyo", "America/New_York"))


def test_the_days_of_a_week() -> None:
    """Seven days from a Monday."""
    days = [call("weekday", NOON + dt.timedelta(days=day), "UTC") for day in range(7)]
    assert days == ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
