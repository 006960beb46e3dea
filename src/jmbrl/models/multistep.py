"""Training a model on its own imagination: the loss of several steps, through the steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, DataKind, Key, Model, Params, PyTree, Sequence, Transition


def multistep(model: Model, steps: int, norm: str = "squared") -> Model:
    r"""``model`` with a loss over ``steps`` imagined steps, backpropagated through all of them.

    Along a window of real rows, imagination starts at the real :math:`s_0`, takes the recorded actions without noise,
    :math:`\hat s_{i+1} = f(\hat s_i, a_i)`, and is put back onto the real state (*anchored*) every ``steps`` rows, at a
    new episode and after a row that is not valid. Over the valid rows, :math:`m_i`,

    .. math:: L = \frac{\sum_i m_i\, \ell_i}{\sum_i m_i}, \quad
       \ell_i = \begin{cases} \text{model.loss}(s_i, a_i, r_i, s_{i+1}) & \text{anchored} \\
       e(\hat s_i, a_i, r_i, s_{i+1}) & \text{else} \end{cases}

    ``model.loss`` at anchored rows is the ordinary one-step loss: heads of reward and termination, weight decay, and
    the variance learn there, so a predicted variance stays that of *one* step. :math:`e` is the squared error that the
    model reports for the step, in its targets' units, mean over targets: ``info["weighted_mse"]`` (divided by the
    variance it predicts, which gets no gradient: the weight that the likelihood gives the error) where there is one,
    else ``info["mse"]``. For a state-space model that is the error of :math:`\hat s_{i+1}` against :math:`s_{i+1}`,
    angles and entries that are not predicted included as in the model's own loss. ``norm="l2"`` is SLBO's loss:

    .. math:: e_i = \tfrac{1}{\sqrt n} \| (\hat s_{i+1} - \hat s_i) - (s_{i+1} - s_i) \|_2

    with the same norm at anchored rows in place of the squared error, for a ``deterministic_mlp`` (SLBO's has
    ``normalize_targets=True``, as it divides changes by their standard deviation, and a given reward).

    Args:
      model: its belief is the observation, its ``loss`` takes rows and reports ``mse``; not an ensemble (give the
        result to ``ensemble``). It has ``expect``.
      steps: imagined steps between anchors, at least 1; 1 is the ordinary loss.
      norm: ``"squared"`` or ``"l2"``.

    Returns:
      ``model`` whose ``loss`` takes ``Sequence[B, T]`` (``T`` of any length; ``steps`` or a multiple of it is usual),
      for ``models.sequence_trainer``. ``info``: ``one_step`` and ``multi_step``, the means of both cases, and ``mse``,
      the mean squared error of all steps.

    Raises:
      ValueError: ``steps`` below 1, an unknown norm, an ensemble, or a model without such a loss. When the loss is
        first traced: a loss that reports no ``mse``, or ``norm="l2"`` for a model of variances.

    Source: Luo et al. 2019, SLBO (arXiv 1807.03858), equation 6.1 and slbo/loss/multi_step_loss.py; Venkatraman et al.
    2015 (Data as Demonstrator) for what one-step training misses.
    """
    steps = checks.integer("steps", steps, 1)
    checks.choice("norm", norm, ("squared", "l2"))
    if model.members:
        raise ValueError(f"model must be a single model, got an ensemble of {model.members}: ensemble(multistep(...))")
    if model.loss is None or model.expect is None or model.data_kind is not DataKind.ROWS:
        raise ValueError("multistep needs a model with expect and a loss of rows, got one without")

    def starts(params: Params, batch: Sequence, anchored: Array) -> Array:
        """``float32[B, T, D]``: where each row's step is imagined from."""

        def body(imagined: Array, inputs: tuple) -> tuple[Array, Array]:
            obs, action, anchor = inputs
            start = jnp.where(anchor[:, None], obs, imagined)
            return model.expect(params, start, action)[0], start

        inputs = (batch.transition.obs, batch.transition.action, anchored)
        inputs = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), inputs)
        return jnp.moveaxis(jax.lax.scan(body, batch.transition.obs[:, 0], inputs)[1], 0, 1)

    def loss(key: Key, params: Params, batch: Sequence) -> tuple[Array, dict]:
        batch = valid_rows(batch)
        anchored = begins(batch) | (jnp.arange(batch.mask.shape[1]) % steps == 0)
        start, rows = starts(params, batch, anchored), batch.transition
        aim = rows.next_obs if norm == "squared" else start + (rows.next_obs - rows.obs)
        value, info = row_losses(model.loss, key, params, rows._replace(obs=start, next_obs=aim))
        if "mse" not in info or (norm == "l2" and "nll" in info):
            raise ValueError(f"norm={norm!r} is not for a model whose loss reports {', '.join(info)}")
        error = info.get("weighted_mse", info["mse"])
        if norm == "l2":
            error = jnp.sqrt(info["mse"] + 1e-12)  # a derivative at 0, too
            value = value - info["mse"] + error
        terms = jnp.where(anchored, value, error)
        return masked_mean(terms, batch.mask), {
            "one_step": masked_mean(value, anchored & batch.mask),
            "multi_step": masked_mean(error, ~anchored & batch.mask),
            "mse": masked_mean(info["mse"], batch.mask),
        }

    return model._replace(loss=loss, data_kind=DataKind.SEQUENCES)


def begins(batch: Sequence) -> Array:
    """``bool[B, T]``: rows that do not continue the row before them; the window's first is one."""
    after_gap = jnp.concatenate([jnp.ones_like(batch.mask[:, :1]), ~batch.mask[:, :-1]], axis=1)
    return batch.is_first | after_gap


def valid_rows(batch: Sequence) -> Sequence:
    """The batch with zeros in rows outside the mask: what stood there reaches no sum and no derivative."""

    def clear(x: Array) -> Array:
        return jnp.where(batch.mask.reshape(batch.mask.shape + (1,) * (x.ndim - 2)), x, jnp.zeros_like(x))

    return batch._replace(transition=jax.tree.map(clear, batch.transition))


def row_losses(loss: Callable | None, key: Key, params: Params, rows: Transition) -> tuple[Array, PyTree]:
    """A model's ``loss`` and its ``info`` of every row ``[B, T]`` by itself, leaves ``[B, T]``: for means over some."""
    assert loss is not None  # its callers refused a model without
    lead = rows.reward.shape
    single = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), rows)
    keys = jax.random.split(key, lead[0] * lead[1])
    each = jax.vmap(loss, in_axes=(0, None, 0))(keys, params, single)
    return jax.tree.map(lambda x: x.reshape(lead), each)


def masked_mean(values: Array, mask: Array) -> Array:
    """The mean where ``mask``; 0 where it is empty."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
