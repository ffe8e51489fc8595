"""Running the claims on mutants: what became of each."""

import warnings
from dataclasses import dataclass

from mutation.claims import KINDS
from mutation.mutants import World, home_of, users_of
from mutation.registry import CLAIMS

SURVIVED, ERROR = "survived", "error"


@dataclass(frozen=True)
class Outcome:
    """``by``: the kind of the claim that failed, `ERROR` where it raised, or `SURVIVED`."""

    by: str
    name: str = ""
    text: str = ""


def claims_about(module, owner=""):
    """(name, claim) of a module and of those that import it: means first, then the rest; among
    these first those about ``owner``, the name whose definition was changed.
    """
    order = {user: k for k, user in enumerate(users_of(module))}
    found = [
        (name, claim)
        for name, claims in CLAIMS.items()
        if home_of(name) in order
        for claim in claims
    ]
    rank = lambda it: (KINDS.index(it[1].kind), it[0] != owner, order[home_of(it[0])])  # noqa: E731
    return sorted(found, key=rank)


def outcome_of(mutant):
    """What the claims make of a mutant."""
    return outcome_in(World(mutant), claims_about(mutant.module, mutant.owner))


def outcome_in(world, claims):
    """The first of the claims that does not hold, warnings being errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        for name, claim in claims:
            try:
                claim.check(world)
            except AssertionError as error:
                return Outcome(claim.kind, name, str(error))
            except Exception as error:
                return Outcome(ERROR, name, f"{type(error).__name__}: {error}")
    return Outcome(SURVIVED)
