"""The gradients of a run whose policy climbs derivatives: numbers against the horizon, a landscape, and a figure."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from jmbrl import checks
from jmbrl.diagnostics import figures
from jmbrl.diagnostics.gradients import (
    BATCH,
    ESTIMATORS,
    first_noise,
    gradients_by_horizon,
    landscape,
    random_direction,
)
from jmbrl.types import Agent, Key, PyTree

HORIZONS = (1, 5, 10, 20, 40)
STARTS = 256
POINTS, REACH = 41, 0.5  # of the landscape; how far, in lengths of the policy's weights


def diagnose_gradients(
    key: Key,
    agent: Agent,
    agent_state: PyTree,
    *,
    horizons: tuple[int, ...] = HORIZONS,
    starts: int = STARTS,
    batch: int = BATCH,
) -> dict[str, Any]:
    """What the policy gradient of a trained agent knows at several horizons, and the return around its policy.

    A policy that learned without a spread is measured with the one its weights began with: the likelihood ratio needs
    some.

    Args:
      key: consumed.
      agent, agent_state: as trained, with ``agent.ascent``.
      horizons: imagined steps. starts: trajectories, an even number. batch: as in ``signal``.

    Returns:
      ``horizons``; of each of ``ESTIMATORS`` the names of ``signal``, ``[len(horizons)]``, and ``first_noise``;
      ``landscape``: ``reach``, in lengths of the policy's weights, and the mean imagined return of the longest horizon
      ``along_gradient`` and ``along_random``.

    Raises:
      ValueError: an agent that climbs no derivatives, or a number outside its range.
    """
    if agent.ascent is None:
        raise ValueError("agent must climb derivatives (bptt, analytic), got one without agent.ascent")
    ascent, weights = agent.ascent, agent.ascent.weights(agent_state)
    checks.integer("starts", starts, 4)
    key_starts, key_measure, key_line, key_random = jax.random.split(key, 4)
    beliefs = ascent.starts(key_starts, agent_state, starts)
    measure = gradients_by_horizon(ascent.learner, ascent.world, horizons, batch)
    found = measure(key_measure, weights.policy, weights.slow, agent_state, beliefs)
    longest = ascent.learner(max(horizons))

    def line(state: PyTree, policy: PyTree, slow: PyTree, beliefs: PyTree) -> tuple:
        world = ascent.world(state)
        mean = lambda policy: jnp.mean(longest.returns(key_line, policy, slow, world, beliefs)[0])  # noqa: E731
        size = optax.tree.norm(policy)
        reach = jnp.linspace(-REACH, REACH, POINTS)
        slope = jax.grad(mean)(policy)
        unit = optax.tree.scale(1.0 / jnp.maximum(optax.tree.norm(slope), 1e-30), slope)
        ways = unit, random_direction(key_random, policy)
        along = [landscape(key_line, longest, policy, slow, world, beliefs, way, size * reach) for way in ways]
        return reach, *along

    reach, gradient, random = jax.device_get(jax.jit(line)(agent_state, weights.policy, weights.slow, beliefs))
    numbers = {name: found[name] | {"first_noise": first_noise(horizons, found[name]["snr"])} for name in ESTIMATORS}
    lines = {"reach": reach, "along_gradient": gradient, "along_random": random}
    return {"horizons": horizons, **numbers, "landscape": lines, "batch": batch}


def save_gradients(directory: str | Path, numbers: dict[str, Any], title: str = "") -> Path:
    """Write ``gradients.png``; its path."""
    page = gradients_page(numbers)
    page.suptitle(title, fontsize="medium")
    return figures.save(page, Path(directory) / "gradients.png")


def gradients_page(numbers: dict[str, Any]) -> Figure:
    """Size and spread, signal to noise, and the return around the policy."""
    figure, axes = figures.new(3, 1)
    size, signal, around = np.ravel(axes)
    for i, name in enumerate(ESTIMATORS):
        here, color = numbers[name], f"C{i}"
        style = f"{color}:" if name == "mixed" else f"{color}-o"  # it mostly lies on one of the others
        size.plot(numbers["horizons"], here["norm"], style, ms=3, label=name.replace("_", " "))
        size.plot(numbers["horizons"], here["spread"], f"{color}--", lw=1)
        signal.plot(numbers["horizons"], here["snr"], style, ms=3, label=name.replace("_", " "))
    signal.axhline(1.0, color="k", lw=0.8, ls=":")
    size.set(title="norm (full), spread of one trajectory (dashed)", xlabel="horizon", xscale="log")
    signal.set(title=f"signal to noise of {numbers['batch']} trajectories", xlabel="horizon", xscale="log")
    for axis in (size, signal):
        axis.set_yscale("symlog", linthresh=1e-3)
        axis.set_ylim(bottom=0.0)
        axis.legend(fontsize="x-small")
    lines = numbers["landscape"]
    for name in ("along_gradient", "along_random"):
        around.plot(lines["reach"], lines[name], label=name.replace("_", " "))
    around.axvline(0.0, color="k", lw=0.8, ls=":")
    around.set(title=f"imagined return of {max(numbers['horizons'])} steps", xlabel="lengths of the weights away")
    around.legend(fontsize="x-small")
    return figure
