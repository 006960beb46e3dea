"""Behavioural cloning of a log: the baseline that every policy from logged data has to beat."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data, learners
from jmbrl.agents.offline import COPIES, logged
from jmbrl.agents.system import System
from jmbrl.agents.world_models_stages import test
from jmbrl.data import normalizer
from jmbrl.data.normalizer import Normalizer
from jmbrl.envs.wrappers import vector_size
from jmbrl.types import Agent, Array, Env, Key, PyTree, Stage, Transition


@dataclasses.dataclass(frozen=True)
class BCConfig:
    """Settings; ``log`` as in MOPO's."""

    log: str = ""
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 256
    epochs: int = 100
    every: int = 10  # epochs between looks
    test_episodes: int = 10


class BCState(NamedTuple):
    """``seen``: of the logged observations. ``learner``: of ``learners.cloning``."""

    seen: Normalizer
    learner: PyTree


def bc(env: Env, config: BCConfig = BCConfig(), log: data.Replay | None = None) -> Agent:
    """An agent of stages that imitates a log, its observations standardised, and then sees what that is worth.

    ``log``: the rows, in the place of the file that ``config`` names.

    Raises:
      ValueError: neither, or what ``data.from_npz`` refuses; images; a number outside its range; when the stages are
        made, steps that do not suffice for the test.
    """
    spec, size = env.spec, vector_size("bc", env.spec)
    log = logged(spec, config.log, log)
    learner = learners.cloning(
        spec.action, size, hidden=config.hidden, learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
    epochs, every = checks.integer("epochs", config.epochs, 1), checks.integer("every", config.every, 1)
    batch_size = checks.integer("batch_size", config.batch_size, 1)
    episodes = checks.integer("test_episodes", config.test_episodes, 0)

    def init(key: Key, num_envs: int) -> BCState:
        del num_envs
        return BCState(normalizer.identity(size), learner.init(key))

    def act(
        key: Key, state: BCState, carry: tuple, obs: Array, is_first: Array, explore: bool
    ) -> tuple[Array, tuple, dict]:
        del is_first
        action, _ = learner.act(key, state.learner, normalizer.normalize(state.seen, obs), explore)
        return action, carry, {}

    def imitate(
        call: Callable, key: Key, state: BCState, folder: Path, start: int, length: int
    ) -> tuple[BCState, dict]:
        del folder

        def learn(key: Key, state: BCState, log: data.Replay) -> tuple[BCState, dict]:
            rows, count = data.rows(log)
            valid = jnp.arange(len(rows.reward)) < count
            seen = normalizer.fit(rows.obs, valid)
            rows: Transition = rows._replace(obs=normalizer.normalize(seen, rows.obs))
            learned, info = learners.imitate(
                key, learner, state.learner, rows, valid, epochs=length, batch_size=batch_size
            )
            return BCState(seen, learned), {f"learner/{name}": value[None] for name, value in info.items()}

        return call(("imitate", length), learn, jax.random.fold_in(key, start), state, log)

    def stages(env: Env, steps: int) -> tuple[Stage, ...]:
        needed = episodes * env.spec.max_steps
        if steps < needed:
            raise ValueError(f"steps must be at least {needed} for {episodes} episodes of the test, got {steps}")
        learned = Stage("imitate", "epochs", epochs, min(every, epochs), imitate)
        return (learned, test(env, agent, episodes, min(episodes, COPIES))) if episodes else (learned,)

    agent = Agent(init, lambda state: (), act, lambda state, carry, rows, valid: state, stages=stages)
    return agent


SYSTEMS = (System("bc", BCConfig, bc, "behavioural cloning of logged data (Pomerleau 1991)"),)
