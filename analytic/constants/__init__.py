"""Lipschitz constants, spectral bounds and deviations that the theorems assume."""
