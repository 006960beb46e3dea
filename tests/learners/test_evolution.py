"""Evolution: controllers and refits by hand, optima that are known, ranks of what is broken, a world that is solved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners.on_policy_probes import FAST

from jmbrl import envs
from jmbrl.checkpoint import Checkpoints
from jmbrl.learners import evolution, linear_controller, population
from jmbrl.types import Continuous, Discrete

from worlds import line

BOX = Continuous((-1.0,), (1.0,))
PLANE = Continuous((-1.0, -2.0), (1.0, 3.0))
KEY = jax.random.key(0)


# ---------------------------------------------------------------------------------------- controllers


def test_a_controller_by_hand():
    """The bias of both outputs, then the weights of the first feature, then of the second."""
    controller = linear_controller(PLANE, 2)
    policy = jnp.asarray([0.1, -0.2, 1.0, 2.0, -0.5, 0.25])
    action = controller.act(policy, jnp.asarray([2.0, 4.0]))
    np.testing.assert_allclose(action, np.tanh([0.1 + 2.0 - 2.0, -0.2 + 4.0 + 1.0]), rtol=1e-6)
    deep = linear_controller(BOX, 2, hidden=(1,))
    action = deep.act(jnp.asarray([0.5, 1.0, -1.0, 0.25, 2.0]), jnp.asarray([3.0, 2.0]))
    np.testing.assert_allclose(action, [np.tanh(0.25 + 2.0 * np.tanh(1.5))], rtol=1e-6)


def test_discrete_actions_are_the_best_score():
    controller = linear_controller(Discrete(3), 1, bias=False)
    policy = jnp.asarray([-1.0, 0.5, 0.25])
    assert [int(controller.act(policy, jnp.asarray([x]))) for x in (2.0, -2.0)] == [1, 0]
    assert controller.act(policy, jnp.ones(1)).dtype == jnp.int32


def test_the_papers_numbers_of_parameters():
    car = Continuous((-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert linear_controller(car, 288).size == 867
    assert linear_controller(BOX, 1088, bias=False).size == 1088
    assert linear_controller(car, 32, hidden=(40,)).size == 33 * 40 + 41 * 3


def test_random_controllers_are_cauchy_and_the_start_is_zero():
    controller = linear_controller(BOX, 4000, bias=False)
    np.testing.assert_array_equal(controller.init(KEY), np.zeros(4000))
    # Half of Cauchy numbers lie within one scale of 0, as many as 0.5 of normal ones within 0.67.
    drawn = np.abs(controller.init(KEY, 0.01))
    assert abs(np.mean(drawn < 0.01) - 0.5) < 0.03
    assert abs(np.mean(drawn < 0.03) - 2 / np.pi * np.arctan(3)) < 0.03


def test_a_controller_of_another_width_is_refused():
    controller = linear_controller(BOX, 2)
    with pytest.raises(ValueError, match=r"policy has shape \(4,\), but linear_controller says \(3,\)"):
        controller.act(jnp.zeros(4), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"features has shape \(3,\), but linear_controller says \(2,\)"):
        controller.act(jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        linear_controller(BOX, 2, hidden=(0,))


# ------------------------------------------------------------------------------------------- searches

TARGET = np.asarray([0.5, -0.4, 0.3])


@pytest.mark.parametrize(
    ("strategy", "error", "width"),
    [("cma_es", 1e-3, [1e-3, 1e-3]), ("sep_cma_es", 1e-3, [1e-3, 1e-3]), ("cem", 0.02, [0.01, 0.01]),
     ("open_es", 0.15, [0.1, 1.0])],
)  # fmt: skip
def test_the_optimum_of_a_quadratic_is_found(strategy, error, width):
    """From a narrow and from a wide start, swept as an array."""

    def rollout(key, policies):
        return 5.0 - jnp.sum(jnp.asarray([1.0, 4.0, 9.0]) * (policies - jnp.asarray(TARGET)) ** 2, axis=1)

    def run(sigma):
        learner = evolution(BOX, 2, strategy=strategy, population=16, sigma=sigma, weight_decay=0.0, learning_rate=0.03)
        state = learner.init(KEY)
        return jax.lax.scan(lambda s, key: learner.update(key, s, rollout), state, jax.random.split(KEY, 100))

    state, info = jax.jit(jax.vmap(run), compiler_options=FAST)(jnp.asarray([0.1, 1.0]))
    np.testing.assert_allclose(state.search.mean, [TARGET, TARGET], atol=error)
    assert np.all(info["fitness_max"] <= 5.0)
    assert np.all(info["sigma"][:, -1] <= 1.001 * np.asarray(width))


def single(**options):
    """A policy is one number."""
    return evolution(BOX, 1, bias=False, population=4, **{"weight_decay": 0.0, **options})


POLICIES = jnp.asarray([[1.0], [3.0], [5.0], [100.0]])


def test_cross_entropy_by_hand():
    learner = single(strategy="cem", elite_share=0.5)
    state, info = learner.tell(learner.init(KEY), POLICIES, jnp.asarray([4.0, 3.0, 1.0, -2.0]))
    np.testing.assert_allclose(state.search.mean, [2.0])
    np.testing.assert_allclose(state.search.std, [1.0])
    np.testing.assert_allclose(learner.mean(state), [2.0])
    wanted = {"fitness_mean": 1.5, "fitness_max": 4.0, "fitness_min": -2.0, "sigma": 1.0, "updates": 1.0}
    assert {name: float(info[name]) for name in wanted} == wanted


def test_cross_entropy_keeps_some_width():
    learner = single(strategy="cem", elite_share=0.25, min_sigma=0.125)
    state, _ = learner.tell(learner.init(KEY), POLICIES, jnp.asarray([4.0, 3.0, 1.0, -2.0]))
    np.testing.assert_allclose((state.search.mean, state.search.std), [[1.0], [0.125]])


def test_what_is_broken_ranks_last_and_is_no_elite():
    learner = single(strategy="cem", elite_share=0.5, min_sigma=0.0)
    state, info = learner.tell(learner.init(KEY), POLICIES, jnp.asarray([jnp.nan, 2.0, -9.0, jnp.inf]))
    np.testing.assert_allclose((state.search.mean, state.search.std), [[4.0], [1.0]])
    assert (info["nonfinite_loss"], info["skipped"]) == (2, 0)
    assert (info["fitness_mean"], info["fitness_max"], info["fitness_min"]) == (-3.5, 2.0, -9.0)
    state, info = learner.tell(state, POLICIES, jnp.asarray([jnp.nan, 2.0, -jnp.inf, jnp.inf]))
    np.testing.assert_allclose((state.search.mean, state.search.std), [[3.0], [0.0]])
    kept, info = learner.tell(state, POLICIES, jnp.full(4, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    assert (info["nonfinite_loss"], info["skipped"]) == (4, 1)


def test_large_parameters_cost():
    """Fitness 1 and 1.05, less 0.1 times the mean squares 1 and 2: 0.9 and 0.85."""
    learner = evolution(BOX, 2, bias=False, population=4, strategy="cem", weight_decay=0.1, elite_share=0.25)
    policies = jnp.asarray([[1.0, -1.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.5]])
    state, info = learner.tell(learner.init(KEY), policies, jnp.asarray([1.0, 1.05, 0.0, 0.0]))
    np.testing.assert_allclose(state.search.mean, [1.0, -1.0])
    np.testing.assert_allclose(info["fitness_max"], 1.05)


def test_cma_es_takes_the_weighted_mean_of_the_better_half():
    """Weights log((P + 1) / 2) - log(rank), made to sum to 1 (Hansen 2016, equations 42 and 49)."""
    learner = evolution(BOX, 2, population=6, sigma=0.5, weight_decay=0.0)
    state = jax.jit(learner.init)(KEY)
    policies = np.asarray(jax.jit(learner.ask)(jax.random.key(1), state), np.float64)
    fitness = np.asarray([3.0, -1.0, 8.0, np.nan, 5.0, 2.0])
    tell = jax.jit(
        lambda fitness: learner.tell(state, jnp.asarray(policies, jnp.float32), fitness), compiler_options=FAST
    )
    new, info = tell(jnp.asarray(fitness, jnp.float32))
    weight = np.log(3.5) - np.log([1, 2, 3])
    np.testing.assert_allclose(learner.mean(new), weight / weight.sum() @ policies[[2, 4, 0]], rtol=1e-4)
    last, _ = tell(jnp.asarray(fitness, jnp.float32).at[3].set(-1e6))
    new, last = (x.search.replace(best_fitness=0.0) for x in (new, last))
    jax.tree.map(np.testing.assert_array_equal, new, last)
    assert info["nonfinite_loss"] == 1


def test_the_champion_is_replaced_by_better_ones_only_and_acts():
    learner = single(strategy="cem")
    state = learner.init(KEY)
    state = state._replace(search=state.search._replace(mean=jnp.asarray([0.5])))

    def acts(state):
        return float(learner.act(KEY, state, jnp.ones(1), False)[0][0])

    assert acts(state) == pytest.approx(np.tanh(0.5))
    state = learner.crown(state, jnp.asarray([1.0]), jnp.asarray(-7.0))
    assert (acts(state), state.champion_fitness) == (pytest.approx(np.tanh(1.0)), -7)
    for fitness in (-8.0, -7.0, jnp.nan, jnp.inf):
        assert acts(learner.crown(state, jnp.asarray([2.0]), fitness)) == pytest.approx(np.tanh(1.0))
    state = learner.crown(state, jnp.asarray([3.0]), jnp.asarray(-6.0))
    assert (acts(state), state.champion_fitness) == (pytest.approx(np.tanh(3.0)), -6)
    np.testing.assert_array_equal(learner.best(state), [3.0])
    np.testing.assert_array_equal(learner.mean(state), [0.5])


def test_a_state_can_be_donated_and_saved(tmp_path):
    learner = evolution(BOX, 2, population=4)
    update = jax.jit(
        lambda key, state: learner.update(key, state, lambda key, x: x[:, 0]), donate_argnums=1, compiler_options=FAST
    )
    state, _ = update(KEY, jax.jit(learner.init)(KEY))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.save(1, state)
    checkpoints.wait()
    _, restored, _ = checkpoints.restore(jax.eval_shape(lambda: state))
    checkpoints.close()
    (one, info), (other, _) = update(KEY, restored), update(KEY, state)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert info["updates"] == 1
    assert type(one.search) is type(other.search)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "pepg"}, "strategy must be one of cma_es, sep_cma_es, open_es, cem; got 'pepg'"),
        ({"population": 3}, "population must be at least 4, got 3"),
        ({"strategy": "open_es", "population": 5}, "population must be even for open_es, .* got 5"),
        ({"sigma": 0.0}, "sigma must be at least 1e-08, got 0.0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0.0"),
        ({"elite_share": 1.5}, "elite_share must be at most 1.0"),
        ({"min_sigma": -1.0}, "min_sigma must be at least 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        evolution(BOX, 2, **options)


def test_what_is_told_must_fit():
    learner = single(strategy="cem")
    with pytest.raises(ValueError, match=r"fitness has shape \(3,\), but evolution says \(4,\)"):
        learner.tell(learner.init(KEY), POLICIES, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"policies has shape \(4, 2\), but evolution says \(4, 1\)"):
        learner.tell(learner.init(KEY), jnp.zeros((4, 2)), jnp.zeros(4))


# --------------------------------------------------------------------------------- in the true world


def player(controller_act):
    def act(key, policy, carry, obs, is_first):
        return controller_act(policy, obs), carry + 1, {}

    return act


def fitness(key, policies, rollouts, env=None, **options):
    env = line() if env is None else env
    act = player(linear_controller(env.spec.action, env.spec.obs_shape[0], bias=False).act)
    return population.fitness(key, env, act, jnp.zeros(()), policies, rollouts, **options)


def return_from(start, gain, offset=0.0):
    """20 steps of x' = x + 0.5 tanh(gain x + offset), each costing x'^2."""
    x, total = np.asarray(start, np.float64), 0.0
    for _ in range(20):
        x = x + 0.5 * np.tanh(gain * x + offset)
        total = total - x**2
    return total


@pytest.mark.parametrize("num_envs", [None, 6, 2])
def test_returns_are_exact_and_candidates_meet_the_same_worlds(num_envs):
    """A controller of zeros stays where it starts, which tells the starts; no return depends on their sign."""
    gains = [0.0, -1.0, -0.25]
    run = jax.jit(lambda key, p: fitness(key, p, 4, num_envs=num_envs), compiler_options=FAST)
    found = np.asarray(run(KEY, jnp.asarray(gains)[:, None]))
    starts = np.sqrt(-found[0] / 20)
    assert found.shape == (3, 4)
    assert len(set(starts)) == 4
    np.testing.assert_allclose(found, [return_from(starts, gain) for gain in gains], rtol=1e-4)


def test_candidates_can_draw_worlds_of_their_own():
    run = jax.jit(lambda key, p: fitness(key, p, 2, common=False), compiler_options=FAST)
    found = np.asarray(run(KEY, jnp.zeros((3, 1))))
    assert len(set(found.ravel())) == 6


def test_candidates_of_a_host_environment_take_turns():
    env = envs.make("gymnasium:Pendulum-v1")
    try:
        run = jax.jit(lambda p: fitness(KEY, p, 2, env, max_steps=4))
        found = np.asarray(run(jnp.asarray([[0.5, -0.5, 0.1], [0.0, 0.0, 0.0], [0.5, -0.5, 0.1]])))
    finally:
        env.close()
    np.testing.assert_array_equal(found[0], found[2])
    assert len(set(found.ravel())) == 4


def test_a_world_is_solved_by_returns_alone():
    """Starts are uniform in [-1, 1]. Staying costs 20 / 3 on average; one step reaches 0 from half of them."""
    learner = evolution(BOX, 1, strategy="cem", population=16, sigma=0.5)
    act = player(learner.act_with)

    def worth(key, policies):
        return jnp.mean(population.fitness(key, line(), act, jnp.zeros(()), policies, 4), axis=1)

    def run(key):
        state = learner.init(key)
        return jax.lax.scan(lambda s, k: learner.update(k, s, worth), state, jax.random.split(key, 12))

    state, info = jax.jit(run, compiler_options=FAST)(KEY)
    offset, gain = np.asarray(learner.mean(state), np.float64)
    starts = np.linspace(-1.0, 1.0, 201)
    assert np.mean(return_from(starts, 0.0)) < -6.6
    assert np.mean(return_from(starts, gain, offset)) > -0.5
    assert info["fitness_mean"][-1] > info["fitness_mean"][0] + 2
    assert np.all(info["skipped"] == 0)


def test_bad_rollouts_are_refused():
    with pytest.raises(ValueError, match="num_envs must divide rollouts or be above, got num_envs 3 for 4 rollouts"):
        fitness(KEY, jnp.zeros((2, 1)), 4, num_envs=3)
    with pytest.raises(ValueError, match="rollouts must be at least 1, got 0"):
        fitness(KEY, jnp.zeros((2, 1)), 0)
