"""Stochastic value gradients along what really happened: SVG(1) and SVG(inf) (Heess et al. 2015, arXiv 1510.09142)."""

import dataclasses
from collections.abc import Callable

import jax

from jmbrl import checks, data
from jmbrl.agents.bptt import BPTTConfig, climber, climbing, ensemble_of, imagined, trainer_of
from jmbrl.agents.imagination import ImaginationState, beliefs_of
from jmbrl.agents.system import System
from jmbrl.learners import BPTT, Record, World, recorded
from jmbrl.types import Agent, Env, Key, Model, PyTree, Spec


@dataclasses.dataclass(frozen=True)
class SVGConfig(BPTTConfig):
    """Settings, as ``bptt``'s, of windows of ``horizon`` real rows; ``branch`` means nothing here.

    Defaults are SVG(1)'s; SVG(inf) is ``horizon=40, terminal_value=False``. SVG(H) in imagination is ``bptt`` with
    ``stochastic`` and ``terminal_value``. The paper's networks and rates differ by task. What differs in kind: windows
    come from the rows since the last phase, which the policy of then took, where SVG(1) may replay older ones with the
    probabilities of then; and a step's weight is at most 1.
    """

    stochastic: bool = True
    horizon: int = 1
    terminal_value: bool = True


def svg(env: Env, config: SVGConfig = SVGConfig()) -> Agent:
    """A stochastic policy that climbs the return of recorded windows, whose noise is inferred, by a model's
    derivatives."""
    if config.terminal_value and config.horizon > 1:
        raise ValueError(
            f"horizon must be 1 with a terminal value, as a time limit inside a longer window looks like an end, got "
            f"{config.horizon}"
        )
    model = ensemble_of(env, config)
    learner = climber(env.spec, model, config)
    newest = env.spec.max_steps if config.fit_every is None else config.fit_every
    experience = recorded_windows(model, env.spec, learner, config.batch_size, newest)
    return climbing(env.spec, model, learner, config, trainer=trainer_of(model, config), experience=experience)


def recorded_windows(model: Model, spec: Spec, learner: BPTT, batch: int, newest: int) -> Callable:
    """``experience`` for ``agents.bptt.climbing``: windows of the ``newest`` real rows, repeated by the noise that made
    them."""
    world_of, _ = imagined(model, spec, branch=True)
    batch, length = checks.integer("batch_size", batch, 1), learner.horizon
    newest = checks.integer("fit_every", newest, length)

    def experience(key: Key, state: ImaginationState, policy: PyTree) -> tuple[World, PyTree, Record]:
        key_draw, key_encode = jax.random.split(key)
        rows = data.sample_sequences(key_draw, state.replay, batch, length, newest)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows.transition)
        shaped = lambda tree: jax.tree.map(lambda x: x.reshape(batch, length, *x.shape[1:]), tree)  # noqa: E731
        believed = lambda obs: shaped(beliefs_of(key_encode, model, spec, state.params, obs))  # noqa: E731
        real = recorded(model, state.params, rows, believed(flat.obs), believed(flat.next_obs), world_of(state).look)
        return real.world, real.starts, learner.record(policy, state.learner.policy, real.features, real.actions)

    return experience


SYSTEMS = (
    System("svg", SVGConfig, svg, "value gradients along real trajectories, SVG(1) and SVG(inf) (Heess et al. 2015)"),
)
