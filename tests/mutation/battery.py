"""Running the claims on mutants: what became of each."""

import warnings
from dataclasses import dataclass

from tests.mutation.claims import KINDS
from tests.mutation.mutants import World, home_of, users_of
from tests.mutation.registry import CLAIMS

SURVIVED, ERROR = "survived", "error"


@dataclass(frozen=True)
class Outcome:
    """``by``: the kind of the claim that failed, `ERROR` where it raised, or `SURVIVED`."""

    by: str
    name: str = ""
    text: str = ""


def claims_about(module, owner="", *, nearest_first=False):
    """(name, claim) of a module and of those that import it: means first, then the rest; among
    these first those about ``owner``, the name whose definition was changed (with
    ``nearest_first`` all about that name, which finds it out sooner).
    """
    order = {user: k for k, user in enumerate(users_of(module))}

    def rank(item):
        name, claim = item
        near = (name != owner, order[home_of(name)])
        kind = (KINDS.index(claim.kind),)
        return near + kind if nearest_first else kind + near

    names = [name for name in CLAIMS if home_of(name) in order]
    return sorted(((name, claim) for name in names for claim in CLAIMS[name]), key=rank)


def outcome_of(mutant, *, nearest_first=False):
    """What the claims make of a mutant."""
    claims = claims_about(mutant.module, mutant.owner, nearest_first=nearest_first)
    return outcome_in(World(mutant), claims)


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
