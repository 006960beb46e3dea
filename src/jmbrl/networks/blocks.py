"""A linear layer in blocks: each part of the input reaches its own part of the output alone."""

import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.normed import init_linear
from jmbrl.types import Array, Key


def init_block_linear(key: Key, inputs: int, outputs: int, blocks: int) -> dict[str, Array]:
    """``{"kernel": float32[blocks, inputs / blocks, outputs / blocks], "bias": zeros[outputs]}``.

    The kernel has the standard deviation ``1 / sqrt(inputs)``: that of all the inputs, not of one block's, as in
    DreamerV3's code.

    Raises:
      ValueError: ``inputs`` or ``outputs`` that are no multiple of ``blocks``, or fewer than 1 of anything.
    """
    checks.integer("blocks", blocks, 1)
    for name, size in (("inputs", inputs), ("outputs", outputs)):
        if checks.integer(name, size, 1) % blocks:
            raise ValueError(f"{name} must be a multiple of blocks, got {size} and {blocks} blocks")
    # As many independent draws as the blocks need, of the width that they share.
    layer = init_linear(key, inputs, outputs // blocks)
    return {"kernel": layer["kernel"].reshape(blocks, inputs // blocks, -1), "bias": jnp.zeros(outputs)}


def apply_block_linear(layer: dict[str, Array], x: Array) -> Array:
    """``float32[..., inputs] -> float32[..., outputs]``: a product with a block-diagonal kernel, one batched matmul.

    Source: DreamerV3's code (``BlockLinear``); Hafner et al. 2023 (arXiv 2301.04104), the block-diagonal GRU.
    """
    kernel = layer["kernel"]
    # Blocks first: on a CPU, with the rows first, the same product takes two to five times as long.
    parts = x.reshape(-1, *kernel.shape[:2]).swapaxes(0, 1)
    return (parts @ kernel).swapaxes(0, 1).reshape(*x.shape[:-1], -1) + layer["bias"]
