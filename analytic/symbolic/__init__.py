"""Values, derivatives and meta-gradients as rational functions."""
