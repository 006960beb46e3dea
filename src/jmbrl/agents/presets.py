"""Settings per system and task: data, not code.

``paper_cartpole``, ``pusher``, ``reacher`` and ``halfcheetah`` are the paper's own settings (Chua et al. 2018 and its
code). The others are sized for two CPU cores; what they change is said beside them.
"""

import re

PRESETS: dict[str, dict[str, dict[str, object]]] = {
    "pets": {
        # Networks, populations and particles sized for two CPU cores; more epochs, as the networks see less data.
        "pendulum": {
            "hidden": (64, 64),
            "weight_decay": (2.5e-5, 5e-5, 1e-4),
            "horizon": 20,
            "population": 100,
            "elites": 10,
            "particles": 10,
            "epochs": 25,
            "capacity": 10_000,
        },
        "cartpole_swingup": {
            "hidden": (128, 128),
            "weight_decay": (1e-4, 2.5e-4, 5e-4),
            "horizon": 25,
            "population": 200,
            "elites": 20,
            "particles": 5,
            "epochs": 25,
            "capacity": 10_000,
        },
        "paper_cartpole": {
            "hidden": (500, 500, 500),
            "weight_decay": (1e-4, 2.5e-4, 2.5e-4, 5e-4),
            "horizon": 25,
            "population": 400,
            "elites": 40,
            "epochs": 5,
        },
        "pusher": {
            "hidden": (200, 200, 200),
            "weight_decay": (2.5e-4, 5e-4, 5e-4, 7.5e-4),
            "horizon": 25,
            "population": 500,
            "elites": 50,
        },
        "reacher": {
            "hidden": (200, 200, 200, 200),
            "weight_decay": (2.5e-4, 5e-4, 5e-4, 5e-4, 7.5e-4),
            "learning_rate": 7.5e-4,
            "horizon": 25,
            "population": 400,
            "elites": 40,
        },
        "halfcheetah": {"horizon": 30, "population": 500, "elites": 50},
        # Every step alive is worth the same: a short plan sees no difference until the fall cannot be helped, and a
        # long one through a noisy unstable model always falls. Most random plans do; hence the larger population.
        "inverted_pendulum": {
            "hidden": (64, 64),
            "weight_decay": (2.5e-5, 5e-5, 1e-4),
            "horizon": 30,
            "population": 300,
            "elites": 15,
            "particles": 5,
            "epochs": 25,
            "fit_every": 50,
            "warmup": 100,
            "capacity": 10_000,
        },
    },
}
PRESETS["mbpo"] = {
    # Small networks, fewer rollouts and updates than MBPO's. With a few hundred rows its early stop on the held-out
    # error ends before the predicted variance has shrunk to the data's, so the fit has a fixed length.
    "pendulum": {
        "members": 5,
        "elites": 5,
        "hidden": (64, 64),
        "weight_decay": (2.5e-5, 5e-5, 1e-4),
        "model_batch_size": 32,
        "epochs": 40,
        "holdout": 0.0,
        "rollouts": 2_000,
        "policy_hidden": (128, 128),
        "learning_rate": 1e-3,
        "batch_size": 128,
        "updates": 5,
        "alpha": 0.2,
        "fit_every": 200,
        "warmup": 200,
        "capacity": 10_000,
    },
}
# The changing mazes' examples (Sutton & Barto 2018, 8.2 and 8.3); Dyna-Q+ is kappa=1e-4 and kappa=1e-3. FrozenLake,
# Taxi and MountainCar: our own settings (experiments/tabular_gymnasium.py).
PRESETS["dyna_q"] = {
    "blocking_maze": {"planning_steps": 10, "alpha": 1.0},
    "shortcut_maze": {"planning_steps": 50, "alpha": 1.0},
    "frozen_lake": {
        "planning_steps": 20,
        "backup": "expected",
        "planning_alpha": 0.5,
        "outcomes": 4,
        "gamma": 0.999,
        "alpha": 0.0,
        "initial": 1.0,
    },
    "taxi": {"planning_steps": 50, "gamma": 0.99, "alpha": 1.0},
    "mountain_car": {
        "low": (-1.2, -0.07),
        "high": (0.6, 0.07),
        "bins": (40, 40),
        "planning_steps": 20,
        "backup": "expected",
        "planning_alpha": 0.5,
        "outcomes": 8,
        "alpha": 0.2,
        "epsilon": 0.05,
        "gamma": 0.99,
    },
}
PRESETS["prioritized_sweeping"] = {
    "frozen_lake": {"planning_steps": 20, "outcomes": 4, "gamma": 0.999, "alpha": 1.0, "initial": 1.0},
    "taxi": {"planning_steps": 20, "gamma": 0.99, "alpha": 1.0},
    "rod": {"planning_steps": 20, "alpha": 1.0, "threshold": 1e-5, "initial": 0.99, "epsilon": 0.0},
}
# Rewards of -16 to 0 for 200 steps are scaled to values of order 1, and a shorter horizon is enough.
PRESETS["ppo"] = {"pendulum": {"learning_rate": 1e-3, "gamma": 0.95, "reward_scale": 0.1}}
# The model-free baselines, for two CPU cores. Five seeds of SAC first reached -200 (mean of 5 episodes) at 3,600-5,200
# steps, five of DQN 475 (mean of 10) at 9,000 to 21,000. Without atoms, whose ends bound them, values of the cart-pole
# may diverge: a good policy's rows end by the time limit only, and nothing holds what they bootstrap from.
PRESETS["sac"] = {
    "pendulum": {
        "hidden": (64, 64),
        "learning_rate": 1e-3,
        "batch_size": 128,
        "alpha": 0.2,
        "warmup": 200,
        "capacity": 10_000,
    },
}
PRESETS["dqn"] = {
    "cartpole": {
        "hidden": (64, 64),
        "learning_rate": 5e-4,
        "double": True,
        "dueling": True,
        "atoms": 51,
        "v_min": 0.0,
        "v_max": 100.0,
        "n_step": 10,
        "target_every": 100,
        "epsilon": (1.0, 0.02),
        "epsilon_updates": 3_000,
        "batch_size": 64,
        "updates": 1,
        "warmup": 500,
        "capacity": 50_000,
    },
}
PRESETS["latent_mpc"] = {"pendulum": {}}
PRESETS["gt_cem"] = {
    task: {k: v for k, v in settings.items() if k in ("horizon", "population", "elites", "iterations")}
    for task, settings in PRESETS["pets"].items()
}

# Which preset an environment gets when none is named, by its task without package, backend and version.
DEFAULT_PRESETS = {
    "pendulum": "pendulum",
    "pendulummasked": "pendulum",
    "invertedpendulum": "inverted_pendulum",
    "cartpole": "cartpole",
    "cartpoleswingup": "cartpole_swingup",
    "halfcheetah": "halfcheetah",
    "reacher": "reacher",
    "pusher": "pusher",
    "blockingmaze": "blocking_maze",
    "shortcutmaze": "shortcut_maze",
    "frozenlake": "frozen_lake",
    "taxi": "taxi",
    "mountaincar": "mountain_car",
    "rod": "rod",
}


def default_preset(system: str, env: str) -> str | None:
    """The preset of ``system`` for an environment's id, or None.

    >>> default_preset("pets", "gymnasium:InvertedPendulum-v5")
    'inverted_pendulum'
    """
    task = env.rpartition(":")[2].partition("/")[0]
    preset = DEFAULT_PRESETS.get(re.sub(r"-v\d+$", "", task).replace("_", "").lower())
    return preset if preset in PRESETS.get(system, {}) else None
