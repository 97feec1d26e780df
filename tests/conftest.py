"""Settings that all tests share."""

import os

from hypothesis import HealthCheck, settings

# Deterministic and quick by default; HYPOTHESIS_PROFILE=deep digs.
settings.register_profile(
    "quick", max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
