"""The theorems' bounds beside exact biases."""
