"""A run that explores and then turns to a task: when, what begins anew and what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents
from jmbrl.agents.plan2explore import turning
from jmbrl.train import make_train

from worlds import line

SETTINGS = {
    "deter": 4, "stoch": 2, "classes": 3, "hidden": 8, "units": 8, "blocks": 2, "batch_size": 4, "length": 5,
    "horizon": 3, "train_ratio": 4.0, "capacity": 64, "heads": 2, "head_hidden": (8,),
}  # fmt: skip


def test_a_run_turns_once_and_learns_the_task_from_what_it_has_seen():
    env = line()
    explorer = agents.plan2explore(env, agents.Plan2ExploreConfig(**SETTINGS))
    period, start = explorer.phases[0][0], explorer.warmup
    turn = start + period  # the first period's beginning after one step of exploring
    agent = turning(explorer, start + 1, updates=2)
    train = make_train(env, agent, turn)
    run = jax.jit(train.init)(jax.random.key(0))
    run, _ = jax.jit(train.chunk, static_argnums=(3, 4))(jax.random.key(0), run, 0, start, True)
    before, phase = run.agent, jax.jit(agent.phases[0][1])
    early, after, late = (phase(jax.random.key(1), before, jnp.asarray(at))[0] for at in (start, turn, turn + period))
    for state in (early, late):  # the phase is the explorer's own, which refits statistics and learns nothing
        assert (state.stats.intrinsic, state.stats.extrinsic) == (1.0, 0.0)
        jax.tree.map(np.testing.assert_array_equal, state.weights, before.weights)
    assert (after.stats.intrinsic, after.stats.extrinsic) == (0.0, 1.0)
    assert after.memory.updates == 2
    assert int(after.replay.replay.size) == int(before.replay.replay.size)
    # The model goes on from where it was, by two small steps; the actor begins anew.
    gap = lambda part: max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(leaves, part), strict=True))  # noqa: E731
    assert 0 < gap((after.weights["model"], before.weights["model"])) < 1e-3
    assert gap((after.weights["actor"], before.weights["actor"])) > 0.1


def leaves(tree):
    return jax.tree.leaves(tree)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="replay_value"):
        agents.plan2explore(line(), agents.Plan2ExploreConfig(**SETTINGS, replay_value=0.3))
    with pytest.raises(ValueError, match="explore_steps"):
        agents.plan2explore(line(), agents.Plan2ExploreConfig(**SETTINGS, explore_steps=0))
