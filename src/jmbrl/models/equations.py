"""Equations of motion with unknown parameters: the model when the physics is known and its numbers are not.

Finding the parameters is nonlinear least squares on short predicted paths. A path that starts at a *measured* state
inherits that measurement's error, and regression on noisy inputs is biased (errors in variables); so each path's first
state is itself estimated, from all readings of its path, before the parameters are moved: multiple shooting with the
starts eliminated (Bock 1983; variable projection, Golub and Pereyra 1973).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models import state_space
from jmbrl.models.ensemble import EnsembleStats
from jmbrl.models.equation_system import PACE, EquationsStats, System
from jmbrl.models.parameters import Parameter, check_parameters, physical
from jmbrl.types import Array, Discrete, Model, Params, Spec


def equations(
    spec: Spec,
    f: Callable,
    parameters: Mapping[str, Parameter],
    *,
    reward: Callable | None = None,
    termination: Callable | None = None,
    to_state: Callable | None = None,
    to_obs: Callable | None = None,
    steps: int = 10,
    estimate_start: bool = True,
    clip_range: float | None = None,
) -> Model:
    r"""A model from equations of motion; its unknown parameters are found by ``sequence_trainer``.

    .. math:: s_{t+1} = f(s_t, a_t, \theta), \qquad o_t = h(s_t) + \sigma\varepsilon_t

    Windows of data are cut into paths of ``steps`` rows. The loss is the negative log-likelihood of all readings of a
    path given its first state, which is estimated anew from the path's own readings at every evaluation (two
    Gauss-Newton steps), plus the priors:

    .. math:: \frac1n \sum_{paths} \min_{s_0} \sum_{j=0}^{k} \sum_d \left[ \tfrac12
              \left(\frac{o_{j,d} - h_d(s_j)}{\sigma_d}\right)^2 + \ln\sigma_d \right]
              + \frac1n \sum_i \frac{(\theta_i - \mu_i)^2}{2 s_i^2}

    :math:`\sigma` is learned too. ``step`` and ``predict`` use another spread, learned from the errors of one step
    from a measured observation. Parameters and spreads move by ten times the optimiser's step, so that 0.01 suits Adam.
    Starting values are drawn: members of an ``ensemble`` begin apart.

    Args:
      spec: the environment's; vector observations.
      f: ``(state float32[S], action, theta: dict of scalars) -> next state float32[S]``, one row; ``action`` in
        ``[-1, 1]`` (or an integer), as everywhere.
      parameters: what is known of each entry of ``theta``.
      reward, termination: ``(obs, action, next_obs)``, one row. Without ``reward`` the imagined reward is NaN, which
        planners refuse; without ``termination`` nothing ends.
      to_state: ``obs[D] -> state[S]``; None: the state is the observation.
      to_obs: ``state[S] -> obs[D]``, its inverse.
      steps: length of a path, at least 1. Longer ones are more exact and, far from the answer, harder to follow.
      estimate_start: False starts every path at what was measured: cheaper, and biased where readings are noisy.
      clip_range: as in ``models.gaussian_mlp``.

    Returns:
      A ``Model`` of ``SEQUENCES``; ``models.theta(params)`` reads the parameters.

    Raises:
      ValueError: ``f``, ``to_state`` or ``to_obs`` of the wrong shape or type; bounds or priors that make no sense.

    Source: Bock 1983 (multiple shooting); Golub and Pereyra 1973 (eliminating the starts); Ljung 1999, section 7.4
    (output error); Soderstrom 2007 (errors in variables).
    """
    if termination is not None and not callable(termination):
        raise ValueError(f"termination must be a function (obs, action, next_obs) or None, got {termination!r}")
    frame = state_space.frame("equations", spec, reward, termination, False, (), None, None, clip_range)
    if (to_state is None) != (to_obs is None):
        raise ValueError("to_state and to_obs must be given together: each is the other's inverse")
    system = System(
        frame=frame,
        f=f,
        to_state=_same if to_state is None else to_state,
        to_obs=_same if to_obs is None else to_obs,
        parameters=tuple(check_parameters(parameters).items()),
        steps=checks.integer("steps", steps, 1),
        estimate_start=estimate_start,
        dim=0,
    )
    return dataclasses.replace(system, dim=_state_size(system)).model()


def theta(params: Params) -> dict[str, Array]:
    """The parameters of ``equations`` or ``residual`` in physical units; for an ensemble, ``[members]`` each."""
    stats = params.stats.member if isinstance(params.stats, EnsembleStats) else params.stats
    if not isinstance(stats, EquationsStats):
        raise ValueError(f"params must be those of a model made by equations, got statistics {type(stats).__name__}")
    return physical(params.weights["theta"], stats.bounds, PACE)


def _same(x: Array) -> Array:
    return x


def _state_size(system: System) -> int:
    """Checks the three functions by their shapes alone; entries of the state."""
    spec = system.frame.spec
    obs = jax.ShapeDtypeStruct(spec.obs_shape, jnp.float32)
    action = jax.ShapeDtypeStruct(spec.action.shape, jnp.int32 if isinstance(spec.action, Discrete) else jnp.float32)
    values = {name: jax.ShapeDtypeStruct((), jnp.float32) for name, _ in system.parameters}
    state = jax.eval_shape(lambda o: checks.pure("to_state", system.to_state, o), obs)
    if len(getattr(state, "shape", ())) != 1 or state.dtype != jnp.float32:
        raise ValueError(f"to_state must return a vector of float32, got {_described(state)}")
    _wanted("to_obs", jax.eval_shape(lambda s: checks.pure("to_obs", system.to_obs, s), state), obs, "the observation")
    following = jax.eval_shape(lambda *row: checks.pure("f", system.f, *row), state, action, values)
    _wanted("f", following, state, "the next state")
    return state.shape[0]


def _wanted(name: str, got: Any, wanted: jax.ShapeDtypeStruct, what: str) -> None:
    if not hasattr(got, "shape") or (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
        raise ValueError(f"{name} must return {what}, {_described(wanted)}; got {_described(got)}")


def _described(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else f"a {type(value).__name__}"
