"""How a recurrent state-space model remembers, and how its latents are guessed and seen: the parts that PlaNet and
Dreamer's versions choose differently."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks import (
    Normal,
    OneHotLatents,
    apply_block_linear,
    apply_linear,
    apply_normed,
    init_block_linear,
    init_linear,
    init_norm,
    init_normed,
    layer_norm,
    rms_norm,
    unimix,
)
from jmbrl.types import Array, Key, PyTree

MEMORIES = ("gru", "layer_norm_gru", "block_gru")
PATHS = ("both", "deterministic", "stochastic")


class RSSMBelief(NamedTuple):
    """``deter``: ``float32[..., deter]``, the memory. ``stoch``: ``float32[..., stoch]``, a drawn latent (categorical
    ones as one-hot vectors side by side)."""

    deter: Array
    stoch: Array


class Memory(NamedTuple):
    """``init(key) -> weights``; ``prepare(weights, action[..., A]) -> x``, the part that no belief enters;
    ``recur(weights, belief, x) -> deter``. Any leading axes."""

    init: Callable
    prepare: Callable
    recur: Callable


class Latents(NamedTuple):
    """How a latent is distributed given features: ``init(key) -> weights``, ``of(weights, x[..., inputs])``, the
    distribution, and ``size``, entries of a drawn one."""

    init: Callable
    of: Callable
    size: int


def gru_memory(
    deter: int, stoch: int, actions: int, hidden: int, activation: Callable, *, normalise: bool = False
) -> Memory:
    r"""A dense layer on latent and action, then a gated recurrent unit.

    .. math:: x = \sigma(W [z, a]), \quad r, c, u = V [x, h], \quad
              h' = (1 - \bar u) h + \bar u \tanh(\bar r c)

    where :math:`\bar r, \bar u` are logistic functions of ``r`` and ``u``. ``normalise``: Dreamer v2's, with a layer
    norm over all three gates and the update gate's bias at -1. Otherwise PlaNet's and Dreamer v1's unit (Cho et al.
    2014), whose reset gate multiplies the memory before the product.
    """

    def init(key: Key) -> PyTree:
        key_in, key_gates, key_candidate = jax.random.split(key, 3)
        weights = {"input": init_normed(key_in, (stoch + actions, hidden), "none")}
        if normalise:
            gates = {**init_linear(key_gates, hidden + deter, 3 * deter), "norm": init_norm(3 * deter, bias=True)}
            return weights | {"gates": gates}
        return weights | {
            "gates": init_linear(key_gates, hidden + deter, 2 * deter),
            "candidate": init_linear(key_candidate, hidden + deter, deter),
        }

    def prepare(weights: PyTree, action: Array) -> Array:
        (layer,) = weights["input"]
        return action @ layer["kernel"][stoch:] + layer["bias"]

    def recur(weights: PyTree, belief: RSSMBelief, x: Array) -> Array:
        h = belief.deter
        x = activation(belief.stoch @ weights["input"][0]["kernel"][:stoch] + x)
        gates = apply_linear(weights["gates"], jnp.concatenate([x, h], -1))
        if normalise:
            reset, candidate, update = jnp.split(layer_norm(weights["gates"]["norm"], gates), 3, -1)
            candidate, update = jnp.tanh(jax.nn.sigmoid(reset) * candidate), jax.nn.sigmoid(update - 1.0)
        else:
            reset, update = jnp.split(jax.nn.sigmoid(gates), 2, -1)
            candidate = jnp.tanh(apply_linear(weights["candidate"], jnp.concatenate([x, reset * h], -1)))
        return update * candidate + (1.0 - update) * h

    return Memory(init, prepare, recur)


def block_gru_memory(deter: int, stoch: int, actions: int, hidden: int, blocks: int) -> Memory:
    r"""Dreamer v3's memory: gates of each of ``blocks`` parts read that part alone, and what is common to all.

    .. math:: x = [f_0(h), f_1(z), f_2(a)], \quad y_g = \sigma(N(W_g [h_g, x])), \quad r_g, c_g, u_g = V_g y_g, \quad
              h' = \bar u \tanh(\bar r c) + (1 - \bar u) h

    with RMS norms ``N``, SiLU, and the update gate's bias at -1. What all blocks read is one dense product.

    Source: the released code of Dreamer v3 (``rssm.py``).
    """
    if deter % blocks:
        raise ValueError(f"deter must be a multiple of blocks={blocks}, got {deter}")
    entering = deter + 3 * blocks * hidden  # of the first product, where the code repeats the common part per block

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 6)
        sizes = {"deter": deter, "stoch": stoch, "action": actions}
        inputs = {name: init_normed(k, (n, hidden), "rms") for k, (name, n) in zip(keys, sizes.items(), strict=False)}
        common = init_linear(keys[3], 3 * hidden, deter, scale=(3 * hidden / entering) ** 0.5)
        own = init_block_linear(keys[4], deter, deter, blocks)
        own = {"kernel": own["kernel"] * (deter / entering) ** 0.5}
        return inputs | {
            "common": common,
            "own": own,
            "norm": init_norm(deter),
            "gates": init_block_linear(keys[5], deter, 3 * deter, blocks),
        }

    def embed(weights: PyTree, name: str, x: Array) -> Array:
        return apply_normed(weights[name], x, jax.nn.silu, "rms")

    def prepare(weights: PyTree, action: Array) -> Array:
        return embed(weights, "action", action) @ weights["common"]["kernel"][2 * hidden :] + weights["common"]["bias"]

    def recur(weights: PyTree, belief: RSSMBelief, x: Array) -> Array:
        h = belief.deter
        seen = jnp.concatenate([embed(weights, "deter", h), embed(weights, "stoch", belief.stoch)], -1)
        own = apply_block_linear(weights["own"] | {"bias": x}, h)
        y = jax.nn.silu(rms_norm(weights["norm"], own + seen @ weights["common"]["kernel"][: 2 * hidden]))
        gates = apply_block_linear(weights["gates"], y).reshape(*y.shape[:-1], blocks, 3, deter // blocks)
        reset, candidate, update = (gates[..., i, :].reshape(h.shape) for i in range(3))
        update = jax.nn.sigmoid(update - 1.0)
        return update * jnp.tanh(jax.nn.sigmoid(reset) * candidate) + (1.0 - update) * h

    return Memory(init, prepare, recur)


def memory(
    kind: str, deter: int, stoch: int, actions: int, *, hidden: int, activation: Callable, blocks: int
) -> Memory:
    """One of ``MEMORIES``."""
    if checks.choice("memory", kind, MEMORIES) == "block_gru":
        return block_gru_memory(deter, stoch, actions, hidden, checks.integer("blocks", blocks, 1))
    return gru_memory(deter, stoch, actions, hidden, activation, normalise=kind == "layer_norm_gru")


def latents(
    inputs: int,
    stoch: int,
    classes: int,
    *,
    hidden: int,
    layers: int,
    norm: str,
    activation: Callable,
    min_std: float,
    mix: float,
) -> Latents:
    """``layers`` hidden layers, then ``stoch`` Gaussian entries (``classes`` 0: mean, softplus + ``min_std``) or
    ``stoch`` categorical ones of ``classes`` each, a share ``mix`` of which is uniform."""
    widths = (inputs, *[hidden] * checks.integer("layers", layers, 1))
    outputs = stoch * classes if classes else 2 * stoch

    def init(key: Key) -> PyTree:
        key_hidden, key_out = jax.random.split(key)
        return {"hidden": init_normed(key_hidden, widths, norm), "out": init_linear(key_out, hidden, outputs)}

    def of(weights: PyTree, x: Array) -> Normal | OneHotLatents:
        out = apply_linear(weights["out"], apply_normed(weights["hidden"], x, activation, norm))
        if classes:
            return OneHotLatents(unimix(out.reshape(*out.shape[:-1], stoch, classes), mix))
        mean, raw = jnp.split(out, 2, axis=-1)
        return Normal(mean, jax.nn.softplus(raw) + min_std)

    return Latents(init, of, stoch * classes if classes else stoch)


def expected(latent: Normal | OneHotLatents) -> Array:
    """A latent's mean: of categorical ones the probabilities, side by side."""
    if isinstance(latent, Normal):
        return latent.mean
    chance = jax.nn.softmax(latent.logits)
    return chance.reshape(*chance.shape[:-2], -1)
