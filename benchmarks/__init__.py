"""Benchmarks of agentauthz: one file for each stage, and the same decisions made by other engines."""
