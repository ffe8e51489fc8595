"""Softmax policies, their derivatives in the logits, jets."""
