"""One request; its moments by enumeration, recursion or sampling; verdict and report."""
