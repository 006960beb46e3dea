"""How much of an ensemble's spread is the world's noise, and how much is ignorance that data would cure."""

import jax
import jax.numpy as jnp

from jmbrl import checks, data
from jmbrl.data import normalizer
from jmbrl.diagnostics.windows import real_windows, vectors, watch
from jmbrl.models import members_predict
from jmbrl.types import Array, Key, Model, Params, Sequence


def variance_shares(
    key: Key,
    model: Model,
    params: Params,
    source: data.Replay | Sequence,
    rows: int = 2000,
    context: int = 1,
) -> dict[str, Array]:
    r"""The law of total variance over the (elite) members, at observations and actions that were visited.

    .. math:: \operatorname{Var}[o'] = \underbrace{E_m[\sigma_m^2]}_{\text{aleatoric}}
              + \underbrace{\operatorname{Var}_m[\mu_m]}_{\text{epistemic}}

    Each part is averaged over the rows, one step ahead. With one member the epistemic part is 0 by definition, and a
    deterministic network knows no noise: its aleatoric part is 0.

    Args:
      key: consumed.
      model, params: an ensemble whose members predict.
      source, rows, context: as for ``calibration``.

    Returns:
      ``aleatoric[D]`` and ``epistemic[D]``, variances in the observation's units; ``epistemic_share[D]``, the epistemic
      part of their sum (NaN where that is 0); ``total_share``, the same of the sums over dimensions in units of the
      data's variance; ``count``, the rows used.

    Raises:
      ValueError: not an ensemble, or members that predict nothing.

    Source: Depeweg et al. 2018 (arXiv 1710.07283), equation 8; Chua et al. 2018 (arXiv 1805.12114), section 4.
    """
    context = checks.integer("context", context, 1)
    if not model.members or model.member is None or model.member.predict is None:
        raise ValueError("model must be an ensemble of models that predict for its variance shares")

    @jax.jit
    def compute(key: Key, params: Params, source: data.Replay | Sequence) -> dict[str, Array]:
        key_windows, key_watch = jax.random.split(key)
        seen, alive = real_windows(key_windows, source, context, rows)
        keep, real = alive[-1], vectors(jax.tree.map(lambda x: x[-1], seen.next_obs), 1)
        said = members_predict(model, params, watch(key_watch, model, params, seen), seen.action[-1])
        elite = jax.tree.map(lambda x: x[params.stats.elites], said)
        count = jnp.maximum(jnp.sum(keep), 1)
        over_rows = lambda x: jnp.sum(jnp.where(keep[:, None], x, 0.0), axis=0) / count  # noqa: E731
        aleatoric = over_rows(jnp.mean(elite.std**2, axis=0))
        epistemic = over_rows(jnp.var(elite.mean, axis=0))
        scale = normalizer.fit(real, keep).std ** 2
        return {
            "aleatoric": aleatoric,
            "epistemic": epistemic,
            "epistemic_share": epistemic / (aleatoric + epistemic),
            "total_share": jnp.sum(epistemic / scale) / jnp.sum((aleatoric + epistemic) / scale),
            "count": jnp.sum(keep),
        }

    return compute(key, params, source)
