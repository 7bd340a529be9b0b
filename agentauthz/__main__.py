"""Run `python -m agentauthz`."""

from __future__ import annotations

from agentauthz.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
