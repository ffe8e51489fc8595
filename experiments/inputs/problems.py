"""The problems, policies and critics that the command line names."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from gradbias.analytic.problems.mdp import TabularMDP, read_problem
from gradbias.analytic.returns.evaluation import state_values
from gradbias.analytic.utils.numpy_files import read_npy
from gradbias.analytic.utils.validation import FloatArray, whole_number
from gradbias.experiments.inputs.commands import Bounds, Problem

KNOWN_ENVIRONMENTS = ("CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1", "Taxi-v4")
DEFAULT_DISCOUNT = 0.9
MAX_TABLE = 200_000_000


def generators(seed: int) -> tuple[np.random.Generator, ...]:
    """Independent generators for the problem, the policy and the samples."""
    if seed < 0:
        raise ValueError(f"--seed: expected an integer >= 0, got {seed}")
    return tuple(np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))


def load_problem(command: Problem, rng: np.random.Generator) -> TabularMDP:
    """The problem that exactly one of --npz, --gym and --random names.

    Raises:
        ValueError: none or several are named, or the named one cannot be loaded.
    """
    named = {"--npz": command.npz, "--gym": command.gym, "--random": command.random}
    given = [option for option, value in named.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(given) if given else "none"
        raise ValueError(f"expected one problem (--npz, --gym or --random), got {got}")
    if command.env_option and command.gym is None:
        raise ValueError(f"--env-option: expected --gym with it, got {given[0]}")
    if command.horizon is not None:
        whole_number("--horizon", command.horizon, at_least=1)
    discount = DEFAULT_DISCOUNT if command.discount is None else command.discount
    if command.npz is not None:
        mdp = _from_file(command)
    elif command.gym is not None:
        mdp = _from_environment(command.gym, command.env_option, discount, command.horizon)
    else:
        n_states, n_actions = _parse_size(str(command.random))
        mdp = TabularMDP.random(
            n_states, n_actions, rng=rng, discount=discount, horizon=command.horizon
        )
    return mdp if command.start is None else replace(mdp, start=_start(command.start, mdp))


def load_loop_start(command: Bounds) -> tuple[TabularMDP, FloatArray]:
    """The problem of an inner loop, with a finite horizon, and the logits that it starts from.

    Raises:
        ValueError: as `load_problem` and `load_theta`, or an infinite horizon.
    """
    problem_rng, policy_rng, _ = generators(command.seed)
    mdp = load_problem(command, problem_rng)
    if mdp.horizon is None:
        raise ValueError(
            "--horizon: expected a number of steps, as the bounds are those of finite episodes"
        )
    return mdp, load_theta(command.theta, mdp, policy_rng)


def load_theta(source: str, mdp: TabularMDP, rng: np.random.Generator) -> FloatArray:
    """Logits ``[S, A]``: 'uniform' (zeros), 'random' (standard normal) or an npy file's.

    Raises:
        ValueError: a file that is missing, not an array, of a wrong shape, or not finite.
    """
    shape = (mdp.n_states, mdp.n_actions)
    if source == "uniform":
        return np.zeros(shape)
    if source == "random":
        return rng.standard_normal(shape)
    theta = _load_array("--theta", source)
    if theta.shape != shape:
        raise ValueError(f"--theta {source}: expected shape {shape}, got {theta.shape}")
    return theta


def load_critic(source: str, mdp: TabularMDP, theta: FloatArray) -> FloatArray | None:
    """The critic's values: None for 'zero', the policy's own for 'exact', or an npy file's."""
    if source == "zero":
        return None
    if source == "exact":
        return state_values(mdp, theta)
    return _load_array("--critic", source)


def _from_file(command: Problem) -> TabularMDP:
    """The npz file's problem; options of the command line take precedence."""
    arguments = read_problem(str(command.npz))
    if command.discount is not None:
        arguments["discount"] = command.discount
    if command.horizon is not None:
        arguments["horizon"] = command.horizon
    try:
        return TabularMDP(**arguments)
    except ValueError as error:
        raise ValueError(f"--npz {command.npz}: {error}") from None


def _load_array(option: str, source: str) -> FloatArray:
    try:
        array = read_npy(source)
    except ValueError as error:
        raise ValueError(f"{option} {error}") from None
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{option} {source}: expected one array of real numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{option} {source}: expected finite numbers, got NaN or infinity")
    return array.astype(np.float64)


def _from_environment(
    name: str, options: tuple[str, ...], discount: float, horizon: int | None
) -> TabularMDP:
    import gymnasium

    settings = dict(_parse_option(option) for option in options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            env = gymnasium.make(name, **settings)
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"--gym {name}: cannot be made: {first}") from None
    try:
        return TabularMDP.from_gymnasium(env, discount, horizon)
    except ValueError as error:
        raise ValueError(f"--gym {name}: {error}") from None
    finally:
        env.close()


def _parse_option(option: str) -> tuple[str, Any]:
    key, separator, value = option.partition("=")
    if not separator or not key:
        raise ValueError(f"--env-option: expected KEY=VALUE, got {option!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return key, value


def _parse_size(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    if match is None or "0" in match.groups():
        raise ValueError(f"--random: expected SxA such as 3x2, got {size!r}")
    n_states, n_actions = int(match[1]), int(match[2])
    if n_states * n_states * n_actions > MAX_TABLE:
        raise ValueError(
            f"--random: expected at most {MAX_TABLE:,} transition probabilities, got {size}"
        )
    return n_states, n_actions


def _start(source: str, mdp: TabularMDP) -> FloatArray:
    if source == "uniform":
        return np.full(mdp.n_states, 1.0 / mdp.n_states)
    if not (source.isascii() and source.isdigit()) or int(source) >= mdp.n_states:
        raise ValueError(
            f"--start: expected 'uniform' or a state from 0 to {mdp.n_states - 1}, got {source!r}"
        )
    start = np.zeros(mdp.n_states)
    start[int(source)] = 1.0
    return start
