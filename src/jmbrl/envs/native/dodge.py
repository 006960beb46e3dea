"""Dodge: fireballs are thrown at an agent who sees where they are, but not where they are going.

The task of VizDoom's Take Cover, on which World Models trained its controller inside a dream, without VizDoom: the
field is seen from above, the agent moves along the lower edge, and every step alive pays 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.envs import render
from jmbrl.envs.functions import from_functions
from jmbrl.types import Array, Continuous, Discrete, Env, Key

MAX_STEPS = 2100  # as Take Cover
_BALL = {1: (255.0,), 3: (255.0, 170.0, 40.0)}  # colours by the number of channels, on black
_AGENT = {1: (140.0,), 3: (70.0, 140.0, 255.0)}


class Rules(NamedTuple):
    """What makes the task easy or hard; lengths in widths of the field, times in steps.

    Attributes:
      balls: at most so many at once.
      radius: of a ball.
      agent_width, agent_height: of the agent, a rectangle on the lower edge.
      agent_speed: how far it moves in a step.
      ball_speed: the slowest and the fastest.
      launch: the chance of a launch in the first step, and its bound.
      growth: what is added to that chance in every step.
      aim: standard deviation of the place aimed at around the agent's.
    """

    balls: int = 5
    radius: float = 0.07
    agent_width: float = 0.16
    agent_height: float = 0.1
    agent_speed: float = 0.04
    ball_speed: tuple[float, float] = (0.02, 0.08)
    launch: tuple[float, float] = (0.07, 0.2)
    growth: float = 1e-4
    aim: float = 0.25

    @property
    def row(self) -> float:
        """The agent's middle, from the upper edge."""
        return 1.0 - self.agent_height / 2

    @property
    def walls(self) -> tuple[float, float]:
        """The leftmost and the rightmost place of the agent's middle."""
        return self.agent_width / 2, 1.0 - self.agent_width / 2


# One fast ball at an agent that is slow for its width: easy to see, hopeless without its velocity.
LEVELS = {
    "many": Rules(),
    "one": Rules(balls=1, agent_width=0.25, ball_speed=(0.04, 0.12), launch=(0.5, 0.5), aim=0.1),
}


class State(NamedTuple):
    """The truth behind a picture; ``y`` is 0 on the upper edge and 1 on the lower."""

    agent: Array  # float32, x of its middle
    ball: Array  # float32[K, 2], (x, y) of the middles
    velocity: Array  # float32[K, 2], in a step
    flying: Array  # bool[K]; the rest of a ball that is not means nothing
    time: Array  # int32, steps since the reset


def make(
    size: int = 64,
    channels: int = 3,
    max_steps: int = MAX_STEPS,
    discrete: bool = False,
    level: str = "many",
    **options: Any,
) -> Env:
    r"""Fireballs to be dodged, in pixels.

    The agent (middle ``a``) starts in the middle of the lower edge. In each step it moves by ``agent_speed`` or stays,
    within the field; then the balls move; then the episode terminates if a ball touches the agent. At the end of step
    ``t`` (from 0), with probability ``min(first + growth t, bound)`` and if fewer than ``balls`` are flying, one starts
    on the upper edge, at ``u``, and flies straight on, for the place where the agent is now, or about it:

    .. math:: v = s \frac{d}{|d|}, \quad d = (\operatorname{clip}(a + \sigma n, 0, 1) - u,\ row), \quad
              u \sim U(0, 1), \ n \sim N(0, 1), \ s \sim U(slow, fast)

    with ``row`` the height of the agent's middle. Places, directions and speeds differ so much that one picture does
    not tell where a ball will come down. Two do, and so does a memory.

    Reward: 1 in every step, that of the hit included, so a return is the number of steps. Observation:
    ``uint8[size, size, channels]``, edges smoothed so that a motion by less than a pixel shows. Action: one number
    in ``[-1, 1]`` cut into thirds, left, stay, right. ``dodge_scripted`` has policies to compare with.

    Args:
      size: pixels a side, 16 or more; 32 with one channel is what small machines learn from.
      channels: 3 for colours, 1 for grey.
      max_steps: time limit. 250 is enough to tell policies apart.
      discrete: actions are 0 left, 1 stay, 2 right instead.
      level: ``"many"`` balls, or ``"one"`` fast ball at a time, which small networks and few controllers can learn.
      options: fields of ``Rules``, changed from the level's.

    Raises:
      ValueError: arguments out of their range, or an option that ``Rules`` does not have.

    Source: Ha and Schmidhuber 2018, World Models, section 4 (Take Cover, and its action in thirds). Geometry, speeds
      and chances are our own: returns cannot be compared with Take Cover's.
    """
    checks.integer("size", size, low=16)
    checks.integer("channels", channels, low=1)
    if channels not in _BALL:
        raise ValueError(f"channels must be 1 (grey) or 3 (colours), got {channels}")
    if not isinstance(discrete, bool):
        raise ValueError(f"discrete must be True or False, got {discrete!r}")
    rules = make_rules(level, **options)

    def reset(key: Key) -> tuple[State, Array]:
        del key
        state = start(rules)
        return state, draw(rules, state, size, channels)

    def step(key: Key, state: State, action: Array) -> tuple[State, Array, float, Array]:
        state = advance(rules, state, action - 1 if discrete else thirds(action[0]))
        hit = jnp.any(touching(rules, state.agent, state.ball) & state.flying)
        state = launch(rules, key, state)
        return state, draw(rules, state, size, channels), 1.0, hit

    return from_functions(
        reset,
        step,
        action=Discrete(3) if discrete else Continuous((-1.0,), (1.0,)),
        max_steps=max_steps,
        name="dodge",
        obs_shape=(size, size, channels),
        obs_dtype="uint8",
        reward_fn=reward_fn,
        render=render.image,
        no_gradient="its action is cut into three, and pixels end an episode suddenly",
    )


def make_rules(level: str = "many", **options: Any) -> Rules:
    """The rules of a level with some changed.

    Raises:
      ValueError: an unknown level or name, or numbers out of their range.
    """
    checks.choice("level", level, tuple(LEVELS))
    unknown = sorted(set(options) - set(Rules._fields))
    if unknown:
        raise ValueError(f"dodge has no option {', '.join(unknown)}; it has {', '.join(Rules._fields)}")
    rules = LEVELS[level]._replace(**options)
    checks.integer("balls", rules.balls, low=1)
    for name, low, high in (
        ("radius", 0.01, 0.25),
        ("agent_width", 0.01, 0.5),
        ("agent_height", 0.01, 0.5),
        ("agent_speed", 1e-4, 0.5),
        ("growth", 0.0, 1.0),
        ("aim", 0.0, 10.0),
    ):
        checks.number(name, getattr(rules, name), low, high)
    # A faster ball could be above the agent in one step and below it in the next.
    speed = _pair("ball_speed", rules.ball_speed, 1e-4, rules.agent_height + 2 * rules.radius)
    return rules._replace(ball_speed=speed, launch=_pair("launch", rules.launch, 0.0, 1.0))


def _pair(name: str, pair: Any, low: float, high: float) -> tuple[float, float]:
    if np.shape(pair) != (2,):
        raise ValueError(f"{name} must be two numbers, got {pair!r}")
    first, last = (float(checks.number(name, value, low, high)) for value in pair)
    if first > last:
        raise ValueError(f"{name} must be two numbers in order, got {pair!r}")
    return first, last


def reward_fn(obs: Array, action: Array, next_obs: Array) -> Array:
    """1, always."""
    del obs, action
    return jnp.ones(next_obs.shape[:-3], jnp.float32)


def start(rules: Rules) -> State:
    """The agent in the middle, and no ball yet."""
    places = jnp.zeros((rules.balls, 2), jnp.float32)
    return State(jnp.float32(0.5), places, places, jnp.zeros(rules.balls, jnp.bool_), jnp.int32(0))


def thirds(number: Array) -> Array:
    """-1, 0 or 1, by the third of ``[-1, 1]`` in which a number lies."""
    return (number > 1 / 3).astype(jnp.int32) - (number < -1 / 3).astype(jnp.int32)


def advance(rules: Rules, state: State, move: Array) -> State:
    """The agent moves (-1 left, 0, 1 right), then the balls do; those that have left the picture are gone."""
    agent = jnp.clip(state.agent + rules.agent_speed * move, *rules.walls)
    ball = state.ball + state.velocity
    flying = state.flying & (ball[:, 1] < 1.0 + rules.radius)
    return State(agent, ball, state.velocity, flying, state.time + 1)


def touching(rules: Rules, agent: Array, ball: Array) -> Array:
    """Whether balls at ``[..., 2]`` and the agent's rectangle have a point in common."""
    across = jnp.maximum(jnp.abs(ball[..., 0] - agent) - rules.agent_width / 2, 0.0)
    down = jnp.maximum(jnp.abs(ball[..., 1] - rules.row) - rules.agent_height / 2, 0.0)
    return across**2 + down**2 <= rules.radius**2


def launch(rules: Rules, key: Key, state: State) -> State:
    """Perhaps one ball more."""
    uniform_key, normal_key = jax.random.split(key)
    place, speed, luck = jax.random.uniform(uniform_key, (3,))
    aim = jnp.clip(state.agent + rules.aim * jax.random.normal(normal_key), 0.0, 1.0)
    way = jnp.stack([aim - place, jnp.float32(rules.row)])
    slow, fast = rules.ball_speed
    velocity = (slow + (fast - slow) * speed) * way / jnp.linalg.norm(way)
    first, bound = rules.launch
    # ``advance`` has counted this step already.
    chance = jnp.minimum(first + rules.growth * (state.time - 1), bound)
    free = ~state.flying
    slot = (luck < chance) & free & (jnp.arange(rules.balls) == jnp.argmax(free))
    return state._replace(
        ball=jnp.where(slot[:, None], jnp.stack([place, jnp.float32(0.0)]), state.ball),
        velocity=jnp.where(slot[:, None], velocity, state.velocity),
        flying=state.flying | slot,
    )


def draw(rules: Rules, state: State, size: int, channels: int) -> Array:
    """The picture of a state, ``uint8[size, size, channels]``; balls lie over the agent."""
    centre = jnp.asarray((np.arange(size) + 0.5) / size, jnp.float32)

    def covered(inside: Array) -> Array:
        """How much of a pixel, from how far its centre is within the edge."""
        return jnp.clip(0.5 + size * inside, 0.0, 1.0)

    x, y = jnp.where(state.flying[:, None], state.ball, -9.0).T[:, :, None]
    square = ((x - centre) ** 2)[:, None, :] + ((y - centre) ** 2)[:, :, None]  # [K, size, size]
    ball = covered(rules.radius - jnp.sqrt(jnp.min(square, axis=0)))[..., None]
    across = covered(rules.agent_width / 2 - jnp.abs(centre - state.agent))
    down = covered(rules.agent_height / 2 - jnp.abs(centre - rules.row))
    agent = (down[:, None] * across)[..., None] * jnp.asarray(_AGENT[channels], jnp.float32)
    return jnp.round(agent + ball * (jnp.asarray(_BALL[channels], jnp.float32) - agent)).astype(jnp.uint8)
