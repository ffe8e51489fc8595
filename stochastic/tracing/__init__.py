"""Programs as they are read: a surrogate's tensor operations, and their exact interpretation."""
