"""Hold what a person is asked for, and what a person answers: bound to exactly one call, sealed, and shown whole."""

from agentauthz.approvals.review import Answer, Consent, Review

__all__ = ["Answer", "Consent", "Review"]
