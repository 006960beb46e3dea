"""Any model, any use: every model plans with every planner on a small linear-quadratic task, or refuses and says why.

The world is ``x' = x + a / 2`` with reward ``-x'^2`` from ``x = 0.9``: four steps of doing nothing cost 3.24, the best
plan 0.16. A pair passes when the plan, executed in the world itself, is at least half-way to the best.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl import data, envs, models, planners
from jmbrl.rollout import objective
from jmbrl.types import Params

from worlds import line

ENV = line()
SPEC, REWARD = ENV.spec, ENV.reward_fn
START, HORIZON = 0.9, 4
KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}  # compiling is what costs


def equation():
    return models.equations(
        SPEC, lambda x, a, theta: x + theta["gain"] * a, {"gain": models.Parameter(0.1, 2.0)}, reward=REWARD, steps=3
    )


def given(model):
    return models.with_reward(model, REWARD)


NET = {"hidden": (16,), "weight_decay": 0.0, "reward": REWARD}
FIT = {"optimizer": optax.adam(1e-2), "epochs": 60, "batch_size": 32}
WINDOWS = {"optimizer": optax.adam(1e-2), "updates": 300, "batch_size": 16, "length": 5}
MODELS = {
    "tabular": (lambda: models.tabular(SPEC, low=(-1.5,), high=(1.5,), bins=(15,), action_bins=5, reward=REWARD), {}),
    "linear": (lambda: models.linear(SPEC, reward=REWARD), {}),
    "gp": (lambda: models.gp(SPEC, points=60, steps=20, reward=REWARD), {}),
    "gmm": (lambda: models.gmm(SPEC, components=3, iterations=10, reward=REWARD), {}),
    "equations": (equation, WINDOWS),
    "residual": (lambda: models.residual(equation(), (8,)), WINDOWS),
    "deterministic_mlp": (lambda: models.deterministic_mlp(SPEC, **NET), FIT),
    "gaussian_mlp": (lambda: models.gaussian_mlp(SPEC, **NET), FIT),
    "mixture_mlp": (lambda: models.mixture_mlp(SPEC, components=2, **NET), FIT),
    "multistep": (lambda: models.multistep(models.deterministic_mlp(SPEC, **NET), 3), WINDOWS),
    "ensemble_ts1": (lambda: models.ensemble(models.gaussian_mlp(SPEC, **NET), 3), FIT),
    "ensemble_of_tables": (
        lambda: models.ensemble(
            models.tabular(SPEC, low=(-1.5,), high=(1.5,), bins=(15,), action_bins=5, reward=REWARD), 2
        ),
        {},
    ),
    "ensemble_of_lines": (lambda: models.ensemble(models.linear(SPEC, reward=REWARD), 3, propagation="tsinf"), {}),
    "history": (lambda: models.history(models.deterministic_mlp, SPEC, 2, **NET), WINDOWS),
    "recurrent": (lambda: models.recurrent(SPEC, memory=8, hidden=(16,), reward=REWARD), WINDOWS),
    "rssm": (lambda: given(models.rssm(SPEC, deter=8, stoch=2, hidden=16)), WINDOWS | {"updates": 20}),
    "simulator": (lambda: models.simulator(ENV), None),
}
PLANNERS = {
    "random_shooting": lambda: planners.random_shooting(SPEC, horizon=HORIZON, population=200),
    "cem": lambda: planners.cem(SPEC, horizon=HORIZON, population=60, elites=8, iterations=3),
    "icem": lambda: planners.icem(SPEC, horizon=HORIZON, population=40, elites=6, iterations=3),
    "mppi": lambda: planners.mppi(SPEC, horizon=HORIZON, population=60, iterations=3),
    "policy_mppi": lambda: planners.policy_mppi(SPEC, horizon=HORIZON, population=60, elites=8, iterations=3),
    "tree_search": lambda: planners.tree_search(SPEC, horizon=HORIZON, simulations=300),
    "gradient": lambda: planners.gradient(SPEC, horizon=HORIZON, restarts=3, steps=15, learning_rate=0.2),
    "ilqr": lambda: planners.ilqr(SPEC, horizon=HORIZON, iterations=5),
}
# A memory of twenty updates knows nothing yet: its plans are only asked to be plans.
UNTRAINED = {"rssm"}


@pytest.fixture(scope="module")
def replay():
    rng = np.random.default_rng(0)
    x, action, is_first = [], [], []
    for t in range(300):  # sixty pieces of five steps that stay inside the table
        at = rng.uniform(-1.2, 1.2) if t % 5 == 0 else float(np.clip(x[-1] + 0.5 * action[-1], -1.4, 1.4))
        x.append(at)
        action.append(rng.uniform(-1, 1))
        is_first.append(t % 5 == 0)
    x, action = np.asarray(x, np.float32)[:, None], np.asarray(action, np.float32)[:, None]
    following = np.clip(x + 0.5 * action, -1.4, 1.4)
    ended = np.roll(np.asarray(is_first), -1)
    return data.from_arrays(x, action, -(following[:, 0] ** 2), following, np.zeros(300, bool), truncated=ended)


@pytest.fixture(scope="module", params=MODELS)
def fitted(request, replay):
    make, options = MODELS[request.param]
    model = make()
    params = model.init(KEY)
    if options is not None:
        trainer = models.trainer_for(model, **options)
        params, _, info = jax.jit(trainer.fit)(KEY, params, trainer.init(params), replay)
        assert info["diverged"] == 0
    return request.param, model, params


def believe(model, params: Params):
    """What the model believes after one look at the start."""
    obs = jnp.asarray([START])
    if model.loss is None and model.fit is None:
        state = jax.tree.map(lambda x: x, model.initial(params)[0])
        obs = envs.StateObs(obs, jax.tree.map(lambda x: jnp.full_like(x, START) if x.ndim else x, state))
    return model.encode(KEY, params, model.initial(params), jnp.zeros(1), obs, jnp.asarray(True))


def true_return(plan) -> float:
    x, total = START, 0.0
    for a in np.asarray(plan)[:, 0]:
        x += 0.5 * float(a)
        total -= x**2
    return total


@pytest.mark.parametrize("planner", PLANNERS)
def test_the_pair_plans_or_says_why_not(fitted, planner):
    name, model, params = fitted
    search = PLANNERS[planner]()

    def decide(key):
        goal = objective(model, params, believe(model, params), particles=4 if model.members else 1)
        return search.plan(key, search.init(), goal)

    if planner in ("gradient", "ilqr") and model.no_gradient:
        with pytest.raises(ValueError, match=r"(?s)derivative.*(cem|icem|mppi)"):
            decide(KEY)
        return
    plan, _, info = jax.jit(decide, compiler_options=FAST)(KEY)
    assert plan.shape == (HORIZON, 1)
    assert np.all(np.abs(plan) <= 1.0)
    assert int(info["nonfinite"]) == 0
    if name not in UNTRAINED:
        assert true_return(plan) > -1.7, (name, planner, np.asarray(plan)[:, 0])


def test_the_grid_holds_every_planner_and_every_model_factory():
    made = {name for name in planners.__all__ if not name[0].isupper()}
    assert made <= set(PLANNERS)
