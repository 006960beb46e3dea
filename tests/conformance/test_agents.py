"""What every named system promises, on a small line world."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, data, lanes
from jmbrl.stages import make_run

from worlds import line, picture_line

TINY = {
    "random": {},
    "pets": {
        "members": 2, "hidden": (8,), "weight_decay": (0.0, 0.0), "horizon": 3, "population": 8, "elites": 2,
        "iterations": 2, "particles": 2, "epochs": 2, "capacity": 64,
    },
    "mpc": {
        "model_options": {"hidden": (8,), "weight_decay": 0.0}, "members": 2, "horizon": 3, "particles": 2,
        "planner_options": {"population": 8, "elites": 2, "iterations": 2}, "trainer_options": {"epochs": 2},
        "capacity": 64,
    },
    "opax": {
        "members": 2, "hidden": (8,), "weight_decay": (0.0, 0.0), "horizon": 3, "population": 8, "elites": 2,
        "iterations": 2, "epochs": 2, "capacity": 64,
    },
    "gt_cem": {"horizon": 3, "population": 8, "elites": 2, "iterations": 2},
    "planet": {
        "deter": 4, "stoch": 2, "hidden": 8, "units": 8, "updates": 3, "batch_size": 4, "length": 5, "horizon": 3,
        "population": 8, "elites": 2, "iterations": 2, "capacity": 64,
    },
    "dreamer_v1": {
        "deter": 4, "stoch": 2, "hidden": 8, "units": 8, "batch_size": 4, "length": 5, "horizon": 3, "train_ratio": 4.0,
        "train_every": 10, "warmup": 20, "capacity": 64,
    },
    "dreamer_v2": {
        "deter": 4, "stoch": 2, "classes": 3, "hidden": 8, "units": 8, "batch_size": 4, "length": 5, "horizon": 3,
        "train_ratio": 4.0, "warmup": 20, "capacity": 64,
    },
    "dreamer_v3": {
        "deter": 4, "stoch": 2, "classes": 3, "hidden": 8, "units": 8, "blocks": 2, "batch_size": 4, "length": 5,
        "horizon": 3, "train_ratio": 4.0, "capacity": 64,
    },
    "plan2explore": {
        "deter": 4, "stoch": 2, "classes": 3, "hidden": 8, "units": 8, "blocks": 2, "batch_size": 4, "length": 5,
        "horizon": 3, "train_ratio": 4.0, "capacity": 64, "heads": 2, "head_hidden": (8,), "explore_steps": 25,
        "task_updates": 2,
    },
    "mbpo": {
        "members": 2, "elites": 1, "hidden": (8,), "weight_decay": (0.0, 0.0), "epochs": 2, "model_batch_size": 8,
        "rollouts": 16, "retain": 1, "policy_hidden": (8,), "batch_size": 8, "updates": 1, "fit_every": 20,
        "warmup": 20, "rollout": (0, 1, 1, 2), "epoch": 20, "capacity": 64,
    },
    "mopo": {
        "members": 2, "elites": 1, "hidden": (8,), "weight_decay": (0.0, 0.0), "epochs": 2, "model_batch_size": 8,
        "rollouts": 8, "retain": 1, "length": 2, "policy_hidden": (8,), "batch_size": 8, "updates": 4,
        "round_updates": 2, "evaluations": 1, "test_episodes": 3,
    },
    "bc": {"hidden": (8,), "batch_size": 8, "epochs": 2, "every": 1, "test_episodes": 3},
    "slbo": {
        "hidden": (8,), "model_updates": 4, "model_batch_size": 8, "policy_hidden": (8,), "value_hidden": (8,),
        "value_batch_size": 20, "value_epochs": 1, "inner": 2, "policy_updates": 2, "imagined": 40, "horizon": 20,
        "fit_every": 20, "warmup": 20, "capacity": 64,
    },
    "bptt": {
        "members": 2, "hidden": (8,), "weight_decay": (0.0, 0.0), "epochs": 2, "model_batch_size": 8, "horizon": 3,
        "policy_hidden": (4,), "batch_size": 4, "updates": 2, "terminal_value": True, "capacity": 64,
    },
    "svg": {
        "members": 2, "hidden": (8,), "weight_decay": (0.0, 0.0), "epochs": 2, "model_batch_size": 8, "horizon": 3,
        "terminal_value": False, "policy_hidden": (4,), "batch_size": 4, "updates": 2, "capacity": 64,
    },
    "analytic": {"horizon": 3, "policy_hidden": (4,), "batch_size": 4, "updates": 2},
    "pilco": {
        "points": 32, "search_points": 16, "fit_steps": 3, "centres": 3, "horizon": 3, "searches": 2, "evaluations": 4,
        "restarts": 1, "capacity": 64,
    },
    "ilqg": {"samples": 1, "past": 3, "clusters": 1, "em_iterations": 2},
    "gps": {
        "samples": 1, "past": 3, "clusters": 1, "em_iterations": 2, "hidden": (8,), "clock": True, "updates": 5,
        "batch_size": 8,
    },
    "mb_mpo": {
        "members": 2, "hidden": (8,), "epochs": 2, "model_batch_size": 8, "tasks": 4, "paths": 2, "horizon": 3,
        "meta_steps": 2, "policy_hidden": (4,), "fit_every": 20, "warmup": 20, "capacity": 64,
    },
    "mb_mf": {
        "hidden": (8,), "epochs": 2, "batch_size": 8, "horizon": 3, "population": 8, "policy_hidden": (8,),
        "imitation_epochs": 2, "imitation_batch_size": 8, "learner": "ppo", "learner_options": {"minibatches": 2},
        "warmup": 10, "fit_every": 10, "mpc_steps": 10, "dagger_iterations": 1, "dagger_steps": 10, "batch": 20,
        "capacity": 64,
    },
    "me_trpo": {
        "members": 2, "hidden": (8,), "epochs": 2, "model_batch_size": 8, "policy_hidden": (8,), "horizon": 4,
        "batch": 16, "updates": 2, "validate_every": 2, "validation": 2, "fit_every": 20, "warmup": 20, "capacity": 64,
    },
    "world_models": {
        "episodes": 1, "rounds": 2, "latent": 2, "channels": (2, 2), "vision_updates": 2, "vision_batch_size": 4,
        "hidden": 4, "memory_updates": 2, "memory_batch_size": 2, "length": 3, "population": 4, "rollouts": 1,
        "generations": 2, "train_in": "dream", "dream_horizon": 3, "check_rollouts": 2, "test_episodes": 1,
    },
    "td_mpc2": {
        "latent": 8, "encoder_hidden": 8, "hidden": 8, "critics": 2, "bins": 5, "batch_size": 4, "population": 8,
        "proposals": 2, "elites": 2, "iterations": 2, "warmup": 20, "capacity": 64,
    },
    "mcts": {"action_bins": 2, "simulations": 4, "playout": 3},
    "alphazero": {
        "simulations": 4, "samples": 3, "channels": 0, "units": 8, "bins": 5, "limit": 3.0, "n_step": 3,
        "batch_size": 4, "updates": 0.1, "capacity": 64,
    },
    "muzero": {
        "simulations": 4, "samples": 3, "latent": 4, "units": 8, "bins": 5, "limit": 3.0, "unroll": 2, "n_step": 3,
        "consistency": True, "reanalyze": 0.5, "batch_size": 4, "updates": 0.1, "warmup": 20, "capacity": 64,
    },
    "sac": {
        "hidden": (8,), "batch_size": 8, "warmup": 20, "capacity": 64, "encoder": (8,), "auxiliary": {"spr": 2.0},
        "auxiliary_steps": 2,
    },
    "dqn": {
        "action_bins": 2, "hidden": (8,), "batch_size": 8, "warmup": 20, "capacity": 64, "n_step": 2, "updates": 0.5,
        "prioritized": True,
    },
    "ppo": {"hidden": (8,), "batch": 20, "epochs": 2, "minibatches": 2},
    "recurrent_ppo": {"hidden": (8,), "batch": 20, "epochs": 2, "minibatches": 2, "memory": 4, "length": 5},
    "trpo": {"hidden": (8,), "value_hidden": (8,), "batch": 20, "value_batch_size": 10},
    "dyna_q": {"low": -2.0, "high": 2.0, "bins": 5, "action_bins": 2, "planning_steps": 3},
    "prioritized_sweeping": {"low": -2.0, "high": 2.0, "bins": 5, "action_bins": 2, "outcomes": 2, "predecessors": 4},
}  # fmt: skip
PICTURES = ("world_models",)
OFFLINE = ("mopo", "bc")  # they see a log, and the environment in tests only
SIMULATED = ("gt_cem", "mcts", "alphazero")  # the simulator's world stays what it is
STEPS = 60
FAST = {"xla_backend_optimization_level": 0}  # compiling is what costs
KEY = jax.random.key(5)


def build(name, steps=STEPS, num_envs=1):
    """A run on the line, which breaks beyond 0.9, and sooner where few actions are random."""
    page = agents.SYSTEMS[name]
    config = page.config(**TINY[name])
    breaks = jnp.inf if name in SIMULATED else 0.6 if name in PICTURES else 0.9
    world = picture_line(breaks_beyond=breaks) if name in PICTURES else line(noise=0.01, breaks_beyond=breaks)
    env = page.wrap(world, config)
    agent = page.make(env, config, log_of_the_line()) if name in OFFLINE else page.make(env, config)
    return make_run(env, agent, steps, num_envs)


def log_of_the_line():
    """Forty rows that random actions might have left."""
    rng = np.random.default_rng(0)
    obs, action = rng.uniform(-0.8, 0.8, (40, 1)), rng.uniform(-1, 1, (40, 1))
    return data.from_arrays(obs, action, -((obs + 0.5 * action)[:, 0] ** 2), obs + 0.5 * action, np.zeros(40, bool))


@pytest.fixture(scope="module", autouse=True)
def compiled_without_optimising():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "COMPILER_OPTIONS", FAST)
        yield


def play(train, programs):
    """A whole run of one seed, chunk by chunk: the state and the chunks' metrics."""
    runs, parts = programs.init(), []
    for span in train.spans():
        runs, metrics = programs.chunk(runs, span)
        parts.append({name: values[0] for name, values in metrics.items()})
    return jax.tree.map(lambda x: x[0], runs[0]), parts


def test_every_system_is_tried():
    assert set(TINY) == set(agents.SYSTEMS)


@pytest.fixture(scope="module", params=sorted(TINY))
def case(request):
    """A system, its chunks compiled once, and one finished run."""
    train = build(request.param)
    programs = train.programs(KEY[None], [0], None)
    run, parts = play(train, programs)
    yield request.param, train, programs, run, parts
    programs.close()


def test_a_run_is_finite_and_exact_in_length(case):
    name, train, _, run, parts = case
    if name in PICTURES + OFFLINE:
        assert train.env_steps(train.steps) == STEPS
    else:
        assert sum(len(p["reward"]) for p in parts) == STEPS
        assert all(np.all(p["bad_actions"] == 0) for p in parts)
    weights = [x for x in jax.tree.leaves(run) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert not any(np.isnan(x).any() for x in weights)
    for name, values in parts[-1].items():
        if name.endswith(("skipped", "diverged", "nonfinite_loss", "nonfinite_grad")):
            assert np.all(values == 0), name


def test_the_same_key_gives_the_same_run_and_chunks_are_compiled_once(case):
    name, train, programs, run, _ = case
    count = len(programs._compiled)
    again, _ = play(train, programs)
    chex.assert_trees_all_equal(jax.tree.leaves(again)[:20], jax.tree.leaves(run)[:20])
    assert len(programs._compiled) == count, name


def test_another_key_gives_another_run(case):
    _, train, programs, _, parts = case
    other = train.programs(jax.random.key(6)[None], [0], None)
    other._compiled = programs._compiled
    span = train.spans()[0]
    _, metrics = other.chunk(other.init(), span)
    name = next(name for name in ("reward", "episode_return", "model/mse", "learner/loss") if name in metrics)
    assert not np.array_equal(metrics[name][0], parts[0][name])
    other.close()


def test_exploitation_is_deterministic_but_for_its_key_and_records_nothing(case):
    _, train, _, run, _ = case
    agent = train.agent
    carry = agent.reset(run.agent)
    obs = train.env.reset(KEY)[1]
    act = jax.jit(agent.act, static_argnums=5)
    first, second = (act(KEY, run.agent, carry, obs, jnp.asarray(True), False)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.all(np.abs(first) <= 1)
    chex.assert_trees_all_equal_shapes_and_dtypes(act(KEY, run.agent, carry, obs, jnp.asarray(True), True)[1], carry)


def test_broken_observations_are_dropped_and_never_learned_from(case):
    """An episode of the line lasts 20 steps unless its observation breaks, which random actions soon bring about."""
    name, train, _, run, parts = case
    counted = [p for p in parts if "bad_transitions" in p]
    broken = sum(p["bad_transitions"].sum() for p in counted)
    early, whole = (
        sum(among(p["episode_length"]).sum() for p in counted)
        for among in (lambda n: (n > 0) & (n < 20), lambda n: n == 20)
    )
    assert early <= broken <= early + whole  # it may break in its last step
    assert (broken == 0) == (name in SIMULATED + OFFLINE)
    learned = run.agent if train.agent.params is None else train.agent.params(run.agent).weights
    weights = [x for x in jax.tree.leaves(learned) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(np.isfinite(x).all() for x in weights)


@pytest.mark.parametrize("name", ["pets", "dyna_q", "prioritized_sweeping"])
def test_several_environments_and_several_seeds(name):
    train = build(name, num_envs=2)
    keys = jax.random.split(KEY, 2)
    run = jax.jit(jax.vmap(train), compiler_options=FAST)
    _, history = run(keys)
    assert history["reward"].shape == (2, STEPS // 2, 2)
    _, reverse = run(keys[::-1])
    np.testing.assert_array_equal(history["reward"], reverse["reward"][::-1])
