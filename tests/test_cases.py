"""Decide the stories in `tests/cases/`: each request of each file, on the definition and on the compiled form."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from agentauthz import UNKNOWN, Chain, Decision, Delegation, PolicySet, Principal, Request, Resource, SessionFacts
from agentauthz.principals import KINDS
from tests.deciding import Form, decided

FOLDER: Final = Path(__file__).parent / "cases"
FILES: Final = sorted(FOLDER.glob("*.json"))
PARTS: Final = ("outcome", "basis", "rules", "undetermined", "missing", "marks", "obligations", "reasons", "because")
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


# ---- JSON to requests; what isn't understood fails, so that a misspelled key hides nothing


def only(given: Mapping[str, Any], *known: str) -> Mapping[str, Any]:
    """Return `given`, which must be an object with no other keys than these."""
    assert isinstance(given, dict), f"not an object: {given!r}"
    assert set(given) <= set(known), f"unknown keys {sorted(set(given) - set(known))}; known are {known}"
    return given


def a_principal(given: Mapping[str, Any]) -> Principal:
    """Read `{"agent": "bot", "issuer": "…", "attributes": {…}}`."""
    given = only(given, *KINDS, "issuer", "attributes")
    [kind] = [kind for kind in KINDS if kind in given]
    return Principal(kind, given[kind], given.get("issuer"), a_value(given.get("attributes", {})))


def a_time(text: str) -> dt.datetime:
    """Read an RFC 3339 time."""
    return dt.datetime.fromisoformat(text)


def a_duration(text: str) -> dt.timedelta:
    """Read `15m`."""
    return dt.timedelta(**{UNITS[text[-1]]: int(text[:-1])})


SPECIAL: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$unknown": lambda _: UNKNOWN,
    "$time": a_time,
    "$duration": a_duration,
    "$decimal": Decimal,
    "$principal": a_principal,
    "$set": set,
}


def a_value(given: Any) -> Any:
    """Read a value: JSON's own, and objects of one key with `$` for what JSON lacks."""
    if isinstance(given, list):
        return [a_value(item) for item in given]
    if not isinstance(given, dict):
        return given
    if len(given) == 1 and next(iter(given)).startswith("$"):
        [(kind, inner)] = given.items()
        return SPECIAL[kind](inner)
    return {name: a_value(item) for name, item in given.items()}


def a_resource(given: Any) -> Any:
    """Read `{"type": "Order", "id": "o-1", "attributes": {…}}`."""
    if given is None or "$unknown" in given:
        return a_value(given)
    given = only(given, "type", "id", "attributes")
    return Resource(given["type"], given["id"], a_value(given.get("attributes", {})))


def a_session(given: Any) -> Any:
    """Read `{"id": "s", "started": "…", "marks": […], "began": {"crm.read": "…"}, …}`."""
    if given is None or "$unknown" in given:
        return a_value(given)
    given = only(given, "id", "started", "expires", "attributes", "marks", "began", "done", "tracked")
    made: dict[str, Any] = {"id": given.get("id", "s-1"), "started": a_time(given["started"])}
    if given.get("expires") is not None:
        made["expires"] = a_time(given["expires"])
    if "attributes" in given:
        made["attributes"] = a_value(given["attributes"])
    if "marks" in given:
        made["marks"] = frozenset(given["marks"]) if isinstance(given["marks"], list) else a_value(given["marks"])
    for name in ("began", "done", "tracked"):
        if name in given:
            seen = given[name]
            made[name] = a_value(seen) if "$unknown" in seen else {action: a_time(at) for action, at in seen.items()}
    return SessionFacts(**made)


def a_hop(given: Mapping[str, Any]) -> Delegation:
    """Read one hop of `chain`."""
    given = only(given, "to", "actions", "purpose", "expires", "handoff", "via")
    more = {name: given[name] for name in ("actions", "purpose", "handoff", "via") if name in given}
    expires = a_time(given["expires"]) if "expires" in given else None
    return Delegation(a_principal(given["to"]), expires=expires, **more)


READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "action": str, "subject": a_principal, "actor": a_principal, "args": a_value, "resource": a_resource,
    "route": a_value, "purpose": a_value, "session": a_session, "context": a_value, "now": a_time,
}  # fmt: skip


def a_request(given: Mapping[str, Any]) -> Request:
    """Read a request; `chain` is the list of its hops."""
    made = {name: READERS[name](part) for name, part in only(given, *READERS, "chain").items() if name != "chain"}
    if "chain" in given:
        made["chain"] = Chain(made["subject"], tuple(map(a_hop, given["chain"])))
    return Request(made.pop("action"), **made)


# ---- decisions to JSON


def shown(decision: Decision) -> dict[str, Any]:
    """Return a decision's parts as a case's `expect` writes them."""
    return {
        "outcome": decision.outcome.value,
        "basis": decision.basis.value,
        "rules": list(decision.rules),
        "undetermined": list(decision.undetermined),
        "missing": list(decision.missing),
        "marks": list(decision.marks),
        "obligations": [obligation.type for obligation in decision.obligations],
        "reasons": [reason.code for reason in decision.reasons],
        "because": [reason.because for reason in decision.reasons if reason.because is not None],
    }


def expected(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `expect` in full: a part that it leaves out must be empty, but for the reasons, which it may leave out."""
    given = only(given, *PARTS)
    full: dict[str, Any] = {part: [] for part in PARTS if part not in ("outcome", "basis", "reasons", "because")}
    return {**full, "outcome": given["outcome"], "basis": given["basis"], **given}


# ---- the tests


def stories() -> Iterator[Any]:
    """Yield each request of each file with its policy."""
    for file in FILES:
        told = only(json.loads(file.read_text("utf-8")), "story", "given", "requests")
        for asked in told["requests"]:
            asked = only(asked, "name", "request", "expect")
            request = {**told.get("given", {}), **asked["request"]}
            label = f"{file.stem}: {asked['name']}"
            yield pytest.param(file.with_suffix(".authz"), request, asked["expect"], id=label)


@pytest.mark.parametrize(("policy", "given", "expect"), list(stories()))
def test_a_case_is_decided_as_it_says(policy: Path, given: Mapping[str, Any], expect: Any, form: Form) -> None:
    """A request of a case gets the decision that stands beside it, part by part."""
    full = expected(expect)
    decision = shown(decided(form(PolicySet.load(policy)), a_request(given)))
    assert {part: decision[part] for part in full} == full


def test_every_file_of_the_folder_is_used() -> None:
    """Each policy has its requests, and the other way round; no file is lost by its name."""
    names = {path.stem for path in FOLDER.glob("*.authz")}
    assert names == {path.stem for path in FILES}
    assert {path.name for path in FOLDER.iterdir()} == {f"{n}{s}" for n in names for s in (".authz", ".json")} | {
        "README.md"
    }


def test_every_case_tells_a_story() -> None:
    """Each file says what it is about, and names its requests apart."""
    for file in FILES:
        told = json.loads(file.read_text("utf-8"))
        names = [asked["name"] for asked in told["requests"]]
        assert told["story"].strip(), file.name
        assert len(names) == len(set(names)) > 0, file.name


def test_a_misspelled_key_fails() -> None:
    """A case can't pass because nobody read a part of it."""
    good = {"action": "a.b", "subject": {"user": "maria"}}
    assert a_request(good).action == "a.b"
    for bad in ({**good, "purpos": "x"}, {**good, "subject": {"user": "maria", "atributes": {}}}):
        with pytest.raises(AssertionError, match="unknown keys"):
            a_request(bad)
    with pytest.raises(AssertionError, match="unknown keys"):
        expected({"outcome": "allow", "basis": "rule", "rule": []})
