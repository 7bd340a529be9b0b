"""Keep what a session remembers: marks and last-seen times. It only stores; policies give it meaning."""

from __future__ import annotations

from agentauthz.state.awaited import AwaitedState as AwaitedState
from agentauthz.state.memory import MemoryState as MemoryState
from agentauthz.state.sqlite import SqliteState as SqliteState
from agentauthz.state.store import Approval as Approval
from agentauthz.state.store import Begun as Begun
from agentauthz.state.store import Committed as Committed
from agentauthz.state.store import Intent as Intent
from agentauthz.state.store import Refused as Refused
from agentauthz.state.store import Reservation as Reservation
from agentauthz.state.store import Revocation as Revocation
from agentauthz.state.store import Stale as Stale
from agentauthz.state.store import State as State
from agentauthz.state.store import StateStore as StateStore
