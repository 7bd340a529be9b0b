"""Test which target URIs are the same by RFC 3986's syntax and scheme, and which are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentauthz.tokens.target_uri import target_uri

SAME = [  # RFC 3986 §6.2.2.1 case, §6.2.2.2 percent-encoding, §6.2.2.3 dot segments, §6.2.3 scheme
    ("HTTPS://Host.Example/a", "https://host.example/a"),
    ("https://host.example", "https://host.example/"),
    ("https://host.example:443/a", "https://host.example/a"),
    ("https://host.example:/a", "https://host.example/a"),
    ("http://host.example:80", "http://host.example/"),
    ("https://host.example/a/./b", "https://host.example/a/b"),
    ("https://host.example/x/../a/b", "https://host.example/a/b"),
    ("https://host.example/../../a", "https://host.example/a"),
    ("https://host.example/a/b/..", "https://host.example/a/"),
    ("https://host.example/a/.", "https://host.example/a/"),
    ("https://host.example/a%2fb", "https://host.example/a%2Fb"),
    ("https://host.example/%7euser", "https://host.example/~user"),
    ("https://host.example/a?q=1&r=/?", "https://host.example/a"),
    ("https://host.example/a#there", "https://host.example/a"),
    ("https://host.example?q=1", "https://host.example/"),
    ("https://[2001:DB8::1]:443/a", "https://[2001:db8::1]/a"),
]
DIFFERENT = [
    ("https://host.example/a", "http://host.example/a"),
    ("https://host.example/a", "https://host.example/A"),
    ("https://host.example/a", "https://host.example/a/"),
    ("https://host.example/a/b", "https://host.example/a//b"),
    ("https://host.example/a/b", "https://host.example/a%2Fb"),
    ("https://host.example/a", "https://host.example:8443/a"),
    ("https://host.example:80/a", "https://host.example/a"),
    ("https://host.example:0443/a", "https://host.example/a"),
    ("https://host.example/a", "https://host.example./a"),
    ("https://host.example/a", "https://www.host.example/a"),
    ("https://host.example/a;b", "https://host.example/a"),
    ("https://host.example/a+b", "https://host.example/a%20b"),
]
NONE = [
    "", "/a", "host.example/a", "//host.example/a", "ftp://host.example/a", "https:/host.example/a", "https:///a",
    "https://user@host.example/a", "https://user:secret@host.example/a", "https://host.example\\@evil.example/a",
    "https://host.example/a b", "https://host.example/ä", "https://hôst.example/", "https://host.example/a\n",
    " https://host.example/a", "https://host.example/%", "https://host.example/%2", "https://host.example/%zz",
    "https://host.example:port/", "https://host.example:123456/", "https://[::1/", "https://host.example/<>",
    "https://host.example/a\x00", "https://host.example/a#b#c", "https://ſerver.example/a",
    "https://host.example/" + "a" * 9000, None, 7, b"https://host.example/a", ["https://host.example/a"],
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_the_rfc_makes_equal_is_equal(one: str, other: str) -> None:
    """Two ways to write a URI that differ by §6.2.2 and §6.2.3 only have one normal form."""
    assert target_uri(one) == target_uri(other) == other


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_nothing_else_is_equal(one: str, other: str) -> None:
    """URIs that differ in anything else stay apart."""
    assert None not in (target_uri(one), target_uri(other))
    assert target_uri(one) != target_uri(other)


@pytest.mark.parametrize("uri", NONE)
def test_what_is_no_target_has_no_form(uri: object) -> None:
    """What isn't an absolute `http` or `https` URI of RFC 3986, or has a user, is none."""
    assert target_uri(uri) is None


PATHS = st.lists(st.sampled_from(["a", "b", "", ".", "..", "%2e", "%2E%2e", "%2f", "%41", "~", "%C3%a4"]), max_size=8)


@given(PATHS)
def test_the_normal_form_is_its_own(segments: list[str]) -> None:
    """Normalising once is enough, and leaves no dot segment and no encoded letter."""
    form = target_uri("https://host.example/" + "/".join(segments))
    assert form is not None
    assert target_uri(form) == form
    assert not {".", ".."} & set(form.split("/"))
    assert "%41" not in form
    assert "%2f" not in form
