"""What all tests share: Hypothesis profiles, and where real data lies when there is some."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("ci", max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def real_data() -> Path:
    """$EARTHWORKS_DATA, or a skip."""
    if "EARTHWORKS_DATA" not in os.environ:
        pytest.skip("EARTHWORKS_DATA is not set")
    return Path(os.environ["EARTHWORKS_DATA"])
