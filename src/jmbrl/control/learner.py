"""Learning while acting: rows go in, weights come out, and the loop never waits."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import data, health
from jmbrl.control.acting import Acting, Weights
from jmbrl.control.clock import Clock, Job
from jmbrl.envs.spaces import strong
from jmbrl.rollout import no_action
from jmbrl.types import Agent, Array, Key, PyTree, Transition


class Learned(NamedTuple):
    """What became of learning.

    Attributes:
      state: the agent's state with all rows recorded (after ``error``, as it was before).
      updates: how often phases ran; merged: updates that were due while another was under way, and were left out.
      published: new weights that were handed over; refused: those that were not, as a number had ceased to be finite.
      error: what the learner raised, ``""`` where it did not. From then on nothing is learned.
      metrics: what the phases reported, a dictionary an update, with ``env_steps``.
    """

    state: PyTree
    updates: int
    merged: int
    published: int
    refused: int
    error: str
    metrics: list[dict[str, Any]]


class BackgroundLearner:
    """An agent's ``record`` and ``phases`` on a state of its own, in the clock's lane ``"learn"``.

    Each phase runs as often as ``make_train`` would run it, except that what becomes due while an update is under way
    runs once: a learner slower than the plant does fewer updates, and its weights do not grow ever older. ``learn_now``
    leaves nothing out. An update sees all rows that are there.

    Args:
      agent, state: who learns, from where; ``state`` is copied.
      acting: which leaves are published.
      clock: where the work runs.
      done: environment steps that ``state`` has seen.
      key: of the updates.
      carry: what the agent remembers, for its shapes.
    """

    def __init__(self, agent: Agent, state: PyTree, acting: Acting, clock: Clock, done: int, key: Key, carry: PyTree):
        self._agent, self._acting, self._clock = agent, acting, clock
        # A copy, as rows are recorded in place.
        self.state = strong(jax.tree.map(jnp.copy, state))
        self._weights = acting.weights(state)
        self.steps, self.seen = done, done  # rows that came, and rows that the weights handed over last had seen
        self._waiting: list[tuple] = []
        self._job: Job | None = None
        self.updates = self.merged = self.published = self.refused = 0
        self.error, self.metrics, self._key = "", [], key
        self._compile(key, carry)

    def offer(self, carry: PyTree, row: Transition, background: bool) -> None:
        """Take one row, and begin to learn where that is due."""
        self.steps += 1
        if not self.error:
            self._waiting.append((carry, row))
            if background:
                self._begin()

    def learn_now(self) -> None:
        """Learn all that is due, and wait for it."""
        self._begin(merge=False)
        self._wait()

    def poll(self) -> Weights | None:
        """New weights where there are some, else None. Never waits."""
        if self._job is None or not self._job.done():
            return None
        job, self._job = self._job, None
        try:
            weights, sound, seen = job.result()
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            return None
        if not sound:
            self.refused += 1
            return None
        self.published, self.seen, self._weights = self.published + 1, seen, weights
        return weights

    def finish(self) -> Learned:
        """Wait for the update under way and record the rows that are left."""
        self._wait()
        self.poll()
        try:
            self._record([] if self.error else self._waiting)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
        self._waiting = []
        return Learned(self.state, self.updates, self.merged, self.published, self.refused, self.error, self.metrics)

    # ------------------------------------------------------------------------------------- inside

    def _compile(self, key: Key, carry: PyTree) -> None:
        """Everything ahead of the first tick: a compilation beside the loop would take its processors."""

        def record(state: PyTree, carry: PyTree, row: Transition) -> PyTree:
            carry, row = jax.tree.map(lambda x: x[None], (carry, row))
            return strong(self._agent.record(state, carry, row, data.finite(row)))

        spec = self._acting.spec
        obs, flag = jnp.zeros(spec.obs_shape, spec.obs_dtype), jnp.asarray(False)
        row = Transition(obs, no_action(spec), jnp.zeros(()), obs, flag, flag)
        self._record_one = jax.jit(record, donate_argnums=0).lower(self.state, carry, row).compile()

        def phase(depth: int, update: Any) -> Any:
            def run(key: Key, state: PyTree, step: Array) -> tuple[PyTree, dict]:
                folded = jax.random.fold_in(jax.random.fold_in(key, step), depth + 1)  # as in make_train
                state, info = update(jax.random.split(folded, 1)[0], state, step)
                return strong(state), info

            return jax.jit(run).lower(key, self.state, np.int32(0)).compile()

        self._phases = [(period, phase(i, update)) for i, (period, update) in enumerate(self._agent.phases)]

        def publish(state: PyTree, old: Weights) -> tuple[Weights, Array]:
            new = jax.tree.map(jnp.copy, self._acting.weights(state))
            return new, still_finite(new, old)

        self._publish = jax.jit(publish).lower(self.state, self._weights).compile()
        self._publish(self.state, self._weights)

    def _due(self, before: int, after: int) -> list[list[int]]:
        """After how many of the rows ``before + 1`` to ``after`` each phase is due."""
        first = self._agent.warmup
        # -(-a // b) rounds up: the first boundary beyond `before`.
        begin = [max(-(-(before + 1 - first) // period), 0) * period + first for period, _ in self._phases]
        return [list(range(at, after + 1, period)) for at, (period, _) in zip(begin, self._phases, strict=True)]

    def _begin(self, merge: bool = True) -> None:
        if self._job is not None or self.error or not self._waiting:
            return
        due = self._due(self.steps - len(self._waiting), self.steps)
        if any(due):
            rows, self._waiting, steps = self._waiting, [], self.steps
            self._job = self._clock.submit("learn", lambda: self._work(rows, due, steps, merge))

    def _work(self, rows: list[tuple], due: list[list[int]], steps: int, merge: bool) -> tuple[Weights, bool, int]:
        self._record(rows)
        kept = [at[-1:] if merge else at for at in due]
        self.merged += sum(map(len, due)) - sum(map(len, kept))
        for step, depth in sorted((step, depth) for depth, at in enumerate(kept) for step in at):  # outermost first
            update = self._phases[depth][1]
            self.state, info = jax.block_until_ready(update(self._key, self.state, np.int32(step)))
            self.updates += 1
            self.metrics.append({"env_steps": step, **jax.device_get(info)})
        weights, sound = self._publish(self.state, self._weights)
        return weights, bool(sound), steps

    def _record(self, rows: list[tuple]) -> None:
        for carry, row in rows:
            self.state = self._record_one(self.state, carry, row)

    def _wait(self) -> None:
        if self._job is not None:
            self._clock.wait(self._job, math.inf)


def still_finite(new: PyTree, old: PyTree) -> Array:
    """``bool``: nothing is NaN, and nothing infinite that was finite in ``old`` (bounds may be from the start)."""

    def watched(a: Array, b: Array) -> Array:
        number = jnp.issubdtype(a.dtype, jnp.floating)
        return jnp.where(jnp.isfinite(b) | jnp.isnan(a), a, 0) if number else jnp.zeros(())

    return health.all_finite(jax.tree.map(watched, new, old))
