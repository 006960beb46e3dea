"""The stages of World Models, each a function that makes a ``Stage``: what it does with a chunk of its work."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jmbrl import learners
from jmbrl.data import normalizer
from jmbrl.data.columns import Columns
from jmbrl.models import LatentSequence, Memory, Vision, WorldModelBelief
from jmbrl.models.guarded import guarded_update
from jmbrl.rollout import evaluate
from jmbrl.types import Agent, Array, Discrete, Env, Key, Model, Params, PyTree, Spec, Stage

STARTS = 1024  # first frames that dreams begin with
BLOCK = 256  # frames encoded at once
CHUNK_BYTES = 64 * 2**20  # of data brought to the device for a chunk of updates
CHUNK_UPDATES = 100


class Starts(NamedTuple):
    """What the encoder says of first frames, ``float32[STARTS, latent]``."""

    mean: Array
    std: Array


class WorldModelsState(NamedTuple):
    """Everything that World Models learns; frames and latents lie on disk.

    Attributes:
      params: of the model, ``weights`` ``{"vision": V, "memory": M}``.
      vision_opt, memory_opt: the optimisers' states.
      evolution: of the controller.
      starts: where dreams begin.
      rows: frames on disk.
    """

    params: Params
    vision_opt: PyTree
    memory_opt: PyTree
    evolution: learners.EvolutionState
    starts: Starts
    rows: Array


# ---------------------------------------------------------------------------------------------- files


def frames(folder: Path, spec: Spec) -> Columns:
    """Episodes one after the other. Every frame is a row, the one that an episode ended with too (``is_last``): no
    action was taken there, so its action, reward and end mean nothing."""
    kind = "int32" if isinstance(spec.action, Discrete) else "float32"
    flag = ((), "bool")
    columns = {"obs": (spec.obs_shape, "uint8"), "action": (spec.action.shape, kind), "reward": ((), "float32")}
    return Columns(folder / "frames", columns | {"terminated": flag, "is_first": flag, "is_last": flag})


def latents(folder: Path, latent: int) -> Columns:
    """What the encoder says of every frame."""
    return Columns(folder / "latents", dict.fromkeys(("mean", "std"), ((latent,), "float32")))


def _generator(key: Key, start: int) -> np.random.Generator:
    """NumPy's numbers from a key: drawing rows of files is the host's work."""
    return np.random.default_rng([*np.asarray(jax.random.key_data(key)).ravel().tolist(), start])


# --------------------------------------------------------------------------------------------- collect


def collect(env: Env, agent: Agent, episodes: int, copies: int, carries: Callable | None = None) -> Stage:
    """Episodes of ``agent``, ``copies`` side by side, each ending before its first reward that is not finite.

    ``carries``: ``(key, state, N) -> carry [N, ...]``, what each episode begins with, where not all begin alike.
    """

    def advance(
        call: Callable, key: Key, state: WorldModelsState, folder: Path, start: int, length: int
    ) -> tuple[WorldModelsState, dict]:
        def play(key: Key, state: WorldModelsState) -> dict:
            key_carry, key_play = jax.random.split(key)
            begin = carries and carries(key_carry, state, length)
            return evaluate(key_play, env, agent, state, length, trace=True, carry=begin)

        table = frames(folder, env.spec)
        table.truncate(int(state.rows))  # behind them lies what an interrupted run had begun
        seen = jax.device_get(call(("collect", length, carries), play, jax.random.fold_in(key, start), state))
        played = range(length)
        good = np.asarray([_good_steps(seen["rewards"][: seen["lengths"][i], i]) for i in played])
        for i in played:
            table.append(**_episode(seen, i, good[i]))
        bad = good < seen["lengths"]
        metrics = {
            "episode_return": np.asarray([[seen["rewards"][: good[i], i].sum()] for i in played]),
            "episode_length": (good + bad)[:, None],
            "bad_transitions": bad[:, None].astype(np.float32),
        }
        return state._replace(rows=jnp.asarray(len(table), jnp.int32)), metrics

    return Stage("collect", "episodes", episodes, copies, advance, env.spec.max_steps)


def _good_steps(rewards: np.ndarray) -> int:
    """How many steps come before the first reward that is not finite."""
    return int(np.argmin(np.append(np.isfinite(rewards), False)))


def _episode(seen: dict[str, np.ndarray], i: int, n: int) -> dict[str, np.ndarray]:
    """Column values of copy ``i``'s episode of ``n`` steps: ``n + 1`` frames."""

    def padded(name: str) -> np.ndarray:
        values = seen[name][:, i]
        return np.concatenate([values[:n], np.zeros_like(values[:1])])

    index = np.arange(n + 1)
    return {
        "obs": seen["observations"][: n + 1, i],
        "action": padded("actions"),
        "reward": padded("rewards"),
        "terminated": padded("terminated"),
        "is_first": index == 0,
        "is_last": index == n,
    }


# ----------------------------------------------------------------------------------------------- V, M


def memory_optimizer(learning_rate: float, clip: float) -> optax.GradientTransformation:
    """Adam after a clip of each entry of the gradient."""
    return optax.chain(optax.clip(clip), optax.adam(learning_rate))


def see(spec: Spec, vision: Vision, optimizer: optax.GradientTransformation, count: int, batch: int) -> Stage:
    """V on frames drawn uniformly, with replacement."""

    def advance(
        call: Callable, key: Key, state: WorldModelsState, folder: Path, start: int, length: int
    ) -> tuple[WorldModelsState, dict]:
        column = frames(folder, spec).read("obs")[: int(state.rows)]
        if len(column) == 0:
            raise ValueError("there are no frames to learn from: nothing was collected")
        places = _generator(key, start).integers(len(column), size=(length, batch))
        keys = jax.random.split(jax.random.fold_in(key, start), length)
        learn = learning("vision", vision.loss, optimizer)
        return call(("vision", length), learn, state, column[places], keys, donate=(0,))

    return Stage("vision", "updates", count, _per_chunk(batch * math.prod(spec.obs_shape)), advance)


def encode(spec: Spec, vision: Vision, episodes: int) -> Stage:
    """Every frame once through the encoder."""

    def advance(
        call: Callable, key: Key, state: WorldModelsState, folder: Path, start: int, length: int
    ) -> tuple[WorldModelsState, dict]:
        del key
        table, rows = frames(folder, spec), int(state.rows)
        begins = np.append(np.flatnonzero(table.read("is_first")[:rows]), rows)
        first, last = (int(begins[min(i, len(begins) - 1)]) for i in (start, start + length))
        obs, out = table.read("obs"), latents(folder, state.starts.mean.shape[1])
        out.truncate(first)
        for at in range(first, last, BLOCK):
            block = obs[at : min(at + BLOCK, last)]
            full = np.zeros((BLOCK, *spec.obs_shape), np.uint8)
            full[: len(block)] = block
            mean, std = call(("encode",), vision.encode, state.params.weights["vision"], full)
            out.append(mean=np.asarray(mean)[: len(block)], std=np.asarray(std)[: len(block)])
        return state, {"encode/frames": np.asarray([last - first], np.float32)}

    return Stage("encode", "episodes", episodes, max(1, min(64, episodes // 20)), advance)


def remember(
    spec: Spec,
    model: Model,
    memory: Memory,
    optimizer: optax.GradientTransformation,
    total: int,
    batch: int,
    length: int,
) -> Stage:
    """M on windows of ``length`` rows drawn uniformly, with replacement, across the ends of episodes."""

    def advance(
        call: Callable, key: Key, state: WorldModelsState, folder: Path, start: int, count: int
    ) -> tuple[WorldModelsState, dict]:
        table, rows = frames(folder, spec), int(state.rows)
        if rows < length + 1:
            raise ValueError(f"length must be below the number of frames, which is {rows}, got {length}")
        seen = latents(folder, state.starts.mean.shape[1])
        if start == 0:
            state = _facts(key, state, table, seen)
        places = _generator(key, start).integers(rows - length, size=(count, batch))
        batches = windows(spec, state, table, seen, places[..., None] + np.arange(length + 1))
        keys = jax.random.split(jax.random.fold_in(key, start), count)
        learn = learning("memory", memory.loss, optimizer)
        return call(("memory", count), learn, state, batches, keys, donate=(0,))

    latent = jax.eval_shape(lambda key: model.initial(model.init(key)).z, jax.random.key(0)).size
    return Stage("memory", "updates", total, _per_chunk(4 * batch * length * (2 * latent + 4)), advance)


def _facts(key: Key, state: WorldModelsState, table: Columns, seen: Columns) -> WorldModelsState:
    """What data tell beside M's weights: the units of rewards, and where dreams begin."""
    rows = int(state.rows)
    counts = ~table.read("is_last")[:rows]
    reward = normalizer.fit(jnp.asarray(table.read("reward")[:rows])[:, None], jnp.asarray(counts))
    firsts = np.flatnonzero(table.read("is_first")[:rows])
    drawn = np.sort(_generator(key, STARTS).choice(firsts, STARTS))
    starts = Starts(jnp.asarray(seen.read("mean")[drawn]), jnp.asarray(seen.read("std")[drawn]))
    params = state.params._replace(stats=state.params.stats._replace(reward=reward))
    return state._replace(params=params, starts=starts)


def windows(spec: Spec, state: WorldModelsState, table: Columns, seen: Columns, places: np.ndarray) -> LatentSequence:
    """Rows ``places [..., T + 1]`` of the tables, for M."""
    rows = places[..., :-1]
    action = table.read("action")[rows]
    if isinstance(spec.action, Discrete):
        action = np.eye(spec.action.n, dtype=np.float32)[action]
    reward = normalizer.normalize(state.params.stats.reward, jnp.asarray(table.read("reward")[rows])[..., None])[..., 0]
    first, ended, last = (jnp.asarray(table.read(name)[rows]) for name in ("is_first", "terminated", "is_last"))
    mean, std = (jnp.asarray(seen.read(name)[places]) for name in ("mean", "std"))
    return LatentSequence(mean, std, jnp.asarray(action), reward, ended, first, ~last)


def learning(part: str, loss: Callable, optimizer: optax.GradientTransformation) -> Callable:
    """``(state, batches, keys) -> (state, metrics)``: ``updates`` of one part, ``"vision"`` or ``"memory"``."""
    place = f"{part}_opt"

    def learn(state: WorldModelsState, batches: PyTree, keys: Key) -> tuple[WorldModelsState, dict]:
        weights = state.params.weights
        new, opt, info = updates(loss, optimizer, weights[part], getattr(state, place), keys, batches)
        params = state.params._replace(weights=weights | {part: new})
        return state._replace(params=params, **{place: opt}), {f"{part}/{name}": x for name, x in info.items()}

    return learn


def updates(
    loss: Callable, optimizer: optax.GradientTransformation, weights: PyTree, opt: PyTree, keys: Key, batches: PyTree
) -> tuple[PyTree, PyTree, dict[str, Array]]:
    """A gradient step for each key and batch, left out where it is not finite; metrics ``[U]``."""

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, dict]:
        key, batch = inputs
        weights, opt = carry
        weights, opt, value, info, health = guarded_update(
            optimizer, lambda weights: loss(key, weights, batch), weights, opt, None
        )
        return (weights, opt), {"loss": value, **info, **health._asdict(), "updates": jnp.ones(())}

    (weights, opt), info = jax.lax.scan(body, (weights, opt), (keys, batches))
    return weights, opt, info


def _per_chunk(size: int) -> int:
    """Updates in a chunk, each on ``size`` bytes."""
    return max(1, min(CHUNK_UPDATES, CHUNK_BYTES // size))


# -------------------------------------------------------------------------------------------------- C


def control(
    evolution: learners.Evolution, score: Callable, generations: int, rollouts: int, every: int, checks: int, steps: int
) -> Stage:
    """Generations of C: ``score(key, state, policies[P, D], rollouts) -> returns[P, R]`` of the whole system's state.

    Every ``every`` generations, and after the last, the mean is worth ``checks`` rollouts, and crowned where it is the
    best so far. A champion of an earlier round is forgotten: it was crowned in another dream.
    """

    def advance(
        call: Callable, key: Key, state: WorldModelsState, folder: Path, start: int, length: int
    ) -> tuple[WorldModelsState, dict]:
        del folder
        if start == 0:
            unknown = jnp.asarray(-jnp.inf, jnp.float32)
            state = state._replace(evolution=state.evolution._replace(champion_fitness=unknown))

        def learn(key: Key, state: WorldModelsState, start: Array) -> tuple[WorldModelsState, dict]:
            def generation(found: learners.EvolutionState, i: Array) -> tuple[learners.EvolutionState, dict]:
                key_update, key_check = jax.random.split(jax.random.fold_in(key, i))

                def rollout(key: Key, policies: Array) -> Array:
                    return jnp.mean(score(key, state, policies, rollouts), axis=1)

                def check(found: learners.EvolutionState) -> tuple[learners.EvolutionState, Array]:
                    mean = evolution.mean(found)
                    worth = jnp.mean(score(key_check, state, mean[None], checks))
                    return evolution.crown(found, mean, worth), worth

                found, info = evolution.update(key_update, found, rollout)
                due = ((i + 1) % every == 0) | (i + 1 == generations)
                found, worth = jax.lax.cond(due, check, lambda found: (found, jnp.float32(jnp.nan)), found)
                return found, info | {"check": worth, "champion_fitness": found.champion_fitness}

            found, info = jax.lax.scan(generation, state.evolution, start + jnp.arange(length))
            info = {f"controller/{name}": x for name, x in info.items()}
            return state._replace(evolution=found), info

        state, info = call(("controller", length), learn, jax.random.fold_in(key, 1), state, jnp.int32(start))
        if steps:  # the candidates' episodes are real ones
            info["episode_return"] = info["controller/fitness_mean"][:, None]
        return state, info

    # A generation is long enough to be a chunk, and chunks of one length are compiled once.
    return Stage("controller", "generations", generations, 1, advance, steps)


def in_round(number: int, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages of a later round: other names, other keys."""

    def one(stage: Stage) -> Stage:
        def advance(call: Callable, key: Key, *rest: Any) -> tuple[WorldModelsState, dict]:
            return stage.advance(call, jax.random.fold_in(key, 2**29 + number), *rest)

        return stage._replace(name=f"{stage.name} {number + 1}", advance=advance)

    return stages if number == 0 else tuple(one(stage) for stage in stages)


def starting(model: Model, params: Params, starts: Starts) -> Callable:
    """``(key) -> belief``: a first frame as the encoder saw it, and an empty memory."""

    def start(key: Key) -> WorldModelBelief:
        key_choice, key_noise = jax.random.split(key)
        chosen = jax.tree.map(lambda x: x[jax.random.randint(key_choice, (), 0, len(x))], starts)
        z = chosen.mean + chosen.std * jax.random.normal(key_noise, chosen.mean.shape)
        return model.initial(params)._replace(z=z)

    return start


def test(env: Env, agent: Agent, episodes: int, copies: int) -> Stage:
    """Episodes of the best controller in the true world, without learning."""

    def advance(
        call: Callable, key: Key, state: WorldModelsState, folder: Path, start: int, length: int
    ) -> tuple[WorldModelsState, dict]:
        del folder

        def play(key: Key, state: WorldModelsState) -> dict:
            return evaluate(key, env, agent, state, length)

        seen = jax.device_get(call(("test", length), play, jax.random.fold_in(key, 2**30 + start), state))
        return state, {"episode_return": seen["returns"][:, None], "episode_length": seen["lengths"][:, None]}

    return Stage("test", "episodes", episodes, min(copies, episodes), advance, env.spec.max_steps)
