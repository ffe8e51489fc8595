"""Which known error a mean shows; what an update field is the gradient of."""
