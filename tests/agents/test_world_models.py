"""World Models' stages on a line seen as pictures: what is kept, what is trained, what acts, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, envs, lanes, models, planners
from jmbrl.agents import world_models_stages as parts
from jmbrl.rollout import evaluate, objective
from jmbrl.stages import make_staged

from worlds import line, picture_line

KEY = jax.random.key(0)
SMALL = agents.WorldModelsConfig(
    episodes=24,
    collector="held",
    hold=3,
    latent=4,
    channels=(8, 16),
    vision_updates=200,
    vision_batch_size=32,
    vision_learning_rate=3e-3,
    hidden=8,
    memory_updates=200,
    memory_batch_size=16,
    length=10,
    memory_learning_rate=1e-2,
    inputs="z",
    strategy="cem",
    population=24,
    rollouts=4,
    sigma=1.0,
    weight_decay=0.0,
    generations=12,
    train_in="dream",
    check_every=5,
    check_rollouts=32,
    test_episodes=16,
    learn_termination=False,
)
STEPS = 20 * (24 + 16)
FAST = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="module", autouse=True)
def compiled_without_optimising():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "COMPILER_OPTIONS", FAST)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run in the dream: agent, state, history and the folder of its files."""
    env, directory = picture_line(), tmp_path_factory.mktemp("run")
    train = make_staged(env, agents.world_models(env, SMALL), STEPS)
    programs = train.programs(KEY[None], [0], directory)
    runs, found = programs.init(), []
    for span in train.spans():
        runs, metrics = programs.chunk(runs, span)
        found.append(metrics)
    names = {name for part in found for name in part}
    history = {name: np.concatenate([p[name][0] for p in found if name in p]) for name in names}
    return train.agent, jax.tree.map(lambda x: x[0], runs[0].agent), history, directory / "data" / "seed0"


def test_frames_on_disk_are_the_episodes_that_were_played(trained):
    _, state, history, folder = trained
    table = parts.frames(folder, picture_line().spec)
    assert len(table) == int(state.rows) == 24 * 21  # every episode's last frame too
    first, last = table.read("is_first"), table.read("is_last")
    np.testing.assert_array_equal(np.flatnonzero(first), np.arange(24) * 21)
    np.testing.assert_array_equal(np.flatnonzero(last), np.arange(24) * 21 + 20)
    # A reward is -x'^2, and the next frame shows x' to a tenth of the width of 4.
    column = np.argmax(table.read("obs")[:, 0, :, 0], axis=1)
    x = -2.0 + 4.0 / 9 * column
    rows = np.flatnonzero(~last & (np.abs(np.append(x[1:], 9)) < 1.9))
    position = np.sqrt(-table.read("reward")[rows])
    assert np.max(np.abs(np.abs(x[rows + 1]) - position)) <= 2.0 / 9 + 1e-5
    # x' = x + a / 2 (+ noise): actions belong to the row they were taken in.
    moved = x[rows + 1] - x[rows]
    assert np.corrcoef(moved, table.read("action")[rows, 0])[0, 1] > 0.8
    returns = np.add.reduceat(np.where(last, 0, table.read("reward")), np.arange(24) * 21)
    np.testing.assert_allclose(history["episode_return"][:24, 0], returns, rtol=1e-5)


def test_latents_are_the_encoder_s_of_every_frame(trained):
    _, state, history, folder = trained
    seen = parts.latents(folder, 4)
    assert len(seen) == int(state.rows) == history["encode/frames"].sum()
    obs = parts.frames(folder, picture_line().spec).read("obs")[[0, 257, 503]]
    vision = models.vae((10, 10, 1), latent=4, channels=(8, 16))
    mean, std = vision.encode(state.params.weights["vision"], obs)
    np.testing.assert_allclose(seen.read("mean")[[0, 257, 503]], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen.read("std")[[0, 257, 503]], std, rtol=1e-4, atol=1e-5)


def test_dreams_begin_with_first_frames_and_an_empty_memory(trained):
    agent, state, _, folder = trained
    firsts = parts.latents(folder, 4).read("mean")[np.arange(24) * 21]
    assert {tuple(row) for row in np.asarray(state.starts.mean)} == {tuple(row) for row in firsts}
    start = parts.starting(agent.model, state.params, state.starts)
    beliefs = jax.vmap(start)(jax.random.split(KEY, 500))
    assert not np.any(beliefs.h)
    assert not np.any(beliefs.c)
    spread = np.sqrt(np.var(firsts, axis=0) + np.mean(np.asarray(state.starts.std) ** 2, axis=0))
    np.testing.assert_allclose(np.std(beliefs.z, axis=0), spread, rtol=0.25)


def test_each_part_learns(trained):
    _, state, history, folder = trained
    for name in ("vision/loss", "memory/loss", "memory/reward_error"):
        assert np.mean(history[name][-20:]) < 0.85 * np.mean(history[name][:5]), name
    np.testing.assert_allclose(
        state.params.stats.reward.mean[0],
        parts.frames(folder, picture_line().spec).read("reward")[~np.tile(np.arange(21) == 20, 24)].mean(),
        rtol=1e-4,
    )
    assert np.sum(np.isfinite(history["controller/check"])) == 3  # after 5, 10 and 12 generations
    assert np.isfinite(state.evolution.champion_fitness)


def test_a_controller_of_dreams_is_good_in_truth(trained):
    """The line's best return from a uniform start in [-1, 1]: at most the first step is far away."""
    _, _, history, _ = trained
    random, tested = history["episode_return"][:24].mean(), history["episode_return"][-16:].mean()
    assert tested > 0.25 * random, (tested, random)


def test_it_acts_by_its_champion_on_what_it_filters(trained):
    agent, state, _, _ = trained
    obs = picture_line().reset(jax.random.key(3))[1]
    act = jax.jit(lambda carry: agent.act(KEY, state, carry, obs, jnp.asarray(True), False), compiler_options=FAST)
    action, (belief, last), _ = act(agent.reset(state))
    expected = jnp.tanh(state.evolution.champion[1:] @ belief.z + state.evolution.champion[0])
    np.testing.assert_allclose(action, expected[None], rtol=1e-5)
    np.testing.assert_array_equal(last, action)
    # An episode's start forgets whatever was carried.
    other = jax.tree.map(lambda x: x + 1.0, agent.reset(state))
    np.testing.assert_array_equal(act(other)[0], action)


@pytest.mark.parametrize("x", [-0.9, 0.9])
def test_a_planner_plans_through_the_dream(trained, x):
    """As through any model: from far out the way is back to the middle."""
    agent, state, _, _ = trained
    obs = np.tile(np.where(np.arange(10) == round((x + 2) / 4 * 9), 255, 0)[None, :, None], (10, 1, 1)).astype(np.uint8)
    planner = planners.cem(picture_line().spec, horizon=3, population=100, elites=10, iterations=4)

    def plan(obs):
        belief = agent.model.encode(KEY, state.params, *agent.reset(state), obs, jnp.asarray(True))
        target = objective(agent.model, state.params, belief, particles=8)
        return planner.plan(KEY, planner.init(), target)[0]

    assert np.sign(x) * jax.jit(plan, compiler_options=FAST)(obs)[0, 0] < -0.1


def test_in_the_true_world_candidates_are_worth_their_true_returns():
    """One generation of a controller that sees nothing (weights of 0): the fitness is the environment's own."""
    env = picture_line()
    config = dataclasses.replace(
        SMALL, train_in="world", sigma=1e-6, generations=3, population=4, rollouts=32, check_every=1, check_rollouts=64,
        collector="held", test_episodes=16,
        vision_updates=1, memory_updates=1,
    )  # fmt: skip
    per_generation = 20 * (4 * 32 + 64)
    train = make_staged(env, agents.world_models(env, config), STEPS + 2 * per_generation + 5)
    assert [(stage.name, stage.length, stage.env_steps) for stage in train.stages] == [
        ("collect", 24, 20), ("vision", 1, 0), ("encode", 24, 0), ("memory", 1, 0), ("controller", 2, per_generation),
        ("test", 16, 20),
    ]  # fmt: skip
    _, history = train(KEY)
    none = agents.SYSTEMS["random"].make(env, agents.SYSTEMS["random"].config())
    still = none._replace(act=lambda key, state, carry, *rest: (jnp.zeros(1), carry, {}))
    truth = evaluate(KEY, env, still, None, 500)["returns"]
    error = np.std(truth) / np.sqrt(32)
    np.testing.assert_allclose(history["controller/fitness_mean"], truth.mean(), atol=5 * error)
    np.testing.assert_array_equal(history["episode_return"][24:26, 0], history["controller/fitness_mean"])


def test_a_second_round_keeps_its_data_and_searches_on():
    env = picture_line()
    twice = dataclasses.replace(SMALL, rounds=2)
    train = make_staged(env, agents.world_models(env, twice), 20 * (2 * 24 + 16))
    assert [(stage.name, stage.length) for stage in train.stages[4:8]] == [
        ("controller", 12), ("collect 2", 24), ("vision 2", 200), ("encode 2", 48),
    ]  # fmt: skip
    assert train.env_steps(train.steps) == 20 * (2 * 24 + 16)
    with pytest.raises(ValueError, match="steps must be at least 1280: 48 episodes to collect"):
        make_staged(env, agents.world_models(env, twice), 1279)


def test_too_few_steps_and_bad_settings_are_refused():
    env = picture_line()
    with pytest.raises(ValueError, match=r"steps must be at least 800: 24 episodes to collect and 16 to test.*got 799"):
        make_staged(env, agents.world_models(env, SMALL), 799)
    world = dataclasses.replace(SMALL, train_in="world")
    needed = 800 + 20 * (24 * 4 + 7)
    with pytest.raises(ValueError, match=rf"at least {needed}: .*and a generation; got {needed - 1}"):
        make_staged(env, agents.world_models(env, world), needed - 1)
    for change in ({"episodes": 0}, {"hold": 0}, {"check_every": 0}, {"copies": 0}, {"test_episodes": -1}):
        name = next(iter(change))
        with pytest.raises(ValueError, match=f"{name} must be.*got {change[name]}"):
            agents.world_models(env, dataclasses.replace(SMALL, **change))
    with pytest.raises(ValueError, match="world_model needs an image"):
        agents.world_models(line(), SMALL)


def test_windows_longer_than_the_data_are_refused(trained):
    agent, state, _, folder = trained
    stage = agent.stages(picture_line(), STEPS)[3]
    short = state._replace(rows=jnp.int32(10))
    with pytest.raises(ValueError, match="length must be below the number of frames, which is 10, got 10"):
        stage.advance(None, KEY, short, folder, 0, 1)
    with pytest.raises(ValueError, match="no frames to learn from"):
        agent.stages(picture_line(), STEPS)[1].advance(None, KEY, state._replace(rows=jnp.int32(0)), folder, 0, 1)


def test_frames_are_made_smaller_where_asked():
    big = picture_line()
    assert agents.SYSTEMS["world_models"].wrap(big, SMALL) is big
    small = agents.SYSTEMS["world_models"].wrap(big, dataclasses.replace(SMALL, resize=(5, 6)))
    assert small.spec.obs_shape == (5, 6, 1)
    colours = envs.make("dodge", size=16, channels=3)
    assert agents.SYSTEMS["world_models"].wrap(colours, dataclasses.replace(SMALL, grey=True)).spec.obs_shape[-1] == 1
    with pytest.raises(ValueError, match="CarRacing-v3"):
        agents.SYSTEMS["world_models"].wrap(big, dataclasses.replace(SMALL, view="car_racing"))
