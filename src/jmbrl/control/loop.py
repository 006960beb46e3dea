"""A control loop with a deadline: an agent acts on a plant, something simpler acts where its plan is late."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.control.acting import Acting, told
from jmbrl.control.clock import Clock, Job, RealClock
from jmbrl.control.fallback import Fallback
from jmbrl.control.learner import BackgroundLearner
from jmbrl.control.plants import Plant
from jmbrl.control.report import ControlError, Report, Tick
from jmbrl.policy import in_env_units
from jmbrl.rollout import random_actions
from jmbrl.types import Agent, Key, PyTree, Transition

LEARN = ("background", "between")


def run(
    plant: Plant,
    agent: Agent,
    state: PyTree,
    *,
    period: float,
    steps: int,
    deadline: float | None = None,
    fallback: str | Callable = "hold",
    learn: str | None = None,
    explore: bool | None = None,
    done: int = 0,
    key: Key | int = 0,
    clock: Clock | None = None,
    log: Callable[[Tick], None] | None = None,
) -> Report:
    """Act on a plant once a period, for ``steps`` periods and as many episodes as that makes.

    In each period: new weights are taken, if there are any; the agent is shown the observation, beside the loop; its
    action is applied as soon as it is there; if it is not there at the deadline the fallback's is, and stays in force
    until the next period. Then the loop sleeps to the period's end and looks at the plant.

    An action that comes late belongs to an old observation and is never applied. What the agent remembers after it is
    kept: the belief, the warm start, and a plan whose later rows may still serve (``fallback="plan"``). While the agent
    is at an old observation it is shown no new one (``"busy"``): its belief has not seen these, and its warm start is
    as many steps behind. Where the fallback acted, a carry's ``action`` says so. A late result of an episode that has
    ended is dropped altogether.

    Everything is compiled before the plant is reset. The plant is stopped at the end of each episode and of the run,
    also where something raises.

    Args:
      plant: see ``control.Plant``.
      agent: who acts, as trained with ``plant.spec``.
      state: its state, left as it is.
      period: seconds, positive.
      steps: periods in all.
      deadline: seconds after a period's beginning, in ``(0, period]``; None: the period.
      fallback: ``"hold"``, ``"zero"``, ``"plan"`` or ``(obs) -> action``; see ``control.Fallback``.
      learn: ``"background"``: rows are recorded and phases run beside the loop; ``"between"``: when an episode has
        ended, with the plant stopped; None: nothing is learned. See ``control.BackgroundLearner``.
      explore: whether the agent explores; None: where it learns.
      done: environment steps that ``state`` has seen. While the total is below ``agent.warmup`` a learner's actions are
        drawn at random.
      key: of the agent's choices, or a seed.
      clock: ``control.RealClock()`` by default, ``control.SimulatedClock(...)`` for tests.
      log: called with each ``Tick``, within the period.

    Returns:
      A ``Report``. Ctrl-C ends the run and returns it as well.

    Raises:
      ValueError: before anything moves: an argument outside its range, an agent that does not fit.
      ControlError: the plant, the log, or the agent raised; the plant was stopped, and ``error.report`` is there.
    """
    checks.number("period", period, 1e-9)
    checks.number("deadline", period if deadline is None else deadline, 1e-9, period)
    checks.integer("steps", steps, 1)
    checks.integer("done", done, 0)
    if learn is not None:
        checks.choice("learn", learn, LEARN)
        _check_learner(agent, state)
    own = RealClock() if clock is None else None
    now = own or clock
    assert now is not None
    deadline = period if deadline is None else deadline
    loop = _Loop(plant, agent, state, period, deadline, fallback, learn, explore, done, checks.key(key), now, log)
    failure, interrupted = None, False
    try:
        for tick in range(steps):
            loop.tick(tick)
    except KeyboardInterrupt:
        interrupted = True
    except Exception as error:
        failure = error
    finally:
        plant.stop()
    report = loop.report(interrupted)
    if own is not None:
        own.close()
    if failure is not None:
        raise ControlError(f"tick {len(report.ticks)}: {type(failure).__name__}: {failure}", report) from failure
    return report


def _check_learner(agent: Agent, state: PyTree) -> None:
    if agent.stages is not None:
        raise ValueError("agent learns in stages, which cannot go on beside a plant: train it first, then learn=None")
    wanted = jax.tree.leaves(jax.eval_shape(lambda key: agent.init(key, 1), jax.random.key(0)))
    got = [jnp.shape(x) for x in jax.tree.leaves(state)]
    if got != [x.shape for x in wanted]:
        raise ValueError("state must be of one environment to learn, as agent.init(key, 1) makes it; its shapes differ")


class _Loop:
    """One run: ``tick`` after ``tick``, then ``report``."""

    def __init__(
        self,
        plant: Plant,
        agent: Agent,
        state: PyTree,
        period: float,
        deadline: float,
        fallback: str | Callable,
        learn: str | None,
        explore: bool | None,
        done: int,
        key: Key,
        clock: Clock,
        log: Callable[[Tick], None] | None,
    ):
        self.plant, self.spec, self.clock, self.log = plant, plant.spec, clock, log
        self.period, self.deadline, self.learn, self.state = period, deadline, learn, state
        key_act, key_learn, key_random = jax.random.split(key, 3)
        acting = Acting(agent, plant.spec, state, learn is not None if explore is None else explore)
        self.weights = acting.weights(state)
        self.act, self.fresh = acting.compiled(key_act, self.weights)
        self.fallback = Fallback(fallback, plant.spec, self.fresh)
        self.learner = None
        if learn is not None:
            self.learner = BackgroundLearner(agent, state, acting, clock, done, key_learn, self.fresh)
        self.done, self.warmup = done, agent.warmup if learn is not None else 0
        draw = jax.jit(lambda tick: random_actions(jax.random.fold_in(key_random, tick), plant.spec, 1)[0])
        self.random = draw.lower(np.uint32(0)).compile()
        self.pending: tuple[Job, int, bool] | None = None  # a late plan: of which tick, and whether it may be kept
        self.ticks: list[Tick] = []
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.planning: list[float] = []
        self.overruns, self.over = 0, True

    def begin(self) -> None:
        """An episode: where the agent remembers nothing and nothing is in force."""
        self.obs = self._seen(self.plant.reset())
        self.carry, self.is_first, self.in_force = self.fresh, True, self.fallback.zero
        self.fallback.begin()
        if self.pending is not None:
            self.pending = (*self.pending[:2], False)
        self.over, self.total, self.length, self.start = False, 0.0, 0, self.clock.now()

    def tick(self, tick: int) -> None:
        """One period, after a reset where an episode begins."""
        if self.over:
            self.begin()
        self._swap()
        self._collect()
        start, age = self.start, 0 if self.learner is None else self.learner.steps - self.learner.seen
        action, by = self._decide(tick)
        if by not in ("agent", "random"):
            action = self.fallback.action(self.obs, self.in_force, tick)
            self.carry = told(self.carry, action)
        applied = in_env_units(action, self.spec)
        self.plant.apply(applied)
        self.in_force = action
        self._sleep()
        seen, reward, terminated, truncated = self.plant.observe()
        self.length += 1
        truncated = bool(truncated) or (self.length >= self.spec.max_steps and not terminated)
        flags = bool(terminated), truncated
        columns: Any = (self.obs, action, np.float32(reward), self._seen(seen), *map(np.bool_, flags))
        row = Transition(*columns)
        self.ticks.append(Tick(start, self.obs, applied, float(reward), columns[3], *flags, by, age))
        self.total += float(reward) if np.isfinite(reward) else 0.0
        self.obs = columns[3]
        if self.log is not None:
            self.log(self.ticks[-1])
        if self.learner is not None:
            self.learner.offer(self.fresh if by == "random" else self.carry, row, self.learn == "background")
        if terminated or truncated:
            self._end()

    def report(self, interrupted: bool) -> Report:
        """What was; waits for an update under way."""
        learned = None if self.learner is None else self.learner.finish()
        state = self.state if learned is None else learned.state
        planning = np.asarray(self.planning)
        times = (planning, self.overruns, self.period, self.deadline)
        return Report(self.ticks, self.returns, self.lengths, *times, self.spec, state, learned, interrupted)

    # ------------------------------------------------------------------------------------- inside

    def _swap(self) -> None:
        new = None if self.learner is None else self.learner.poll()
        self.weights = self.weights if new is None else new

    def _collect(self) -> None:
        """A late plan that has arrived: its action is dropped, its memory kept."""
        if self.pending is None or not self.pending[0].done():
            return
        (job, tick, current), self.pending = self.pending, None
        self.planning.append(job.seconds())
        action, carry = job.result()
        if current and self._accept(action, carry, tick):
            self.carry = told(carry, self.in_force)

    def _accept(self, action: np.ndarray, carry: PyTree, tick: int) -> bool:
        """Keep what the agent remembers, unless its action is no number: then it begins anew."""
        self.is_first = not np.all(np.isfinite(action))
        if not self.is_first:
            self.carry = carry
            self.fallback.planned(carry, tick)
        return not self.is_first

    def _decide(self, tick: int) -> tuple[Any, str]:
        """The action, and who acts; no action where the fallback does."""
        if not np.all(np.isfinite(self.obs)):
            return None, "observation"
        if self.done + tick < self.warmup:
            return np.asarray(self.random(np.uint32(self.done + tick))), "random"
        if self.pending is not None:
            return None, "busy"
        shown = (self.done + tick, self.weights, self.carry, self.obs, self.is_first)
        job = self.clock.submit("plan", lambda: self.act(*shown))
        if not self.clock.wait(job, self.start + self.deadline):
            self.pending = (job, tick, True)
            return None, "late"
        self.planning.append(job.seconds())
        action, carry = job.result()
        return (action, "agent") if self._accept(action, carry, tick) else (None, "action")

    def _sleep(self) -> None:
        planned = self.start + self.period
        late = self.clock.now() > planned
        self.overruns += late
        self.clock.sleep_until(planned)
        self.start = self.clock.now() if late else planned

    def _end(self) -> None:
        self.returns.append(self.total)
        self.lengths.append(self.length)
        self.plant.stop()
        if self.learner is not None and self.learn == "between":
            self.learner.learn_now()
        self.over = True  # the last episode is not followed by a reset

    def _seen(self, obs: Any) -> np.ndarray:
        obs = np.asarray(obs, self.spec.obs_dtype)
        checks.same_shape("obs", obs.shape, self.spec.obs_shape, f"the spec of {self.spec.name}")
        return obs
