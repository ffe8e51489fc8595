"""Surrogate objectives: functions of a `Record` that return a scalar tensor."""
