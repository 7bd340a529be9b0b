"""Test what is read from strangers before anything is known about it: it costs no more than its length."""

from __future__ import annotations

import time

import pytest

from agentauthz.errors import TokenError
from agentauthz.tokens.strict import MAX_NESTING, json_object
from agentauthz.tokens.transport import MAX_BODY

DEEP = b"[" * (MAX_NESTING + 1)


@pytest.mark.parametrize("rest", [b'"' + b'\\"' * MAX_BODY, b'"' * MAX_BODY, b'"' + b"\\" * MAX_BODY, b'"[' * MAX_BODY])
def test_a_string_that_never_ends_costs_its_length(rest: bytes) -> None:
    """Brackets are counted in one pass, also where each quote could begin a string that has no end."""
    began = time.process_time()
    with pytest.raises(TokenError, match="malformed"):
        json_object((DEEP + rest)[:MAX_BODY])
    assert time.process_time() - began < 1


def test_brackets_in_strings_do_not_nest() -> None:
    """However strings are escaped, what stands in them is no bracket."""
    text = b'{"a": "' + b"[" * 100 + b'", "b": "\\"' + b"{" * 100 + b'\\\\", "c": [["]"]]}'
    assert json_object(text)["c"] == [["]"]]
    with pytest.raises(TokenError, match="too deep"):
        json_object(b'{"a": "\\\\", "b": ' + DEEP + b"]" * len(DEEP) + b"}")
