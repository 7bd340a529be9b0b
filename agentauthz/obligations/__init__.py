"""Handle what must also be done where a permit says `with NAME(…)`: what a handler is, and those that are shipped."""

from agentauthz.obligations.expiring import expire
from agentauthz.obligations.handler import Duty, Handler, Reach
from agentauthz.obligations.masking import mask
from agentauthz.obligations.notifying import notify

__all__ = ["Duty", "Handler", "Reach", "expire", "mask", "notify"]
