from .error_budgets import ErrorBudget as ErrorBudget
from .mean_tests import MeanTest as MeanTest
