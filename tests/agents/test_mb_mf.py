"""MB-MF's stages on a line whose best action is known: what is labelled, what is cloned, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, data, envs
from jmbrl.agents.imitated_controller import newest
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Transition

from worlds import line

KEY = jax.random.key(0)
# x' = x + a / 2, reward -x'^2: the best action is -2x cut to [-1, 1], whatever comes after, so one step is planned.
SMALL = agents.MBMFConfig(
    hidden=(32,),
    learning_rate=1e-2,
    batch_size=32,
    epochs=50,
    horizon=1,
    population=100,
    action_noise=0.3,
    policy_hidden=(16,),
    initial_std=0.25,
    imitation_epochs=150,
    imitation_batch_size=32,
    imitation_learning_rate=1e-2,
    imitation_weight_decay=0.0,
    learner_options={"max_kl": 0.01},
    batch=80,
    gamma=0.9,
    warmup=40,
    fit_every=20,
    mpc_steps=60,
    dagger_iterations=2,
    dagger_steps=40,
    capacity=600,
)
PLANNED, IMITATED, END = 100, 180, 500
STATES = np.linspace(-1, 1, 21, dtype=np.float32)[:, None]
BEST = np.clip(-2 * STATES, -1, 1)


def run_of(env, config, steps):
    """The states before each period, by step, and the metrics of all periods."""
    agent = agents.mb_mf(env, config)
    train = make_train(env, agent, steps)
    chunk = jax.jit(train.chunk, static_argnums=(3, 4), compiler_options={"xla_backend_optimization_level": 0})
    run, states, parts = jax.jit(train.init)(KEY), {}, []
    for span in train.spans():
        run, metrics = chunk(KEY, run, jnp.int32(span.start), span.length, span.warmup)
        states[span.start + span.length] = run.agent
        if not span.warmup:
            parts.append(metrics)
    return agent, states, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(scope="module")
def trained():
    return run_of(line(), SMALL, END)


def test_the_stages_come_in_order_and_each_does_its_own(trained):
    _, _, history = trained
    steps = np.arange(40, END, 20)
    np.testing.assert_array_equal(history["stage"], np.where(steps < PLANNED, 0, np.where(steps < IMITATED, 1, 2)))
    # A fit before each period of planning and one for the labels: 2 to 4 batches of 32 from 40 to 100 rows, 50 times.
    np.testing.assert_array_equal(history["model/updates"][:5], [100, 100, 150, 200, 0])
    # 36, 72 and 108 labels are learned from, the others of 40, 80 and 120 are held back.
    imitated = dict(zip(steps.tolist(), history["imitate/updates"].tolist(), strict=True))
    assert {step: n for step, n in imitated.items() if n} == {100: 300, 140: 450, 180: 600}
    np.testing.assert_array_equal(np.isfinite(history["imitate/loss"]), history["imitate/updates"] > 0)
    np.testing.assert_array_equal(steps[history["learner/updates"] > 0], [260, 340, 420])
    assert np.isfinite(history["act/plan_return"]).sum() == SMALL.mpc_steps
    assert sum(history[f"{part}/skipped"].sum() for part in ("model", "imitate", "learner")) == 0


def test_labels_are_the_clean_plan_and_the_model_learns_what_was_executed(trained):
    _, states, _ = trained
    labels, ring = states[IMITATED + 20].labels, states[IMITATED + 20].mpc.replay
    np.testing.assert_array_equal(labels.obs, ring.data.obs[60:180, 0])  # the last 40 of planning, then 2 times 40
    assert labels.valid.all()
    best = np.clip(-2 * labels.obs, -1, 1)
    assert np.sqrt(np.mean((labels.action - best) ** 2)) < 0.1
    planned = ring.data.action[60:100, 0] - best[:40]
    assert np.std(planned[np.abs(best[:40]) < 0.5]) > 0.15  # noise of 0.3
    # The policy that visits states does not explore: it was cloned, and is off by little.
    assert np.sqrt(np.mean((ring.data.action[100:180, 0] - best[40:]) ** 2)) < 0.2


def test_the_clone_acts_as_the_controller_does(trained):
    agent, states, history = trained
    act = lambda x: agent.act(KEY, state, agent.reset(state), x, jnp.asarray(True), False)[0]  # noqa: E731
    state = states[IMITATED + 20]
    assert state.stage == 2
    np.testing.assert_allclose(jax.jit(jax.vmap(act))(STATES), BEST, atol=0.2)
    assert history["imitate/disagreement"][(IMITATED - 40) // 20] < 0.03
    np.testing.assert_allclose(jnp.exp(state.policy.learner.policy["log_std"]), 0.25, rtol=1e-5)


def test_going_on_without_the_model_loses_nothing(trained):
    agent, states, _ = trained
    score = jax.jit(lambda state: jnp.mean(evaluate(KEY, line(), agent, state, 100)["returns"]))
    first, second = (states[step].policy for step in (IMITATED + 20, IMITATED + 80 + 20))
    # The first batch is the value's, and inputs keep their units.
    jax.tree.map(np.testing.assert_array_equal, first.learner.policy, second.learner.policy)
    jax.tree.map(np.testing.assert_array_equal, first.seen, states[END].policy.seen)
    assert np.any(first.learner.baseline != second.learner.baseline)
    cloned, end = (score(states[step]) for step in (IMITATED + 20, END))
    # The best policy pays -1/24, doing nothing -6.67.
    assert cloned > -0.5
    assert end > cloned - 0.1
    policies = (jax.tree.leaves(policy.learner.policy) for policy in (first, states[END].policy))
    assert any(np.any(a != b) for a, b in zip(*policies, strict=True))


def test_discrete_actions_are_planned_and_cloned():
    env = envs.number_actions(line(), 3)  # -1, 0 and 1
    options = {"learner": "ppo", "learner_options": {"minibatches": 2}, "dagger_iterations": 0}
    agent = agents.mb_mf(env, dataclasses.replace(SMALL, imitation_epochs=300, **options))
    ((_, update),) = agent.phases
    x = jax.random.uniform(KEY, (5, 20, 1), minval=-1.0, maxval=1.0)
    action = jax.random.randint(KEY, (5, 20), 0, 3)
    after, flag = x + 0.5 * (action[..., None] - 1), jnp.zeros((5, 20), bool)
    rows = Transition(x, action, -(after[..., 0] ** 2), after, flag, flag)

    @jax.jit
    def imitated():
        record = lambda state, row: (agent.record(state, (), row, jnp.ones(20, bool)), None)  # noqa: E731
        state, info = update(KEY, jax.lax.scan(record, agent.init(KEY, 20), rows)[0], jnp.int32(PLANNED))
        act = lambda x: agent.act(KEY, state, agent.reset(state), x, jnp.asarray(True), False)[0]  # noqa: E731
        return state, info, jax.vmap(act)(jnp.asarray([[-0.9], [-0.6], [0.0], [0.6], [0.9]]))

    state, info, chosen = imitated()
    far = np.abs(np.abs(state.labels.obs[:, 0]) - 0.25) > 0.05  # from where the best action changes
    np.testing.assert_array_equal(state.labels.action[far], 1 + np.round(np.clip(-2 * state.labels.obs[far, 0], -1, 1)))
    np.testing.assert_array_equal(chosen, [2, 2, 1, 0, 0])
    assert info["imitate/disagreement"] <= 0.25  # one of the 4 held back
    assert (info["learner/updates"], state.stage) == (0, 2)
    assert np.isnan(info["learner/value_loss"])


def test_the_newest_rows_of_several_environments():
    ring = data.empty(line().spec, 3, 2)
    flag = jnp.zeros(2, bool)
    for t in range(5):
        x = jnp.asarray([[t], [10.0 + t]])
        ring = data.add(ring, Transition(x, x, x[:, 0], x, flag, flag), jnp.asarray([True, t != 4]))
    rows, valid = newest(ring, 4)
    np.testing.assert_array_equal(rows.reward, [3, 13, 4, 0])
    np.testing.assert_array_equal(valid, [True, True, True, False])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mpc_steps": 50}, "mpc_steps must be a multiple of fit_every=20, got 50"),
        ({"mpc_steps": 20}, "mpc_steps must be at least 40, got 20"),
        ({"dagger_steps": 30}, "dagger_steps must be a multiple of fit_every=20, got 30"),
        ({"dagger_iterations": -1}, "dagger_iterations must be at least 0"),
        ({"batch": 90}, "batch must be a multiple of fit_every=20, got 90"),
        ({"initial_std": 0.0}, "initial_std must be at least 0.001"),
        ({"imitation_epochs": 0}, "epochs must be at least 1"),
        ({"imitation_batch_size": 0}, "batch_size must be at least 1"),
        ({"imitation_weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"learner": "sac"}, "learner must be one of trpo, ppo; got 'sac'"),
        ({"learner_options": {"clip": 0.1}}, "learner_options must be one of max_kl, "),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        agents.mb_mf(line(), dataclasses.replace(SMALL, **change))


def test_refuses_what_does_not_fit_the_environments():
    agent = agents.mb_mf(line(), SMALL)
    with pytest.raises(ValueError, match="fit_every must be a multiple of num_envs=8, got 20"):
        agent.init(KEY, 8)
    small = agents.mb_mf(line(), dataclasses.replace(SMALL, capacity=39))
    with pytest.raises(ValueError, match="capacity must hold dagger_steps=40 rows, got 39"):
        small.init(KEY, 1)
