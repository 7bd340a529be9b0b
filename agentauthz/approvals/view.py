"""Write a review as text in which nothing is left out, nothing is obeyed, and nothing passes for something else."""

from __future__ import annotations

from collections.abc import Iterator

from agentauthz.approvals.review import Consent, Review
from agentauthz.canonical import Json
from agentauthz.principals import Delegation, Principal

_DOTS = "•••"
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def view(review: Review) -> str:
    """Return the whole review as lines of ASCII: other characters are escaped, so that look-alikes differ.

    Texts stand in quotes and numbers don't, and what is sensitive is shown as three dots, which nothing else has.
    """
    return "\n".join(lines(review))


def lines(review: Review) -> Iterator[str]:
    """Return the lines one by one: of a long argument, only one copy is in memory at a time."""
    request = review.request
    yield f"approval  {_plain(review.id)}, {review.standing}"
    yield f"action    {_plain(request.action)}"
    if review.resource is not None:
        own = _DOTS if review.resource_id is None else quoted(review.resource_id)
        yield f"on        {_plain(review.resource.type)} {own}"
    yield f"for       {_who(review.subject)}"
    for hop in review.chain.delegations:
        yield f"through   {_hop(hop)}"
    yield f"purpose   {_optional(request.purpose)}"
    yield f"session   {_optional(review.session)}"
    yield "arguments" if review.args else "arguments none"
    for name, value in review.args.items():
        yield f"  {_name(name)} = {shown(value)}"
    for each in review.asking:
        yield f"asked by  {_plain(each.rule)}: {quoted(each.because or each.text)}"
        yield f"  by      {_plain(each.by)}"
    yield f"asked at  {review.at.isoformat()}"
    yield f"until     {review.expires.isoformat()}"
    for consent in review.consents:
        yield f"approved  {_consent(consent)}"
    if review.rejection is not None:
        yield f"rejected  {_consent(review.rejection)}"
    yield f"policies  {_plain(review.policy_digest)}"


def shown(tree: Json) -> str:
    """Return tagged JSON as text: a tag shows what a text only looks like."""
    if isinstance(tree, str):
        return quoted(tree)
    if isinstance(tree, list):
        return f"[{', '.join(map(shown, tree))}]"
    if isinstance(tree, dict):
        if tree == {"$u": "secret"}:
            return _DOTS
        if len(tree) == 1:
            [(tag, held)] = tree.items()
            if tag in ("$d", "$i") and isinstance(held, str):  # a number: not in quotes, as a text would be
                return _plain(held)
        return "{" + ", ".join(f"{quoted(name)}: {shown(item)}" for name, item in tree.items()) + "}"
    return (
        {None: "null", True: "true", False: "false"}[tree]
        if tree is None or tree is True or tree is False
        else repr(tree)
    )


def quoted(text: str) -> str:
    """Return text in quotes; what isn't printable ASCII is escaped as in JSON, beyond U+FFFF as `\\u{…}`."""
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(_SHORT.get(c) or (c if " " <= c <= "~" else _escape(c)) for c in text)


def _escape(character: str) -> str:
    point = ord(character)
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\u{{{point:x}}}"


def _plain(text: str) -> str:
    """Return a name or a policy's own text without quotes, its quotes and backslashes as they are."""
    return (
        text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else _escape(c) for c in text)
    )


def _name(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else quoted(name)


def _optional(text: object) -> str:
    return quoted(text) if isinstance(text, str) else "none"


def _who(who: Principal) -> str:
    issuer = "" if who.issuer is None else f", issuer: {quoted(who.issuer)}"
    return f"{who.kind}({quoted(who.id)}{issuer})"


def _hop(hop: Delegation) -> str:
    purpose = "" if hop.purpose is None else f", purpose {quoted(hop.purpose)}"
    handed = ", handed off" if hop.handoff else ""
    return f"{_who(hop.to)}, for {', '.join(map(_plain, hop.actions)) or 'nothing'}{purpose}{handed}"


def _consent(consent: Consent) -> str:
    note = f": {quoted(consent.note)}" if consent.note else ""
    return f"{_who(consent.by)} at {consent.at.isoformat()}{note}"
