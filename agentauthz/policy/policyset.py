"""Put the stages together: text or files in, an immutable `PolicySet` that decides and explains out."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

from attrs import frozen

from agentauthz.decision import Decision
from agentauthz.errors import InvalidArgument, PolicyCheckError, PolicyLoadError, PolicySyntaxError
from agentauthz.policy import decide as deciding
from agentauthz.policy.check import Checked, check
from agentauthz.policy.evaluate import Clause, Verdict, answer, applies, verdict
from agentauthz.policy.format import format_statement
from agentauthz.policy.inputs import Inputs
from agentauthz.policy.parse import decode, parse
from agentauthz.policy.source import Diagnostic, Source
from agentauthz.policy.syntax import CheckedRule, Statement
from agentauthz.request import Request

LANGUAGE: Final = "agentauthz.policy/1"
SUFFIX: Final = ".authz"


@final
class Definition:
    """Answer with the definition, rule by rule: slow, and right by definition."""

    def __init__(self, checked: Checked, digest: str) -> None:
        self._checked = checked
        self.digest = digest

    def verdict(self, inputs: Inputs) -> Verdict:
        """Return the rules that match and are true or undetermined."""
        return verdict(self._checked.rules, inputs)

    def undetermined_permits(self, inputs: Inputs) -> Sequence[CheckedRule]:
        """Return the first 16 permits, by name, that match and are undetermined."""
        found: list[CheckedRule] = []
        for rule in self._checked.rules:
            if rule.effect != "permit" or not any(applies(pattern, inputs.name) for pattern in rule.patterns):
                continue
            clause = answer(rule, inputs)
            if clause is not None and clause.answer is None:
                found.append(rule)
            if len(found) == deciding.MAX_NAMED:
                break
        return found

    def arguments(self, action: str) -> frozenset[str] | None:
        """Return the arguments that a declared action has; None: it is not declared, or with no list."""
        return self._checked.arguments(action)
