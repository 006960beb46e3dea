"""The ``mpc`` system: any model with any planner, both chosen by name, so that a run can be one line of a shell."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import optax

from jmbrl import checks, envs, models, planners, rollout
from jmbrl.agents.mpc import mpc
from jmbrl.agents.system import System, stacked
from jmbrl.types import Agent, Env, Model, Planner, Spec


def history(
    spec: Spec, frames: int = 3, *, reward: Callable | None = None, termination: Callable | None = None, **options: Any
) -> Model:
    """A Gaussian network on the last ``frames`` observations."""
    return models.history(models.gaussian_mlp, spec, frames, reward=reward, termination=termination, **options)


MODELS: dict[str, Callable] = {
    "deterministic_mlp": models.deterministic_mlp,
    "gaussian_mlp": models.gaussian_mlp,
    "mixture_mlp": models.mixture_mlp,
    "linear": models.linear,
    "gp": models.gp,
    "gmm": models.gmm,
    "tabular": models.tabular,
    "history": history,
    "recurrent": models.recurrent,
    "rssm": models.rssm,
    "world_model": models.world_model,
}
PLANNERS: dict[str, Callable] = {name: getattr(planners, name) for name in planners.__all__}
RISKS = ("mean", "worst", "mean_minus_spread")


@dataclasses.dataclass(frozen=True)
class MPCConfig:
    """Settings: a model and a planner by name, the options of each, and how they meet.

    ``model``: a key of ``MODELS``, or ``"simulator"`` for the true dynamics of a JAX environment. ``members`` above 0
    makes an ensemble of it. The environment's own reward and termination functions are used where it has them, unless
    ``learn_reward``. Options are those of the functions in ``jmbrl.models`` and ``jmbrl.planners``:
    ``--set model_options.hidden=64,64 --set planner_options.population=200``.
    """

    frames: int = 1  # observations stacked into one, where one does not tell the state
    # model
    model: str = "gaussian_mlp"
    model_options: dict = dataclasses.field(default_factory=dict)
    members: int = 0
    elites: int | None = None
    propagation: str = "ts1"
    learn_reward: bool = False
    learning_rate: float = 1e-3
    trainer_options: dict = dataclasses.field(default_factory=dict)
    # planner
    planner: str = "cem"
    horizon: int = 20
    planner_options: dict = dataclasses.field(default_factory=dict)
    particles: int = 1
    risk: str = "mean"
    risk_scale: float = 1.0  # of mean_minus_spread
    gamma: float = 1.0
    replan_every: int = 1
    action_noise: float = 0.0
    # schedule, in environment steps; None is one episode
    fit_every: int | None = None
    warmup: int | None = None
    capacity: int = 100_000
    # worlds that change: "cusum" forgets old rows at an alarm, "always" at every fit; the rest as in agents.mpc
    change: str | None = None
    change_options: dict = dataclasses.field(default_factory=dict)
    old_share: float = 0.0
    fewest: int = 100
    reset_weights: bool = False


def mpc_by_name(env: Env, config: MPCConfig = MPCConfig()) -> Agent:
    """Model-predictive control with the model and the planner that ``config`` names."""
    model = make_model(env, config)
    trainer = None
    if model.loss is not None or model.fit is not None:
        options = {"optimizer": optax.adam(config.learning_rate), **config.trainer_options}
        trainer = models.trainer_for(model, **options)
    return mpc(
        env.spec,
        model,
        make_planner(env.spec, config),
        trainer=trainer,
        particles=config.particles,
        gamma=config.gamma,
        reduce=reduction(config),
        replan_every=config.replan_every,
        action_noise=config.action_noise,
        fit_every=config.fit_every,
        warmup=config.warmup,
        capacity=config.capacity,
        change=models.change_detector(config.change, **config.change_options),
        old_share=config.old_share,
        fewest=config.fewest,
        reset_weights=config.reset_weights,
    )


def make_model(env: Env, config: MPCConfig) -> Model:
    """The model that ``config`` names, with the environment's reward and termination where it has them."""
    name = checks.choice("model", config.model, (*MODELS, "simulator"))
    if name == "simulator":
        return models.simulator(env)
    factory = MODELS[name]
    reward = None if config.learn_reward else env.reward_fn
    takes = inspect.signature(factory).parameters
    # Latent models learn their reward and end; a given one then replaces what they imagine.
    given = {"reward": reward, "termination": env.termination_fn}
    inside = {key: fn for key, fn in given.items() if key in takes}
    model = factory(env.spec, **{**inside, **config.model_options})
    if "reward" not in takes and reward is not None:
        model = models.with_reward(model, reward)
    if "termination" not in takes and env.termination_fn is not None:
        model = models.with_termination(model, env.termination_fn)
    return models.ensemble(model, config.members, config.elites, config.propagation) if config.members else model


def make_planner(spec: Spec, config: MPCConfig) -> Planner:
    """The planner that ``config`` names."""
    name = checks.choice("planner", config.planner, tuple(PLANNERS))
    return PLANNERS[name](spec, horizon=config.horizon, **config.planner_options)


def reduction(config: MPCConfig) -> Callable:
    """The attitude to risk, over particles."""
    name = checks.choice("risk", config.risk, RISKS)
    known: dict[str, Any] = {"mean": rollout.mean_return, "worst": rollout.worst_return}
    return known[name] if name in known else rollout.mean_minus_spread(config.risk_scale)


def _seen(env: Env, config: MPCConfig) -> Env:
    env = stacked(env, config)
    return envs.with_state(env) if config.model == "simulator" else env


SYSTEMS = (System("mpc", MPCConfig, mpc_by_name, "any model with any planner, both by name", _seen),)
