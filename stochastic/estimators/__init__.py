"""The three kinds of estimators, their contexts, exact coefficients, bias reduction."""
