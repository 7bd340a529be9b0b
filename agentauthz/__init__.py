"""Decide, inside the Python process, whether an AI agent's next action may happen, and record why."""
