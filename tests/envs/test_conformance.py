"""Every adapter and wrapper keeps the same promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.envs import spaces

LIMIT = 25
MADE = {
    "cartpole_swingup": lambda: envs.make("cartpole_swingup", max_steps=LIMIT),
    "pendulum_masked": lambda: envs.make("pendulum_masked", max_steps=LIMIT),
    "pilco cart-pole": lambda: envs.make("pilco/cartpole", max_steps=LIMIT),
    "pilco pendulum": lambda: envs.make("pilco/pendulum", max_steps=LIMIT),
    "maze": lambda: envs.make("maze", max_steps=LIMIT),
    "blocking maze": lambda: envs.make("blocking_maze", change_at=2 * LIMIT, max_steps=LIMIT),
    "shortcut maze": lambda: envs.make("shortcut_maze", change_at=2 * LIMIT, max_steps=LIMIT),
    "windy gridworld": lambda: envs.make("windy_gridworld", kings=True, stochastic=True, max_steps=LIMIT),
    "rod": lambda: envs.make("rod", max_steps=LIMIT),
    "tictactoe": lambda: envs.make("tictactoe"),
    "connect four against chance": lambda: envs.make("connect_four", opponent="random"),
    "dodge": lambda: envs.make("dodge", size=16, max_steps=LIMIT),
    "gymnax continuous": lambda: envs.make("gymnax:Pendulum-v1", max_steps=LIMIT),
    "gymnax discrete": lambda: envs.make("gymnax:CartPole-v1", max_steps=LIMIT),
    "gymnax grid": lambda: envs.make("gymnax:Catch-bsuite", max_steps=8),
    "gymnax mountain car": lambda: envs.make("gymnax:MountainCarContinuous-v0", max_steps=LIMIT),
    "gymnasium continuous": lambda: envs.make("gymnasium:Pendulum-v1", max_steps=LIMIT),
    "gymnasium discrete": lambda: envs.make("gymnasium:CartPole-v1", max_steps=LIMIT),
    "gymnasium mujoco": lambda: envs.make("gymnasium:Reacher-v5", max_steps=LIMIT),
    "stacked": lambda: envs.frame_stack(envs.make("gymnax:Pendulum-v1", max_steps=LIMIT), 3),
    "frames of car racing": lambda: envs.frames(
        envs.make("car_racing", track=[(0, 0), (50, 0), (50, 50), (0, 50)], max_steps=LIMIT), size=(16, 16), grey=True
    ),
    "with state": lambda: envs.with_state(envs.make("gymnax:Pendulum-v1", max_steps=LIMIT)),
    "repeated": lambda: envs.action_repeat(envs.make("gymnax:Pendulum-v1", max_steps=LIMIT), 2),
}


@pytest.fixture(params=MADE.values(), ids=MADE.keys())
def env(request):
    made = request.param()
    yield made
    made.close()


def test_promises(env):
    """Types, determinism, true last observations, time limit, known functions, copies: all of check_env."""
    report = envs.check_env(env, steps=60)
    assert report.ok, str(report)
    assert not report.notes, "the time limit has to be reached"


def test_compiled_equals_eager_and_bad_actions_are_refused(env):
    key = jax.random.key(7)
    action = spaces.sample(key, env.spec.action)
    state, _ = env.reset(key)
    _, eager = env.step(key, state, action)
    state, _ = jax.jit(env.reset)(key)  # a host's state may be used once
    _, compiled = jax.jit(env.step)(key, state, action)
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="action"):
        env.step(key, state, jnp.zeros((5,)))


def test_names_are_listed_and_unknown_ones_get_a_hint():
    assert {"cartpole_swingup", "gymnax:Pendulum-v1", "brax:reacher", "gymnasium:Hopper-v5"} <= set(envs.names())
    for wrong, hint in (("Pendulm-v1", "gymnax:Pendulum-v1"), ("cartpole", "cartpole_swingup"), ("x:y", "names()")):
        with pytest.raises(ValueError, match=f"got '{wrong}'.*") as caught:
            envs.make(wrong)
        assert hint in str(caught.value)
    with pytest.raises(ValueError, match="gymnasium:Pendulum-v1"):
        envs.make("gymnasium:Pendulm-v1")


def test_registered_environments_are_made_by_name():
    envs.register("mine", lambda max_steps=9: envs.make("gymnax:Pendulum-v1", max_steps=max_steps))
    assert envs.make("mine", max_steps=4).spec.max_steps == 4
    assert "mine" in envs.names()
    for taken in ("mine", "cartpole_swingup", "gymnax:other"):
        with pytest.raises(ValueError, match="is taken"):
            envs.register(taken, lambda: None)


def test_an_environment_passes_through_make():
    env = envs.make("cartpole_swingup")
    assert envs.make(env) is env
    with pytest.raises(ValueError, match="made already"):
        envs.make(env, max_steps=3)


def test_playground_is_an_extra():
    try:
        import mujoco_playground  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install .jmbrl\[playground\]"):
            envs.make("playground:CheetahRun")
    else:
        assert envs.make("playground:PendulumSwingup").spec.max_steps == 1000
