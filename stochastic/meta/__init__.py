"""Sampled inner loops and meta-gradients."""
