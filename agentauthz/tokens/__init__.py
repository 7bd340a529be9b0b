"""Turn the bytes of tokens into a chain, and a chain into tokens (RFC 8693)."""
