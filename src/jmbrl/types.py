"""The words of jmbrl: every other file imports this one, and it imports nothing of ours.

Conventions that hold everywhere:

* Functions are **unbatched** unless an axis is named; callers ``vmap``.
* Keys are typed (``jax.random.key``), come first, and are consumed.
* Changing data is a pytree; static choices are closed over by the factory that made the functions.
* Continuous actions live in ``[-1, 1]`` inside the library and are scaled at the environment's border;
  discrete actions are ``int32`` scalars.
* ``terminated`` is a true end of the world, ``truncated`` a time limit. Only ``terminated`` may stop
  bootstrapping or teach a termination model.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array  # a typed scalar key, jax.random.key(0)
PyTree = Any


# --------------------------------------------------------------------------------------------- spaces


@dataclasses.dataclass(frozen=True)
class Continuous:
    """A box of actions. Inside the library an action is ``float32[dim]`` in ``[-1, 1]``.

    ``low`` and ``high`` are the environment's own finite bounds (its own units), one per dimension.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def dim(self) -> int:
        return len(self.low)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dim,)


@dataclasses.dataclass(frozen=True)
class Discrete:
    """``n`` actions, an ``int32`` scalar in ``[0, n)``."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return ()


ActionSpace = Continuous | Discrete


@dataclasses.dataclass(frozen=True)
class Spec:
    """What an environment promises. Static and hashable.

    Attributes:
      name: the id it was made from, ``"gymnax:Pendulum-v1"``.
      obs_shape: shape of one observation; ``(D,)`` for vectors, ``(H, W, C)`` for images.
      action: the action space.
      max_steps: steps after which an episode is truncated; also what "one episode" means in schedules.
      obs_dtype: ``"float32"`` or, for images, ``"uint8"``.
      obs_names: a name per entry of a vector observation, ``()`` when unnamed.
      host: True when the environment runs outside JAX (Gymnasium, a robot).
      dt: seconds per step where known, for control rates and figures.
      obs_parts: of an observation that was a dictionary or tuple and is flattened into one vector: ``(name, shape,
        dtype)`` of each array, in the order of its entries and with the dtype it had; ``()`` for a single array.
      players: 2 for a game that is played in turn: an observation is the view of the player to move, a reward that of
        the player who has just moved, and what one gains the other loses.
    """

    name: str
    obs_shape: tuple[int, ...]
    action: ActionSpace
    max_steps: int
    obs_dtype: str = "float32"
    obs_names: tuple[str, ...] = ()
    host: bool = False
    dt: float | None = None
    obs_parts: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    players: int = 1


# ----------------------------------------------------------------------------------- the real world


class TimeStep(NamedTuple):
    """What one real step yields. ``obs`` is the true successor, also at the end of an episode."""

    obs: PyTree
    reward: Array  # float32 scalar
    terminated: Array  # bool scalar
    truncated: Array  # bool scalar


class Transition(NamedTuple):
    """One row of experience; with leading axes, many."""

    obs: PyTree
    action: Array
    reward: Array
    next_obs: PyTree
    terminated: Array
    truncated: Array


class Cells(NamedTuple):
    """A numbering of finitely many observations (or actions), for tables.

    Attributes:
      count: how many.
      index: ``(obs) -> int32`` in ``[0, count)``.
      centre: ``(int) -> obs`` in float32: an observation that has this number.
      shape: how the numbers lie in a grid, the last axis counting fastest; ``()`` where they do not. For figures.
    """

    count: int
    index: Callable
    centre: Callable
    shape: tuple[int, ...] = ()


class Env(NamedTuple):
    """An environment that never resets itself: the interaction loop does.

    Attributes:
      spec: static facts.
      reset: ``(key) -> (env_state, obs)``.
      step: ``(key, env_state, action) -> (env_state, TimeStep)``; truncates at ``spec.max_steps``.
      vector: ``(num_envs) -> VectorEnv``, copies side by side. ``jax.vmap`` for JAX environments, one
        host call for all copies otherwise.
      reward_fn: ``(obs, action, next_obs) -> float32`` where the true reward is such a function, else None.
      termination_fn: ``(obs, action, next_obs) -> bool`` likewise; None when it is not known.
      render: ``(obs) -> uint8[H, W, 3]`` NumPy image of an observation, or None.
      close: frees host resources; does nothing for JAX environments.
      no_gradient: why derivatives of ``step`` by the action mean nothing (thresholded actions), ``""`` where they do.
      cells: how its observations are numbered where there are finitely many (a maze, a Gymnasium ``Discrete`` space) or
        where ``envs.discretise`` says so; None where tables cannot be used.
      legal: ``(obs) -> bool[n]``, which discrete actions are allowed; None: all. What another does is up to ``step``.
    """

    spec: Spec
    reset: Callable
    step: Callable
    vector: Callable
    reward_fn: Callable | None = None
    termination_fn: Callable | None = None
    render: Callable | None = None
    close: Callable = lambda: None
    no_gradient: str = ""
    cells: Cells | None = None
    legal: Callable | None = None


class VectorEnv(NamedTuple):
    """``num_envs`` copies of one environment; every array below has that leading axis.

    Attributes:
      spec: as ``Env.spec``.
      num_envs: how many.
      reset: ``(key) -> (states, obs)``, all copies.
      step: ``(key, states, actions) -> (states, TimeStep)``.
      restart: ``(key, done, states, obs) -> (states, obs)``: starts the finished copies anew and leaves
        the others as they are.
    """

    spec: Spec
    num_envs: int
    reset: Callable
    step: Callable
    restart: Callable


# ------------------------------------------------------------------------------------------- models


class Params(NamedTuple):
    """A model's parameters: optimisers see ``weights`` only."""

    weights: PyTree
    stats: PyTree  # normalisers, ranges, elite indices: set from data, never by gradient


class Outcome(NamedTuple):
    """What an imagined step yields.

    ``discount`` is continuation alone (0 where the episode terminates); the user multiplies ``gamma``.
    ``cost`` is ``float32[C]`` (``C`` = 0 without constraints). ``clipped`` tells that the prediction left
    the range of the data by far and was pulled back: a health counter, not an end of the episode.
    """

    reward: Array
    discount: Array
    cost: Array
    clipped: Array


class Successors(NamedTuple):
    """What may follow a pair ``(s, a)`` of a table: ``K`` outcomes, ``[K]`` each.

    Attributes:
      chance: probabilities, summing to 1.
      state: ``int32``, where each leads.
      reward: what it pays.
      discount: continuation, 0 where the episode ends.
    """

    chance: Array
    state: Array
    reward: Array
    discount: Array


class Trajectory(NamedTuple):
    """An imagined trajectory, time-major ``[H, ...]``. Row ``t``'s outcome belongs to
    ``(belief_t, action_t)``."""

    belief: PyTree
    action: Array
    aux: PyTree
    outcome: Outcome
    next_belief: PyTree


class DataKind(enum.Enum):
    """What a model's ``loss`` takes: ``ROWS`` is ``Transition[B]``, ``SEQUENCES`` is ``Sequence[B, T]``."""

    ROWS = "rows"
    SEQUENCES = "sequences"


class Sequence(NamedTuple):
    """A window of consecutive real rows, ``[T, ...]`` (``[B, T, ...]`` in a batch).

    ``is_first[t]`` says that row ``t`` does not continue row ``t - 1`` (a new episode, or the window's
    start); beliefs are reset there. ``mask[t]`` is False for rows that hold no valid data.
    """

    transition: Transition
    is_first: Array
    mask: Array


class Model(NamedTuple):
    """Anything that predicts. ``models/`` has one file a family.

    Attributes:
      init: ``(key) -> Params``.
      initial: ``(params) -> belief``, before anything was seen.
      encode: ``(key, params, belief, action, obs, is_first) -> belief``: filter one observation in.
        ``belief`` and ``action`` are the previous ones; where ``is_first`` they are ignored.
      step: ``(key, params, belief, action) -> (belief, Outcome)``: imagine one step.
      step_many: ``(key, params, beliefs[N], actions[N]) -> (beliefs[N], Outcome[N])``.
      features: ``(params, belief) -> float32[F]``: what a policy or value function reads.
      decode: ``(params, belief) -> obs``: for given reward functions, diagnostics and video.
      loss: ``(key, params, batch) -> (loss, info)``; ``batch`` as ``data_kind`` says. None: not trainable.
      set_stats: ``(params, transitions[N], mask[N]) -> Params``: refit the statistics on the rows where
        ``mask``; identity when there are none.
      predict: ``(params, belief, action) -> Prediction`` for calibration; None where there is none.
      expect: ``(params, beliefs[N], actions[N]) -> (beliefs[N], Outcome[N])``: ``step_many`` without its sampled noise;
        None where a model has no such thing.
      fit: ``(key, params, rows: Transition[N], weight: float32[N]) -> (params, info)`` for models that are solved
        rather than trained by gradient; called after ``set_stats``. ``weight`` is how often a row counts (0: not at
        all, and its values may be anything). What it learns belongs in ``params.weights``, so that members of an
        ensemble can differ. None: ``models.trainer`` uses ``loss``.
      data_kind: what ``loss`` takes.
      members: number of ensemble members; 0 when the model is not an ensemble (weights have no such axis).
      member: the model of one member where ``members > 0``.
      no_gradient: why planners cannot differentiate ``step`` by the action, ``""`` where they can.
      observe: ``(params, rows: Transition[N], valid: bool[N]) -> params`` for models that learn each row as it arrives,
        in their order; None for models that are only fitted.
      watch: ``(key, params, frames: data.Frames[B, F], context: beliefs[B] | None) -> Watched`` for models whose loss
        filters sequences: beliefs and losses at once, for those who imagine from what they were taught. With
        ``context``, the beliefs at each first frame, that frame is seen no more. None elsewhere.
      own_belief: whether only the weights that made a belief can read it (a learned memory); such models are no members
        of an ensemble, which has one belief for all.
    """

    init: Callable
    initial: Callable
    encode: Callable
    step: Callable
    step_many: Callable
    features: Callable
    decode: Callable
    loss: Callable | None
    set_stats: Callable
    predict: Callable | None = None
    fit: Callable | None = None
    data_kind: DataKind = DataKind.ROWS
    members: int = 0
    member: "Model | None" = None
    expect: Callable | None = None
    no_gradient: str = ""
    own_belief: bool = False
    observe: Callable | None = None
    watch: Callable | None = None


class Watched(NamedTuple):
    """What a model makes of sequences of frames, ``[B, F, ...]``.

    Attributes:
      beliefs: after each frame.
      posterior, prior: distributions of each latent, with and without the frame.
      frames: what was seen (without the first, where its belief was given).
      losses: terms by name, scalars: their sum is the loss.
      info: scalars to report.
    """

    beliefs: PyTree
    posterior: PyTree
    prior: PyTree
    frames: PyTree
    losses: dict[str, Array]
    info: dict[str, Array]


class Prediction(NamedTuple):
    """A diagonal Gaussian over the next observation, and over the reward where it is learned.

    ``mean, std``: ``float32[D]``; ``reward_mean, reward_std``: scalars. A deterministic model has std 0.
    """

    mean: Array
    std: Array
    reward_mean: Array
    reward_std: Array


# ------------------------------------------------------------------------- planners, learners, agents


class Objective(NamedTuple):
    """What a planner maximises; made by ``rollout.objective``.

    Attributes:
      returns: ``(key, actions[N, H, ...]) -> (returns[N], costs[N, C], info)``.
      step: ``(key, belief, action) -> (belief, Outcome)``, for planners that need the model's derivatives.
      belief: where the plan starts.
      no_gradient: the model's, for planners that differentiate ``returns`` or ``step``.
      gamma, value, budget: what ``returns`` adds to ``step``'s rewards and costs, for planners that use ``step``.
      propose: ``(key, count, horizon) -> actions[count, horizon, ...]``, what a policy would do from ``belief``; None
        without a policy.
    """

    returns: Callable
    step: Callable
    belief: PyTree
    no_gradient: str = ""
    gamma: float | Array = 1.0
    value: Callable | None = None
    budget: tuple | None = None
    propose: Callable | None = None


class Planner(NamedTuple):
    """A search over action sequences.

    Attributes:
      init: ``() -> plan_state``.
      plan: ``(key, plan_state, objective) -> (actions[H, ...], plan_state, info)``.
      shift: ``(plan_state, k) -> plan_state``: the warm start after ``k`` (static) actions were executed.
      horizon: ``H``.
    """

    init: Callable
    plan: Callable
    shift: Callable
    horizon: int


class Learner(NamedTuple):
    """Improves a policy or value; owns no replay and sees no model and no environment.

    Attributes:
      init: ``(key) -> state``.
      act: ``(key, state, features, explore) -> (action, log_prob)``; ``explore`` is a static bool.
      update: ``(key, state, data) -> (state, info)``.
    """

    init: Callable
    act: Callable
    update: Callable


class Stage(NamedTuple):
    """One stage of a system that learns one thing after another.

    Attributes:
      name: ``"collect"``.
      unit: what its work is counted in, ``"episodes"``.
      length: units in all; every: units in a chunk, after each of which the runner looks, logs and saves.
      advance: ``(call, key, state, folder, start, length) -> (state, metrics)``: units ``[start, start + length)`` of
        one seed. ``state`` is the agent's, ``folder`` where files may be left for later stages (made by whoever writes
        first; a resumed stage must put back what lies there to where ``state`` stands), ``key`` the run's, to be folded
        with ``start``. ``call(name, function, *arguments, donate=())`` compiles ``function`` once for each ``name``, a
        tuple of static values, and runs it, for every seed: whatever changes must be an argument, not closed over.
        Metrics have a leading axis of time, as long as the stage likes.
      env_steps: steps in the environment that a unit takes, were no episode to end early.
    """

    name: str
    unit: str
    length: int
    every: int
    advance: Callable
    env_steps: int = 0


class Critic(NamedTuple):
    """An agent's policy and critic on its model's beliefs, for diagnostics.

    Attributes:
      act: ``(key, state, beliefs[N]) -> actions[N]``, the agent's state and no exploration.
      value: ``(state, beliefs[N]) -> float32[N]``, the return that is expected.
      gamma, lam: discount and trace of imagined returns.
      horizon: imagined steps of them.
      reward_scale: rewards are multiplied by it before anything else.
    """

    act: Callable
    value: Callable
    gamma: float | Array
    lam: float | Array
    horizon: int
    reward_scale: float | Array = 1.0


class Ascent(NamedTuple):
    """What an agent climbs that follows the derivative of an imagined return, for diagnostics.

    Attributes:
      learner: ``(horizon, **changes) -> learners.BPTT`` as the agent's, but for its imagined steps and other settings.
      world: ``(agent's state) -> learners.World``, where it imagines.
      starts: ``(key, agent's state, count) -> beliefs[count]``, where from.
      weights: ``(agent's state) -> learners.BPTTState``.
    """

    learner: Callable
    world: Callable
    starts: Callable
    weights: Callable


class Agent(NamedTuple):
    """A named system.

    Attributes:
      init: ``(key, num_envs) -> state``: parameters, optimisers, replay (a ring per environment), learner.
      reset: ``(state) -> carry``: what one environment's loop remembers, (belief, last action, plan state).
      act: ``(key, state, carry, obs, is_first, explore) -> (action, carry, info)``, one environment;
        restarts its carry where ``is_first``. ``explore`` is a static bool.
      record: ``(state, carry[num_envs], transitions[num_envs], valid[num_envs]) -> state``; ``carry`` is what ``act``
        returned when ``transitions.obs`` was acted on, and while actions are drawn at random what ``reset`` gave.
      phases: ``((period, update), ...)`` outermost first; ``update(key, state, step) -> (state, info)`` runs
        before each period of that many environment steps.
      warmup: environment steps of random actions before the first period.
      model: the ``Model`` it learns, and
      params: ``(state) -> Params`` the model's current parameters: for diagnostics. None without a model.
      stages: ``(env, steps) -> tuple[Stage, ...]`` for systems that learn in stages, with files in between; they have
        no phases, and record nothing.
      critic: what judges the model's beliefs, where there is a critic of beliefs.
      ascent: what its policy climbs by derivatives, where it does.
      players: 2 where it can play both sides of a game.
    """

    init: Callable
    reset: Callable
    act: Callable
    record: Callable
    phases: tuple = ()
    warmup: int = 0
    model: Model | None = None
    params: Callable | None = None
    stages: Callable | None = None
    critic: Critic | None = None
    ascent: Ascent | None = None
    players: int = 1


class DivergedError(RuntimeError):
    """Training stopped because updates stayed non-finite. The last good checkpoint is kept."""
