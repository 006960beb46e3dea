"""The same task from four kinds of input: the full state, a masked observation, a stacked history, a latent memory.

Claim: with the velocity hidden, a model of the observation alone cannot plan; a history or a recurrent memory gives
most of the full state's return back. Source: the lecture's list of what a model may take as input (states,
observations, latents). The same planner (CEM) and the same loop for all; only the model differs. The control: on the
full state a history brings nothing.
"""

from typing import Any

import jax
import numpy as np

import common

STEPS = 2000  # ten episodes, the first random
PLANNER = {"planner": "cem", "planner_options": {"population": 150, "elites": 15, "iterations": 4, "min_variance": 0.0}}
ROWS = {"batch_size": 64, "epochs": 20}
SEQUENCES = {"batch_size": 32, "length": 16, "updates": 400}
FULL, MASKED = "gymnax:Pendulum-v1", "pendulum_masked"
NETWORK = {"hidden": (64, 64)}
ARMS: dict[tuple[str, str], dict[str, Any]] = {
    (FULL, "observation"): {"model": "gaussian_mlp", "model_options": NETWORK, "trainer_options": ROWS},
    (FULL, "history"): {"model": "history", "model_options": {"frames": 3, **NETWORK}, "trainer_options": SEQUENCES},
    (MASKED, "observation"): {"model": "gaussian_mlp", "model_options": NETWORK, "trainer_options": ROWS},
    (MASKED, "history"): {"model": "history", "model_options": {"frames": 3, **NETWORK}, "trainer_options": SEQUENCES},
    (MASKED, "recurrent"): {"model": "recurrent", "model_options": {}, "trainer_options": SEQUENCES},
    (MASKED, "latent"): {"model": "rssm", "model_options": common.SMALL_LATENT, "trainer_options": SEQUENCES},
}  # fmt: skip
COMPARISONS = [
    common.Compare(MASKED, "history", "observation", lower_is_better=False),
    common.Compare(MASKED, "recurrent", "observation", lower_is_better=False),
    common.Compare(MASKED, "latent", "observation", lower_is_better=False),
    common.Compare(FULL, "history", "observation", expected=False, lower_is_better=False),
]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("inputs", options.quick, options.fresh)
    seeds, steps = (1, 400) if options.quick else (5, STEPS)
    rows = []
    for (env, arm), settings in ARMS.items():
        settings = {**settings, **PLANNER, "horizon": 20}
        train = common.make_run("mpc", env, settings, steps)
        curves = common.curves(cells, f"{env}/{arm}", {**settings, "steps": steps}, train, seeds)
        values = [float(np.mean(curve[-3:])) for curve in curves]
        rows.append(common.row(env, arm, values, "mean of the last three episodes", returns=curves, options=settings))
        jax.clear_caches()
    result = {
        "claim": "with the velocity hidden, a history, a recurrent network or a latent beats the bare observation",
        "source": "the lecture's list of a model's inputs",
        "setting": f"pendulum swing-up, {steps} steps, {seeds} seeds, the same CEM for every model",
        "rows": rows,
        "verdict": common.judge(rows, COMPARISONS),
    }
    path = common.write("inputs", options.quick, result)
    common.bars(rows, str(path.with_suffix(".png")), "return, last three episodes")


if __name__ == "__main__":
    main()
