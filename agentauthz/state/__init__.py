"""Keep what a session remembers: marks and last-seen times. It only stores; policies give it meaning."""
