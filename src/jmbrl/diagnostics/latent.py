"""What a model that filters sequences makes of real episodes: imagined frames, rewards and ends, and its latents.

Real episodes are filtered once, from their first observations on; everything here is asked of the beliefs found there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks, data
from jmbrl.data import Frames, normalizer
from jmbrl.data.windows import take_windows
from jmbrl.diagnostics.imagined_returns import Points, imagined_returns
from jmbrl.diagnostics.latent_calibration import continuation_calibration, kl_per_latent, reward_calibration
from jmbrl.diagnostics.windows import mean_alive, vectors
from jmbrl.types import Agent, Array, Key, Model, Params, PyTree, Watched

CONTEXT, HORIZON = 5, 50  # frames seen, steps imagined
SHOWN = 3  # episodes in the film
STARTS = 32, 256  # of imagination: at least, at most
NUMBERS = 2**21  # of the frames that are compared, roughly at most
ACTIVE = 0.01  # nats


class Film(NamedTuple):
    """Episodes from their first frame on: ``real`` and ``model`` ``[R, context + H, ...]``, the latter reconstructed in
    the context and imagined after it; ``alive``: where the episode lasts."""

    real: np.ndarray
    model: np.ndarray
    alive: np.ndarray


class LatentReport(NamedTuple):
    """``numbers`` and arrays, by name; ``film`` of ``context`` seen frames and what follows; ``points``, None without a
    critic."""

    numbers: dict[str, Any]
    film: Film
    points: Points | None
    context: int


def diagnose_latent(
    key: Key,
    agent: Agent,
    agent_state: PyTree,
    source: data.Replay,
    *,
    horizon: int = HORIZON,
    context: int = CONTEXT,
    starts: int | None = None,
) -> LatentReport:
    r"""Hold a latent model (and critic) against real episodes.

    Args:
      key: consumed.
      agent, agent_state: with a model that has ``watch``.
      source: real episodes, those that the agent's policy played without exploring where there is a critic: of
        ``collect``.
      horizon: imagined steps, less where the replay is shorter.
      context: frames of an episode that are seen before, at least 1.
      starts: places that imagination begins at, those that an episode's end cuts least; by default 32 to 256.

    Returns:
      Numbers: ``open_loop`` (:math:`[H]`, ``h`` for ``h + 1`` steps ahead: root mean square errors of the frames drawn
      in imagination (``model``), of the decoded beliefs that saw them (``posterior``), of the last frame seen
      (``constant``); shares of 255 for bytes, else standard deviations of the data; ``count``), ``reward`` and
      ``continuation`` (``one_step`` from filtered beliefs, and ``open_loop``, all distances together: what
      ``reward_calibration`` and ``continuation_calibration`` return), ``ends`` in the data, ``kl`` and ``returns``
      (``imagined_returns``). ``continuation`` is None where the model never says anything but 1, ``returns`` where
      there is no critic.

    Raises:
      ValueError: no model with ``watch``, or a number below 1.
    """
    model = agent.model
    if model is None or agent.params is None or model.watch is None:
        raise ValueError("agent must have a model that filters sequences (Model.watch), got one without")
    rows = source.capacity
    context = min(checks.integer("context", context, 1), rows)
    horizon = min(checks.integer("horizon", horizon, 1), rows - context + 1)
    size = int(np.prod(source.data.obs.shape[2:]))
    starts = int(np.clip(NUMBERS // (horizon * size), *STARTS)) if starts is None else starts
    starts = min(checks.integer("starts", starts, 1), source.valid.size)

    @jax.jit
    def compute(key: Key, params: Params, source: data.Replay) -> tuple:
        key_watch, *keys = jax.random.split(key, 4)
        watched = model.watch(key_watch, params, whole(source), None)
        found = _one_step(keys[0], model, params, watched), _latents(watched)
        return (
            watched.frames,
            watched.beliefs,
            *found,
            _ahead(keys[1:], model, params, watched, horizon, context, starts),
        )

    params = agent.params(agent_state)
    key, key_returns = jax.random.split(key)
    frames, beliefs, one, kl, (error, far, film) = compute(key, params, source)
    error, one, far, kl, film = jax.device_get((error, one, far, kl, film))
    order = np.argsort(-kl, kind="stable")
    numbers = {
        "context": context,
        "open_loop": error,
        "reward": {name: reward_calibration(*_kept(x, "reward", "paid")) for name, x in _pairs(one, far)},
        "ends": int(np.sum(one["ended"] & one["alive"])),
        "continuation": None,
        "kl": {
            "per_latent": kl[order],
            "latent": order,
            "active": int(np.sum(kl > ACTIVE)),
            "total": float(np.sum(kl)),
        },
        "returns": None,
    }
    if np.any(one["going"] < 1) or np.any(far["going"] < 1):
        pairs = _pairs(one, far)
        numbers["continuation"] = {name: continuation_calibration(*_kept(x, "going", "ended")) for name, x in pairs}
    points = None
    if agent.critic is not None:
        numbers["returns"], points = imagined_returns(
            key_returns, model, params, agent.critic, agent_state, frames, beliefs
        )
    return LatentReport(numbers, Film(*film), points, context)


def whole(source: data.Replay) -> Frames:
    """A replay's rows as frames ``[num_envs, capacity + 1]``, each environment's from its oldest on."""
    envs = jnp.arange(source.num_envs)
    rows, _ = take_windows(source, jnp.zeros_like(envs), envs, source.capacity)
    return data.frames(rows._replace(is_first=rows.is_first.at[:, 0].set(True)))[0]


def place_in_episode(frames: Frames) -> tuple[Array, Array]:
    """How many frames of its episode come before and after each that is stored, ``int32[B, F]`` both."""
    at = jnp.arange(frames.mask.shape[1])
    breaks = frames.is_first | ~frames.mask
    age = at - jax.lax.cummax(jnp.where(breaks, at, 0), axis=1)
    following = jax.lax.cummin(jnp.where(breaks, at, len(at)), axis=1, reverse=True)
    end = jnp.full_like(following[:, :1], len(at))
    return age, jnp.concatenate([following[:, 1:], end], axis=1) - at - 1


def _latents(watched: Watched) -> Array:
    each = kl_per_latent(watched.posterior, watched.prior)
    mask = watched.frames.mask[..., None]
    return jnp.sum(jnp.where(mask, each, 0.0), axis=(0, 1)) / jnp.maximum(jnp.sum(mask), 1)


def _one_step(key: Key, model: Model, params: Params, watched: Watched) -> dict[str, Array]:
    """One imagined step from every belief under the action that was taken there."""
    frames = watched.frames
    follows = place_in_episode(frames)[1][:, :-1] > 0
    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    beliefs = jax.tree.map(lambda x: flat(x[:, :-1]), watched.beliefs)
    outcome = model.step_many(key, params, beliefs, flat(frames.action[:, 1:]))[1]
    told = {"paid": frames.reward[:, 1:], "ended": frames.terminated[:, 1:], "alive": follows}
    return {"reward": outcome.reward, "going": outcome.discount} | {name: flat(x) for name, x in told.items()}


def _ahead(
    keys: list, model: Model, params: Params, watched: Watched, horizon: int, context: int, starts: int
) -> tuple[dict[str, Array], dict[str, Array], tuple]:
    """Errors ``[H]``, what was said of rewards and ends ``[H, starts]``, and the film of the first ``SHOWN`` places,
    which begin episodes and count for nothing else."""
    frames, length = watched.frames, watched.frames.mask.shape[1]
    places, fit = _places(keys[0], frames, horizon, context, starts)
    envs, at = jnp.divmod(places, length)

    def along(x: Array, steps: Array) -> Array:
        """``[steps, places, ...]``: what lies so many frames later."""
        return x[envs, jnp.clip(at + steps[:, None], 0, length - 1)]

    steps = jnp.arange(1, horizon + 1)
    ahead = jax.tree.map(lambda x: along(x, steps), (watched.beliefs, frames))
    alive = fit & (steps[:, None] <= place_in_episode(frames)[1][envs, at])
    last = vectors(frames.obs[envs, at], 1)
    scale = jnp.asarray(255.0)
    if frames.obs.dtype != jnp.uint8:
        every = vectors(frames.obs, 2)
        scale = normalizer.fit(every.reshape(-1, every.shape[-1]), frames.mask.reshape(-1)).std
    decode = jax.vmap(model.decode, in_axes=(None, 0))

    def body(belief: PyTree, inputs: tuple) -> tuple[PyTree, tuple]:
        key, seen, frame = inputs
        belief, outcome = model.step_many(key, params, belief, frame.action)
        drawn, real = decode(params, belief), vectors(frame.obs, 1)
        shown = {"model": vectors(drawn, 1), "posterior": vectors(decode(params, seen), 1), "constant": last}
        square = {name: jnp.mean(((x - real) / scale) ** 2, axis=-1) for name, x in shown.items()}
        return belief, (square, outcome.reward, outcome.discount, drawn[:SHOWN])

    begin = jax.tree.map(lambda x: x[envs, at], watched.beliefs)
    _, (square, reward, going, drawn) = jax.lax.scan(body, begin, (jax.random.split(keys[1], horizon), *ahead))
    kept = alive[:, SHOWN:]
    error = {name: jnp.sqrt(mean_alive(x[:, SHOWN:], kept)) for name, x in square.items()}
    said = {"reward": reward, "going": going, "paid": ahead[1].reward, "ended": ahead[1].terminated, "alive": alive}
    said = {name: x[:, SHOWN:] for name, x in said.items()}

    before = jnp.arange(1 - context, 1)
    first = jax.tree.map(lambda x: along(x, before)[:, :SHOWN], (watched.beliefs, frames.obs))
    again = jax.lax.map(lambda belief: decode(params, belief), first[0])
    film = (first[1], ahead[1].obs[:, :SHOWN]), (again, drawn), (alive[:1, :SHOWN].repeat(context, 0), alive[:, :SHOWN])
    joined = tuple(jnp.swapaxes(jnp.concatenate(parts), 0, 1) for parts in film)
    return error | {"count": jnp.sum(kept, axis=1)}, said, joined


def _places(key: Key, frames: Frames, horizon: int, context: int, starts: int) -> tuple[Array, Array]:
    """Where imagination begins: ``SHOWN`` frames that end an episode's context, then ``starts`` others at random among
    those that an episode's end cuts least. Places count through ``[B, F]``; and whether there was such a place."""
    age, room = place_in_episode(frames)
    score = jnp.where(frames.mask & (age >= context - 1), jnp.minimum(room, horizon), 0).astype(jnp.float32)
    score = score + jax.random.uniform(key, score.shape)
    score_shown = jnp.where(age == context - 1, score, 0.0)
    best = zip(*(jax.lax.top_k(x.reshape(-1), n) for x, n in ((score_shown, SHOWN), (score, starts))), strict=True)
    score, places = (jnp.concatenate(both) for both in best)
    return places, score >= 1


def _kept(said: dict[str, np.ndarray], predicted: str, real: str) -> tuple[np.ndarray, np.ndarray]:
    return said[predicted][said["alive"]], said[real][said["alive"]]


def _pairs(one: dict, far: dict) -> list[tuple[str, dict]]:
    return [("one_step", one), ("open_loop", far)]
