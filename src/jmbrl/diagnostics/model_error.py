"""How far a model's imagination drifts from what really happened, step by step."""

import jax
import jax.numpy as jnp

from jmbrl import checks, data
from jmbrl.data import normalizer
from jmbrl.diagnostics.windows import mean_alive, open_loop, real_windows, vectors, watch
from jmbrl.types import Array, Key, Model, Params, Sequence


def model_error(
    key: Key,
    model: Model,
    params: Params,
    source: data.Replay | Sequence,
    horizon: int,
    windows: int = 256,
    context: int = 1,
) -> dict[str, Array]:
    r"""Open-loop prediction error against the horizon, beside the error of predicting that nothing changes.

    The model sees the first ``context`` observations of a real window, then imagines under the actions that were
    executed. With :math:`\sigma` the real observations' standard deviation per dimension,

    .. math:: e_h = \sqrt{E_{w, d} \left[ \left( (\hat o^{w}_{h} - o^{w}_{h})_d / \sigma_d \right)^2 \right]}

    where :math:`\hat o` is the mean over (elite) members, each imagining on its own and without noise. Windows end
    where their episode does.

    Args:
      key: consumed.
      model, params: any model; ``decode`` gives what is compared.
      source: real data: a replay, or sequences ``[B, T]`` with ``T >= context + horizon - 1``.
      horizon: ``H``, imagined steps, at least 1.
      windows: how many to draw from a replay.
      context: observations seen first; more than 1 for models that need to watch before they know (recurrent ones).

    Returns:
      Arrays ``[H]``, entry ``h`` for ``h + 1`` steps ahead: ``rmse`` and ``persistence`` (both in standard deviations),
      ``reward_rmse`` (in rewards), ``clipped`` (fraction of predictions pulled back into the data's range), ``count``
      (windows that reach so far; the others are NaN where it is 0); ``per_dim[H, D]``, the rmse of each dimension;
      ``scale[D]``, :math:`\sigma`. For ensembles ``disagreement``: the members' standard deviation, root mean square
      over windows and dimensions, in the units of ``rmse``.

    Raises:
      ValueError: ``horizon``, ``windows`` or ``context`` below 1, or more rows asked for than are stored in a row.
    """
    horizon = checks.integer("horizon", horizon, 1)
    context = checks.integer("context", context, 1)
    length = context + horizon - 1

    @jax.jit
    def compute(key: Key, params: Params, source: data.Replay | Sequence) -> dict[str, Array]:
        key_windows, key_watch, key_roll = jax.random.split(key, 3)
        rows, alive = real_windows(key_windows, source, length, windows)
        real, seen = vectors(rows.next_obs, 2), vectors(rows.obs, 2)
        scale = normalizer.fit(real.reshape(-1, real.shape[-1]), alive.reshape(-1)).std
        beliefs = watch(key_watch, model, params, jax.tree.map(lambda x: x[:context], rows))
        imagined, outcome = open_loop(key_roll, model, params, beliefs, rows.action[context - 1 :])

        real, alive, reward = real[context - 1 :], alive[context - 1 :], rows.reward[context - 1 :]
        error = (jnp.mean(imagined, axis=0) - real) / scale
        still = (seen[context - 1] - real) / scale
        out = {
            "rmse": _rms(error, alive),
            "persistence": _rms(still, alive),
            "per_dim": jnp.sqrt(mean_alive(error**2, alive)),
            "reward_rmse": jnp.sqrt(mean_alive((jnp.mean(outcome.reward, axis=0) - reward) ** 2, alive)),
            "clipped": mean_alive(jnp.mean(outcome.clipped, axis=0, dtype=jnp.float32), alive),
            "count": jnp.sum(alive, axis=1),
            "scale": scale,
        }
        if model.members:
            out["disagreement"] = _rms(jnp.std(imagined, axis=0) / scale, alive)
        return out

    return compute(key, params, source)


def _rms(x: Array, alive: Array) -> Array:
    """Root mean square over windows and dimensions, ``[H, W, D] -> [H]``."""
    return jnp.sqrt(jnp.mean(mean_alive(x**2, alive), axis=-1))
