"""Shared settings: Hypothesis without deadlines, and the same examples in every run."""

from hypothesis import settings

settings.register_profile("gradbias", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("gradbias")
