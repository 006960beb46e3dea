"""Plan2Explore: explore in imagination without a reward, then learn a task in it (Sekar et al. 2020)."""

import dataclasses

import jax

from jmbrl import checks, models
from jmbrl.agents.dreamer import DreamerState, cost
from jmbrl.agents.dreamer_v3 import DreamerV3Config, latent_model, learned_in
from jmbrl.agents.system import System
from jmbrl.types import Agent, Array, Env, Key


@dataclasses.dataclass(frozen=True)
class Plan2ExploreConfig(DreamerV3Config):
    """Dreamer v3's settings, and those of exploration; the heads are those of Dreamer v2's released code.

    A run explores for ``explore_steps`` and then turns to the environment's reward: zero-shot is what it gets right
    after ``task_updates`` updates on what it has seen, few-shot what it gets as it goes on.
    """

    replay_value: float = 0.0  # 0: the rewards of the replay are not what exploring is paid
    heads: int = 10
    head_hidden: tuple[int, ...] = (400, 400, 400, 400)
    measure: str = "std"  # or variance
    intrinsic: float = 1.0
    extrinsic: float = 0.0  # while exploring
    explore_steps: int | None = None  # environment steps, warm-up included; None: always
    task_updates: int = 1000  # turns of learning, in imagination only, between exploring and the task


def plan2explore(env: Env, config: Plan2ExploreConfig = Plan2ExploreConfig()) -> Agent:
    """Dreamer v3 whose imagination pays for what one-step heads disagree about, and whose reward head only reads.

    Deviations: Dreamer v3 in the place of v1, without its critic's loss on real rewards, and one optimiser for all; a
    fresh actor and critic begin the task with the reward head as it was learned while exploring (the papers: all along,
    or from the replay afterwards).

    Raises:
      ValueError: ``replay_value`` above 0, or what its parts refuse.
    """
    if config.replay_value > 0:
        raise ValueError(
            f"replay_value must be 0, got {config.replay_value}: it would teach the critic the rewards of the replay, "
            "which are not what exploring is paid"
        )
    model = models.latent_curiosity(
        latent_model(env, config, task_gradient=False),
        env.spec,
        members=config.heads,
        hidden=config.head_hidden,
        measure=config.measure,
        intrinsic=config.intrinsic,
        extrinsic=config.extrinsic,
    )
    agent = learned_in(env, model, config)
    return agent if config.explore_steps is None else turning(agent, config.explore_steps, config.task_updates)


def turning(agent: Agent, steps: int, updates: int) -> Agent:
    """``agent``, of a model with ``latent_curiosity``, that leaves exploring for the task after so many steps.

    At the turn, rewards become the environment's alone, actor, critic and optimiser begin anew, and ``updates`` turns
    of learning follow without a step in the environment. Their metrics are not kept. The turn is made before the first
    period of the outermost phase that begins at ``steps`` or later.

    Raises:
      ValueError: ``steps`` below 1 or ``updates`` below 0.
    """
    steps = checks.integer("explore_steps", steps, 1)
    updates = checks.integer("task_updates", updates, 0)
    (period, outer), learn = agent.phases[0], agent.phases[-1][1]
    turn = agent.warmup + -(-max(0, steps - agent.warmup) // period) * period

    def turned(key: Key, state: DreamerState, step: Array) -> DreamerState:
        key_fresh, key_learn = jax.random.split(key)
        fresh = agent.init(key_fresh, 1)  # only what is read of it is computed
        weights = fresh.weights | {"model": state.weights["model"]}
        stats = models.rewarded(state.stats, 0.0, 1.0)
        state = state._replace(weights=weights, stats=stats, opt=fresh.opt, memory=fresh.memory)

        def one(state: DreamerState, key: Key) -> tuple[DreamerState, None]:
            return learn(key, state, step)[0], None

        return jax.lax.scan(one, state, jax.random.split(key_learn, updates))[0] if updates else state

    def first(key: Key, state: DreamerState, step: Array) -> tuple[DreamerState, dict]:
        key_turn, key_outer = jax.random.split(key)
        # The step is not mapped over seeds, so that this stays a branch.
        state = jax.lax.cond(step == turn, lambda: turned(key_turn, state, step), lambda: state)
        return outer(key_outer, state, step)

    return agent._replace(phases=((period, first), *agent.phases[1:]))


SYSTEMS = (
    System(
        "plan2explore",
        Plan2ExploreConfig,
        plan2explore,
        "explore by disagreement in a latent imagination, then any task (Sekar et al. 2020)",
        cost=cost,
    ),
)
