"""Checks of arrays and numbers, reading of files, lazy imports. There is no mathematics here."""
