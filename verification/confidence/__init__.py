"""Pure statistics: confidence sequences, norm intervals, tests, error budgets."""
