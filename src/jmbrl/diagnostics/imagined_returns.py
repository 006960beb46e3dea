"""What an agent expects of its policy, in its critic and in imagination, against what the policy then earned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.data import Frames
from jmbrl.learners import lambda_returns
from jmbrl.rollout import imagine
from jmbrl.types import Array, Critic, Key, Model, Params, PyTree

STATES = 256  # at most, evenly along the episodes
ROLLOUTS = 4


class Points(NamedTuple):
    """States along real episodes, ``[N]`` each: ``env`` and ``at``, which and when; what the critic says
    (``value``), what imagination from there returns (``imagined``), what came (``real``), and the share of the value
    at the episode's last frame in that (``bootstrap``)."""

    env: np.ndarray
    at: np.ndarray
    value: np.ndarray
    imagined: np.ndarray
    real: np.ndarray
    bootstrap: np.ndarray


def imagined_returns(
    key: Key,
    model: Model,
    params: Params,
    critic: Critic,
    agent_state: PyTree,
    frames: Frames,
    beliefs: PyTree,
    *,
    states: int = STATES,
    rollouts: int = ROLLOUTS,
) -> tuple[dict[str, Any], Points]:
    r"""The critic's value and the imagined :math:`\lambda`-return of real beliefs beside the real return from there.

    The real return is ``returns_to_go``'s, which counts on the critic's value where an episode was cut off. Imagination
    and the real episodes follow the policy without exploration; a critic that learned from drawn actions values those.

    Args:
      key: consumed.
      model, params: what imagines.
      critic, agent_state: the agent's.
      frames, beliefs: of real episodes of the same policy, ``[B, F, ...]``.
      states: how many beliefs, about. rollouts: imagined from each, whose mean is taken.

    Returns:
      Means of ``value``, ``imagined`` and ``real``; ``value_bias`` and ``imagined_bias`` (minus the real one),
      ``value_correlation`` and ``imagined_correlation`` with it (NaN where nothing varies); ``bootstrap``, the mean
      weight of the critic's own value in the real returns; ``gamma``; ``count``. And the points.
    """
    envs, length = frames.mask.shape
    every = max(1, -(-envs * (length - 1) // checks.integer("states", states, 1)))
    rollouts = checks.integer("rollouts", rollouts, 1)

    @jax.jit
    def compute(key: Key, params: Params, agent_state: PyTree, frames: Frames, beliefs: PyTree) -> tuple:
        value = lambda beliefs: jax.vmap(lambda x: critic.value(agent_state, x))(beliefs)  # noqa: E731
        values = value(beliefs)
        real, bootstrap, counts = returns_to_go(frames, values, critic.gamma, critic.reward_scale)
        flat = lambda x: x[:, :-1:every].reshape(-1, *x.shape[2:])  # noqa: E731
        begin = jax.tree.map(lambda x: jnp.repeat(flat(x), rollouts, axis=0), beliefs)

        def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple:
            return model.step_many(key, params, beliefs, actions)

        act = lambda key, beliefs, t: (critic.act(key, agent_state, beliefs), ())  # noqa: E731
        path = imagine(key, step_many, begin, act, critic.horizon)[1]
        reward, discount = critic.reward_scale * path.outcome.reward, critic.gamma * path.outcome.discount
        returns = lambda_returns(reward, discount, value(path.next_belief), critic.lam)[0]
        imagined = jnp.mean(returns.reshape(-1, rollouts), axis=1)
        return flat(counts), flat(values), imagined, *(x[:, ::every].reshape(-1) for x in (real, bootstrap))

    told = jax.device_get(compute(key, params, agent_state, frames._replace(obs=()), beliefs))
    kept, told = told[0], [x[told[0]].astype(float) for x in told[1:]]
    env, at = (x.reshape(-1)[kept] for x in np.mgrid[:envs, : length - 1 : every])
    points = Points(env, at, *told)
    numbers = {"count": len(at), "gamma": float(critic.gamma), "bootstrap": _mean(points.bootstrap)}
    for name in ("value", "imagined"):
        said = getattr(points, name)
        numbers |= {name: _mean(said), f"{name}_bias": _mean(said - points.real)}
        numbers[f"{name}_correlation"] = _correlation(said, points.real)
    return numbers | {"real": _mean(points.real)}, points


def returns_to_go(
    frames: Frames, values: Array, gamma: float | Array, reward_scale: float | Array = 1.0
) -> tuple[Array, Array, Array]:
    r"""Discounted real rewards from each frame to its episode's end, ``[B, F - 1]`` (the last frame has no successor).

    .. math:: G_t = \sum_{k=0}^{n-1} \gamma^k r_{t+k} + \gamma^n c\, v(s_{t+n})

    with :math:`s_{t+n}` the episode's last frame and :math:`c` 0 where the world ended there, 1 where a time limit or
    the data's end cut it off: what would have followed is the critic's guess.

    Args:
      frames: ``[B, F]``. values: ``float32[B, F]``, the critic's.
      gamma: in ``[0, 1]``. reward_scale: of the rewards.

    Returns:
      The returns, the weight :math:`\gamma^n c` of the guess in each, and, ``bool[B, F]``, which frames have a
      successor; the others' returns mean nothing.
    """
    follows = ~frames.is_first[:, 1:] & frames.mask[:, 1:] & frames.mask[:, :-1]
    onward = jnp.concatenate([follows[:, 1:], jnp.zeros_like(follows[:, :1])], axis=1)
    by_time = lambda x: jnp.swapaxes(x, 0, 1)  # noqa: E731
    discount, lam = by_time(gamma * (1.0 - frames.terminated[:, 1:])), by_time(onward.astype(jnp.float32))

    def summed(reward: Array, next_value: Array) -> Array:
        return by_time(lambda_returns(by_time(reward), discount, by_time(next_value), lam))

    real = summed(reward_scale * frames.reward[:, 1:], values[:, 1:])
    weight = summed(jnp.zeros(follows.shape), jnp.ones(follows.shape))
    return real, weight, jnp.concatenate([follows, jnp.zeros_like(follows[:, :1])], axis=1)


def _mean(x: np.ndarray) -> float:
    return float(np.mean(x)) if len(x) else np.nan


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])
