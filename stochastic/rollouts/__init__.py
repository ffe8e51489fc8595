"""Trajectories, how they are drawn, and the record a surrogate sees."""
