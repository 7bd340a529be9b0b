"""Make recorded calls again, under a policy set, and tell what became of each."""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Final

from agentauthz import Authorizer, Denied, Principal, ReviewRequired
from agentauthz.approvals import Answer, Review
from agentauthz.records import DecisionRecord, FileSink, MemorySink

WIDTH: Final = 116
NOW: Final = dt.datetime(2024, 5, 15, 9, tzinfo=dt.UTC)  # no real clock: each run prints the same
MONTH: Final = dt.timedelta(days=31)

Call = Mapping[str, Any]
Task = Mapping[str, Any]
Tool = Callable[..., Any]


@dataclass(frozen=True)
class Step:
    """Be one call and what became of it: allow, review or deny; `result` and `error` are the tool's own."""

    tool: str
    args: Mapping[str, object]
    outcome: str
    rules: tuple[str, ...]
    reason: str
    result: object = None
    error: str | None = None


@dataclass(frozen=True)
class Run:
    """Be one task, a user's or an attacker's, and what became of its calls."""

    name: str
    goal: str
    steps: Sequence[Step]


class Replay:
    """Make calls in sessions of one person and their assistant.

    `fresh` sets up a new environment; with a text, that text stands wherever other people can write. Each session is a
    month after the one before, with budgets that nobody has used; within one the clock stands still. The records go to
    `folder`. `consents` says to what the person says yes when asked; otherwise nobody answers.
    """

    def __init__(
        self,
        policies: Path,
        tools: Mapping[str, Tool],
        parties: tuple[Principal, Principal],
        fresh: Callable[[str | None], None],
        folder: Path,
        consents: Callable[[Review], bool] = lambda review: False,
    ) -> None:
        self.tools = tools
        self.parties = parties
        self.fresh = fresh
        self.memory = MemorySink()
        self.now = NOW
        self.authorizer = Authorizer(
            policies,
            sinks=[FileSink(folder), self.memory],
            clock=lambda: self.now,
            approver=lambda review: Answer(parties[0], True) if consents(review) else None,
        )

    def users(self, tasks: Iterable[Task]) -> list[Run]:
        """Run each task in a session and an environment of its own."""
        return [Run(task["id"], task["prompt"], self.session(task["calls"])) for task in tasks]

    def attacks(self, tasks: Iterable[Task], before: Sequence[Call]) -> list[Run]:
        """Run each attack after the calls `before`, in a session and an environment of its own."""
        return [self._attack(task, before) for task in tasks]

    def _attack(self, task: Task, before: Sequence[Call]) -> Run:
        steps = self.session([*before, *task["calls"]], planted=task["goal"])
        return Run(task["id"], task["goal"], steps[len(before) :])

    def session(self, calls: Iterable[Call], planted: str | None = None) -> list[Step]:
        """Make the calls in one session; what is held or refused doesn't run, and the next call comes all the same."""
        self.fresh(planted)
        self.now += MONTH
        with self.authorizer.session(*self.parties):
            return [self._step(call["function"], call["args"]) for call in calls]

    def _step(self, tool: str, args: Mapping[str, object]) -> Step:
        result, problem = None, None
        try:
            result = plain(self.tools[tool](**args))
        except (Denied, ReviewRequired):
            pass  # the record tells it, as it does for calls that run
        except ValueError as error:  # the tool's own: it was allowed to run, and found nothing to work on
            problem = str(error)
        decision = self.memory.decisions[-1]
        return Step(tool, args, decision.outcome, decision.rules, _reason(decision), result, problem)


def plain(value: object) -> object:
    """Return a tool's result as JSON data that nothing changes later."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value


def _reason(decision: DecisionRecord) -> str:
    """Return what the rules that decided say for themselves."""
    return "; ".join(dict.fromkeys(reason.because or reason.text for reason in decision.reasons))


# ---- figures


def steps_of(runs: Iterable[Run], tools: Iterable[Tool] | None = None) -> list[Step]:
    """Return the steps of all runs, or those with one of `tools`."""
    names = None if tools is None else {tool.__name__ for tool in tools}
    return [step for run in runs for step in run.steps if names is None or step.tool in names]


def stopped(steps: Iterable[Step]) -> int:
    """Count the calls that didn't run."""
    return sum(step.outcome != "allow" for step in steps)


def tally(steps: Iterable[Step]) -> Counter[str]:
    """Count the outcomes: `allow`, `review`, `deny`."""
    return Counter(step.outcome for step in steps)


# ---- on a terminal


def show(run: Run) -> None:
    """Print a task and its calls: the decision and the call, and below them the rules and the reason."""
    print(f"\n{short(f'{run.name}: {run.goal}', WIDTH)}")
    for step in run.steps:
        args = ", ".join(f"{name}={_shown(name, value)}" for name, value in step.args.items())
        outcome = "allow" if step.outcome == "allow" else step.outcome.upper()
        print(f"  {outcome:<8}{short(f'{step.tool}({args})', WIDTH - 10)}")
        print(f"          {', '.join(step.rules) or 'no rule'}: {step.reason}")
        if step.error is not None:
            print(f"          the tool failed: {step.error}")


def report(replay: Replay, data: Mapping[str, Any], hijacked_by: Sequence[Call], changing: Sequence[Tool]) -> None:
    """Run and print all tasks and attacks of `data`, each in a session of its own, and the figures at the end.

    The attacks come after the calls `hijacked_by`, and once more, for the figures only, after each user task.
    """
    wanted = replay.users(data["user_tasks"])
    print(f"WHAT THE USER ASKED FOR: {len(wanted)} tasks")
    for run in wanted:
        show(run)
    hostile = replay.attacks(data["injection_tasks"], hijacked_by)
    print(f"\n\nWHAT A HIJACKED ASSISTANT TRIES: {len(hostile)} attacks, each after it has read the attacker's words")
    for run in hostile:
        show(run)
    anywhere = [run for task in data["user_tasks"] for run in replay.attacks(data["injection_tasks"], task["calls"])]
    print("\n\nFIGURES")
    print("\n".join(figures(wanted, hostile, anywhere, changing)))
    print(f"Recorded: {len(replay.memory.decisions)} decisions, {len(replay.memory.effects)} effects.\n")
    print("\n".join(conclusion(steps_of(wanted), steps_of(hostile), steps_of(hostile, changing))))


def figures(
    wanted: Sequence[Run], hostile: Sequence[Run], anywhere: Sequence[Run], changing: Sequence[Tool]
) -> list[str]:
    """Return the table of what came of all calls."""
    rows = {
        "users' calls": steps_of(wanted),
        "hostile calls": steps_of(hostile),
        "  that change or send something": steps_of(hostile, changing),
        "  the same, after each whole user task": steps_of(anywhere, changing),
    }
    head = f"{'':<40}{'calls':>8}{'allowed':>9}{'review':>9}{'denied':>9}"
    counted = {name: (len(steps), tally(steps)) for name, steps in rows.items()}
    return [head] + [
        f"{name:<40}{total:>8}{count['allow']:>9}{count['review']:>9}{count['deny']:>9}"
        for name, (total, count) in counted.items()
    ]


def conclusion(wanted: Sequence[Step], hostile: Sequence[Step], harmful: Sequence[Step]) -> list[str]:
    """Return what came of it, in two sentences."""
    count = tally(wanted)
    users = f"Of the users' {len(wanted)} calls {count['allow']} were allowed, {count['review']} sent to review"
    those = f"{stopped(harmful)} of the {len(harmful)} that change or send something; the rest only reads, as users do"
    return [
        f"{users}, {count['deny']} denied.",
        f"Of the {len(hostile)} hostile calls {stopped(hostile)} were stopped: {those}.",
    ]


def _shown(name: str, value: object) -> str:
    return "…" if name == "password" else short(repr(value), 44)


def short(text: str, width: int) -> str:
    """Return `text` on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


@contextmanager
def records_folder(description: str) -> Iterator[Path]:
    """Yield the folder for the records: what `--records` says, or one that is gone afterwards."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--records", type=Path, metavar="DIR", help="keep the records in this folder")
    given: Path | None = parser.parse_args().records
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
