"""Shared settings: Hypothesis without deadlines, and the same examples in every run."""

import pytest
from hypothesis import settings

settings.register_profile("gradbias", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("gradbias")


@pytest.fixture
def no_control(monkeypatch):
    """No control variate by default: multiples of known estimators then have their own noise."""
    import gradbias.verification.measurement.find_moments as find_moments
    import gradbias.verification.sequential.draws as draws

    for module in (find_moments, draws):
        monkeypatch.setattr(module, "known_control", lambda request: None)
