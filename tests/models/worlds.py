"""Small worlds and small models that the tests of ``jmbrl.models`` share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jmbrl import data, models
from jmbrl.models import EnsembleStats
from jmbrl.types import (
    Array,
    Continuous,
    Discrete,
    Env,
    Model,
    Outcome,
    Params,
    Prediction,
    PyTree,
    Sequence,
    Spec,
    TimeStep,
    Transition,
)

CONTINUOUS = Spec("linear", (3,), Continuous((-1.0,), (1.0,)), 20)
DISCRETE = Spec("linear", (3,), Discrete(2), 20)
IMAGES = Spec("images", (10, 10, 1), Continuous((-1.0,), (1.0,)), 20, obs_dtype="uint8")


def reward(obs: Array, action: Array, next_obs: Array) -> Array:
    return jnp.sum(next_obs) - 0.1 * jnp.sum(jnp.asarray(action, jnp.float32) ** 2)


def termination(obs: Array, action: Array, next_obs: Array) -> Array:
    return next_obs[0] > 1.0


def batch(spec: Spec, count: int = 16, seed: int = 0):
    """Observations and actions, ``[count, ...]``."""
    obs = jax.random.normal(jax.random.key(seed), (count, *spec.obs_shape))
    if spec.obs_dtype == "uint8":
        obs = jnp.clip(127 + 60 * obs, 0, 255).astype(jnp.uint8)
    key = jax.random.key(seed + 1)
    if isinstance(spec.action, Discrete):
        return obs, jax.random.randint(key, (count,), 0, spec.action.n)
    return obs, jax.random.uniform(key, (count, spec.action.dim), minval=-1.0, maxval=1.0)


def linear_replay(count: int = 400, noise: float = 0.1, capacity: int | None = None, seed: int = 0) -> data.Replay:
    """``next = 0.8 obs + 0.3 action + noise``; the reward is ``obs[0]``."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(count, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    following = 0.8 * obs + 0.3 * action + noise * rng.normal(size=obs.shape).astype(np.float32)
    return data.from_arrays(obs, action, obs[:, 0], following, following[:, 0] > 1, capacity=capacity)


def image_replay(count: int = 40) -> data.Replay:
    """Noise of ``IMAGES``, one frame after the other; the reward is the action."""
    obs, action = batch(IMAGES, count + 1)
    ended = np.arange(count) % 10 == 9
    return data.from_arrays(obs[:-1], action[:-1], action[:-1, 0], obs[1:], ended)


def line_env() -> Env:
    """A point on a line: ``x <- x + 0.1 a``, reward ``-x^2``, over where ``|x| > 1``."""
    spec = Spec("line", (1,), Continuous((-1.0,), (1.0,)), 20)

    def reset(key):
        state = jax.random.uniform(key, (1,), minval=-0.5, maxval=0.5)
        return state, state

    def step(key, state, action):
        state = state + 0.1 * action
        return state, TimeStep(state, -jnp.sum(state**2), jnp.abs(state[0]) > 1.0, jnp.zeros((), bool))

    return Env(spec, reset, step, vector=lambda num_envs: None)


def adder(spec: Spec = CONTINUOUS) -> Model:
    """A model whose one weight is added to the belief: a member tells its number by what it adds."""
    base = models.deterministic_mlp(spec, (4,))

    def step(key: Array, params: Params, belief: Array, action: Array):
        del key, action
        value = params.weights["add"]
        return belief + value, Outcome(value, jnp.ones(()), jnp.zeros(0), jnp.zeros((), bool))

    def step_many(key: Array, params: Params, beliefs: Array, actions: Array):
        return jax.vmap(step, in_axes=(None, None, 0, 0))(key, params, beliefs, actions)

    def init(key: Array) -> Params:
        return Params({"add": jax.random.uniform(key)}, ())

    def expect(params: Params, beliefs: Array, actions: Array):
        return step_many(jax.random.key(0), params, beliefs, actions)

    return base._replace(init=init, step=step, step_many=step_many, loss=None, predict=None, expect=expect)


def adder_params(n: int, elites: list[int] | None = None) -> Params:
    """Member ``i`` adds ``i``."""
    elites = list(range(n)) if elites is None else elites
    return Params({"add": jnp.arange(float(n))}, models.EnsembleStats((), jnp.array(elites, jnp.int32)))


def trained(model: Model, rows: Transition, batch: PyTree, updates: int, rate: float = 0.01) -> tuple[Params, dict]:
    """Statistics of ``rows``, then Adam on one batch; with the last loss's ``info``.

    It does what a trainer does, at a fraction of its compilation.
    """
    optimizer = optax.adam(rate)

    def update(params: Params, carry: tuple, key: Array) -> tuple[tuple, dict]:
        weights, opt = carry
        loss = lambda w: model.loss(key, params._replace(weights=w), batch)  # noqa: E731
        grads, info = jax.grad(loss, has_aux=True)(weights)
        steps, opt = optimizer.update(grads, opt)
        return (optax.apply_updates(weights, steps), opt), info

    @jax.jit
    def run(key: Array) -> tuple[Params, dict]:
        params = model.set_stats(model.init(key), rows, jnp.ones(len(rows.reward), bool))
        start, keys = (params.weights, optimizer.init(params.weights)), jax.random.split(key, updates)
        (weights, _), info = jax.lax.scan(lambda carry, key: update(params, carry, key), start, keys)
        return params._replace(weights=weights), jax.tree.map(lambda x: x[-1], info)

    return run(jax.random.key(1))


def windows(rows: Transition, length: int) -> Sequence:
    """Consecutive rows cut into windows of ``length`` that begin anew, ``Sequence[N // length, length]``."""
    cut = jax.tree.map(lambda x: x[: len(x) // length * length].reshape(-1, length, *x.shape[1:]), rows)
    flag = jnp.zeros(cut.reward.shape, bool)
    ended = (cut.terminated | cut.truncated)[:, :-1]
    return Sequence(cut, flag.at[:, 0].set(True).at[:, 1:].set(ended), ~flag)


def hidden_velocity(episodes: int, steps: int = 6, seed: int = 0) -> Transition:
    """``o <- o + v + 0.2 a``, where ``v`` is -0.5 or 0.5 for a whole episode and never seen; the reward is ``o``."""
    rng = np.random.default_rng(seed)
    velocity = np.repeat(rng.choice([-0.5, 0.5], episodes), steps)
    action = rng.uniform(-1, 1, (episodes * steps, 1))
    change = (velocity + 0.2 * action[:, 0]).reshape(episodes, steps)
    start = rng.normal(size=(episodes, 1))
    path = np.concatenate([start, start + np.cumsum(change, axis=1)], axis=1)
    before, after = path[:, :-1].reshape(-1, 1), path[:, 1:].reshape(-1, 1)
    ended = np.arange(episodes * steps) % steps == steps - 1
    rows = Transition(before, action, before[:, 0], after, np.zeros_like(ended), ended)
    return jax.tree.map(lambda x: jnp.asarray(x, bool if x.dtype == bool else jnp.float32), rows)


# Three members predict (x, y) = what is below, whatever they see; the third is no elite. Distances between the elites:
# 3-4-5. Norms of std: (1, 2, 2) with the reward's is 3; (2, 3, 6) is 7.
MEAN = jnp.asarray([[0.0, 0.0], [3.0, 4.0], [1000.0, 0.0]])
STD = jnp.asarray([[1.0, 2.0], [2.0, 3.0], [500.0, 0.0]])
REWARD_STD = jnp.asarray([2.0, 6.0, 0.0])


def stated() -> tuple[Model, Params]:
    """An ensemble whose members say what their weights are; beliefs multiply that."""

    def predict(params, belief, action):
        mean, std, reward_std = params.weights
        return Prediction(belief[0] * mean, belief[0] * std, jnp.zeros(()), belief[0] * reward_std)

    def step_many(key, params, beliefs, actions):
        count = len(actions)
        return beliefs + 1, Outcome(
            10.0 * beliefs[:, 0], jnp.full(count, 0.9), jnp.zeros((count, 0)), actions[:, 0] > 9
        )

    def step(key, params, belief, action):
        return jax.tree.map(lambda x: x[0], step_many(key, params, belief[None], action[None]))

    base = models.deterministic_mlp(CONTINUOUS, (4,))
    member = base._replace(
        predict=predict, step=step, step_many=step_many,
        expect=lambda params, b, a: step_many(jax.random.key(0), params, b, a),
        init=lambda key: Params((MEAN[0], STD[0], REWARD_STD[0]), ()), encode=lambda key, p, b, a, obs, first: obs,
        initial=lambda params: jnp.zeros(3),
    )  # fmt: skip
    params = Params((MEAN, STD, REWARD_STD), EnsembleStats((), jnp.asarray([0, 1], jnp.int32)))
    return models.ensemble(member, 3, 2), params
