"""Bellman systems, values, occupancies, and all derivatives of the return."""
