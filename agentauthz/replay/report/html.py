"""Write HTML of which no text is ever obeyed: whatever isn't made by `tag` is escaped."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from typing import Final, TypeAlias, final

from attrs import frozen

from agentauthz.records.words import one_line, printable

_VOID: Final = frozenset({"meta"})


@final
@frozen
class Html:
    """Be markup that this package wrote."""

    source: str


Part: TypeAlias = "Html | str | None"


def tag(name: str, *parts: Part, **attributes: str | bool | None) -> Html:
    """Return an element; texts among its parts are escaped, and None is left out.

    An underscore in an attribute's name stands for a hyphen, one at its end for nothing (`class_`).
    """
    told = "".join(map(_attribute, attributes.items()))
    if name in _VOID:
        return Html(f"<{name}{told}>")
    return Html(f"<{name}{told}>{joined(parts).source}</{name}>")


def joined(parts: Iterable[Part]) -> Html:
    """Return parts behind each other."""
    return Html("".join(part.source if isinstance(part, Html) else text(part) for part in parts if part is not None))


def text(given: str) -> str:
    """Return a text as HTML; what could change how others are read (marks of direction, controls) shows as escapes."""
    # SECURITY: lone surrogates and controls become visible ASCII here, the rest by `escape`
    return html.escape(one_line(given), quote=True)


def lines(given: str) -> Html:
    """Return a text of several lines for `pre`."""
    return Html(html.escape(printable(given.replace("\r\n", "\n").expandtabs(4)), quote=True))


def page(title: str, style: str, *body: Part) -> Html:
    """Return a whole document that loads nothing, runs nothing and sends nothing."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "</" not in style
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    return Html(f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en').source}\n")


def _attribute(given: tuple[str, str | bool | None]) -> str:
    name, value = given
    if value is None or value is False:
        return ""
    shown = name.rstrip("_").replace("_", "-")
    return f" {shown}" if value is True else f' {shown}="{text(str(value))}"'
