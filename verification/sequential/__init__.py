"""Sampling until decided; comparison; surveys."""
