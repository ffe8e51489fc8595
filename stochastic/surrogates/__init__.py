"""Surrogate objectives: functions of a `stochastic.records.Record` that return a scalar tensor."""
