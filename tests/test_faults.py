"""Bad inputs and faults: each row of docs/faults.md that no other test shows, and that the table is true."""

import ast
import re
import signal
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jmbrl import agents, checks, data, envs, learners, models, planners, progress, records
from jmbrl.envs import spaces
from jmbrl.lanes import Programs, _explained, seed_keys, state_bytes
from jmbrl.rollout import imagine, objective
from jmbrl.train import make_train
from jmbrl.types import Continuous, Discrete, Objective, Spec, Transition

from worlds import counter, line, tally

ROOT = Path(__file__).parents[1]
KEY = jax.random.key(0)
BOX = Spec("box", (2,), Continuous((-1.0,), (1.0,)), 10)
COINS = Spec("coins", (2,), Discrete(3), 10)


# ------------------------------------------------------------------------------------------ the table itself


def table() -> dict[int, list[str]]:
    rows = [[cell.strip() for cell in text.strip("|").split(" | ")] for text in faults_text().splitlines()]
    return {int(row[0]): row for row in rows if row[0].strip().isdigit()}


def faults_text() -> str:
    return (ROOT / "docs" / "faults.md").read_text()


def test_the_table_has_all_fifty_rows_and_each_says_something():
    rows = table()
    assert list(rows) == list(range(1, 51))
    for number, row in rows.items():
        assert len(row) == 4, number
        assert all(row), number
        assert "tests/" in row[3] or "not yet" in row[3], number


def test_every_test_that_the_table_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", faults_text())
    assert len(named) == faults_text().count("`tests/")
    found: dict[str, set[str]] = {}
    for file, name in named:
        if file not in found:
            tree = ast.parse((ROOT / file).read_text())
            found[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in found[file], f"{file} has no {name}"


# ------------------------------------------------------------------------------- what the world sends and is sent


def test_row_2_a_broken_reward_is_dropped_and_counted():
    def step(key, state, action):
        reward = jnp.where(state == 1, jnp.inf, 1.0)
        return state + 1, jnp.zeros(2), reward, False

    env = envs.from_functions(
        lambda key: (0, jnp.zeros(2)), step, action=BOX.action, max_steps=9, name="bad", obs_shape=(2,)
    )
    _, history = jax.jit(make_train(env, tally((100,)), 4))(KEY)
    np.testing.assert_array_equal(history["bad_transitions"][:, 0], [0, 1, 0, 1])
    assert np.nanmax(history["episode_return"]) == 1.0


@pytest.mark.parametrize("name", ["obs", "reward", "next_obs", "action"])
def test_row_3_a_number_that_float32_cannot_hold_is_refused_in_a_log(name):
    log = {
        "obs": np.zeros((2, 2)),
        "action": np.zeros((2, 1)),
        "reward": np.zeros((2, 1))[:, 0],
        "next_obs": np.zeros((2, 2)),
        "terminated": np.zeros(2, bool),
    }
    log[name][1] = 1e300
    with pytest.raises(ValueError, match=rf"{name} must be finite: row 1, .* is inf"):
        data.from_arrays(**log)


@settings(max_examples=40, deadline=None)
@example(low=5.33e-40, width=1.0, action=-1.0)
@given(
    st.floats(-1e4, 1e4, width=32),
    st.floats(2**-6, 1e4, width=32),
    st.floats(allow_nan=False, width=32, min_value=-100, max_value=100),
)
def test_row_4_any_action_lands_inside_any_bounds(low, width, action):
    space = checks.action_bounds([low], [low + width])
    sent = np.asarray(spaces.to_env(space, jnp.asarray([action], jnp.float32)))
    assert np.float32(space.low[0]) <= sent[0] <= np.float32(space.high[0])
    back = spaces.from_env(space, sent)
    resolution = 4 * np.finfo(np.float32).eps * (abs(low) + width) / width
    np.testing.assert_allclose(back, np.clip([action], -1, 1), atol=resolution + 1e-6)


def test_row_8_observations_of_another_structure_and_equal_size_are_refused():
    env = envs.from_functions(
        lambda key: (0, {"arm": jnp.zeros(2), "gap": jnp.zeros(())}),
        lambda key, state, action: (state, {"arm": jnp.zeros(2), "tip": jnp.zeros(())}, 0.0, False),
        action=BOX.action,
        max_steps=5,
        name="moody",
    )
    state, _ = env.reset(KEY)
    with pytest.raises(ValueError, match=r"observation of moody changes its structure: .*'gap'.*then .*'tip'"):
        env.step(KEY, state, jnp.zeros(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: learners.sac(COINS.action, 2), r"sac needs continuous actions, got Discrete\(n=3\); use .*cem"),
        (
            lambda: checks.discrete("mcts", BOX.action, "cem or random_shooting"),
            r"mcts needs discrete actions, got Continuous\(.*\); use cem or random_shooting",
        ),
        (lambda: agents.sac(counter_discrete()), "sac needs continuous actions"),
    ],
)
def test_row_13_a_method_that_does_not_fit_the_actions_names_those_that_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def counter_discrete():
    return envs.from_functions(
        lambda key: (0, jnp.zeros(2)),
        lambda key, state, action: (state, jnp.full(2, action, jnp.float32), 0.0, False),
        action=Discrete(3),
        max_steps=9,
        name="buttons",
        obs_shape=(2,),
    )


@pytest.mark.parametrize("make", [planners.cem, planners.random_shooting])
def test_row_13_both_planners_take_both_kinds_of_action(make):
    for spec in (BOX, COINS):
        planner = make(spec, horizon=2, population=4, **({"elites": 2} if make is planners.cem else {}))
        goal = lambda key, a: (jnp.sum(a.reshape(len(a), -1), axis=1) * 1.0, jnp.zeros((len(a), 0)), {})  # noqa: E731
        plan = jax.eval_shape(lambda key: planner.plan(key, planner.init(), objective_of(goal))[0], KEY)  # noqa: B023
        assert plan.shape == (2, *spec.action.shape)
        assert plan.dtype == (jnp.int32 if spec is COINS else jnp.float32)


def objective_of(returns):
    return Objective(returns, lambda *a: None, None)


def test_row_14_an_index_outside_is_clipped_in_jax_and_never_a_row_of_zeros():
    env = counter_discrete()
    state, _ = env.reset(KEY)
    for index, pressed in ((7, 2), (-1, 0)):
        _, seen = env.step(KEY, state, jnp.int32(index))
        np.testing.assert_array_equal(seen.obs, [pressed, pressed])


def log_of(action, reward=None, terminated=None, count=4):
    obs = np.arange(2.0 * count).reshape(count, 2)
    reward = obs[:, 0] if reward is None else np.asarray(reward)
    terminated = np.zeros(count, bool) if terminated is None else np.asarray(terminated)
    return data.from_arrays(obs, np.asarray(action), reward, obs + 2, terminated)


@pytest.mark.parametrize(
    ("space", "action", "message"),
    [
        (COINS.action, [0, 1, 2, 5], r"action lies in \[0, 3\) in 75.0% of 4 rows; first outside: row 3, 5"),
        (BOX.action, [[0.0], [2.0], [-1.0], [-2.0]], r"\[-1, 1\] \(envs.spaces.from_env .* in 50.0% of 4 rows.*row 1"),
    ],
)
def test_row_14_logged_actions_outside_their_space_are_told(space, action, message):
    with pytest.warns(data.AgreementWarning, match=message):
        assert data.check_actions(log_of(action), space) < 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.check_actions(log_of(np.zeros_like(action)), space) == 1.0


def test_row_14_logged_actions_of_another_type_are_refused():
    with pytest.raises(ValueError, match=r"action must be integer for Discrete\(n=3\), got float32"):
        data.check_actions(log_of(np.zeros(4)), COINS.action)
    with pytest.raises(ValueError, match=r"action has shape \(\), but the action space says \(1,\)"):
        data.check_actions(log_of([0, 1, 2, 2]), BOX.action)


# ------------------------------------------------------------------------------------- planners and imagination


@pytest.mark.parametrize(
    "use",
    [
        lambda h: planners.random_shooting(BOX, horizon=h).init(),
        lambda h: imagine(KEY, lambda *a: None, jnp.zeros(1), lambda *a: None, h),
        lambda h: agents.planet(line(), agents.PlaNetConfig(horizon=h)).warmup,
    ],
    ids=["random_shooting", "imagine", "planet"],
)
def test_row_20_a_traced_horizon_is_refused(use):
    with pytest.raises(ValueError, match="horizon must be a static Python integer, got a traced value"):
        jax.eval_shape(use, jnp.int32(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: agents.pets(line(), agents.PETSConfig(elites=501)), "elites must be at most 500, got 501"),
        (lambda: agents.pets(line(), agents.PETSConfig(population=0)), "population must be at least 2, got 0"),
        (lambda: planners.random_shooting(BOX, horizon=3, population=0), "population must be at least 2, got 0"),
        (lambda: models.ensemble(models.gaussian_mlp(BOX, (4,)), 3, elites=4), "elites must be at most 3, got 4"),
        (lambda: models.ensemble(models.gaussian_mlp(BOX, (4,)), 0), "n must be at least 1, got 0"),
    ],
)
def test_row_21_counts_that_cannot_be_are_refused_where_they_are_given(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def exploding(clip_range=2.0):
    """A model whose change is ten times the observation, with statistics of data in [-1, 1]."""
    model = models.deterministic_mlp(BOX, (), reward=lambda obs, action, nxt: -jnp.sum(nxt**2), clip_range=clip_range)
    params = model.init(KEY)
    kernel = jnp.zeros((3, 2)).at[0, 0].set(10.0).at[1, 1].set(10.0)
    params.weights["layers"][0].update(kernel=kernel, bias=jnp.zeros(2))
    high = params.stats.obs._replace(low=-jnp.ones(2), high=jnp.ones(2))
    return model, params._replace(stats=params.stats._replace(obs=high))


def test_row_30_a_rollout_that_explodes_stays_finite_and_is_counted():
    candidates = jnp.zeros((5, 60, 1))
    for clip_range, survives in ((2.0, True), (None, False)):
        model, params = exploding(clip_range)
        returns, _, info = objective(model, params, jnp.full(2, 0.5)).returns(KEY, candidates)
        assert np.isfinite(returns).all() == survives
        assert (info["clipped"] > 0.9) == survives


# ------------------------------------------------------------------------------------------- data and learning


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mpc(warmup=0), "warmup must be at least 1, got 0"),
        (lambda: agents.pets(line(), agents.PETSConfig(warmup=0)), "warmup must be at least 1, got 0"),
        (lambda: agents.mbpo(line(), agents.MBPOConfig(warmup=0)), "warmup must be at least 1, got 0"),
        (lambda: data.empty(BOX, 0), "capacity must be at least 1, got 0"),
    ],
)
def test_row_24_nothing_learns_from_an_empty_replay(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def mpc(**options):
    env = line()
    model = models.ensemble(models.gaussian_mlp(env.spec, (4,), reward=env.reward_fn), 2)
    planner = planners.cem(env.spec, horizon=3, population=8, elites=2, iterations=2)
    trainer = models.trainer(model, epochs=1, batch_size=4)
    return agents.mpc(env.spec, model, planner, **({"trainer": trainer, "particles": 2, "capacity": 40} | options))


def test_row_25_a_batch_larger_than_the_ring_draws_its_rows_again():
    drawn = data.sample(KEY, log_of(np.zeros((4, 1))), 100)
    assert set(drawn.reward.tolist()) == {0.0, 2.0, 4.0, 6.0}


def test_row_25_a_window_longer_than_the_ring_is_refused_before_it_is_compiled():
    model = models.rssm(BOX, deter=4, stoch=2, hidden=4)
    trainer = models.sequence_trainer(model, length=9, batch_size=2, updates=1)
    params = jax.eval_shape(model.init, KEY)
    with pytest.raises(ValueError, match="length must be at most the replay's capacity 8, got 9"):
        jax.eval_shape(lambda p: trainer.fit(KEY, p, trainer.init(p), data.empty(BOX, 8)), params)


def test_rows_26_and_29_a_constant_column_is_learned_from_and_saturation_reaches_the_metrics():
    rng = np.random.default_rng(0)
    obs = np.stack([rng.normal(size=40), np.full(40, 7.0)], axis=1)
    replay = data.from_arrays(obs, rng.uniform(-1, 1, (40, 1)), obs[:, 0], obs, np.zeros(40, bool))
    model = models.gaussian_mlp(BOX, ())
    trainer = models.trainer(model, epochs=1, batch_size=20)
    healthy = model.init(KEY)
    fit = jax.jit(lambda params: trainer.fit(KEY, params, trainer.init(params), replay))
    params, _, info = fit(healthy)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params.weights))
    assert params.stats.inputs.std[1] == 1.0
    assert info["skipped"] == 0
    assert info["logvar_saturated"] == 0
    stuck = jax.tree.map(jnp.copy, healthy)
    bias = stuck.weights["layers"][0]["bias"].at[3:].set(100.0)
    stuck.weights["layers"][0]["bias"] = bias
    assert fit(stuck)[2]["logvar_saturated"] == 1.0


def test_row_28_a_log_variance_that_runs_away_keeps_loss_and_gradient_finite():
    model = models.gaussian_mlp(BOX, ())
    flag = jnp.zeros(1, bool)
    row = Transition(jnp.ones((1, 2)), jnp.ones((1, 1)), jnp.ones(1), jnp.zeros((1, 2)), flag, flag)
    for raw in (-1e30, -1e4, 1e4, 1e30):
        params = model.init(KEY)
        params.weights["layers"][0]["bias"] = jnp.zeros(6).at[3:].set(raw)
        loss = lambda weights: model.loss(KEY, params._replace(weights=weights), row)[0]  # noqa: B023, E731
        value, grads = jax.value_and_grad(loss)(params.weights)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
        std = model.predict(params, jnp.zeros(2), jnp.zeros(1)).std
        assert np.all((std >= np.exp(-5.01)) & (std <= np.exp(0.26)))


# ---------------------------------------------------------------------------------------------- keys and seeds


def test_row_33_seeds_and_old_keys_become_keys():
    wanted = jax.random.key_data(jax.random.key(7))
    for given_ in (7, np.int64(7), jax.random.key(7), jax.random.PRNGKey(7), np.asarray([0, 7], np.uint32)):
        np.testing.assert_array_equal(jax.random.key_data(checks.key(given_)), wanted)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, r"key must be jax.random.key\(seed\) or an integer seed, got 0.5"),
        (True, "key must be jax.random.key"),
        (None, "key must be jax.random.key"),
        (jnp.zeros(2), "key must be jax.random.key"),
        (2**40, r"seed must be in \[0, 2\*\*32\), got 1099511627776: jax.random.key would wrap it silently"),
        (-1, r"seed must be in \[0, 2\*\*32\), got -1"),
        (jax.random.split(KEY, 3), r"key must be one key, got a batch of shape \(3,\): vmap the function over keys"),
    ],
)
def test_rows_33_34_35_what_is_no_single_key_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        checks.key(value)


def test_row_36_a_whole_run_acts_fits_and_restarts_without_using_a_key_twice():
    train = make_train(line(max_steps=4), mpc(warmup=4, fit_every=4, replan_every=2, action_noise=0.1), 8)
    with jax.debug_key_reuse(True):
        _, history = jax.jit(train)(KEY)
        with pytest.raises(jax.errors.KeyReuseError):  # the detector is on
            jax.jit(lambda key: jax.random.normal(key) + jax.random.uniform(key))(jax.random.key(1))
    assert np.isfinite(history["reward"]).all()


# -------------------------------------------------------------------------- functions that are given, not learned


def reads_first(obs, action, next_obs):
    return obs[0]


def test_row_38_a_true_reward_agrees_and_a_wrong_one_is_told_with_its_largest_error():
    replay = log_of(np.zeros((4, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.check_functions(replay, reads_first) == (1.0, 0.0, None)
    text = r"reward_fn agrees with the data in 25.0% of 4 rows; largest error 6 in row 3: seen 6, reward_fn 0"
    with pytest.warns(data.AgreementWarning, match=text):
        assert data.check_functions(replay, lambda o, a, n: 0.0 * o[0]) == (0.25, 6.0, None)
    with pytest.warns(data.AgreementWarning, match="in 0.0% of 4 rows; largest error nan"):
        data.check_functions(replay, lambda o, a, n: jnp.nan * o[0])


def test_row_37_another_tasks_termination_is_told_with_its_agreement():
    replay = log_of(np.zeros((4, 1)), terminated=[False, False, True, False])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.check_functions(replay, termination_fn=lambda o, a, n: o[0] == 4.0).termination == 1.0
    text = (
        r"termination_fn agrees with the data in 50.0% of 4 rows: 3 ends where 1 were seen; first in row 1: "
        "seen False, termination_fn True"
    )
    with pytest.warns(data.AgreementWarning, match=text):
        assert data.check_functions(replay, termination_fn=lambda o, a, n: o[0] > 1.0).termination == 0.5


def test_row_37_and_38_there_must_be_data_and_one_number_a_row():
    with pytest.raises(ValueError, match="replay must hold at least one valid row, got none"):
        data.check_functions(data.empty(BOX, 3), reads_first)
    with pytest.raises(ValueError, match=r"reward_fn must return one number for one row, got shape \(2,\)"):
        data.check_functions(log_of(np.zeros((4, 1))), lambda o, a, n: o)


def decides(obs, action, next_obs):
    return 1.0 if obs[0] > 0 else 0.0


HINT = "must be pure JAX, but it reads a number that is only known when it runs: use jnp.where for an if"


@pytest.mark.parametrize("function", [decides, lambda o, a, n: np.sin(o[0]), lambda o, a, n: float(o[0])])
@pytest.mark.parametrize("network", [models.gaussian_mlp, models.deterministic_mlp])
def test_row_39_a_reward_with_an_if_is_refused_at_construction_with_the_hint(network, function):
    with pytest.raises(ValueError, match=f"reward {HINT}"):
        network(BOX, (4,), reward=function)
    with pytest.raises(ValueError, match=f"termination {HINT}"):
        network(BOX, (4,), termination=function)


def test_row_39_also_where_it_is_put_into_a_model_or_compared_with_data():
    model = models.deterministic_mlp(BOX, ())
    params = model.init(KEY)
    for put, name in ((models.with_reward, "reward_fn"), (models.with_termination, "termination_fn")):
        with pytest.raises(ValueError, match=f"{name} {HINT}"):
            put(model, decides).step_many(KEY, params, jnp.zeros((3, 2)), jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match=f"reward_fn {HINT}"):
        data.check_functions(log_of(np.zeros((4, 1))), decides)


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda o, a, n: o, r"shape \(2,\)"),
        (lambda o, a, n: o[:1], r"shape \(1,\)"),
        (lambda o, a, n: None, "NoneType"),
    ],
)
def test_row_10_a_known_reward_of_another_shape_is_refused_at_construction(function, got):
    with pytest.raises(ValueError, match=f"reward must return one number for one row, got .*{got}"):
        models.gaussian_mlp(BOX, (4,), reward=function)


# ------------------------------------------------------------------------------------------- counters and memory


def test_row_47_steps_are_counted_exactly_beyond_two_to_the_24():
    start = 2**24 + 1  # the first integer that float32 does not have
    train = make_train(counter(length=5), tally((2,)), start + 4)
    _, metrics = jax.jit(train.chunk, static_argnums=(3, 4))(KEY, train.init(KEY), jnp.int32(start), 4, False)
    np.testing.assert_array_equal(metrics["phase0/step"], [start, start + 2])
    lanes = {name: np.asarray(value)[None] for name, value in metrics.items()}
    rows = records.chunk_rows(lanes, [0], start, start + 4)
    assert rows[-1]["env_steps"] == start + 4
    assert type(rows[-1]["env_steps"]) is int
    assert [span.start for span in make_train(counter(), tally((2**23,)), start).spans()] == [0, 2**23, 2**24]
    with pytest.raises(ValueError, match="steps must be at most 2147483647, got 2147483648"):
        make_train(counter(), tally((2,)), 2**31)


def test_row_45_the_second_interrupt_ends_at_once(capfd):
    with progress.stopping() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "Ctrl-C again ends at once" in capfd.readouterr().err


def test_row_48_memory_is_known_before_the_run():
    sizes = []
    for capacity in (1000, 2000):
        train = make_train(line(), mpc(capacity=capacity), 40)
        shapes = Programs(train, seed_keys(0, 3)[0]).abstract()
        sizes.append(state_bytes(shapes))
    row = 4 * (1 + 1 + 1 + 1) + 2 + 2  # obs, action, reward, next_obs; terminated, truncated; valid, is_first
    assert sizes[1] - sizes[0] == 3 * 1000 * row
    small = make_train(counter(), tally((4,)), 4)
    real = jax.vmap(small.init)(jax.random.split(KEY, 2))
    shapes = Programs(small, jax.random.split(KEY, 2)).abstract()
    assert state_bytes(shapes) == sum(x.nbytes for x in jax.tree.leaves(real))


def test_row_48_running_out_names_the_knobs():
    error = _explained(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes\na long dump"), 3_000_000_000)
    assert isinstance(error, MemoryError)
    assert str(error) == (
        "out of device memory (the largest program works with 3 GB beside the state); lower seeds, capacity, "
        "population, particles or num_envs: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"
    )
    other = RuntimeError("INTERNAL: something else")
    assert _explained(other, 0) is other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 40, "num_envs": 3}, "steps must be a multiple of num_envs=3, got 40"),
        ({"steps": 42, "num_envs": 3}, "warmup must be a multiple of num_envs=3, got 20"),
    ],
)
def test_row_50_copies_that_do_not_divide_the_steps_are_refused_with_both_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_train(line(), mpc(), **arguments)
