"""Polynomial identities: proofs, formulas, identity testing."""
