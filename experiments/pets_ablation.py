"""PETS' ablation: deterministic or probabilistic networks, one or an ensemble, E, TS1 or TS-infinity propagation.

Claim: the probabilistic ensemble with trajectory sampling is the variant to use: it beats the single deterministic
network, and most of that is the ensemble's doing. Source: Chua et al. 2018 (arXiv 1805.12114), figure 4 (the names:
D or P networks, E for an ensemble; the suffix is the propagation). Two tasks: the pendulum's swing-up, and the same
with noise on every action, where the noise is aleatoric and a deterministic network has no word for it. The control:
with the noise gone, propagating particles is not expected to beat propagating the ensemble's mean.
"""

from typing import Any

import jax
import numpy as np

from jmbrl import envs
from jmbrl.agents.pets import PETSConfig, pets
from jmbrl.train import make_train

import common

STEPS = 1200  # six episodes, the first random
SETTINGS = {"clean": 0.0, "noisy": 0.5}  # uniform noise on the action, in units of the action box
ARMS: dict[str, dict[str, Any]] = {
    "D": {"probabilistic": False, "members": 1, "propagation": "mean", "particles": 1},
    "P": {"probabilistic": True, "members": 1, "propagation": "tsinf", "particles": 5},
    "DE-E": {"probabilistic": False, "members": 5, "propagation": "mean", "particles": 1},
    "DE-TS1": {"probabilistic": False, "members": 5, "propagation": "ts1", "particles": 5},
    "DE-TSinf": {"probabilistic": False, "members": 5, "propagation": "tsinf", "particles": 5},
    "PE-E": {"probabilistic": True, "members": 5, "propagation": "mean", "particles": 1},
    "PE-TS1": {"probabilistic": True, "members": 5, "propagation": "ts1", "particles": 5},
    "PE-TSinf": {"probabilistic": True, "members": 5, "propagation": "tsinf", "particles": 5},
}
SMALL = {
    "hidden": (32, 32), "weight_decay": (1e-5, 1e-5, 1e-5), "horizon": 20, "population": 100, "elites": 10,
    "iterations": 4, "epochs": 20, "capacity": 2000, "min_variance": 0.0,
}  # fmt: skip
COMPARISONS = [
    common.Compare("clean", "PE-TSinf", "D", lower_is_better=False),
    common.Compare("noisy", "PE-TSinf", "D", lower_is_better=False),
    common.Compare("noisy", "DE-TSinf", "D", lower_is_better=False),
    common.Compare("clean", "PE-TSinf", "DE-E", expected=False, lower_is_better=False),
]


def train_of(setting: str, arm: str, steps: int) -> Any:
    env = envs.make("gymnax:Pendulum-v1")
    if SETTINGS[setting]:
        # The given reward reads the action that was chosen, not the shaken one: 0.001 u^2 apart at most.
        env = envs.noisy(env, action=SETTINGS[setting])._replace(reward_fn=env.reward_fn)
    return make_train(env, pets(env, PETSConfig(**{**SMALL, **ARMS[arm]})), steps)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("pets_ablation", options.quick, options.fresh)
    seeds, steps = (1, 400) if options.quick else (5, STEPS)
    rows = []
    for setting in SETTINGS:
        for arm in ARMS:
            wanted = {**SMALL, **ARMS[arm], "noise": SETTINGS[setting], "steps": steps}
            curves = common.curves(cells, f"{setting}/{arm}", wanted, train_of(setting, arm, steps), seeds)
            values = [float(np.mean(curve[-3:])) for curve in curves]
            rows.append(common.row(setting, arm, values, "mean of the last three episodes", returns=curves))
            jax.clear_caches()
    result = {
        "claim": "a probabilistic ensemble with trajectory sampling beats one deterministic network",
        "source": "Chua et al. 2018 (arXiv 1805.12114), figure 4",
        "setting": f"gymnax:Pendulum-v1, {steps} steps, {seeds} seeds, networks 2x32, population 100, horizon 20; "
        f"noisy: uniform noise of +-{SETTINGS['noisy']} on the action",
        "rows": rows,
        "verdict": common.judge(rows, COMPARISONS),
    }
    path = common.write("pets_ablation", options.quick, result)
    common.bars(rows, str(path.with_suffix(".png")), "return, last three episodes")


if __name__ == "__main__":
    main()
