"""The cart pole against MuJoCo, step by step, and its reward, start and picture."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jmbrl.envs.functions import Timed
from jmbrl.envs.native import cartpole_swingup as task

# The paper's model: a cart on a damped rail with soft end stops, a capsule pole whose end is 1 mm off its axis.
MODEL = """
<mujoco>
  <compiler inertiafromgeom="true"/>
  <option gravity="0 0 -9.81" integrator="RK4" timestep="0.02"/>
  <default><joint damping="1"/><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <body>
      <joint name="slider" type="slide" axis="1 0 0" limited="true" range="-2.5 2.5"/>
      <geom type="capsule" size="0.1 0.1" euler="0 90 0"/>
      <body>
        <joint name="hinge" type="hinge" axis="0 1 0" limited="false"/>
        <geom type="capsule" fromto="0 0 0 0.001 0 -0.6" size="0.049"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slider" gear="100" ctrllimited="true" ctrlrange="-3 3"/></actuator>
</mujoco>
"""


def run_both(start: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[x, sin, cos, xdot, thetadot] after each action, from MuJoCo (float64) and from ours (float32)."""
    model = mujoco.MjModel.from_xml_string(MODEL)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start[:2], start[2:]
    theirs = []
    for action in actions:
        data.ctrl[:] = 3 * action
        for _ in range(2):
            mujoco.mj_step(model, data)
        (x, theta), velocity = data.qpos, data.qvel
        theirs.append([np.sin(theta), np.cos(theta), x, *velocity])
    env = task.make()
    state = Timed(task.State(jnp.float32(start[:2]), jnp.float32(start[2:])), jnp.int32(0))

    def step(state, action):
        state, timestep = env.step(jax.random.key(0), state, action)
        return state, timestep.obs

    _, ours = jax.jit(lambda s, a: jax.lax.scan(step, s, a))(state, jnp.float32(actions))
    return np.array(theirs), np.asarray(ours)


def test_fifty_random_steps_agree_with_mujoco():
    rng = np.random.default_rng(0)
    for _ in range(3):
        start = rng.normal(0, 0.1, 4)
        theirs, ours = run_both(start, rng.uniform(-0.3, 0.3, (50, 1)))
        assert np.abs(theirs[:, 2]).max() < 2.5, "this test is about the free motion"
        assert np.abs(theirs[:, 4]).max() > 1.0, "the pole has to move"
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_the_rails_end_stops_agree_with_mujoco():
    start = np.array([0.0, 0.1, 0.0, 0.0])
    theirs, ours = run_both(start, np.full((50, 1), 1.0))
    assert theirs[:, 2].max() > 2.5, "this test is about the end stop"
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_masses_are_mujocos():
    model = mujoco.MjModel.from_xml_string(MODEL)
    np.testing.assert_allclose(model.body_mass[1:], [task.CART_MASS, task.POLE_MASS], rtol=1e-6)


def test_starts_have_the_papers_spread_and_hang():
    env = task.make()
    states, obs = env.vector(2000).reset(jax.random.key(1))
    np.testing.assert_allclose(np.std(states.inner.position, axis=0), 0.1, rtol=0.1)
    np.testing.assert_allclose(np.std(states.inner.velocity, axis=0), 0.1, rtol=0.1)
    assert float(obs[:, 1].min()) > 0.85, "cos(theta) is 1 where the pole hangs"


def test_reward_is_one_upright_in_the_middle_and_small_when_hanging():
    upright = jnp.array([0.0, -1.0, 0.0, 0.0, 0.0])
    hanging = jnp.array([0.0, 1.0, 0.0, 0.0, 0.0])
    rest, push = jnp.zeros(1), jnp.ones(1)
    assert float(task.reward_fn(upright, rest, upright)) == pytest.approx(1.0)
    assert float(task.reward_fn(upright, rest, hanging)) == pytest.approx(np.exp(-4.0))
    assert float(task.reward_fn(upright, push, upright)) == pytest.approx(1.0 - 0.01 * 9)


def test_gradients_reach_the_action():
    env = task.make()
    state, _ = env.reset(jax.random.key(0))
    slope = jax.jit(jax.grad(lambda a: env.step(jax.random.key(0), state, a)[1].obs[3]))(jnp.zeros(1))
    # One control unit is 100 N on about 12 kg for 0.04 s, and the action's unit is three controls.
    assert 0.5 < float(slope[0]) < 1.5


def test_pictures_show_the_pole():
    env = task.make()
    up, down = (env.render(np.array([0.0, cos, 0.0, 0.0, 0.0])) for cos in (-1.0, 1.0))
    assert up.shape == (160, 240, 3)
    assert up.dtype == np.uint8
    red = [(image[..., 0] > 180) & (image[..., 1] < 110) for image in (up, down)]
    assert red[0][:72].sum() > 40
    assert red[0][88:].sum() == 0
    assert red[1][88:].sum() > 40
    assert red[1][:72].sum() == 0
