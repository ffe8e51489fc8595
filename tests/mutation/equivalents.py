"""The mutants that no claim can tell from the source, each with the reason why there is none.

Keys are those of `Mutant.key`. A survivor that is not here, or an entry that does not survive,
fails the suite.
"""

EQUIVALENT = {
    (
        "dice",
        "factor dropped",
        "baseline = (1.0 - probability_ratios(record)) * record.values[..., :-1] * record.alive",
        "baseline = (1.0 - probability_ratios(record)) * record.values[..., :-1]",
        0,
    ): (
        "After the end a record's log-probability is the constant 0, whatever the policy's "
        "parameters. So the step's ratio is the constant 1, and `1 - ratio` is 0 with derivative 0 "
        "in the parameters: the term is 0 there, value and derivatives, for any critic."
    ),
    (
        "dice",
        "factor dropped",
        "variate = crossed * record.values[..., :-1] * record.alive",
        "variate = crossed * record.values[..., :-1]",
        0,
    ): (
        "`crossed` has the factor `1 - ratio` of the step itself, which after the end is 0 with "
        "derivative 0 in the parameters, as above."
    ),
    (
        "meta_losses",
        "factor dropped",
        "return (weights * advantages * self.factor(record) * record.alive).sum(dim=-1).mean()",
        "return (weights * advantages * self.factor(record)).sum(dim=-1).mean()",
        0,
    ): (
        "`generalised_advantages` sums temporal differences from a step on, and those after the "
        "end are multiplied by 0: advantages after the end are 0, whatever phi."
    ),
    (
        "meta_losses",
        "stop-gradient",
        "n_actions = record.log_policy.shape[-1]",
        "n_actions = record.log_policy.detach().shape[-1]",
        0,
    ): "Only the shape is read, which has no derivative.",
    (
        "returns",
        "sum or axis shifted",
        "steps = torch.arange(terms.shape[-1], device=terms.device)",
        "steps = 1 + torch.arange(terms.shape[-1], device=terms.device)",
        0,
    ): "`steps` is used in differences `steps[:, None] - steps[None, :]` alone; the 1 cancels.",
}
