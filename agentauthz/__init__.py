"""Decide, inside the Python process, whether an AI agent's next action may happen, and record why."""

from agentauthz.active import checkpoint, current, settle
from agentauthz.authorizer import Authorizer
from agentauthz.decision import Basis, Decision, Outcome
from agentauthz.errors import (
    AgentAuthzError,
    Denied,
    InvalidArgument,
    NoSession,
    PolicyCheckError,
    PolicyError,
    PolicySyntaxError,
    ReviewRequired,
    Stopped,
)
from agentauthz.guard import authorize
from agentauthz.guard.signature import Injected, Sensitive
from agentauthz.keys import InstanceKey
from agentauthz.policy.policyset import PolicySet
from agentauthz.principals import Chain, Delegation, Principal
from agentauthz.request import Request, Resource, SessionFacts
from agentauthz.session import Session
from agentauthz.state.store import State
from agentauthz.values import UNKNOWN

__all__ = [
    "UNKNOWN",
    "AgentAuthzError",
    "Authorizer",
    "Basis",
    "Chain",
    "Decision",
    "Delegation",
    "Denied",
    "Injected",
    "InstanceKey",
    "InvalidArgument",
    "NoSession",
    "Outcome",
    "PolicyCheckError",
    "PolicyError",
    "PolicySet",
    "PolicySyntaxError",
    "Principal",
    "Request",
    "Resource",
    "ReviewRequired",
    "Sensitive",
    "Session",
    "SessionFacts",
    "State",
    "Stopped",
    "authorize",
    "checkpoint",
    "current",
    "settle",
]
