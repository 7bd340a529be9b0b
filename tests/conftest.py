"""Set up what every test shares: Hypothesis's profiles, `quick` (the default) and `long` (`make laws`)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Hypothesis has a profile of its own for CI, whose examples are always the same: ours search everywhere
_PARENT = settings.get_profile("default")
settings.register_profile("quick", _PARENT, deadline=None, print_blob=True)
settings.register_profile(
    "long", _PARENT, deadline=None, print_blob=True, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
