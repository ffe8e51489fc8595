"""gradbias: is my gradient estimator biased, by how much, and is that what theory says?

The members are `gradbias.analytic` (exact values and derivatives), `gradbias.stochastic`
(estimators), `gradbias.verification` (bias measurement and proofs) and `gradbias.experiments` (the
command line). In a checkout they are links to the four folders of those names at its top.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, ["analytic", "stochastic", "verification", "experiments"]
)
