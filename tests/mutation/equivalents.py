"""The mutants that no claim can tell from the source, each with the reason why there is none.

Keys are those of `Mutant.key`. A survivor that is not here, or an entry that does not survive,
fails the suite.
"""

EQUIVALENT = {
    (
        "dice",
        "factor dropped",
        "baseline = (1.0 - step_ratios) * record.values[..., :-1] * record.alive",
        "baseline = (1.0 - step_ratios) * record.values[..., :-1]",
        0,
    ): (
        "After the end a record's log-probability is the constant 0, whatever the policy's "
        "parameters. So the step's ratio is the constant 1, and `1 - ratio` is 0 with derivative 0 "
        "in the parameters: the term is 0 there, value and derivatives, for any critic."
    ),
    (
        "returns",
        "sum or axis shifted",
        "steps = torch.arange(terms.shape[-1])",
        "steps = 1 + torch.arange(terms.shape[-1])",
        0,
    ): "`steps` is used in differences `steps[:, None] - steps[None, :]` alone; the 1 cancels.",
    (
        "returns",
        "minimum for maximum",
        "powers = torch.as_tensor(factor, dtype=torch.float64) ** gaps.clamp(min=0)",
        "powers = torch.as_tensor(factor, dtype=torch.float64) ** gaps",
        0,
    ): (
        "The two differ where `gaps < 0` alone, and there the next line takes 0 in place of "
        "`powers`, infinite ones (of factor 0) included: `torch.where` selects, it does not "
        "multiply. The factor is a number, so no derivative passes through the power either."
    ),
}
