"""How the latent models see and reconstruct: vectors, images, or both in one observation."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.data import normalizer
from jmbrl.models.codec_parts import Layers, Part, image_part, pooled_sight, strided_sight, vector_part
from jmbrl.networks import NORMS
from jmbrl.types import Array, Key, PyTree, Spec, Transition


class Codec(NamedTuple):
    """An encoder and a decoder of observations; every function takes any leading axes.

    Attributes:
      init: ``(key) -> {"encoder": ..., "decoder": ...}``.
      empty_stats: ``() -> stats``, before any data: a ``Normalizer`` of the vector's entries where it is normalised,
        else ``()``.
      fit_stats: ``(stats, rows: Transition[N], mask: bool[N]) -> stats``, refit on both observations of each row.
      encode: ``(weights, stats, obs[..., *obs_shape]) -> tokens``, ``float32[..., units]``.
      decode: ``(weights, stats, features: float32[..., features]) -> parts``, what the decoder says of each part, by
        name: ``"vector"``, ``"image"`` or, among others, ``"image.camera"``.
      loss: ``(stats, parts, obs) -> float32[...]``, summed over an observation's entries.
      restore: ``(stats, parts) -> obs`` in the environment's units and dtype; images rounded and clipped.
      units: entries of the tokens.
    """

    init: Callable
    empty_stats: Callable
    fit_stats: Callable
    encode: Callable
    decode: Callable
    loss: Callable
    restore: Callable
    units: int


class _Leaf(NamedTuple):
    """One array of an observation: the part it belongs to, its shape, and its entries ``[start, stop)``."""

    part: str
    shape: tuple[int, ...]
    start: int
    stop: int


def codec(
    spec: Spec,
    features: int,
    *,
    style: str = "v3",
    depth: int = 16,
    units: int = 256,
    layers: int = 3,
    norm: str = "rms",
    activation: Callable[[Array], Array] = jax.nn.silu,
    conv_activation: Callable[[Array], Array] | None = None,
    vectors: str = "symlog",
    pixels: str = "sigmoid",
    bits: int | None = None,
    small_images: str = "flat",
) -> Codec:
    r"""Encoder and decoder that fit an environment's observations.

    Vectors :math:`x` go through dense layers, both ways, and with :math:`f` the decoder's output

    .. math:: L = \sum_i (f_i - \operatorname{symlog} x_i)^2 \quad \text{or} \quad
              L = \tfrac12 \sum_i \big(f_i - (x_i - \mu_i) / \sigma_i\big)^2.

    Images of 8 bits, as shares :math:`x = \text{pixel} / 255`, are read centred, :math:`x - \tfrac12`, by convolutions,
    whose innermost map is the tokens, and

    .. math:: L = \sum_i (\operatorname{sigmoid}(f_i) - x_i)^2 \quad \text{or} \quad
              L = \tfrac12 \sum_i (f_i - (x_i - \tfrac12))^2.

    An observation that was a dictionary (``spec.obs_parts``) is split again: each leaf of ``uint8`` with three axes is
    an image with convolutions of its own, the others are one vector; tokens lie side by side, losses are added.

    Args:
      spec: the environment's: a vector, an image of ``uint8``, a dictionary of both, or any array of floats.
      features: entries of what ``decode`` reads.
      style: ``"v3"``: kernel 5, stride 1, pooling, norm, activation, as many layers as halve the sides down to 4 (64
        pixels: four; at most four), and back by doubling; channels ``depth`` times 2, 3, 4, 4. ``"stride"`` (PlaNet,
        v1, v2): World Models' kernel 4 and stride 2 without norm, ``networks.conv_stack``, ``depth`` times 1, 2, 4, 8.
      depth: channels that those are multiples of. v3: 4 to 64 by the model's size; the others: 32, v2 48.
      units, layers: of the dense layers on each side, one layer at least.
      norm, activation: after each dense layer, and after each convolution of ``"v3"``: ``networks.NORMS``.
      conv_activation: after convolutions instead; None: ``activation`` for ``"v3"``, a rectifier for ``"stride"``
        (PlaNet, v1; v2: elu).
      vectors: ``"symlog"`` or ``"normalized"`` by the data, of which the losses are the two above.
      pixels: ``"sigmoid"`` or ``"unit"`` (a Gaussian of unit variance without its constant), likewise.
      bits: bits that images are cut to, 1 to 8 (PlaNet: 5); None keeps all.
      small_images: ``"flat"`` reads images of floats (MinAtar's) as vectors, as v3 does whatever is not ``uint8``;
        ``"conv"`` through one 3 by 3 convolution of 16 filters first, MinAtar's own. The decoder is dense for both.

    Deviations: PlaNet, v1 and v2 take vectors as they are, here ``"normalized"`` gives them units that a unit variance
    fits; the noise of PlaNet within a bin of 5 bits is its middle; v3 reads several images of one observation as
    channels of one, and spreads its memory to the innermost map in blocks.

    Raises:
      ValueError: sides that cannot be halved, ``uint8`` without three axes, ``obs_parts`` that do not fit the
        observation, or an option out of its range.

    Source: Hafner et al. 2019 (arXiv 1811.04551), 2023 (2301.04104) and the released code; Young & Tian 2019
    (1903.03176) for the small images.
    """
    features, depth = checks.integer("features", features, 1), checks.integer("depth", depth, 1)
    count, units = checks.integer("layers", layers, 1), checks.integer("units", units, 1)
    for name, value, choices in (
        ("style", style, ("v3", "stride")),
        ("norm", norm, NORMS),
        ("vectors", vectors, ("symlog", "normalized")),
        ("pixels", pixels, ("sigmoid", "unit")),
        ("small_images", small_images, ("flat", "conv")),
    ):
        checks.choice(name, value, choices)
    bits = None if bits is None else checks.integer("bits", bits, 1, 8)
    dense = Layers(units, count, norm, activation)
    leaves = _leaves(spec)
    size = sum(leaf.stop - leaf.start for leaf in leaves if leaf.part == "vector")

    def part_of(leaf: _Leaf) -> Part:
        if leaf.part == "vector":
            filtered = small_images == "conv" and len(leaves) == 1 and len(leaf.shape) == 3
            return vector_part(size, features, dense, vectors, leaf.shape if filtered else None)
        if style == "v3":
            sight = pooled_sight(leaf.shape, features, depth, norm, conv_activation or activation)
        else:
            sight = strided_sight(leaf.shape, features, depth, conv_activation or jax.nn.relu)
        return image_part(sight, pixels, bits)

    parts = {leaf.part: part_of(leaf) for leaf in leaves}
    has_stats = vectors == "normalized" and "vector" in parts

    def split(obs: Array) -> dict[str, Array]:
        axes = len(spec.obs_shape)
        checks.same_shape("obs", jnp.shape(obs)[jnp.ndim(obs) - axes :], spec.obs_shape, "the codec's spec")
        lead = obs.shape[: obs.ndim - axes]
        flat = obs.reshape(*lead, -1)
        pieces = [(leaf, flat[..., leaf.start : leaf.stop]) for leaf in leaves]
        seen = {leaf.part: x.reshape(*lead, *leaf.shape) for leaf, x in pieces if leaf.part != "vector"}
        if "vector" in parts:
            entries = [x for leaf, x in pieces if leaf.part == "vector"]
            seen["vector"] = jnp.concatenate(entries, axis=-1).astype(jnp.float32)
        return seen

    def restore(stats: PyTree, raw: dict[str, Array]) -> Array:
        values = {name: part.restore(stats, raw[name]) for name, part in parts.items()}
        pieces, used = [], 0
        for leaf in leaves:
            value, length = values[leaf.part], leaf.stop - leaf.start
            if leaf.part == "vector":
                pieces.append(value[..., used : used + length])
                used += length
            else:
                pieces.append(value.reshape(*value.shape[:-3], length))
        obs = jnp.concatenate(pieces, axis=-1)
        return obs.reshape(*obs.shape[:-1], *spec.obs_shape).astype(spec.obs_dtype)

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, len(parts))
        each = {name: part.init(k) for (name, part), k in zip(parts.items(), keys, strict=True)}
        return {side: {name: weights[side] for name, weights in each.items()} for side in ("encoder", "decoder")}

    def fit_stats(stats: PyTree, rows: Transition, mask: Array) -> PyTree:
        if not has_stats:
            return stats
        x = jnp.concatenate([split(rows.obs)["vector"], split(rows.next_obs)["vector"]])
        return normalizer.fit(x, jnp.concatenate([mask, mask]), stats)

    def encode(weights: PyTree, stats: PyTree, obs: Array) -> Array:
        seen = split(obs)
        tokens = [part.encode(weights["encoder"][name], stats, seen[name]) for name, part in parts.items()]
        return jnp.concatenate(tokens, axis=-1)

    def decode(weights: PyTree, stats: PyTree, x: Array) -> dict[str, Array]:
        del stats
        return {name: part.decode(weights["decoder"][name], x) for name, part in parts.items()}

    def loss(stats: PyTree, raw: dict[str, Array], obs: Array) -> Array:
        seen = split(obs)
        return sum((part.loss(stats, raw[name], seen[name]) for name, part in parts.items()), start=jnp.zeros(()))

    return Codec(
        init=init,
        empty_stats=lambda: normalizer.identity(size) if has_stats else (),
        fit_stats=fit_stats,
        encode=encode,
        decode=decode,
        loss=loss,
        restore=restore,
        units=sum(part.units for part in parts.values()),
    )


def _leaves(spec: Spec) -> tuple[_Leaf, ...]:
    """The arrays of an observation, in the order of its entries."""
    size = math.prod(spec.obs_shape)
    if not spec.obs_parts:
        if spec.obs_dtype == "uint8":
            if len(spec.obs_shape) != 3:
                raise ValueError(f"images must be [H, W, C], but {spec.name} has uint8{list(spec.obs_shape)}")
            return (_Leaf("image", spec.obs_shape, 0, size),)
        return (_Leaf("vector", spec.obs_shape, 0, size),)
    leaves, start = [], 0
    for name, shape, dtype in spec.obs_parts:
        stop = start + math.prod(shape)
        is_image = dtype == "uint8" and len(shape) == 3
        leaves.append(_Leaf(f"image.{name}" if is_image else "vector", tuple(shape), start, stop))
        start = stop
    if spec.obs_shape != (start,):
        raise ValueError(f"obs_parts of {spec.name} must fill its observation: {start} entries, shape {spec.obs_shape}")
    return tuple(leaves)
