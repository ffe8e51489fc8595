"""Functions of a Monte Carlo mean (N-sample objectives), MAML's step as one of them."""
