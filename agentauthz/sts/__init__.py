"""Exchange a token for a narrower one: the token service (RFC 8693), and its HTTP side."""

from agentauthz.sts.asgi import TokenApp
from agentauthz.sts.assertions import AssertionRules
from agentauthz.sts.ceilings import StsLimits, Target
from agentauthz.sts.clients import Client, Clients, SecretHash, new_secret
from agentauthz.sts.details import within_common_fields
from agentauthz.sts.endpoint import TokenEndpoint
from agentauthz.sts.issued import Issued
from agentauthz.sts.service import SecurityTokenService

__all__ = [
    "AssertionRules",
    "Client",
    "Clients",
    "Issued",
    "SecretHash",
    "SecurityTokenService",
    "StsLimits",
    "Target",
    "TokenApp",
    "TokenEndpoint",
    "new_secret",
    "within_common_fields",
]
