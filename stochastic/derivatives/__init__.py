"""From a surrogate to estimates: leaf derivatives or closed forms, assembly, Jacobian products."""
