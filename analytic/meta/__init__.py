"""Bilevel problems, exact meta-gradients, what sampled inner steps add."""
