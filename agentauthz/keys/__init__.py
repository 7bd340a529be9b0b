"""Hold keys: the instance key that digests are made with, and keys that sign and verify.

Only `InstanceKey` comes with ``import agentauthz``: `agentauthz.keys.signing` and `agentauthz.keys.jwk` load
cryptography.
"""

from agentauthz.keys.instance import InstanceKey

__all__ = ["InstanceKey"]
