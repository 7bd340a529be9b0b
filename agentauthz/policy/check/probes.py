"""Try out what is known of a call's arguments when the policy is loaded: zones, moments, networks, names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, cast

from agentauthz.policy.builtins import FUNCTIONS, valid_zone
from agentauthz.policy.check.constants import NO_CONSTANT, constant
from agentauthz.policy.check.report import text_of
from agentauthz.policy.syntax import Call, Literal_
from agentauthz.principals import Principal

Problem: TypeAlias = tuple[int, str, str]  # the argument's index, what is wrong with it, what to try


def probe(call: Call) -> Problem | None:
    """Return what is wrong with an argument, whatever the request will be; its types are right."""
    found = _PROBES.get(call.name)
    return None if found is None else found(call)


def _probe_zone(call: Call) -> Problem | None:
    name = cast(str, cast(Literal_, call.args[1]).value)
    if valid_zone(name):
        return None
    return 1, f'there is no time zone "{name}"', 'use a name of the IANA database, such as "Europe/Berlin"'


def _probe_time(call: Call) -> Problem | None:
    value = constant(call)
    return (0, "this is no moment in time", 'write it as "2026-11-23T00:00:00Z"') if value is NO_CONSTANT else None


def _probe_principal(call: Call) -> Problem | None:
    if not call.named and isinstance(call.args[0], Literal_) and call.args[0].value != "":
        return None
    known = [constant(value) for value in (*call.args, *(value for _, value in call.named))]
    fitting = all(name in FUNCTIONS[call.name].named for name, _ in call.named)
    if not fitting or NO_CONSTANT in known or type(constant(call)) is Principal:
        return None
    return 0, f"`{call.name}` takes an id that isn't empty, and an issuer that isn't", "name the principal"


def _probe_network(call: Call) -> Problem | None:
    known = constant(call.args[1])
    if known is NO_CONSTANT or FUNCTIONS["ip_in"](("0.0.0.0", known)) in (True, False):  # noqa: S104 - an address to try
        return None
    return (
        1,
        f"{text_of(call.args[1])} is no network",
        'write it with its prefix and no host bits, such as "10.0.0.0/8"',
    )


def _probe_root(call: Call) -> Problem | None:
    known = constant(call.args[1])
    if known is NO_CONSTANT or FUNCTIONS["path_within"](("/", known)) in (True, False):
        return None
    return 1, f"{text_of(call.args[1])} is no absolute path", 'write it from the root, such as "/srv/files"'


_PROBES: Final[Mapping[str, Callable[[Call], Problem | None]]] = {
    "time_of_day": _probe_zone,
    "weekday": _probe_zone,
    "time": _probe_time,
    "user": _probe_principal,
    "agent": _probe_principal,
    "service": _probe_principal,
    "ip_in": _probe_network,
    "path_within": _probe_root,
}
