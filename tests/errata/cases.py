"""Remarks on three papers, each with its numbers, as docs/errata.md shows them.

`python -m benchmarks.errata` writes the page; `test_wrong.py`, `test_loose.py` and
`test_notation.py` say which number must be what. Exact values here are sums over all samples, or
exact derivatives.
"""

import re
import textwrap

from tests.errata import estimates, merits, one_step, paths, theorem, unrolled
from tests.errata.records import BIAS_PAPER, MERITS_PAPER, ONE_STEP_PAPER, Kind

SECTIONS = (unrolled, paths, theorem, estimates, merits, one_step)
ERRATA = tuple(each for section in SECTIONS for each in section.ERRATA)

HEADER = f"""# Errata

These are remarks on three papers, found while their formulas were implemented and tested here. A
statement that is not listed was tested and holds, or was not tested.

- *{BIAS_PAPER}*: A Theoretical Understanding of Gradient Bias in Meta-Reinforcement Learning, with
  its appendix;
- *{MERITS_PAPER}*: On Merits of Biased Gradient Estimates for Meta Reinforcement Learning, as
  submitted to a workshop (it says that proof and appendix are not complete yet);
- *{ONE_STEP_PAPER}*: One Step at a Time: Pros and Cons of Multi-Step Meta-Gradient Reinforcement
  Learning.

There are three classes:

- [Wrong](#wrong): read as it stands, with the paper's own definitions, the statement is false; a
  counterexample shows it. Some are slips of one symbol.
- [Loose](#loose): the statement holds, but the bound or the rate is far from what happens, or says
  nothing.
- [Notation](#notation): a symbol has two meanings or none, a word is used in an unusual sense, or
  an order is left open. What is meant holds.

Each entry says where the same paper prints it right, if it does. All numbers are exact: sums over
all samples, or exact derivatives; nothing is sampled. The command

    python -m benchmarks.errata

writes this page, and a test compares it. The tests in `tests/errata/` check every entry, by closed
forms, by autograd or by another enumeration. Numbers below 1e-9 are shown as 0.

K is the number of inner steps, N the number of trajectories in a batch, alpha (or eta) the inner
step size, theta^i the iterates of expected steps and theta-hat^i those of sampled ones. J and H are
the mixed derivative of the inner objective and its Hessian, B is 1 + alpha c_2, and e_i is
theta-hat^i - theta^i. S_K(x) is 1 + x + .. + x^(K - 1). Other constants are those of Assumption 4.1
and Theorem 4.5 of *{BIAS_PAPER}*. The corrected bounds are those of `meta_gradient_bias_bound` and
`meta_gradient_variance_bound` ([bounds.md](bounds.md)), with all constants.
"""

SAYS = {Kind.WRONG: "Holds", Kind.LOOSE: "How far", Kind.NOTATION: "Meant"}


def shown(value):
    """Four digits. Numbers that differ by rounding alone look alike, also at a tie."""
    return "0" if abs(value) < 1e-9 else f"{float(f'{value:.10g}'):.4g}"


def anchor(title):
    """The name by which links find a section."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def index():
    """The table of all remarks, by class."""
    rows = ["| remark | paper | where | class |", "|---|---|---|---|"]
    for each in (each for kind in Kind for each in of_kind(kind)):
        link = f"[{each.title}](#{anchor(each.title)})"
        rows.append(f"| {link} | {each.paper} | {each.where} | {each.kind.value} |")
    return rows


def of_kind(kind):
    return [each for each in ERRATA if each.kind is kind]


def wrapped(item):
    """The lines of a list's item. No line starts with a sign, which could be read as markup."""
    glued = re.sub(r"(?<=.) ([-+>=<|]=?) ", "\x00\\1\x00", item)
    lines = textwrap.wrap(glued, 110, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace("\x00", " ") for line in lines]


def entry(each):
    """One remark, as lines."""
    lines = [f"\n### {each.title}\n\n*{each.paper}*, {each.where}.\n"]
    said = {"Printed": each.printed, SAYS[each.kind]: each.holds, "Elsewhere": each.elsewhere}
    for word, text in said.items():
        if text:
            lines += wrapped(f"- {word}: {text}.")
    lines.append(f"\n| {each.example} | |\n|---|---|")
    return lines + [f"| {label} | {shown(value)} |" for label, value in each.numbers().items()]


def page():
    """docs/errata.md."""
    lines = [HEADER, *index()]
    for kind in Kind:
        lines.append(f"\n## {kind.value.capitalize()}")
        for each in of_kind(kind):
            lines += entry(each)
    return "\n".join(lines) + "\n"
