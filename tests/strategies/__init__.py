"""Generate policies and requests that fit each other, for every property test."""
