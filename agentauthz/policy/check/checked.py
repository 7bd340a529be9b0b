"""Hold what the checker makes of a policy set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import final

from attrs import frozen

from agentauthz.policy.check.world import Action
from agentauthz.policy.source import Diagnostic
from agentauthz.policy.syntax import CheckedRule
from agentauthz.policy.types import Fields


@final
@frozen(eq=False, repr=False)
class Checked:
    """Be a checked policy set; `rules` are to be used only where no diagnostic is an error.

    `rules` are sorted by name, `diagnostics` by source name and place. `marks` are all that a rule or the
    host sets, `tracked` the actions that `began` and `done` ask for.
    """

    rules: tuple[CheckedRule, ...]
    diagnostics: tuple[Diagnostic, ...]
    actions: Mapping[str, Action]
    types: Mapping[str, Fields]
    marks: frozenset[str]
    tracked: frozenset[str]

    @cached_property
    def arguments(self) -> Mapping[str, frozenset[str]]:
        """Return the arguments of the actions that are declared with a list of them."""
        declared = self.actions.items()
        return {name: frozenset(action.params.fields) for name, action in declared if action.params is not None}
