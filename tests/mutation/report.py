"""The account of the mutants, as a page of the docs."""

from collections import Counter
from collections.abc import Iterable

from tests.mutation.battery import ERROR, SURVIVED, Outcome, claims_about, outcome_of
from tests.mutation.equivalents import EQUIVALENT
from tests.mutation.mutants import Mutant, module_names, mutants_of
from tests.mutation.operators import OPERATORS

Account = list[tuple[Mutant, Outcome]]

COMMAND = "python -m benchmarks.mutants"


def account_of(modules: Iterable[str], every=1, progress=None) -> Account:
    """What became of every mutant (or, in haste, of one in ``every``) of some modules."""
    chosen = [mutant for module in modules for mutant in mutants_of(module)][::every]
    found = []
    for done, mutant in enumerate(chosen):
        found.append((mutant, outcome_of(mutant, nearest_first=every > 1)))
        if progress is not None:
            progress(done + 1, len(chosen))
    return found


def survivors(account: Account) -> set:
    """The keys of those that every claim holds for."""
    return {mutant.key for mutant, outcome in account if outcome.by == SURVIVED}


def unexplained(account: Account, reasons) -> list[str]:
    """What is wrong between the survivors and their reasons; nothing, if all is well."""
    alive, tried = survivors(account), {mutant.key: mutant for mutant, _ in account}
    named = [f"survives without a reason: {tried[key]}" for key in sorted(alive - set(reasons))]
    killed = [f"no survivor: {key}" for key in sorted((set(reasons) & set(tried)) - alive)]
    return named + killed


def page(account: Account) -> str:
    """The page, in full."""
    total = len(account)
    killed = sum(outcome.by != SURVIVED for _, outcome in account)
    lines = [INTRODUCTION.format(total=total, killed=killed, left=total - killed), TABLE]
    lines += [_row(*row) for row in _rows(account)]
    lines += ["", OPERATIONS]
    lines += [f"- {name}: {operator.__doc__}" for name, operator in OPERATORS.items()]
    lines += ["", SURVIVORS]
    for mutant, outcome in account:
        if outcome.by == SURVIVED:
            reason = EQUIVALENT.get(mutant.key, "No reason is known.")
            lines += [f"### {mutant.module}, {mutant.operator}", "", "```diff"]
            lines += [f"- {mutant.before}", f"+ {mutant.after}", "```", "", reason, ""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(account):
    for module in module_names():
        of_module = [item for item in account if item[0].module == module]
        for operator in OPERATORS:
            found = [item for item in of_module if item[0].operator == operator]
            if found:
                yield f"`{module}`", operator, found
        yield f"**`{module}`**", f"**all** ({len(claims_about(module))} claims)", of_module
    yield "**all**", "", account


def _row(module, operator, found):
    by = Counter(outcome.by for _, outcome in found)
    counts = (len(found), by["bias"], by["spread"] + by["fact"], by[ERROR], by[SURVIVED])
    return "| " + " | ".join([module, operator, *(str(count or "") for count in counts)]) + " |"


INTRODUCTION = f"""# Mutants

A check that cannot fail proves nothing. Here every surrogate's source is changed in one place at a
time, at every place where a change of that kind can be made, and each changed surrogate goes
through the project's own exact check, on small problems: two or three states, two actions, up to
three steps, discount 0.7, episodes that end early, rewards that depend on the next state, critics
that are wrong and vary over time, other policies that draw. Of {{total}} mutants {{killed}} are
found out. The other {{left}} are listed below, each with the reason why it is the same estimator.

    {COMMAND}

writes this page. The claims are in `tests/mutation/registry.py`: an entry for each surrogate.
`make test-all` runs all of it and fails on a survivor without a reason, on a reason without a
survivor, and where this page is not what came out; `make test` runs a fixed part.

A mutant is killed by the first claim that does not hold, in this order:

- *bias check*: `measure_bias` by enumeration says another verdict than is claimed for a named
  target, or another mean than a closed form's (orders 1 and 2; 3 for DiCE and Loaded-DiCE);
- *another claim*: means are right, but the exact variance is not that of the surrogate's definition
  (written apart, in numpy, and summed over all trajectories or groups), or a value, a default, or
  a refused argument is not what it should be;
- *error*: it raises, or the check refuses it (it depends on no log-probability, is not finite, or
  couples trajectories that it should not)."""

TABLE = """
| module | change | mutants | killed: bias check | killed: another claim | killed: error | same |
|---|---|---|---|---|---|---|"""

OPERATIONS = """## The changes
"""

SURVIVORS = """## The survivors
"""
