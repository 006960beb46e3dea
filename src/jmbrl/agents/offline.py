"""Learning from logged data alone: a model fitted once, and a policy improved in it without the environment."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data, models
from jmbrl.agents.imagination import ImaginationState
from jmbrl.agents.mbpo import imagined_trials
from jmbrl.agents.world_models_stages import in_round, test
from jmbrl.data import normalizer
from jmbrl.types import Agent, Array, Env, Key, Learner, Model, Spec, Stage

CHUNKS = 20  # looks at a policy between two evaluations
COPIES = 32  # of the environment, side by side


class OfflineMemory(NamedTuple):
    """``imagined``: the ring of imagined rows. ``threshold``: the uncertainty that imagination halts beyond, infinite
    where it does not. ``scale``: the units of uncertainty, ``float32[D]``."""

    imagined: data.Replay
    threshold: Array
    scale: Array


def offline_trials(
    spec: Spec,
    model: Model,
    trainer: models.Trainer,
    learner: Learner,
    log: data.Replay,
    *,
    pessimism: str = "mopo",
    penalty: float | Array = 1.0,
    measure: str | None = None,
    quantile: float | Array = 1.0,
    scaled: bool = False,
    length: int = 5,
    rollouts: int = 400,
    retain: int = 5,
    real_ratio: float = 0.05,
    batch_size: int = 256,
    updates: int = 20_000,
    round_updates: int = 1000,
    evaluations: int = 1,
    test_episodes: int = 10,
) -> Agent:
    """An agent of stages: fit a model to a log, once; improve a policy in it; see what the policy is worth.

    The second stage goes in rounds, which are ``agents.imagined_trials``' own: the policy, exploring, imagines
    ``rollouts`` trajectories from logged states, then the learner does ``round_updates`` updates on imagined and logged
    rows. Only the test acts in the environment, and nothing is learned from it.

    Args:
      spec: the environment's, for which ``data.check_actions`` should find the log's actions right.
      model: its belief is a function of one observation.
      trainer: of the model.
      learner: off-policy, learns from ``Transition[B]`` of features.
      log: the rows, concrete, in one ring.
      pessimism: ``"mopo"`` or ``"morel"``, as in ``models.pessimistic``; ``"none"``: the model is believed.
      penalty, measure: as in ``models.pessimistic``.
      quantile: MOReL's threshold is the uncertainty that this share of the logged rows does not exceed.
      scaled: uncertainty in units of the logged observations' standard deviations; False: in their own.
      length: steps of a rollout, which ends earlier where the model says that the episode does.
      rollouts, retain, real_ratio, batch_size: as in ``agents.imagined_trials``, a round in the place of a fit.
      updates: of the policy in all, a multiple of ``round_updates`` times ``evaluations``.
      round_updates: of the policy, a round.
      evaluations: tests in all, evenly along the updates.
      test_episodes: real episodes a test, without exploration; 0: none, and the environment is never touched.

    Raises:
      ValueError: a log of several environments or without valid rows, or of other shapes than the spec; a number
        outside its range; when the stages are made, steps that do not suffice for the tests.

    Metrics: ``model/...`` of the fit with ``model/threshold``; ``imagine/...`` and ``learner/...`` per round;
    ``episode_return`` of the tests.
    """
    checks.choice("pessimism", pessimism, ("none", "mopo", "morel"))
    checks.number("quantile", quantile, 0.0, 1.0)
    round_updates, evaluations = (
        checks.integer(name, value, 1)
        for name, value in (("round_updates", round_updates), ("evaluations", evaluations))
    )
    updates, test_episodes = checks.integer("updates", updates, 1), checks.integer("test_episodes", test_episodes, 0)
    if updates % (round_updates * evaluations):
        wanted = f"round_updates * evaluations = {round_updates * evaluations}"
        raise ValueError(f"updates must be a multiple of {wanted}, got {updates}")
    log = logged(spec, "", log)
    still = models.Trainer(trainer.init, lambda key, params, opt, replay: (params, opt, {}))

    def wary(memory: OfflineMemory) -> Model:
        """The model with the numbers that the log gave."""
        if pessimism == "none":
            return model
        halt = memory.threshold if pessimism == "morel" else None
        return models.pessimistic(
            model, pessimism, penalty=penalty, measure=measure, scale=memory.scale, threshold=halt
        )

    def trials(model: Model) -> Agent:
        return imagined_trials(
            spec, model, still, learner, length, rollouts=rollouts, retain=retain, real_ratio=real_ratio,
            batch_size=batch_size, updates=round_updates, fit_every=1, warmup=1, capacity=1,
        )  # fmt: skip

    unknown = OfflineMemory(data.empty(spec, 1), jnp.asarray(jnp.inf, jnp.float32), jnp.ones(spec.obs_shape))
    jax.eval_shape(lambda memory: wary(memory).init(jax.random.key(0)), unknown)  # refuses what does not fit
    plain = trials(model)

    def init(key: Key, num_envs: int) -> ImaginationState:
        state = plain.init(key, num_envs)
        # The log itself comes in when the first stage begins: here it would be compiled into the program.
        empty = data.empty(spec, log.capacity)
        return state._replace(replay=empty, memory=unknown._replace(imagined=state.memory))

    def fit(key: Key, state: ImaginationState) -> tuple[ImaginationState, dict]:
        params, opt, info = trainer.fit(key, state.params, state.opt, state.replay)
        memory = state.memory
        if scaled:
            rows, count = data.rows(state.replay)
            memory = memory._replace(scale=normalizer.fit(rows.obs, jnp.arange(len(rows.obs)) < count).std)
        if pessimism == "morel":
            chosen = "pairwise" if measure is None else measure
            limit = models.uncertainty_quantile(model, params, state.replay, quantile, chosen, memory.scale)
            memory, info = memory._replace(threshold=limit), info | {"threshold": limit}
        info = {f"model/{name}": jnp.asarray(value)[None] for name, value in info.items()}
        return state._replace(params=params, opt=opt, memory=memory), info

    def improve(key: Key, state: ImaginationState, rounds: Array) -> tuple[ImaginationState, dict]:
        memory = state.memory
        (_, imagine), (_, learn) = trials(wary(memory)).phases

        def one(state: ImaginationState, i: Array) -> tuple[ImaginationState, dict]:
            key_imagine, key_learn = jax.random.split(jax.random.fold_in(key, i))
            state, seen = imagine(key_imagine, state, jnp.ones((), jnp.int32))
            state, info = learn(key_learn, state, jnp.ones((), jnp.int32))
            return state, seen | info

        state, info = jax.lax.scan(one, state._replace(memory=memory.imagined), rounds)
        return state._replace(memory=memory._replace(imagined=state.memory)), info

    def learn_model(
        call: Callable, key: Key, state: ImaginationState, folder: Path, start: int, length: int
    ) -> tuple[ImaginationState, dict]:
        del folder
        state = state._replace(replay=log)
        return call(("model",), fit, jax.random.fold_in(key, start), state)

    def learn_policy(
        call: Callable, key: Key, state: ImaginationState, folder: Path, start: int, length: int
    ) -> tuple[ImaginationState, dict]:
        del folder
        rounds = jnp.arange(start, start + length)
        return call(("policy", length), improve, jax.random.fold_in(key, 2**28), state, rounds)

    def stages(env: Env, steps: int) -> tuple[Stage, ...]:
        needed = evaluations * test_episodes * env.spec.max_steps
        if steps < needed:
            raise ValueError(
                f"steps must be at least {needed}: {evaluations} tests of {test_episodes} episodes of "
                f"{env.spec.max_steps} steps; got {steps}"
            )
        rounds = updates // round_updates // evaluations
        parts: list[Stage] = [Stage("model", "fits", 1, 1, learn_model)]
        for number in range(evaluations):
            each = (Stage("policy", "rounds", rounds, -(-rounds // CHUNKS), learn_policy),)
            if test_episodes:
                each += (test(env, agent, test_episodes, min(test_episodes, COPIES)),)
            parts += in_round(number, each)
        return tuple(parts)

    agent = plain._replace(
        init=init, record=lambda state, carry, rows, valid: state, phases=(), warmup=0, model=model, stages=stages
    )
    return agent


def logged(spec: Spec, path: str, log: data.Replay | None) -> data.Replay:
    """The rows given, else those of a file.

    Raises:
      ValueError: neither, no valid rows, several rings, or other shapes than the spec's.
    """
    if log is None:
        if not path:
            raise ValueError("log must name an .npz file (--set log=FILE), or be given as a replay; got neither")
        return data.from_npz(path, spec=spec).replay
    if log.num_envs != 1 or not jnp.any(log.valid):
        rows = int(jnp.sum(log.valid))
        raise ValueError(f"log must be one ring with valid rows, got {log.num_envs} with {rows} rows")
    checks.same_shape("obs of log", log.data.obs.shape[2:], spec.obs_shape, f"the spec of {spec.name}")
    checks.same_shape("action of log", log.data.action.shape[2:], spec.action.shape, f"the spec of {spec.name}")
    return log
