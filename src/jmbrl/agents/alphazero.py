"""AlphaZero: search in the true rules, guided by a policy and a value that learn from it (Silver et al. 2018)."""

import dataclasses

import jax

from jmbrl import checks, envs, learners, models, networks
from jmbrl.agents.search_update import search_learner
from jmbrl.agents.searching import World, searching
from jmbrl.agents.system import System
from jmbrl.planners.tree import search_settings
from jmbrl.types import Agent, Array, Env, Params, PyTree


@dataclasses.dataclass(frozen=True)
class AlphaZeroConfig:
    """Settings; defaults are those of Pgx's AlphaZero for 9x9 Go (Koyamada et al. 2023, arXiv 2303.17503): 32
    simulations of Gumbel MuZero's search, six blocks of 128 channels, batches of 4,096 and Adam at 0.001.

    Continuous actions are searched by drawn candidates (Sampled MuZero).
    """

    # search
    simulations: int = 32
    method: str = "gumbel"  # or puct, AlphaZero's own
    considered: int = 16
    dirichlet_fraction: float = 0.25
    dirichlet_alpha: float = 0.3
    temperature: float = 1.0
    random_moves: float = 0.0  # chance of a random action while exploring
    samples: int = 20  # candidates of continuous actions
    # network
    channels: int = 128  # of the tower; 0: none, for vectors
    blocks: int = 6
    units: int = 256
    layers: int = 1
    bins: int | None = None  # of the value; None: 0 in a game of two (a number in (-1, 1)), else MuZero's 601
    limit: float = 300.0
    # learning
    gamma: float = 1.0
    n_step: int | None = None  # None: an episode, so that a game's outcome is the target
    bootstrap: str = "search"  # or network: what ends a return before the episode does
    value_scale: float = 1.0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 4096
    updates: float = 1 / 4096  # per environment step
    warmup: int = 0  # environment steps of random actions
    capacity: int = 100_000  # rows per environment


def alphazero(env: Env, config: AlphaZeroConfig = AlphaZeroConfig()) -> Agent:
    """Any JAX environment, seen ``with_state``; in a game of two it plays both sides."""
    spec = env.spec
    model = models.simulator(env)
    eyes = networks.trunk(
        spec.obs_shape, units=config.units, layers=config.layers, channels=config.channels, blocks=config.blocks
    )
    usual = 0 if spec.players == 2 else 601
    bins = usual if config.bins is None else config.bins
    reader = learners.policy_value(
        spec.action, eyes.units, units=config.units, bins=bins, limit=config.limit, samples=config.samples
    )
    n_step = spec.max_steps if config.n_step is None else checks.integer("n_step", config.n_step, 1)
    gamma = checks.number("gamma", config.gamma, 0.0, 1.0)

    def features(weights: PyTree, beliefs: PyTree) -> Array:
        return eyes.apply(weights["trunk"], beliefs[1])

    def plain(obs: PyTree) -> PyTree:
        return obs.obs

    learner = search_learner(
        reader, lambda weights, obs: eyes.apply(weights["trunk"], obs), trunk_init=eyes.init, unroll=0, n_step=n_step,
        gamma=gamma, players=spec.players,
        **{name: getattr(config, name) for name in ("bootstrap", "value_scale", "learning_rate", "weight_decay")},
    )  # fmt: skip
    rules = None
    if env.legal is not None:
        allowed = jax.vmap(env.legal)
        # At the end of a game nothing is allowed, and nothing is asked.
        rules = lambda beliefs: allowed(beliefs[1])  # noqa: E731
    world = World(model, lambda weights: Params((), ()), features, rules, plain)
    own = ("simulations", "method", "considered", "dirichlet_fraction", "dirichlet_alpha", "temperature")
    rest = {name: getattr(config, name) for name in ("batch_size", "random_moves", "updates", "warmup", "capacity")}
    return searching(
        env, world, reader, learner, search_settings(**{name: getattr(config, name) for name in own}),
        length=n_step + 1, gamma=gamma, **rest,
    )  # fmt: skip


SYSTEMS = (
    System(
        "alphazero",
        AlphaZeroConfig,
        alphazero,
        "tree search in the true simulator, with learned policy and value (Silver et al. 2018)",
        lambda env, config: envs.with_state(env),
    ),
)
