"""MuZero: search in a model that was learned for nothing but the search (Schrittwieser et al. 2020)."""

import dataclasses

from jmbrl import checks, learners, models
from jmbrl.agents.search_update import search_learner
from jmbrl.agents.searching import World, searching
from jmbrl.agents.system import System, numbered_actions
from jmbrl.planners.tree import search_settings
from jmbrl.types import Agent, Array, Env, Params, PyTree


@dataclasses.dataclass(frozen=True)
class MuZeroConfig:
    """Settings; defaults are the paper's for Atari where networks of vectors have the like (unroll 5, 601 bins, value
    loss scaled by 0.25, discount 0.997), with the 25 simulations and the batches of 256 of small reproductions.

    Options are Gumbel MuZero's search (the default) or the paper's own (``method="puct"``), continuous actions by drawn
    candidates (Sampled MuZero), EfficientZero's ``consistency`` and ``reanalyze``.
    """

    # search
    simulations: int = 25
    method: str = "gumbel"
    considered: int = 16
    dirichlet_fraction: float = 0.25
    dirichlet_alpha: float = 0.3
    temperature: float = 1.0
    random_moves: float = 0.0  # chance of a random action while exploring
    samples: int = 20  # candidates of continuous actions
    action_bins: int | tuple[int, ...] | None = None  # values per dimension of continuous actions, as numbers
    # model
    latent: int = 64
    units: int = 128
    layers: int = 1
    channels: int = 0  # of the tower that reads images; 0: none
    blocks: int = 0
    bins: int = 601
    limit: float = 300.0
    consistency: bool = False
    consistency_scale: float = 2.0
    # learning
    unroll: int = 5
    n_step: int = 10
    bootstrap: str = "search"  # or network: what ends a return
    gamma: float = 0.997
    value_scale: float = 0.25
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    batch_size: int = 256
    updates: float = 0.25  # per environment step
    reanalyze: float = 0.0  # share of a batch
    warmup: int | None = None  # environment steps of random actions; None: one episode
    capacity: int = 100_000  # rows per environment


def muzero(env: Env, config: MuZeroConfig = MuZeroConfig()) -> Agent:
    """Any environment; in a game of two it plays both sides, and only the moves at the root are known to be allowed."""
    spec = env.spec
    own = ("latent", "units", "layers", "channels", "blocks", "bins", "limit", "consistency")
    parts = models.value_equivalent_parts(spec, **{name: getattr(config, name) for name in own})
    reader = learners.policy_value(
        spec.action, config.latent, units=config.units, layers=config.layers, bins=config.bins, limit=config.limit,
        samples=config.samples,
    )  # fmt: skip
    gamma = checks.number("gamma", config.gamma, 0.0, 1.0)
    own = ("unroll", "n_step", "bootstrap", "value_scale", "consistency_scale", "learning_rate", "weight_decay")
    settings = {name: getattr(config, name) for name in own}
    see = lambda weights, obs: parts.see(weights["model"], obs)  # noqa: E731
    learner = search_learner(reader, see, parts, gamma=gamma, players=spec.players, **settings)

    def features(weights: PyTree, beliefs: Array) -> Array:
        del weights
        return beliefs

    world = World(parts.model, lambda weights: Params(weights["model"], ()), features)
    own = ("simulations", "method", "considered", "dirichlet_fraction", "dirichlet_alpha", "temperature")
    rest = {name: getattr(config, name) for name in ("batch_size", "random_moves", "updates", "reanalyze", "capacity")}
    return searching(
        env, world, reader, learner, search_settings(**{name: getattr(config, name) for name in own}),
        length=config.unroll + config.n_step + 1, gamma=gamma,
        warmup=spec.max_steps if config.warmup is None else config.warmup, **rest,
    )  # fmt: skip


SYSTEMS = (
    System(
        "muzero",
        MuZeroConfig,
        muzero,
        "tree search in a learned value-equivalent model (Schrittwieser et al. 2020)",
        numbered_actions,
    ),
)
