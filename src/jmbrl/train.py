"""The whole run as one pure function, and as chunks of itself.

``make_train(env, agent, steps)(key)`` compiles environment, data, model learning and planning into one
program: ``jit`` it, ``vmap`` it over keys. Runners that log, draw and save call ``chunk`` in a Python loop
instead; keys are folded from the step count, so chunks equal one scan bit for bit.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.data import replay
from jmbrl.lanes import Programs
from jmbrl.rollout import over_envs, random_actions, tile
from jmbrl.types import Agent, Array, Env, Key, PyTree, Stage, Transition, VectorEnv

Metrics = dict[str, Array]


class Run(NamedTuple):
    """Everything a run needs to go on.

    Attributes:
      agent: the agent's state.
      env: the environments' states.
      obs: what they show now, ``[num_envs, ...]``.
      carry: what the agent remembers of each.
      is_first: ``bool[num_envs]``, an episode (or the agent's part in it) begins here.
      episode_return, episode_length: of the episodes under way.
    """

    agent: PyTree
    env: PyTree
    obs: PyTree
    carry: PyTree
    is_first: Array
    episode_return: Array
    episode_length: Array


class Span(NamedTuple):
    """A stretch of a run: environment steps ``[start, start + length)``, of random actions if ``warmup``."""

    start: int
    length: int
    warmup: bool


@dataclasses.dataclass(frozen=True)
class Train:
    """A run of ``steps`` environment steps in all. Made by ``make_train``."""

    env: Env
    agent: Agent
    steps: int
    num_envs: int
    worlds: VectorEnv

    @property
    def alone(self) -> bool:
        """Whether seeds run one after another: a host environment cannot be mapped."""
        return self.env.spec.host

    def programs(self, keys: Key, names: list[int], directory: Path | None, **options: Any) -> Programs:
        """The compiled side of the run; ``names`` and ``directory`` are for runs that keep files of their own."""
        del names, directory
        return Programs(self, keys, **options)

    def part(self, done: int) -> tuple[Stage, int]:
        """What the bar shows at a step: the run is all one stage, which begins at 0."""
        del done
        return Stage("training", "steps", self.steps, self.period, self.chunk, 1), 0

    def env_steps(self, done: int) -> int:
        """Environment steps after so much work: a run of this kind counts nothing else."""
        return done

    def __call__(self, key: Key) -> tuple[Run, Metrics]:
        """The whole run, warm-up included: ``(run, history)``; ``history`` as ``chunk``'s metrics."""
        run, parts = self.init(key), []
        for span in self.spans(periods_per_chunk=None):
            run, metrics = self.chunk(key, run, jnp.asarray(span.start), span.length, span.warmup)
            parts.append(metrics)
        names = {name: None for part in parts for name in part}  # the warm-up knows fewer; order is kept
        return run, {name: jnp.concatenate([part[name] for part in parts if name in part]) for name in names}

    def init(self, key: Key) -> Run:
        """The run before its first step."""
        key_agent, key_env = jax.random.split(jax.random.fold_in(checks.key(key), 2**31))
        state = self.agent.init(key_agent, self.num_envs)
        env, obs = self.worlds.reset(key_env)
        zeros = jnp.zeros(self.num_envs)
        carry = jax.tree.map(jnp.asarray, tile(self.agent.reset(state), self.num_envs))
        return Run(state, env, obs, carry, jnp.ones(self.num_envs, bool), zeros, zeros.astype(jnp.int32))

    def resume_env(self, key: Key, run: Run) -> Run:
        """The run with new episodes in every environment: for host environments, whose state cannot be saved."""
        env, obs = self.worlds.reset(key)
        zeros = jnp.zeros_like(run.episode_return)
        return run._replace(
            env=env,
            obs=obs,
            is_first=jnp.ones_like(run.is_first),
            episode_return=zeros,
            episode_length=zeros.astype(jnp.int32),
        )

    @property
    def period(self) -> int:
        """Environment steps of the outermost phase; one episode of every environment where there is no phase."""
        return self.agent.phases[0][0] if self.agent.phases else self.env.spec.max_steps * self.num_envs

    @property
    def warmup(self) -> int:
        return min(self.agent.warmup, self.steps)

    def spans(self, periods_per_chunk: int | None = 1) -> list[Span]:
        """The run cut into chunks of whole outermost periods (None: one); the last may be shorter.

        Chunks of equal length share one compilation: at most three for a run (warm-up, body, remainder).
        """
        spans = [Span(0, self.warmup, True)] if self.warmup else []
        length = (
            self.steps
            if periods_per_chunk is None
            else self.period * checks.integer("periods_per_chunk", periods_per_chunk, 1)
        )
        start = self.warmup
        while start < self.steps:
            spans.append(Span(start, min(length, self.steps - start), False))
            start += length
        return spans

    def chunk(self, key: Key, run: Run, step: Array | int, length: int, warmup: bool = False) -> tuple[Run, Metrics]:
        """Environment steps ``[step, step + length)``.

        Args:
          key: the run's key, the same for all chunks.
          run: where it stands.
          step: environment steps done; not mapped under ``vmap`` over seeds (``in_axes=None``).
          length: static; a multiple of ``period`` unless it ends the run.
          warmup: static; random actions and no updates.

        Returns:
          The run and metrics whose leading axis is time: ``reward, episode_return`` (NaN where none ended),
          ``episode_length, bad_transitions, bad_actions``, each ``[length / num_envs, num_envs]``; ``act/...``
          likewise; and whatever the phases report, one row an update.
        """
        step = jnp.asarray(step, jnp.int32)
        if warmup:
            run, metrics = self._interactions(key, run, step, length, random=True)
            # The agent has not watched: whatever it remembers begins here.
            return run._replace(is_first=jnp.ones_like(run.is_first)), metrics
        return self._phase(0, key, run, step, length)

    # ------------------------------------------------------------------------------------- inside

    def _phase(self, depth: int, key: Key, run: Run, step: Array, length: int) -> tuple[Run, Metrics]:
        """``length`` steps of phase ``depth``: before each period its update, inside it the next phase."""
        if depth == len(self.agent.phases):
            return self._interactions(key, run, step, length, random=False)
        period, update = self.agent.phases[depth]
        block, repeats = max(period, self.num_envs), max(1, self.num_envs // period)

        def updates(state: PyTree, step: Array) -> tuple[PyTree, Metrics]:
            base = jax.random.fold_in(jax.random.fold_in(key, step), depth + 1)

            def body(state: PyTree, key: Key) -> tuple[PyTree, Metrics]:
                return update(key, state, step)

            return jax.lax.scan(body, state, jax.random.split(base, repeats))

        def one(run: Run, step: Array, length: int) -> tuple[Run, Metrics]:
            state, info = updates(run.agent, step)
            run, metrics = self._phase(depth + 1, key, run._replace(agent=state), step, length)
            return run, info | metrics

        full, rest = divmod(length, block)
        parts = []
        if full:
            starts = step + block * jnp.arange(full, dtype=jnp.int32)
            run, stacked = jax.lax.scan(lambda run, at: one(run, at, block), run, starts)
            parts.append(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), stacked))
        if rest:
            run, last = one(run, step + full * block, rest)
            parts.append(last)
        return run, jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    def _interactions(self, key: Key, run: Run, step: Array, length: int, random: bool) -> tuple[Run, Metrics]:
        act = over_envs(self.agent.act, self.num_envs)

        def body(run: Run, step: Array) -> tuple[Run, Metrics]:
            key_act, key_env, key_restart = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, step), 0), 3)
            if random:
                action, carry, info = random_actions(key_act, self.env.spec, self.num_envs), run.carry, {}
            else:
                action, carry, info = act(key_act, run.agent, run.carry, run.obs, run.is_first, True)
            return self._interact(key_env, key_restart, run._replace(carry=carry), action, info)

        starts = step + self.num_envs * jnp.arange(length // self.num_envs, dtype=jnp.int32)
        return jax.lax.scan(body, run, starts)

    def _interact(self, key_env: Key, key_restart: Key, run: Run, action: Array, info: dict) -> tuple[Run, Metrics]:
        """Act in every environment, record, and restart those whose episode ended or whose numbers broke."""
        action, bad_action = _finite_action(action)
        env, seen = self.worlds.step(key_env, run.env, action)
        rows = Transition(run.obs, action, seen.reward, seen.obs, seen.terminated, seen.truncated)
        valid = replay.finite(rows)
        done = seen.terminated | seen.truncated | ~valid
        total = run.episode_return + jnp.where(valid, seen.reward, 0.0)
        length = run.episode_length + 1
        state = self.agent.record(run.agent, run.carry, rows, valid)
        env, obs = self.worlds.restart(key_restart, done, env, seen.obs)
        metrics = {
            "reward": seen.reward,
            "episode_return": jnp.where(done, total, jnp.nan),
            "episode_length": jnp.where(done, length, 0),
            "bad_transitions": (~valid).astype(jnp.float32),
            "bad_actions": bad_action.astype(jnp.float32),
        }
        metrics |= {f"act/{name}": value for name, value in info.items()}
        run = Run(state, env, obs, run.carry, done, jnp.where(done, 0.0, total), jnp.where(done, 0, length))
        return run, metrics


def make_train(env: Env, agent: Agent, steps: int, num_envs: int = 1) -> Train:
    """A whole run as a pure function ``train(key) -> (run, history)``.

    Args:
      env: the real world.
      agent: the system.
      steps: environment steps in all, over all environments and with the warm-up.
      num_envs: real environments side by side.

    Raises:
      ValueError: ``steps``, the warm-up or a phase's period does not fit ``num_envs`` or the next inner period; an
        agent that learns in stages, for which there is ``make_staged``; or a game of two for an agent of one player.

    Build it inside the mapped function to sweep hyper-parameters that are arrays:
    ``jax.vmap(lambda key, lr: make_train(env, make_agent(lr), 2000)(key))(keys, rates)``.
    """
    if agent.stages is not None:
        raise ValueError("agent learns in stages, which are no single program: use make_staged, or make_run for both")
    if env.spec.players > agent.players:
        raise ValueError(
            f"{env.spec.name} is played by {env.spec.players} in turn, which this agent cannot: give the environment "
            "an opponent (envs.versus, or make(..., opponent=...)), or use alphazero, muzero or mcts"
        )
    steps = checks.integer("steps", steps, 1, 2**31 - 1)  # counted in int32 inside
    num_envs = checks.integer("num_envs", num_envs, 1)
    for name, value in (("steps", steps), ("warmup", agent.warmup)):
        if value % num_envs:
            raise ValueError(f"{name} must be a multiple of num_envs={num_envs}, got {value}")
    _check_periods([period for period, _ in agent.phases], num_envs)
    return Train(env, agent, steps, num_envs, env.vector(num_envs))


def _check_periods(periods: list[int], num_envs: int) -> None:
    for i, period in enumerate(periods):
        checks.integer(f"phases[{i}] period", period, 1)
        large, small = max(period, num_envs), min(period, num_envs)
        if large % small:
            raise ValueError(f"phases[{i}] period must divide or be a multiple of num_envs={num_envs}, got {period}")
        if i and (periods[i - 1] < num_envs or periods[i - 1] % max(period, num_envs)):
            raise ValueError(
                f"phases[{i - 1}] period {periods[i - 1]} must be a multiple of the next inner period {period}"
            )


def _finite_action(action: Array) -> tuple[Array, Array]:
    """A non-finite action becomes 0 and is counted: it must not reach a robot."""
    if not jnp.issubdtype(action.dtype, jnp.floating):
        return action, jnp.zeros(action.shape[:1], bool)
    bad = ~jnp.isfinite(action)
    return jnp.where(bad, 0.0, action), jnp.any(bad.reshape(bad.shape[0], -1), axis=1)
