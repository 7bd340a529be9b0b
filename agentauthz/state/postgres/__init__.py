"""Keep what sessions remember in PostgreSQL, for many machines (extra `postgres`)."""

from agentauthz.state.postgres.schema import init
from agentauthz.state.postgres.store import PostgresState, Pruned, Shown
from agentauthz.state.postgres.wire import VERSION

__all__ = ["VERSION", "PostgresState", "Pruned", "Shown", "init"]
