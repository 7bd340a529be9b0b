"""Put the stages together: text or files in, an immutable `PolicySet` that decides and explains out."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, final

from attrs import evolve, frozen

from agentauthz.decision import Decision
from agentauthz.errors import InvalidArgument, PolicyCheckError, PolicySyntaxError
from agentauthz.policy import cache as caching
from agentauthz.policy import decide as deciding
from agentauthz.policy.check import Checked, ToolSignature, check, check_tools
from agentauthz.policy.compile import Compiled
from agentauthz.policy.evaluate import Verdict, answer, matching, verdict
from agentauthz.policy.explain import Explanation, Flip, explain
from agentauthz.policy.files import read_files
from agentauthz.policy.flip import flips
from agentauthz.policy.format import Written
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.parse import decode, parse
from agentauthz.policy.reads import Reads, Remembered, asks_for_handoff, paths_of, unknown_roots
from agentauthz.policy.source import Diagnostic, Source
from agentauthz.policy.spending import Meter, defined
from agentauthz.policy.syntax import CheckedRule, Expr, Path, Statement
from agentauthz.principals import Principal
from agentauthz.request import Request
from agentauthz.values import UNKNOWN, Value

LANGUAGE: Final = "agentauthz.policy/1"


@final
class Definition:
    """Answer with the definition, rule by rule: slow, and right by definition."""

    def __init__(self, checked: Checked, digest: str) -> None:
        self._checked = checked
        self.digest = digest
        self.arguments = checked.arguments

    def verdict(self, inputs: Inputs) -> Verdict:
        """Return the rules that match and are true or undetermined."""
        return verdict(self._checked.rules, inputs)

    def matching(self, action: str) -> Iterable[CheckedRule]:
        """Return the rules that have a pattern for the action, in the order of their names."""
        return matching(self._checked.rules, action)

    def undetermined_permits(self, inputs: Inputs) -> Sequence[CheckedRule]:
        """Return the first 16 permits, by name, that match and are undetermined."""
        found: list[CheckedRule] = []
        for rule in self.matching(inputs.name):
            clause = answer(rule, inputs) if rule.effect == "permit" else None
            if clause is not None and clause.answer is None:
                found.append(rule)
            if len(found) == deciding.MAX_NAMED:
                break
        return found

    def meter(self, rule: CheckedRule) -> Meter:
        """Return what tells what a limit takes of a call."""
        return Meter(rule, functools.partial(defined, rule))


@final
@frozen(eq=False, repr=False, init=False)
class PolicySet:
    """Be an immutable set of checked rules with a digest.

    The digest is SHA-256 over the language's version and the canonical form of all statements, sorted:
    comments, spacing, file names and order don't count.
    """

    rules: tuple[CheckedRule, ...]
    digest: str
    warnings: tuple[Diagnostic, ...]
    sources: tuple[Source, ...]
    tracked: frozenset[str]  # the actions whose last-seen times `began` and `done` ask for
    _checked: Checked
    _decider: deciding.Rules
    _by_name: Mapping[str, CheckedRule]
    _reads: Callable[[str], Reads]
    _remembered: Callable[[str, bool], Remembered]

    @classmethod
    def parse(cls, text: str, name: str = "<policy>") -> PolicySet:
        """Return the policy set that `text` holds; `name` stands for the file in messages.

        Raises:
            PolicySyntaxError: some of it is not in the language (checked problems are listed too).
            PolicyCheckError: it parses, but something in it doesn't hold.
            InvalidArgument: `text` or `name` is no string.
        """
        for argument, value in (("text", text), ("name", name)):
            if not isinstance(value, str):
                raise InvalidArgument(argument, f"must be a string, not {type(value).__name__}")
        return cls._from_sources([Source(name, str.__str__(text))])

    @classmethod
    def of_texts(cls, texts: Iterable[tuple[str, str]]) -> PolicySet:
        """Return the policy set of several texts, each behind its file's name.

        Raises:
            PolicySyntaxError, PolicyCheckError: as `parse` does.
        """
        return cls._from_sources([Source(name, text) for name, text in texts])

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, cache: str | os.PathLike[str] | None = None) -> PolicySet:
        """Return the policy set of one `.authz` file, or of all those below a folder.

        With a folder for `cache`, what was checked is kept there as data, so that the next start is faster. It is
        used only where nobody but this user can write it; who can, as this user, can change the policies.

        Raises:
            PolicyLoadError: the path is missing, unreadable, or holds no policy.
            PolicySyntaxError, PolicyCheckError: as `parse` does; bytes that are no UTF-8 too.
            InvalidArgument: `path` or `cache` is no path, or `path` is empty.
        """
        if cache is not None and not isinstance(cache, str | os.PathLike):
            raise InvalidArgument("cache", f"must be a folder's path or None, not {type(cache).__name__}")
        sources, problems = _decoded(read_files(path))
        if cache is None or problems:
            return cls._from_sources(sources, problems)
        folder = pathlib.Path(cache)
        with _without_collecting():
            kept = caching.read(folder, sources)
            if kept is not None:
                decider = Compiled(kept.checked.rules, kept.checked.arguments, kept.digest, kept.demanded)
                return cls._make(kept.checked, kept.digest, kept.checked.diagnostics, tuple(sources), decider)
        made = cls._from_sources(sources)
        caching.write(folder, sources, made._checked, made.digest)
        return made

    @classmethod
    def _from_sources(cls, sources: Sequence[Source], problems: Sequence[Diagnostic] = ()) -> PolicySet:
        with _without_collecting():
            return cls._from_statements(sources, list(problems))

    @classmethod
    def _from_statements(cls, sources: Sequence[Source], problems: list[Diagnostic]) -> PolicySet:
        statements: list[Statement] = []
        for source in sources:
            parsed, wrong = parse(source)
            statements += parsed
            problems += wrong
        written = Written()
        checked = check(statements, written)
        errors = [found for found in checked.diagnostics if found.severity == "error"]
        if problems:
            # what failed to parse may be what seems to be unknown
            known = [found for found in errors if not found.code.startswith("unknown")]
            raise PolicySyntaxError(_in_order([*problems, *known]))
        if errors:
            raise PolicyCheckError(errors)
        warnings = tuple(found for found in checked.diagnostics if found.severity == "warning")
        return cls._make(checked, _digest(map(written, statements)), warnings, tuple(sources))

    @classmethod
    def _make(
        cls,
        checked: Checked,
        digest: str,
        warnings: tuple[Diagnostic, ...],
        sources: tuple[Source, ...],
        rules: deciding.Rules | None = None,
    ) -> PolicySet:
        made = cls.__new__(cls)
        decider = Compiled(checked.rules, checked.arguments, digest) if rules is None else rules
        made.__attrs_init__(
            checked.rules, digest, warnings, sources, checked.tracked, checked, decider,
            {rule.name: rule for rule in checked.rules},
            functools.lru_cache(maxsize=4096)(lambda action: Reads.of(decider.matching(action))),
            functools.lru_cache(maxsize=4096)(lambda action, handing: made._remembering(action, handing)),
        )  # fmt: skip
        return made

    def on_definition(self) -> PolicySet:
        """Return the same set, decided by the definition instead of compiled functions: slow, for comparison."""
        return self._make(
            self._checked, self.digest, self.warnings, self.sources, Definition(self._checked, self.digest)
        )

    def decide(self, request: Request) -> Decision:
        """Return the decision on `request`, without record or state; `Authorizer.decide` is what applications use.

        Nobody keeps budgets here, so a limit that applies denies.

        Raises:
            InvalidArgument: `request` is no Request, or an argument's name no string.
        """
        return deciding.without_budget(self.judge(request)[0])

    def judge(
        self, request: Request, *, undeclared: bool = False, approvers: Sequence[Principal] = ()
    ) -> tuple[Decision, Inputs]:
        """Return the decision, as if every budget had room, and the inputs that it saw.

        With `undeclared`, arguments that the action isn't declared with stop nothing: the rules are asked. `approvers`
        have consented to the call.

        Raises:
            InvalidArgument: `request` is no Request, or an argument's name no string.
        """
        inputs = self.asked(request)
        return self.judge_inputs(inputs, undeclared=undeclared, approvers=approvers), inputs

    def asked(self, request: Request) -> Inputs:
        """Return what the rules see of a request.

        Raises:
            InvalidArgument: `request` is no Request, or an argument's name no string.
        """
        if type(request) is not Request:
            raise InvalidArgument("request", f"must be a Request, not {type(request).__name__}")
        return deciding.inputs_of(self._decider, request)

    def judge_inputs(
        self, inputs: Inputs, *, undeclared: bool = False, approvers: Sequence[Principal] = ()
    ) -> Decision:
        """Return the decision on what `asked` returned, as `judge` does."""
        return deciding.decide(self._decider, inputs.request, inputs, undeclared=undeclared, approvers=approvers)

    def explain(self, request: Request) -> Explanation:
        """Return the decision, every clause of every rule that matches with what it saw, and what would turn it.

        Raises:
            InvalidArgument: `request` is no Request, or an argument's name no string.
        """
        decision, inputs = self.judge(request)
        decision = deciding.without_budget(decision)
        return evolve(self.explanation(decision, inputs), flips=self.flips(decision, inputs))

    def explanation(self, decision: Decision, inputs: Inputs) -> Explanation:
        """Return the explanation of a decision that was made on `inputs`."""
        return explain(self.rules, decision, deciding.judged(self._decider, inputs))

    def flips(self, decision: Decision, inputs: Inputs) -> tuple[Flip, ...]:
        """Return the smallest changes that would turn a decision that was made on `inputs`, as far as some are found.

        Each was tried: with it, the definition decides otherwise.
        """
        return flips(lambda rules: Definition(evolve(self._checked, rules=rules), self.digest), self.rules, decision,
                     inputs)  # fmt: skip

    def clauses(self, decision: Decision, inputs: Inputs) -> list[dict[str, object]]:
        """Return the clauses of the rules that `decision`, made on `inputs`, names, as plain data for a record."""
        named = {*[*decision.rules, *decision.undetermined][: deciding.MAX_NAMED]}
        rules = [self._by_name[name] for name in sorted(named)]  # whoever has thousands isn't asked about each
        return explain(rules, decision, deciding.judged(self._decider, inputs)).clauses()

    def seen(self, inputs: Inputs) -> list[tuple[str, Value]]:
        """Return what the rules for this action read, each with the name of its place: all that a replay needs."""
        first, *more = self.reads(inputs.name, handing=asks_for_handoff(inputs.delegations))
        found = first.seen(inputs)
        for reads in more:
            found.update(reads.seen(inputs))
        for root in unknown_roots(inputs.request):
            found[root] = UNKNOWN
        return list(found.items())

    def reads(self, action: str, *, handing: bool) -> tuple[Reads, ...]:
        """Return what the rules for an action read, and, where a chain makes them asked too, those on a hand-off."""
        own = self._reads(action)
        return (own, self._reads(deciding.HANDOFF).for_handoff(deciding.HANDOFF)) if handing else (own,)

    def keyed_by(self, limits: Iterable[str], chosen: Callable[[Path], bool]) -> frozenset[str]:
        """Return those of some limits, by name, that count per a chosen path, or per what is made of it."""
        return frozenset(name for name in limits if _reads_any(self._by_name[name].per, chosen))

    def measured_by(self, limits: Iterable[str], chosen: Callable[[Path], bool]) -> frozenset[str]:
        """Return those of some limits, by name, whose amount or bound is made of a chosen path."""
        return frozenset(
            rule.name
            for rule in map(self._by_name.__getitem__, limits)
            if _reads_any([each for each in (rule.bound, rule.amount) if each is not None], chosen)
        )

    def remembered(self, action: str, *, handing: bool = False) -> Remembered:
        """Return what the rules for an action ask of a session's past, and whether a call may change it."""
        return self._remembered(action, handing)

    def _remembering(self, action: str, handing: bool) -> Remembered:
        read = self.reads(action, handing=handing)
        times = tuple(dict.fromkeys(time for reads in read for time in reads.times))
        changes = any(rule.effect in ("limit", "mark") for rule in self._decider.matching(action))
        marks, started = any(reads.marks for reads in read), any(reads.started for reads in read)
        return Remembered(marks, times, changes or action in self.tracked, started)

    @property
    def obligations(self) -> tuple[str, ...]:
        """Return the types of all obligations that the permits name, sorted: what an authorizer must handle."""
        return tuple(sorted({obligation.name for rule in self.rules for obligation in rule.obligations}))

    def approver_reads(self, action: str) -> frozenset[str]:
        """Return the names of the attributes that the reviews of an action ask of an approver."""
        return self._reads(action).approver - {"kind", "id", "issuer"}

    def rule(self, name: str) -> CheckedRule:
        """Return a rule by its name.

        Raises:
            KeyError: there is none.
        """
        return self._by_name[name]

    def arguments(self, action: str) -> frozenset[str] | None:
        """Return the arguments that an action is declared with; None: it isn't."""
        return self._decider.arguments.get(action)

    def check(self, tools: Iterable[object]) -> tuple[Diagnostic, ...]:
        """Check the rules against the signatures of decorated functions, which close the set of actions.

        Returns the warnings.

        Raises:
            PolicyCheckError: a rule names an action or argument that no tool has, or a type disagrees.
            InvalidArgument: a tool that isn't decorated with `@authorize`.
        """
        found = check_tools(self._checked, [_signature(tool) for tool in tools])
        errors = [diagnostic for diagnostic in found if diagnostic.severity == "error"]
        if errors:
            raise PolicyCheckError(errors)
        return tuple(found)

    def __repr__(self) -> str:
        return f"PolicySet({len(self.rules)} rules, digest={self.digest!r})"


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Pause the cyclic garbage collector: trees hold no cycles, and it would walk them over and over."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _decoded(files: Iterable[tuple[str, bytes]]) -> tuple[list[Source], list[Diagnostic]]:
    sources: list[Source] = []
    problems: list[Diagnostic] = []
    for name, data in files:
        try:
            sources.append(decode(data, name))
        except PolicySyntaxError as error:  # the other files' problems are told with it
            problems += error.diagnostics
    return sources, problems


def _signature(tool: object) -> ToolSignature:
    guarded = getattr(tool, "__agentauthz__", None)
    if guarded is None:
        raise InvalidArgument("tools", "must hold functions that are decorated with @authorize")
    signature: ToolSignature = guarded.signature()
    return signature


def _digest(texts: Iterable[str]) -> str:
    return "sha256:" + hashlib.sha256("\n".join([LANGUAGE, *sorted(texts)]).encode()).hexdigest()


def _in_order(found: Iterable[Diagnostic]) -> list[Diagnostic]:
    return sorted(found, key=lambda diagnostic: (diagnostic.span.source.name, diagnostic.span.start))


def _reads_any(expressions: Iterable[Expr], chosen: Callable[[Path], bool]) -> bool:
    return any(chosen(path) for _, path in paths_of(expressions))
