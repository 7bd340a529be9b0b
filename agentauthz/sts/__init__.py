"""Exchange a token for a narrower one: the token service (RFC 8693)."""
