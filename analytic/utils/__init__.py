"""Checks of arrays and numbers, files, lazy imports. No mathematics."""
