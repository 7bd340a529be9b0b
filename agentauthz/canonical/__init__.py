"""Turn any Python data into one JSON tree and one sequence of bytes (RFC 8785), for digests and for records.

What JSON can't hold becomes an object with a single key, a tag:

=========  =====================================================================================
``$i``     an integer beyond 2^53: decimal text, or hexadecimal beyond 128 bits
``$d``     a decimal, without trailing zeros after the point
``$f``     a float that is ``nan``, ``inf`` or ``-inf``
``$t``     a moment, in UTC with microseconds; ``$local`` one without a zone, ``$date``, ``$clock``
``$dur``   a duration in seconds
``$p``     a principal: kind, id, and the issuer if it has one
``$e``     a resource among the inputs of a decision: its type, id, and the attributes that rules read
``$b``     bytes, in base 64
``$w``     text with lone surrogates, backslashes doubled and surrogates as ``\\udXXX``
``$m``     a mapping whose names are not all plain text: pairs, sorted
``$set``   a set: elements, sorted
``$x``     an input that holds no value: ``unknown`` or ``invalid``
``$u``     the class of what can't be written: an unknown object, a cycle, what is too deep or too big
=========  =====================================================================================

A mapping's own names that begin with ``$`` get one more, so data can never pass for a tag.
"""

from __future__ import annotations

from agentauthz.canonical.short import flat, plain
from agentauthz.canonical.text import Json, encode, quote
from agentauthz.canonical.tree import bounded, class_name, jsonable, stamp, utf8

__all__ = ["Json", "bounded", "canonical", "class_name", "encode", "jsonable", "plain", "quote", "stamp", "utf8"]


def canonical(value: object) -> bytes:
    """Return the one canonical form of `value`; equal bytes mean equal data, and a number is never a string.

    Objects of classes that we don't know are never asked anything: only their class's name is in the bytes,
    so what is in them is not bound by a digest. Never raises.
    """
    text = flat(value)
    return encode(jsonable(value)) if text is None else text.encode()
