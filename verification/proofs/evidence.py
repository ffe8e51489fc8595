"""Symbolic evidence: the enumerated verdict at one policy, with a proof or formula for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradbias.analytic.policies.softmax import TabularSoftmax
from gradbias.analytic.problems.critics import critic_rows
from gradbias.analytic.problems.targets import AnyTarget, return_derivative
from gradbias.analytic.utils.validation import FloatArray
from gradbias.verification.evidence.reports import Evidence
from gradbias.verification.evidence.request import Request
from gradbias.verification.evidence.subjects import MeasuredMoments
from gradbias.verification.proofs.prove import MAX_PROOF, NothingToProveError, proof_or_formula
from gradbias.verification.proofs.results import BiasFormula, Proof
from gradbias.verification.proofs.symbolic_problems import of_mdp

_AGREED = 1e-9
_NOTHING = "nothing to prove: the estimate's mean and the derivative are 0 for every policy"


def with_proof(
    asked: Request, target: AnyTarget, exact: FloatArray, found: MeasuredMoments
) -> MeasuredMoments:
    """Enumerated moments ``found``, with the proof or the formula for every policy added; as they
    are where there is nothing to prove.

    Raises:
        ValueError: the request is not one that fits, or the formula and the enumeration disagree.
    """
    reason = _misfit(asked, target, found)
    if reason is not None:
        raise ValueError(f"evidence: symbolic is {reason}; use enumeration, moments or sampling")
    mdp = asked.mdp
    critic = critic_rows(asked.context.critic, asked.length, mdp.n_states)
    try:
        result = proof_or_formula(asked.estimator, of_mdp(mdp, critic), MAX_PROOF)
    except NothingToProveError:  # the enumerated verdict, VACUOUS, is the answer
        return replace(found, notes=(*found.notes, _NOTHING))
    except ValueError as error:
        raise ValueError(f"evidence: symbolic does not fit: {error}") from None
    _check_agreement(asked, exact, found, result)
    known = replace(found, evidence=Evidence.SYMBOLIC, assumption=result.covered)
    if isinstance(result, Proof):
        proof = f"proof: {result.identity}"
        known = replace(known, notes=(*found.notes, proof))
        if not exact.any():  # a point that shows nothing
            return known
        return replace(known, scope=f"N = {found.batch_size}, at this MDP, for every policy")
    formula = (
        f"formula: for policies in general the bias is not 0, {result.terms:,} terms in the "
        f"probabilities; simplest component {result.simplest()}"
    )
    return replace(known, notes=(*found.notes, formula))


def _misfit(asked: Request, target: AnyTarget, found: MeasuredMoments) -> str | None:
    """The reason why a request cannot have symbolic evidence, or None."""
    context, mdp = asked.setting.context, asked.setting.mdp
    if mdp.horizon is None:
        return "for finite horizons alone"
    if target != return_derivative(asked.estimator.order, horizon=mdp.horizon):
        return f"for the return's own derivatives alone, got {target}"
    if not isinstance(context.policy, TabularSoftmax):
        return "for tabular softmax policies alone"
    if not asked.setting.on_policy:
        return "for trajectories of the policy itself alone"
    if context.reference is not None or context.meta:
        return "for surrogates without a reference policy or meta-parameters alone"
    if found.coupled:
        return "for estimators that do not couple the trajectories of a batch alone"
    return None


def _check_agreement(
    asked: Request, exact: FloatArray, found: MeasuredMoments, result: Proof | BiasFormula
) -> None:
    """Raises ValueError unless the enumerated bias equals the formula's value at this policy."""
    moments = found.moments
    bias = moments.mean - exact
    said = result.at(asked.context.theta) if isinstance(result, BiasFormula) else np.zeros(())
    scale = max(moments.absolute, float(np.linalg.norm(exact)))
    if float(np.linalg.norm(bias - said)) > _AGREED * scale:
        raise ValueError(
            "evidence: the symbolic expectation differs from the enumerated one at this policy by "
            f"{np.linalg.norm(bias - said):.3g}; floats do not resolve the surrogate's numbers "
            "there, use enumeration"
        )
