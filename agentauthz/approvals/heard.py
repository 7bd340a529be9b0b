"""Define `Heard`: what is known of people's consent to one call while it is decided."""

from __future__ import annotations

from typing import final

from attrs import define

from agentauthz.approvals.review import Consent, Review
from agentauthz.decision import Decision


@final
@define(eq=False)
class Heard:
    """Be what is known of people's consent to a call: the decision with it, the approval that it rests on, what waits.

    `refused` says that a person's answer, or its lack, denies the call. Where a person must be asked, `binding` says
    about what, and `outdated` is the approval that isn't enough any more.
    `lapsed` is one that has expired.
    `fresh` says that the person is asked only now, and `used` that the approval was used up.
    """

    decision: Decision
    review: Review | None = None
    approval: str | None = None
    consents: tuple[Consent, ...] = ()
    refused: bool = False
    binding: str | None = None
    outdated: str | None = None
    lapsed: Review | None = None
    fresh: bool = False
    used: bool = False
