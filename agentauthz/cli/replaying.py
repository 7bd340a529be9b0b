"""Hold the commands that ask policies about records again: `records replay` and `records explain`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from agentauthz.cli.command import Run, conclude, working
from agentauthz.cli.openings import given, openings
from agentauthz.decision import Reason
from agentauthz.errors import InvalidArgument, NotReplayable
from agentauthz.policy.policyset import PolicySet
from agentauthz.records import DecisionRecord, PolicyRecord, Record, read_record
from agentauthz.records.reading import log_lines
from agentauthz.replay import Comparison, Replayed, recorded_policies
from agentauthz.replay import explain as explained
from agentauthz.replay import replay as replayed
from agentauthz.replay.answer import Answer
from agentauthz.replay.compare import KINDS

T = TypeVar("T")

SAME, CHANGED, NOT_REPLAYABLE = 0, 1, 2
_SHOWN: Final = 5  # records that are listed under one rule or reason
_TOLD: Final = 20_000  # lines after which progress is shown


def replay(parser: argparse.ArgumentParser) -> Run:
    """Compare recorded decisions with what other policies would have decided."""
    parser.epilog = "exits with 0: all the same; 1: some change; 2: none changes, some can't be replayed; 4: usage"
    parser.add_argument("path", metavar="PATH", type=Path, help="a log's folder, a file of lines, or Parquet")
    parser.add_argument("--policy", metavar="NEW", required=True, help="a policy file or folder")
    parser.add_argument("--show", metavar="N", type=int, default=_SHOWN, help="records to list under each rule")
    openings(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, help="write what came of each decision, as Parquet")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes that replay; 1 is this one")
    return _replay


def explain(parser: argparse.ArgumentParser) -> Run:
    """Tell why one decision came out as it did, clause by clause."""
    parser.epilog = "exits with 0: explained; 2: the record or the log doesn't hold what is needed; 4: usage"
    parser.add_argument("id", metavar="ID", help="the decision record's id")
    parser.add_argument("path", metavar="PATH", type=Path, help="a log's folder, or a file of lines")
    parser.add_argument("--policy", metavar="POLICY", help="explain it by these policies, not by the recorded text")
    openings(parser)
    return _explain


def _replay(arguments: argparse.Namespace) -> int:
    policies = PolicySet.load(arguments.policy)
    with given(arguments) as kept, working("replaying") as tell:
        if arguments.output is None and arguments.workers <= 1 and not _is_parquet(arguments.path):
            found = replayed(_counted(log_lines(arguments.path), tell), policies, openings=kept)
        elif kept is None:
            found = _in_batches(arguments, policies, tell)
        else:
            raise InvalidArgument("--openings", "goes with a log in one process: leave out `--output` and `--workers`")
    code = CHANGED if found.changed else NOT_REPLAYABLE if found.not_replayable else SAME
    return conclude(code, *_compared(found, max(0, arguments.show)))


def _in_batches(arguments: argparse.Namespace, policies: PolicySet, tell: Callable[[str], None]) -> Comparison:
    try:
        from agentauthz.replay import batches, parquet
    except ImportError as cause:
        raise InvalidArgument("PATH, --output, --workers", f"can't be so: {cause}") from cause
    path = arguments.path
    if _is_parquet(path):
        given = _counted(parquet.parquet_batches(path), tell, batches.ROWS)
    else:
        given = batches.batches_of(_counted(log_lines(path), tell))
    made = batches.replay_batches(given, policies, workers=arguments.workers)
    return batches.compared(made if arguments.output is None else parquet.write_rows(made, arguments.output), policies)


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet")))


def _counted(items: Iterable[T], tell: Callable[[str], None], lines: int = 1) -> Iterator[T]:
    """Pass items on, and tell how far that is; each stands for so many lines."""
    step = max(1, _TOLD // lines)
    for count, item in enumerate(items):
        if count % step == 0:
            tell(f"replaying: {count * lines:,} lines")
        yield item


def _compared(found: Comparison, shown: int) -> Iterator[str]:
    missing = sum(map(len, found.not_replayable.values()))
    yield f"{_count(found.total, 'decision')} under {found.digest}"
    apart = f", {found.unasked} of them not the policies' to decide" if found.unasked else ""
    yield f"  the same: {found.same}{apart}"
    for kind in KINDS:
        changed = sum(one.kind == kind for one in found.changed)
        if changed:
            yield f"  {kind}: {changed}"
        for rule, ones in found.by_rule(kind).items():
            yield f"    {rule}: {len(ones)}"
            yield from _first([f"      {_changed(one)}" for one in ones], shown)
    if missing:
        yield f"  not replayable: {missing}"
        for reason, missed in found.not_replayable.items():
            yield f"    {reason}: {len(missed)}"
            yield from _first([f"      {own or '(no id)'}" for own in missed], shown)


def _first(lines: list[str], shown: int) -> Iterator[str]:
    yield from lines[:shown]
    if shown and len(lines) > shown:
        yield f"      … and {len(lines) - shown} more"


def _changed(one: Replayed) -> str:
    assert one.before is not None
    assert one.after is not None
    return f"{one.id}  {one.action}: {_answer(one.before)} -> {_answer(one.after)}"


def _answer(answer: Answer) -> str:
    rules = f" by {', '.join(answer.rules)}" if answer.rules else ""
    return f"{answer.outcome} ({answer.basis}{rules})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _explain(arguments: argparse.Namespace) -> int:
    record, policies = _found(arguments.path, arguments.id)
    try:
        by = PolicySet.load(arguments.policy) if arguments.policy else recorded_policies(policies, record.policy.digest)
        with given(arguments) as kept:
            found = explained(record, by, openings=kept)
    except NotReplayable as cause:
        return conclude(NOT_REPLAYABLE, *_head(record), f"not replayable: {cause}", *_said(record, ()))
    # what policies don't say, such as that an approval was used already
    return conclude(SAME, *_head(record), *_said(record, found.decision.reasons), *found.render().split("\n"))


def _said(record: DecisionRecord, known: Sequence[Reason]) -> Iterator[str]:
    told = {reason.text for reason in known}
    return (f"  it said: {reason.text}" for reason in record.reasons if reason.text not in told)


def _found(path: Path, id: str) -> tuple[DecisionRecord, list[PolicyRecord]]:
    """Return the decision of that id, and the texts of policies that the log holds.

    Raises:
        InvalidArgument: there is no such decision, or more than one.
    """
    wanted: DecisionRecord | None = None
    policies: list[PolicyRecord] = []
    for record in _records(path, id):
        if isinstance(record, PolicyRecord):
            policies.append(record)
        elif isinstance(record, DecisionRecord) and record.id == id:
            if wanted is not None and wanted.line() != record.line():
                raise InvalidArgument("ID", f"is of several decisions in `{path}`, so it was changed: {id}")
            wanted = record
    if wanted is None:
        raise InvalidArgument("ID", f"is of no decision in `{path}`: {id}")
    return wanted, policies


def _records(path: Path, id: str) -> Iterator[Record]:
    """Return the records that may be wanted; reading all of them would take a hundred times as long."""
    own = id.encode(errors="replace")
    for line in log_lines(path):
        if own in line or b'"type":"policy"' in line:
            try:
                yield read_record(line)
            except InvalidArgument:  # `verify` is what tells of damage
                continue


def _head(record: DecisionRecord) -> Iterator[str]:
    parties = " -> ".join(f'{actor.kind}("{actor.sub}")' for actor in record.actors)
    yield f"{record.id} at {record.ts.isoformat()}: {parties}"
    yield f"recorded: {record.outcome} ({record.basis}) under {record.policy.digest}"
