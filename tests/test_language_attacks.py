"""Attack the language as a user with odd data, or bad intentions, would."""

from __future__ import annotations

import datetime as dt
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentauthz import (
    Decision,
    InvalidArgument,
    Outcome,
    PolicyCheckError,
    PolicySet,
    PolicySyntaxError,
    Request,
    Resource,
    SessionFacts,
)
from agentauthz.errors import PolicyLoadError
from tests.support import MARIA, NOON

RISKY = "permit all on x.y when true\nforbid risky on x.y when ({}.risk ?? 0) > 5"
CROWD = {f"n{number}": number for number in range(10_001)}


def decided(policy: str, **request: Any) -> Decision:
    """Return the decision on `x.y`, which both forms of the policy must give alike."""
    policies = PolicySet.parse(policy)
    asked = Request(request.pop("action", "x.y"), **{"subject": MARIA, "now": NOON, **request})
    found = [policies.decide(asked) for _ in range(3)] + [policies.on_definition().decide(asked)]
    assert len({(one.outcome, one.basis, one.rules, one.undetermined, one.missing) for one in found}) == 1
    return found[0]


def codes(policy: str) -> list[str]:
    """Return the codes of a policy's errors."""
    with pytest.raises(PolicyCheckError) as caught:
        PolicySet.parse(policy)
    return [diagnostic.code for diagnostic in caught.value.diagnostics]


class Nameless(Mapping[str, object]):
    """Be a mapping that doesn't know how many names it has."""

    def __len__(self) -> int:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        return iter(["risk"])

    def __getitem__(self, name: str) -> object:
        return 9


class Unreadable(Mapping[str, object]):
    """Be a mapping whose values can't be had."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(["risk"])

    def __getitem__(self, name: str) -> object:
        raise RuntimeError


class Lying(str):
    """Be a string that equals every other."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("x.y")

    def __str__(self) -> str:
        return "good"


# ---- what can't be read is never taken for what isn't there


@pytest.mark.parametrize("context", [{**CROWD, "risk": 9}, Nameless()], ids=["too many", "uncounted"])
def test_a_context_that_is_no_value_is_not_taken_for_an_empty_one(context: Mapping[str, object]) -> None:
    """Each fact of a context with too many facts is of the wrong type, so that a forbid with a default denies."""
    found = decided(RISKY.format("context"), context=context)
    assert (found.outcome, found.missing) == (Outcome.DENY, ("context.risk (of the wrong type)",))


def test_session_attributes_that_are_no_value_are_not_taken_for_none() -> None:
    """Too many attributes are refused when the facts are made; those that became so many are each of the wrong type."""
    with pytest.raises(InvalidArgument, match="`attributes`"):
        SessionFacts("s", NOON, attributes={**CROWD, "risk": 9})
    attributes: dict[str, object] = {"risk": 9}
    facts = SessionFacts("s", NOON, attributes=attributes)
    attributes.update(CROWD)
    assert decided(RISKY.format("session"), session=facts).undetermined == ("risky",)


def test_resource_attributes_that_outgrow_a_value_are_not_taken_for_none() -> None:
    """Each attribute of a resource whose attributes became too many after it was made is of the wrong type."""
    attributes: dict[str, object] = {"risk": 9}
    resource = Resource("Order", "1", attributes)
    attributes.update(CROWD)
    assert decided(RISKY.format("resource"), resource=resource).undetermined == ("risky",)


# ---- a request's own parts


def test_arguments_that_cannot_be_read_are_refused_when_the_request_is_made() -> None:
    """A mapping's own exceptions never come out of a decision."""
    with pytest.raises(InvalidArgument, match="`args`"):
        Request("x.y", subject=MARIA, args=Unreadable())


def test_an_action_that_equals_everything_matches_its_own_rules_only() -> None:
    """An action's name is its characters, whatever a subclass of str says of equality."""
    assert decided("permit p on x.y when true", action=Lying("other")).outcome is Outcome.DENY
    assert decided('permit p on x.y when action.name == "x.y"', action=Lying("x.y")).outcome is Outcome.ALLOW


def test_purpose_and_route_are_their_characters() -> None:
    """A purpose or route that equals everything is what it holds."""
    policy = 'permit p on x.y when purpose == "care" and route == "here"'
    assert decided(policy, purpose=Lying("care"), route=Lying("here")).outcome is Outcome.ALLOW
    assert decided(policy, purpose=Lying("none"), route=Lying("here")).outcome is Outcome.DENY


class NoZone(dt.tzinfo):
    """Be a time zone that doesn't know how far it is from UTC."""

    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta | None:
        return None

    def dst(self, moment: dt.datetime | None) -> dt.timedelta | None:
        return None

    def tzname(self, moment: dt.datetime | None) -> str | None:
        return None


class BrokenZone(NoZone):
    """Be a time zone that raises."""

    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta | None:
        raise RuntimeError


@pytest.mark.parametrize("zone", [NoZone(), BrokenZone()], ids=["none", "raises"])
def test_a_moment_whose_zone_gives_no_offset_is_refused(zone: dt.tzinfo) -> None:
    """A request isn't made at a moment that can't be compared with others."""
    with pytest.raises(InvalidArgument, match="now"):
        Request("x.y", subject=MARIA, now=dt.datetime(2026, 1, 1, tzinfo=zone))


def test_a_path_or_uuid_is_what_it_holds_whatever_its_class_shows() -> None:
    """A subclass's own `__str__` is never asked."""

    class Shown(pathlib.PurePosixPath):
        def __str__(self) -> str:
            return "/good"

    class Uuid(uuid.UUID):
        def __str__(self) -> str:
            return "good"

    policy = 'permit p on x.y when args.value in ["good", "/good"]'
    assert decided(policy, args={"value": Shown("/evil")}).outcome is Outcome.DENY
    assert decided(policy, args={"value": Uuid(int=1)}).outcome is Outcome.DENY


# ---- no way round the rules about marks and ids


@pytest.mark.parametrize(
    "condition",
    [
        'any s in [session]: "vip" in s.marks',
        'any s in [resource.origin, session]: "vip" in s.marks',
        'any s in [resource.origin ?? session]: "vip" in s.marks',
    ],
)
def test_marks_are_not_reached_through_the_session_as_a_whole(condition: str) -> None:
    """A permit can't read a mark by giving the session another name."""
    policy = f'type session {{ marks: ["vip"] }}\npermit p on x.y when subject is user and {condition}'
    assert codes(policy) == ["session-place"]


def test_whether_there_is_a_session_may_be_asked() -> None:
    """`exists session` tells nothing about marks, and is allowed."""
    facts = SessionFacts("s", NOON)
    policy = "permit p on x.y when subject is user and exists session"
    assert decided(policy, session=facts).outcome is Outcome.ALLOW
    assert decided(policy).outcome is Outcome.DENY


def test_a_literal_anywhere_in_a_list_makes_a_bare_id_an_error() -> None:
    """`actor.id in [x, "bot"]` names a principal by its id alone, as `[..., x]` does."""
    assert codes('permit p on x.y when subject is user and actor.id in [args.who, "bot"]') == ["bare-id"]


def test_a_default_does_not_hide_a_bare_id() -> None:
    """`actor.id ?? "x"` is the id all the same, since every principal has one."""
    assert codes('permit p on x.y when subject is user and (actor.id ?? "x") == "bot"') == ["bare-id"]


# ---- files


def written(folder: Path, name: str, text: str = "permit p on x.y when true\n") -> Path:
    """Write a policy file, and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_rules_of_a_linked_folder_are_not_lost(tmp_path: Path) -> None:
    """A forbid that stands in a folder reached by a link counts as any other."""
    written(tmp_path, "set/p.authz")
    written(tmp_path, "shared/f.authz", "forbid f on x.y\n")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "shared")
    assert [rule.name for rule in PolicySet.load(tmp_path / "set").rules] == ["f", "p"]


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    """A link to a folder above ends in an error that names it, not in rules that are there twice."""
    written(tmp_path, "p.authz")
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(PolicyLoadError, match="again"):
        PolicySet.load(tmp_path)


@pytest.mark.parametrize("alone", [True, False])
def test_a_pipe_is_no_policy_file(tmp_path: Path, alone: bool) -> None:
    """What would never end is refused before it is read, and named."""
    os.mkfifo(tmp_path / "p.authz")
    with pytest.raises(PolicyLoadError, match=r"p\.authz.*no ordinary file"):
        PolicySet.load(tmp_path / "p.authz" if alone else tmp_path)


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    """A file of a terabyte is refused for its size, in no more memory than the largest that is allowed."""
    with (tmp_path / "p.authz").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(PolicySyntaxError, match="67,108,864 bytes"):
        PolicySet.load(tmp_path)


def test_the_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Among many files, the error says which one isn't there any more."""
    written(tmp_path, "a.authz")
    (tmp_path / "gone.authz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(PolicyLoadError, match=r"gone\.authz"):
        PolicySet.load(tmp_path)


def test_an_empty_path_is_not_the_current_folder() -> None:
    """A setting that was left empty loads no policies that happen to lie around."""
    with pytest.raises(InvalidArgument, match="empty"):
        PolicySet.load("")


def test_a_file_name_that_is_no_text_can_be_shown(tmp_path: Path) -> None:
    """Every place in a policy can be written down as UTF-8, whatever bytes the file's name has."""
    name = os.fsencode(tmp_path) + b"/\xff.authz"
    with open(name, "w", encoding="utf-8") as file:
        file.write("permit p on x.y when true\n")
    (rule,) = PolicySet.load(tmp_path).rules
    assert rule.at.encode("utf-8").endswith(b"udcff.authz:1:1")
