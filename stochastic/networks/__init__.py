"""Torch policies and (to come) networks."""
