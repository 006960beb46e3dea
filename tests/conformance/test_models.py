"""What every model promises, whatever family it is of."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, DISCRETE, batch, line_env, linear_replay, reward, termination

from jmbrl import data, envs, models
from jmbrl.cells import grid
from jmbrl.types import Cells, DataKind, Discrete, Outcome, Prediction, Spec, Transition

KEY = jax.random.key(0)
NETS = {"deterministic": models.deterministic_mlp, "gaussian": models.gaussian_mlp}
PROPAGATIONS = ("ts1", "tsinf", "mean")


def _models():
    for name, net in NETS.items():
        single = net(CONTINUOUS, (8, 8), reward=reward)
        yield f"{name}", CONTINUOUS, single
        yield f"{name}-learned", CONTINUOUS, net(CONTINUOUS, (8, 8), termination="learned")
        yield f"{name}-given", CONTINUOUS, net(CONTINUOUS, (8, 8), reward=reward, termination=termination)
        yield f"{name}-discrete", DISCRETE, net(DISCRETE, (8, 8))
        for propagation in PROPAGATIONS:
            yield f"{name}-{propagation}", CONTINUOUS, models.ensemble(single, 3, 2, propagation)
    yield "mixture", CONTINUOUS, models.mixture_mlp(CONTINUOUS, (8, 8), 2, termination="learned")
    entries = {"angles": (0,), "exogenous": (1,), "normalize_targets": True}
    yield "gaussian-entries", CONTINUOUS, models.gaussian_mlp(CONTINUOUS, (8, 8), **entries)
    members = models.ensemble(models.gaussian_mlp(CONTINUOUS, (8, 8)), 3, 2, "mean")
    yield "pessimistic-mopo", CONTINUOUS, models.pessimistic(members, penalty=0.5)
    yield "pessimistic-morel", CONTINUOUS, models.pessimistic(members, "morel", penalty=9.0, threshold=1.0)
    yield "curious-disagreement", CONTINUOUS, models.curious(members, extrinsic=0.5)
    yield "curious-information", CONTINUOUS, models.curious(members, "information_gain")
    count = models.counted(models.gaussian_mlp(CONTINUOUS, (8, 8)), models.simhash(CONTINUOUS, 4))
    yield "counted", CONTINUOUS, count
    yield "counted-ensemble", CONTINUOUS, models.ensemble(count, 3, 2)
    wrapped = models.with_termination(
        models.with_reward(models.deterministic_mlp(CONTINUOUS, (8,)), reward), termination
    )
    yield "wrapped", CONTINUOUS, wrapped
    yield "simulator", line_env().spec, models.simulator(line_env())
    yield from _solved()


def _numbers(spec: Spec) -> Cells:
    return grid(spec.obs_shape[0], -2.0, 2.0, 2)


def _solved():
    yield "tabular", CONTINUOUS, models.tabular(CONTINUOUS, low=-2.0, high=2.0, bins=2, action_bins=2)
    yield "transition_table", DISCRETE, models.transition_table(DISCRETE, _numbers(DISCRETE), outcomes=2)
    yield "linear", CONTINUOUS, models.linear(CONTINUOUS, reward=reward, angles=(0,), exogenous=(1,))
    yield "gmm", DISCRETE, models.gmm(DISCRETE, components=2, iterations=3, termination=termination)
    yield "gp", CONTINUOUS, models.gp(CONTINUOUS, points=10, steps=2)


CASES = [pytest.param(spec, model, id=name) for name, spec, model in _models()]
TRAINABLE = [case for case in CASES if case.values[1].loss is not None]
SOLVED = [case for case in CASES if case.values[1].fit is not None]
# step_many deals rows to members, or draws the noise of many rows at once: only these agree with step, row by row.
PLAIN = [case for case in CASES if case.id.startswith(("determ", "wrapped", "simulator")) and "-ts" not in case.id]


def rows(spec: Spec, model, count: int = 5):
    """Beliefs and actions of ``count`` rows, and parameters."""
    params = model.init(KEY)
    obs, actions = batch(spec, count)
    beliefs = jax.vmap(lambda one: belief_of(model, params, one))(0.5 * obs if simulates(model) else obs)
    return params, beliefs, actions


def simulates(model) -> bool:
    return model.loss is None and model.fit is None


def belief_of(model, params, obs):
    """What the model carries after it saw ``obs`` first."""
    seen = envs.StateObs(obs, obs) if simulates(model) else obs
    return model.encode(KEY, params, model.initial(params), None, seen, jnp.asarray(True))


def transitions(spec: Spec, count: int = 12) -> Transition:
    obs, action = batch(spec, count)
    return Transition(obs, action, obs[:, 0], obs + 0.1, obs[:, 0] > 1, jnp.zeros(count, bool))


@pytest.mark.parametrize(("spec", "model"), CASES)
def test_step_many_jit_trace_and_shapes(spec, model):
    params, beliefs, actions = rows(spec, model)
    with jax.debug_key_reuse(True):
        eager, outcome = model.step_many(jax.random.clone(KEY), params, beliefs, actions)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(model.step_many, n=1))
    compiled = step(KEY, params, beliefs, actions)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), (eager, outcome), compiled)
    jax.tree.map(np.testing.assert_array_equal, compiled, step(KEY, params, beliefs, actions))
    # What comes out goes in again, without another trace.
    chex.assert_trees_all_equal_shapes_and_dtypes(compiled[0], beliefs)
    step(KEY, params, compiled[0], actions)
    assert isinstance(outcome, Outcome)
    assert outcome.reward.shape == outcome.discount.shape == outcome.clipped.shape == (5,)
    assert outcome.cost.shape == (5, 0)
    assert outcome.reward.dtype == outcome.discount.dtype == jnp.float32
    assert np.all((outcome.discount >= 0) & (outcome.discount <= 1))
    chex.assert_tree_all_finite(compiled)


@pytest.mark.parametrize(("spec", "model"), CASES)
def test_vmap_of_step_is_a_loop(spec, model):
    params, beliefs, actions = rows(spec, model, 3)
    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(model.step, in_axes=(0, None, 0, 0)))(keys, params, beliefs, actions)
    step = jax.jit(model.step)
    for i in range(3):
        alone = step(keys[i], params, jax.tree.map(lambda x, i=i: x[i], beliefs), actions[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), together, alone)


@pytest.mark.parametrize(("spec", "model"), PLAIN)
def test_step_many_is_step(spec, model):
    params, beliefs, actions = rows(spec, model)
    together = jax.jit(model.step_many)(KEY, params, beliefs, actions)
    each = jax.jit(jax.vmap(model.step, in_axes=(None, None, 0, 0)))(KEY, params, beliefs, actions)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), together, each)


@pytest.mark.parametrize(("spec", "model"), CASES)
def test_belief_functions(spec, model):
    params, beliefs, actions = rows(spec, model, 2)
    initial = model.initial(params)
    one = jax.tree.map(lambda x: x[0], beliefs)
    chex.assert_trees_all_equal_shapes_and_dtypes(initial, one)
    obs = model.decode(params, one)
    assert obs.shape == spec.obs_shape
    seen = envs.StateObs(obs, one[0]) if simulates(model) else obs
    belief = jax.jit(model.encode)(KEY, params, initial, actions[0], seen, jnp.asarray(True))
    jax.tree.map(np.testing.assert_array_equal, belief, one)
    assert model.features(params, belief).ndim == 1


@pytest.mark.parametrize(("spec", "model"), TRAINABLE)
def test_loss_gradients_and_statistics(spec, model):
    params = model.init(KEY)
    batch_of_rows = transitions(spec)
    assert model.data_kind is DataKind.ROWS
    params = jax.jit(model.set_stats)(params, batch_of_rows, jnp.ones(12, bool))
    chex.assert_trees_all_equal_shapes_and_dtypes(params, model.init(KEY))
    grad = jax.jit(
        jax.value_and_grad(lambda w: model.loss(KEY, params._replace(weights=w), batch_of_rows), has_aux=True)
    )
    (loss, info), grads = grad(params.weights)
    chex.assert_tree_all_finite((loss, info, grads))
    assert all(np.shape(value) == () for value in info.values())
    assert any(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(("spec", "model"), TRAINABLE)
def test_gradients_flow_through_an_imagined_step(spec, model):
    params, beliefs, actions = rows(spec, model)

    def total(beliefs):
        following, outcome = model.step_many(KEY, params, beliefs, actions)
        return jnp.sum(following) + jnp.sum(outcome.reward)

    grads = jax.jit(jax.grad(total))(beliefs)
    chex.assert_tree_all_finite(grads)
    assert np.all(np.any(np.asarray(grads) != 0, axis=-1))


@pytest.mark.parametrize(("spec", "model"), TRAINABLE)
def test_predict(spec, model):
    params, beliefs, actions = rows(spec, model)
    prediction = jax.jit(jax.vmap(model.predict, in_axes=(None, 0, 0)))(params, beliefs, actions)
    assert isinstance(prediction, Prediction)
    assert prediction.mean.shape == prediction.std.shape == (5, *spec.obs_shape)
    assert prediction.reward_mean.shape == prediction.reward_std.shape == (5,)
    assert np.all(prediction.std >= 0)
    if model.expect is not None and not model.members:
        np.testing.assert_allclose(model.expect(params, beliefs, actions)[0], prediction.mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("spec", "model"), SOLVED)
def test_a_solved_model_fits_inside_a_program_over_seeds(spec, model):
    params, beliefs, actions = rows(spec, model)
    fit, seen = models.trainer_for(model).fit, transitions(spec)
    log = data.from_arrays(*(np.asarray(x) for x in seen), capacity=16)

    @jax.jit
    def run(key):
        def body(params, key):
            key_fit, key_step = jax.random.split(key)
            params, _, info = fit(key_fit, params, (), log)
            prediction = jax.vmap(model.predict, in_axes=(None, 0, 0))(params, beliefs, actions)
            return params, (info, model.step_many(key_step, params, beliefs, actions), prediction)

        return jax.lax.scan(body, params, jax.random.split(key, 2))

    after, (info, stepped, prediction) = jax.vmap(run)(jax.random.split(KEY, 2))
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.tree.map(lambda x: x[0], after), params)
    chex.assert_tree_all_finite((after.weights, info, stepped, prediction))
    assert np.all(info["diverged"] == 0)
    assert prediction.mean.shape == prediction.std.shape == (2, 2, 5, *spec.obs_shape)
    assert np.all(prediction.std >= 0)
    assert np.all((stepped[1].discount >= 0) & (stepped[1].discount <= 1))
    assert {x.dtype for x in jax.tree.leaves((after, info, stepped))} <= {np.dtype(t) for t in ("f4", "i4", "?")}


@pytest.mark.parametrize("model", [case.values[1] for case in TRAINABLE if case.id in ("gaussian", "gaussian-ts1")])
def test_bad_input_is_refused(model):
    params = model.init(KEY)
    with pytest.raises(ValueError, match="obs has shape"):
        model.encode(KEY, params, jnp.zeros(3), jnp.zeros(1), jnp.zeros(4), jnp.asarray(True))
    with pytest.raises(ValueError, match="action has shape"):
        model.step(KEY, params, jnp.zeros(3), jnp.zeros(2))


def test_simulator_is_the_environment():
    env = line_env()
    model = models.simulator(env)
    state = jnp.array([0.95])
    (state, obs), outcome = model.step(KEY, model.init(KEY), (state, state), jnp.array([1.0]))
    np.testing.assert_allclose((state[0], obs[0], outcome.reward), (1.05, 1.05, -(1.05**2)), rtol=1e-6)
    assert outcome.discount == 0.0


def test_simulator_refuses_what_it_cannot_copy():
    env = line_env()
    host = env._replace(spec=Spec("robot", (1,), Discrete(2), 10, host=True))
    with pytest.raises(ValueError, match="robot runs on the host"):
        models.simulator(host)
    model = models.simulator(env)
    with pytest.raises(ValueError, match=r"envs\.with_state"):
        model.encode(KEY, model.init(KEY), None, None, jnp.zeros(1), jnp.asarray(True))


def test_given_functions_replace_the_learned_ones():
    base = models.deterministic_mlp(CONTINUOUS, (8,))
    model = models.with_termination(models.with_reward(base, reward), termination)
    params, beliefs, actions = rows(CONTINUOUS, model)
    following, outcome = model.step_many(KEY, params, beliefs, actions)
    np.testing.assert_allclose(outcome.reward, jax.vmap(reward)(beliefs, actions, following), rtol=1e-6)
    np.testing.assert_allclose(outcome.discount, 1.0 - (following[:, 0] > 1.0))
    np.testing.assert_array_equal(following, base.step_many(KEY, params, beliefs, actions)[0])


@pytest.mark.parametrize("members", [0, 3])
def test_trainer_reuses_no_key(members):
    model = models.gaussian_mlp(CONTINUOUS, (8,))
    model = models.ensemble(model, members) if members else model
    trainer = models.trainer(model, epochs=2, holdout=0.2, patience=1)
    params = model.init(KEY)
    opt, replay = trainer.init(params), linear_replay(40)
    with jax.debug_key_reuse(True):
        jax.jit(trainer.fit)(jax.random.key(1), params, opt, replay)
