"""The planning problems of the benchmark: sizes, and every planner and model family at equal cost."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jmbrl import checks, data, models, planners
from jmbrl.types import Continuous, Model, Params, Planner, Spec


class Preset(NamedTuple):
    """One ensemble and one planning problem; ``population * iterations`` is a decision's budget of sequences."""

    obs: int
    action: int
    members: int = 7
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    population: int = 350
    horizon: int = 15
    particles: int = 21
    iterations: int = 5


PRESETS = {
    "cartpole": Preset(4, 1),
    "halfcheetah": Preset(17, 6, horizon=30),
    "planners": Preset(4, 1),
    "models": Preset(4, 1, members=5, population=100, particles=5),
}
PLANNERS = ("random_shooting", "cem", "icem", "mppi", "gradient", "ilqr")
# ``ensemble`` is of gaussian_mlp. Single networks next, then what is solved, then what remembers.
MODELS = (
    "ensemble", "deterministic_mlp", "gaussian_mlp", "mixture_mlp",
    "linear", "gp", "gmm", "tabular",
    "history", "recurrent", "rssm",
)  # fmt: skip
NETWORKS = MODELS[:4]  # whose arithmetic is their matrices
# Forward and backward through the network; its weights get no gradient. None: the derivatives are counted otherwise.
PASSES = {"gradient": 2, "ilqr": None}
GRADIENT_STEPS = 24


def spec_of(preset: Preset) -> Spec:
    return Spec("bench", (preset.obs,), Continuous((-1.0,) * preset.action, (1.0,) * preset.action), 200)


def make_planner(name: str, preset: Preset) -> Planner:
    """The planner with as many sequences a decision as the preset's CEM, without an early stop.

    iCEM's population is the largest whose shrinking iterations and kept elites stay within the budget. The gradient
    planner's starts and steps multiply to it. iLQR, which improves a single sequence, keeps its own 10 iterations.
    """
    checks.choice("planner", name, PLANNERS)
    spec, horizon, population = spec_of(preset), preset.horizon, preset.population
    budget, elites = population * preset.iterations, max(1, population // 10)
    if name == "random_shooting":
        return planners.random_shooting(spec, horizon=horizon, population=budget)
    if name == "cem":
        return planners.cem(
            spec, horizon=horizon, population=population, elites=elites, iterations=preset.iterations, min_variance=0.0
        )
    if name == "icem":
        first = icem_population(budget, elites, preset.iterations)
        return planners.icem(
            spec, horizon=horizon, population=first, elites=min(elites, first), iterations=preset.iterations
        )
    if name == "mppi":
        return planners.mppi(spec, horizon=horizon, population=population, iterations=preset.iterations)
    if name == "gradient":
        steps = min(GRADIENT_STEPS, max(1, budget - 1))
        return planners.gradient(spec, horizon=horizon, restarts=max(1, budget // (steps + 1)), steps=steps)
    return planners.ilqr(spec, horizon=horizon)


def icem_population(budget: int, elites: int, iterations: int) -> int:
    """The largest first population of iCEM whose iterations evaluate at most ``budget`` sequences, at least 2."""
    defaults = {name: p.default for name, p in inspect.signature(planners.icem).parameters.items()}
    kept = int(defaults["keep"] * elites)

    def cost(population: int) -> int:
        size, total = population, 0
        for _ in range(iterations):
            total += size + kept
            size = max(2 * elites, int(size / defaults["decay"]))
        return total

    return max((n for n in range(2, budget + 1) if cost(n) <= budget), default=2)


def make_model(name: str, preset: Preset, propagation: str = "ts1", reward: Callable | None = None) -> Model:
    """A model of the family; an ensemble has the preset's members, every network its hidden layers.

    Args:
      reward: given to it where it takes one.
    """
    checks.choice("model", name, MODELS)
    spec, hidden = spec_of(preset), preset.hidden
    given: dict[str, Any] = {"reward": reward}
    if name == "ensemble":
        member = models.gaussian_mlp(spec, hidden, **given)
        return models.ensemble(member, preset.members, propagation=propagation)
    if name in NETWORKS:
        return getattr(models, name)(spec, hidden, **given)
    if name == "history":
        return models.history(models.gaussian_mlp, spec, 3, hidden=hidden, **given)
    if name == "rssm":
        model = models.rssm(spec)
        return model if reward is None else models.with_reward(model, reward)
    options: dict[str, dict[str, Any]] = {
        "gp": {"points": 200, "steps": 20},  # how well it fits is not measured
        "tabular": {"low": -3.0, "high": 3.0, "bins": 5, "action_bins": 3},
    }
    return getattr(models, name)(spec, **options.get(name, {}), **given)


def ready(model: Model, rows: data.Replay) -> Params:
    """Parameters to plan with: solved where the model is solved, else as they begin, with the data's statistics."""
    params = model.init(jax.random.key(1))
    if model.fit is not None:
        trainer = models.trainer(model)
        return jax.jit(trainer.fit)(jax.random.key(2), params, trainer.init(params), rows)[0]
    flat, count = data.rows(rows)
    return model.set_stats(params, flat, np.arange(len(flat.reward)) < count)


def replay(preset: Preset, rows: int) -> data.Replay:
    """Made-up rows that pull back to the origin."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, preset.obs)).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, preset.action)).astype(np.float32)
    following = (0.9 * obs + 0.1 * rng.normal(size=obs.shape)).astype(np.float32)
    return data.from_arrays(obs, action, obs[:, 0], following, np.zeros(rows, bool))
