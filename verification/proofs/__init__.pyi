from .exact_problems import CriticKind as CriticKind
from .identity_testing import IdentityTest as IdentityTest
from .identity_testing import certify as certify
from .prove import prove_unbiased as prove_unbiased
from .results import BiasFormula as BiasFormula
from .results import Proof as Proof
