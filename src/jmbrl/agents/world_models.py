"""World Models (Ha & Schmidhuber 2018): see (V), remember (M), act (C), and learn inside the dream."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, envs, learners, models
from jmbrl.agents import world_models_stages as parts
from jmbrl.agents.dream import dream_fitness
from jmbrl.agents.random import RandomConfig, random
from jmbrl.agents.system import System
from jmbrl.agents.world_models_stages import Starts, WorldModelsState
from jmbrl.learners import population
from jmbrl.rollout import no_action, tile
from jmbrl.types import Agent, Array, Env, Key, PyTree, Stage


@dataclasses.dataclass(frozen=True)
class WorldModelsConfig:
    """Settings; defaults follow the paper's car race (reference sheet for latent models), presets are for CPUs."""

    # what is seen
    view: Literal["as_is", "car_racing"] = "as_is"  # "car_racing": the paper's of Gymnasium's (envs.car_racing_frames)
    resize: tuple[int, int] | None = None  # (height, width); None: as they are
    grey: bool = False
    # collect
    episodes: int = 10_000
    collector: Literal["held", "networks"] = "networks"  # Doom: "held"
    hold: int = 10  # a held action lasts 1 to so many steps
    # V
    latent: int = 32  # Doom: 64
    channels: tuple[int, ...] = (32, 64, 128, 256)
    pixel_weight: float = 1.0
    vision_updates: int = 100_000  # the article: one epoch of 10,000 episodes of 1,000 frames; its code ten
    vision_batch_size: int = 100
    vision_learning_rate: float = 1e-4
    # M
    hidden: int = 256  # Doom: 512
    mixtures: int = 5
    learn_reward: bool = (
        True  # the paper's M has none: a car race cannot be dreamt there, and in Doom every step pays 1
    )
    learn_termination: bool = True  # Doom; the paper's car race has none
    memory_updates: int = 4_000
    memory_batch_size: int = 100
    length: int = 500  # rows of a window; the paper's car race 999
    memory_learning_rate: float = 1e-3
    memory_clip: float = 1.0  # of each entry of the gradient
    # C
    inputs: Literal["z", "zh", "zch"] = "zh"  # Doom: "zch"
    controller_hidden: tuple[int, ...] = ()
    bias: bool = True
    strategy: Literal["cma_es", "sep_cma_es", "open_es", "cem"] = "cma_es"
    population: int = 64
    rollouts: int = 16
    sigma: float = 0.1
    weight_decay: float = 0.01
    generations: int = 1_800  # at most; in the true world also as many as the environment steps allow
    check_every: int = 25
    check_rollouts: int = 1_024
    # the dream
    train_in: Literal["world", "dream"] = "world"
    temperature: float = 1.0
    dream_horizon: int | None = None  # None: the environment's time limit
    # the whole
    rounds: int = 1  # 2: once more with episodes of the candidates (the paper's iterative procedure), data kept
    test_episodes: int = 100
    copies: int | None = None  # environments side by side at most; None: 16 to collect and test, all candidates in C


def world_models(env: Env, config: WorldModelsConfig = WorldModelsConfig()) -> Agent:
    """V on frames of random episodes, M on their latents, C by evolution in the true world or in M's dream.

    The stages, each with a bar and a resumption of its own: ``collect`` (episodes go to disk as bytes), ``vision``,
    ``encode`` (every frame once), ``memory``, ``controller`` (generations) and ``test`` (episodes of the best
    controller in the true world). Environment steps are counted as if no episode ended early.

    Deviations: every candidate of a generation meets the same worlds (less noise in their ranking); V and M see frames
    and windows drawn with replacement rather than in epochs; M learns the reward, too.
    """
    same = _sizes(config)
    vision, memory = models.vision_and_memory(env.spec, **same)
    model = models.world_model(env.spec, **same, inputs=config.inputs, temperature=config.temperature)
    evolution = learners.evolution(
        env.spec.action,
        config.latent + (len(config.inputs) - 1) * config.hidden,
        strategy=config.strategy,
        population=config.population,
        sigma=config.sigma,
        weight_decay=config.weight_decay,
        hidden=config.controller_hidden,
        bias=config.bias,
    )
    vision_optimizer = optax.adam(config.vision_learning_rate)
    memory_optimizer = parts.memory_optimizer(config.memory_learning_rate, config.memory_clip)

    def init(key: Key, num_envs: int) -> WorldModelsState:
        del num_envs
        key_model, key_controller = jax.random.split(key)
        params = model.init(key_model)
        return WorldModelsState(
            params,
            vision_optimizer.init(params.weights["vision"]),
            memory_optimizer.init(params.weights["memory"]),
            evolution.init(key_controller),
            Starts(jnp.zeros((parts.STARTS, config.latent)), jnp.ones((parts.STARTS, config.latent))),
            jnp.zeros((), jnp.int32),
        )

    def reset(state: WorldModelsState) -> tuple:
        return model.initial(state.params), no_action(env.spec)

    def see(key: Key, state: WorldModelsState, carry: tuple, obs: Array, is_first: Array) -> tuple[PyTree, Array]:
        belief = model.encode(key, state.params, *carry, obs, is_first)
        return belief, model.features(state.params, belief)

    def act(
        key: Key, state: WorldModelsState, carry: tuple, obs: Array, is_first: Array, explore: bool
    ) -> tuple[Array, tuple, dict]:
        key_see, key_act = jax.random.split(key)
        belief, x = see(key_see, state, carry, obs, is_first)
        action, _ = evolution.act(key_act, state.evolution, x, explore)
        return action, (belief, action), {}

    def record(state: WorldModelsState, carry: PyTree, rows: PyTree, valid: Array) -> WorldModelsState:
        del carry, rows, valid
        return state

    def in_world(key: Key, state: WorldModelsState, policies: Array, rollouts: int) -> Array:
        def act_with(key: Key, policy: Array, carry: tuple, obs: Array, is_first: Array) -> tuple[Array, tuple, dict]:
            belief, x = see(key, state, carry, obs, is_first)
            action = evolution.act_with(policy, x)
            return action, (belief, action), {}

        return population.fitness(key, env, act_with, reset(state), policies, rollouts, num_envs=config.copies)

    def in_dream(key: Key, state: WorldModelsState, policies: Array, rollouts: int) -> Array:
        horizon = env.spec.max_steps if config.dream_horizon is None else config.dream_horizon
        start = parts.starting(model, state.params, state.starts)
        return dream_fitness(key, model, state.params, start, evolution.act_with, policies, rollouts, horizon)

    def stages(env: Env, steps: int) -> tuple[Stage, ...]:
        limit, side, rounds = env.spec.max_steps, config.copies or 16, config.rounds
        generation = episodes_of_generation(config)
        dreams = config.train_in == "dream"
        left = steps - (rounds * config.episodes + config.test_episodes) * limit
        generations = config.generations if dreams else min(config.generations, left // (rounds * generation * limit))
        if left < 0 or generations < 1:
            needed = steps - left + (0 if dreams else rounds * generation * limit)
            raise ValueError(
                f"steps must be at least {needed}: {rounds * config.episodes} episodes to collect and "
                f"{config.test_episodes} to test of {limit} steps{'' if dreams else ', and a generation'}; got {steps}"
            )
        score, taken = (in_dream, 0) if dreams else (in_world, generation * limit)

        def one(number: int) -> tuple[Stage, ...]:
            if number:
                player, carries = by_policy, candidates
            elif config.collector == "networks":
                player, carries = by_policy, unskilled
            else:
                player, carries = random(env, RandomConfig(config.hold)), None
            return (
                parts.collect(env, player, config.episodes, min(side, config.episodes), carries),
                parts.see(env.spec, vision, vision_optimizer, config.vision_updates, config.vision_batch_size),
                parts.encode(env.spec, vision, (number + 1) * config.episodes),
                parts.remember(
                    env.spec, model, memory, memory_optimizer, config.memory_updates, config.memory_batch_size,
                    config.length,
                ),
                parts.control(
                    evolution, score, generations, config.rollouts, config.check_every, config.check_rollouts, taken
                ),
            )  # fmt: skip

        found = tuple(stage for number in range(rounds) for stage in parts.in_round(number, one(number)))
        return (*found, parts.test(env, agent, config.test_episodes, side)) if config.test_episodes else found

    def act_by_policy(
        key: Key, state: WorldModelsState, carry: tuple, obs: Array, is_first: Array, explore: bool
    ) -> tuple:
        """As ``act``, by the policy that is carried."""
        del explore
        belief, x = see(key, state, carry[:2], obs, is_first)
        action = evolution.act_with(carry[2], x)
        return action, (belief, action, carry[2]), {}

    def carrying(state: WorldModelsState, policies: Array) -> tuple:
        return *tile(reset(state), len(policies)), policies

    def unskilled(key: Key, state: WorldModelsState, count: int) -> tuple:
        """Controllers of random weights on untrained V and M, one an episode, as in the paper's car race."""
        key_scale, key_draw = jax.random.split(key)
        scale = 0.01 * jax.random.uniform(key_scale, (count, 1))
        return carrying(state, scale * jax.random.cauchy(key_draw, (count, evolution.size)))

    def candidates(key: Key, state: WorldModelsState, count: int) -> tuple:
        """Controllers that the search would try next, one an episode."""
        key_ask, key_choose = jax.random.split(key)
        policies = evolution.ask(key_ask, state.evolution)
        return carrying(state, policies[jax.random.randint(key_choose, (count,), 0, len(policies))])

    by_policy = Agent(init, lambda state: carrying(state, jnp.zeros((1, evolution.size))), act_by_policy, record)
    _check(config)
    agent = Agent(init, reset, act, record, model=model, params=lambda state: state.params, stages=stages)
    return agent


def episodes_of_generation(config: WorldModelsConfig) -> int:
    """Real episodes that a generation takes in the true world, its share of the checks included."""
    return config.population * config.rollouts + -(-config.check_rollouts // config.check_every)


def _sizes(config: WorldModelsConfig) -> dict[str, Any]:
    """What V and M share with the model they make together."""
    names = ("latent", "channels", "pixel_weight", "hidden", "mixtures", "learn_reward", "learn_termination")
    return {name: getattr(config, name) for name in names}


def _check(config: WorldModelsConfig) -> None:
    for name in (
        "episodes", "hold", "vision_updates", "vision_batch_size", "memory_updates", "memory_batch_size", "length",
        "rollouts", "generations", "rounds", "check_every", "check_rollouts",
    ):  # fmt: skip
        checks.integer(name, getattr(config, name), 1)
    checks.integer("test_episodes", config.test_episodes, 0)
    for name in ("copies", "dream_horizon"):
        if getattr(config, name) is not None:
            checks.integer(name, getattr(config, name), 1)
    for name in ("vision_learning_rate", "memory_learning_rate", "memory_clip"):
        checks.number(name, getattr(config, name), 0.0)


def seen(env: Env, config: WorldModelsConfig) -> Env:
    """The frames that V sees."""
    env = envs.car_racing_frames(env) if config.view == "car_racing" else env
    if config.resize is None and not config.grey:
        return env
    return envs.frames(env, size=config.resize or env.spec.obs_shape[:2], grey=config.grey)


SYSTEMS = (
    System(
        "world_models",
        WorldModelsConfig,
        world_models,
        "VAE + MDN-RNN + a small controller by evolution, in the world or in a dream (Ha & Schmidhuber 2018)",
        seen,
    ),
)
