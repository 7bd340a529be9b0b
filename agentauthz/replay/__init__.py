"""Replay decision records: exactly under their own policies, to compare under others, and to explain them."""

from agentauthz.replay.compare import Comparison, Replayed, explain, replay
from agentauthz.replay.policies import recorded_policies

__all__ = ["Comparison", "Replayed", "explain", "recorded_policies", "replay"]
