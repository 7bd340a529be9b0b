"""Write records in others' forms: OCSF 1.9, CloudEvents 1.0, and OTLP for OpenTelemetry.

What comes out is a copy for others to search. Only the log itself can be verified.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from agentauthz.errors import InvalidArgument
from agentauthz.records.merkle import leaf_hash
from agentauthz.records.reading import Tree, tree_of
from agentauthz.records.sinks.otel import attributes

Made: TypeAlias = dict[str, Any]

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICRO: Final = dt.timedelta(microseconds=1)

# OCSF: class API Activity, activity Other, for what an action does to its resource isn't known
_CLASS, _CATEGORY, _OTHER = 6003, 6, 99
_ALLOWED: Final = {"action_id": 1, "action": "Allowed", "disposition_id": 1, "disposition": "Allowed"}
_BLOCKED: Final = {"action_id": 2, "action": "Denied", "disposition_id": 2, "disposition": "Blocked"}
_LOGGED: Final = {"action_id": 1, "action": "Allowed", "disposition_id": 17, "disposition": "Logged"}
_STATUS: Final = {"done": (1, "Success"), "unknown": (0, "Unknown")}
_FAILURE: Final = (2, "Failure")
_USERS: Final = {"user": (1, "User"), "service": (4, "Service")}
_UNMAPPED: Final = ("basis", "mode", "rules", "purpose", "chain", "route", "ctx", "delegation")
_PROFILES: Final = ("security_control", "ai_operation", "trace", "record_integrity")
_MARKS: Final = {"security_control": "action_id", "trace": "trace"}  # what a profile needs to be one of an event's


def export(lines: Iterable[bytes], form: str) -> Iterator[str]:
    """Return records in another form, one line of JSON (in ASCII) each; lines that are no records are left out.

    `ocsf` has decisions, effects and delegations only, `otel` and `cloudevents` have all records.

    Raises:
        InvalidArgument: there is no such form.
    """
    if form not in FORMS:
        raise InvalidArgument("form", f"must be one of {', '.join(FORMS)}")
    make = FORMS[form]
    for line in lines:
        tree = tree_of(line)
        if tree is None:
            continue
        try:
            made = make(tree, line)
            text = None if made is None else json.dumps(made, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError):  # `verify` is what tells of damage
            continue
        if text is not None:
            yield text


# ---- CloudEvents


def cloudevent(tree: Tree, line: bytes) -> Made:
    """Return a record in the envelope of CloudEvents 1.0; receivers drop what they have by `source` and `sequence`."""
    event = {
        "specversion": "1.0",
        "id": tree["id"],
        "source": f"urn:agentauthz:stream:{tree['stream']}",
        "type": f"agentauthz.{tree['type']}",
        "time": tree["ts"],
        "datacontenttype": "application/json",
        "dataschema": "urn:agentauthz:record:1",
        "sequence": f"{tree['seq']:019}",  # of the extension Sequence: sorts as text
        "data": tree,
    }
    return {**event, **_some(subject=_action(tree), traceparent=_traceparent(tree.get("ctx", {})))}


def _traceparent(ctx: Mapping[str, Any]) -> str | None:
    """Return the attribute of the extension Distributed Tracing; whether the trace is sampled isn't known."""
    if "trace_id" not in ctx or "span_id" not in ctx:
        return None
    return f"00-{ctx['trace_id']}-{ctx['span_id']}-00"


def _action(tree: Tree) -> str | None:
    action = tree.get("action", tree.get("effect", {}).get("action"))
    name = action["name"] if isinstance(action, dict) else action
    return None if name is None else str(name)


# ---- OpenTelemetry


def otlp(tree: Tree, line: bytes) -> Made:
    """Return a record as an OTLP request with one log record, as collectors read from files (OTLP/JSON)."""
    outcome, ctx = tree.get("delegation", tree).get("outcome", "allow"), tree.get("ctx", {})
    warns = outcome not in ("allow", "passed")
    record = {
        "timeUnixNano": str(_micros(tree) * 1000),
        "severityNumber": 13 if warns else 9,
        "severityText": "WARN" if warns else "INFO",
        "eventName": f"agentauthz.{tree['type']}",
        "attributes": [{"key": name, "value": _any(value)} for name, value in attributes(tree).items()],
        **_some(traceId=ctx.get("trace_id"), spanId=ctx.get("span_id")),
    }
    scope = {"scope": {"name": "agentauthz"}, "logRecords": [record]}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "agentauthz"}}]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}


def _any(value: object) -> Made:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_any(item) for item in value]}}
    return {"stringValue": str(value)}


def _micros(tree: Tree) -> int:
    return (dt.datetime.fromisoformat(tree["ts"]) - _EPOCH) // _MICRO


# ---- OCSF


def ocsf(tree: Tree, line: bytes) -> Made | None:
    """Return a decision, an effect or a delegation as API Activity of OCSF 1.9.0; None: the record is of another type.

    `raw_data` is the record's line, and the attestation's fingerprint is its leaf in the log's tree.
    """
    if (make := _OCSF.get(tree["type"])) is None:
        return None
    # a span's times, which its object needs, aren't known: its id is in `unmapped`
    told = {**make(tree), **_some(trace=_some(uid=tree.get("ctx", {}).get("trace_id")) or None)}
    text = line.decode().rstrip("\n")
    leaf = {"algorithm": "SHA-256 of a zero byte and raw_data", "algorithm_id": 99}
    profiles = [name for name in _PROFILES if _MARKS.get(name, "actor") in told]
    event = {
        "category_uid": _CATEGORY,
        "category_name": "Application Activity",
        "class_uid": _CLASS,
        "class_name": "API Activity",
        "activity_id": _OTHER,
        "activity_name": tree["type"],
        "type_uid": _CLASS * 100 + _OTHER,
        "time": _micros(tree) // 1000,
        "metadata": {
            "version": "1.9.0",
            "product": {"name": "agentauthz", "vendor_name": "agentauthz"},
            "profiles": profiles,
            "uid": tree["id"],
            "sequence": tree["seq"],
            "original_time": tree["ts"],
            "log_name": tree["stream"],
        },
        "src_endpoint": {"uid": tree["stream"]},
        "attestation": {
            "chain_uid": tree["stream"],
            "fingerprint": {**leaf, "value": leaf_hash(text.encode()).hex()},
        },
        "raw_data": text,
        "unmapped": {name: tree[name] for name in _UNMAPPED if name in tree},
    }
    _correlate(event, told)
    return {**event, **told}


def _correlate(event: Made, told: Made) -> None:
    if (of := told.pop("correlation_uid", None)) is not None:
        event["metadata"]["correlation_uid"] = of


def _decided(tree: Tree) -> Made:
    allowed, reasons = tree["outcome"] == "allow", tree.get("reasons", [])
    control = _ALLOWED if allowed else _BLOCKED if tree.get("enforced", True) else _LOGGED
    policy = _some(uid=tree["policy"]["digest"], name=tree["policy"].get("set"), version=tree["policy"].get("version"))
    agents = [party for party in tree.get("actors", ()) if party["kind"] == "agent"]
    return {
        **control,
        **_some(
            status_code=None if allowed or not reasons else reasons[0]["code"],
            status_detail=None if allowed or not reasons else reasons[0]["text"],
            ai_agent=_some(uid=agents[-1]["sub"], instance_uid=tree.get("session")) if agents else None,
            resources=_resources(tree.get("resource", {})),
            policy=policy,
        ),
        "severity_id": 1 if allowed else 3 if tree["basis"] == "error" else 2,
        "severity": "Informational" if allowed else "Medium" if tree["basis"] == "error" else "Low",
        "status_id": 1 if allowed else 2,
        "status": "Success" if allowed else "Failure",
        "is_alert": not allowed,
        "authorizations": [{"decision": tree["outcome"], "policy": policy}],
        "message": f"{tree['outcome']} {tree['action']['name']}",
        "actor": _actor(tree),
        "api": _api(tree, tree["action"]["name"]),
        "correlation_uid": tree["id"],
    }


def _done(tree: Tree) -> Made:
    effect = tree["effect"]
    code, name = _STATUS.get(effect["status"], _FAILURE)
    micros = effect.get("dur_us")
    return {
        **_some(status_detail=effect.get("error_type"), duration=None if micros is None else micros // 1000),
        "severity_id": 1,
        "severity": "Informational",
        "status_id": code,
        "status": name,
        "status_code": effect["status"],
        "message": f"{effect['status']} {effect.get('action', '')}".rstrip(),
        "actor": _actor(tree),
        "api": _api(tree, effect.get("action") or "unknown"),
        "correlation_uid": effect["of"],
    }


def _passed(tree: Tree) -> Made:
    """Return authority that was passed on, or not: its record's id is the delegation's."""
    own, hop, session = tree["delegation"], tree["delegation"].get("hop", {}), tree.get("session")
    passed, reason = own["outcome"] == "passed", own.get("reason", {})
    to = own.get("to", {})
    ends = hop.get("expires")
    delegation = _some(
        uid=tree["id"],
        created_time=_micros(tree) // 1000,
        expiration_time=None if ends is None else _micros({"ts": ends}) // 1000,
        scopes=own.get("scopes") or hop.get("actions"),
    )
    return {
        **(_ALLOWED if passed else _BLOCKED),
        **_some(
            status_code=reason.get("code"),
            status_detail=reason.get("text"),
            ai_agent=_some(uid=to["sub"], instance_uid=session) if to.get("kind") == "agent" else None,
            delegation=delegation if passed else None,
        ),
        "severity_id": 1 if passed else 2,
        "severity": "Informational" if passed else "Low",
        "status_id": 1 if passed else 2,
        "status": "Success" if passed else "Failure",
        "message": f"delegation by {own['kind']} {own['outcome']}",
        "actor": _actor(tree),
        "api": _api(tree, f"delegation.{own['kind']}"),
    }


def _api(tree: Tree, action: str) -> Made:
    return {"operation": action, "request": {"uid": tree.get("ctx", {}).get("call_id") or tree["id"]}}


def _actor(tree: Tree) -> Made:
    """Return whose authority it was; an effect names the session only."""
    session = None if tree.get("session") is None else {"uid": tree["session"]}
    parties = tree.get("actors") or []
    user = None
    if parties:
        subject = parties[0]
        code, name = _USERS.get(subject["kind"], (_OTHER, "Agent"))
        user = _some(uid=subject["sub"], type_id=code, type=name, domain=subject.get("iss"))
    elif session is None:
        user = {"uid": "unknown", "type_id": 0, "type": "Unknown"}
    return _some(user=user, session=session)


def _resources(resource: Mapping[str, Any]) -> list[Made] | None:
    return [_some(uid=resource["id"], type=resource.get("type"))] if "id" in resource else None


def _some(**members: object) -> Made:
    return {name: value for name, value in members.items() if value is not None}


_OCSF: Final[Mapping[str, Callable[[Tree], Made]]] = {"decision": _decided, "effect": _done, "delegation": _passed}
FORMS: Final[Mapping[str, Callable[[Tree, bytes], Made | None]]] = {
    "ocsf": ocsf,
    "cloudevents": cloudevent,
    "otel": otlp,
}
