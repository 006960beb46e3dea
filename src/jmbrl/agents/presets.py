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
PRESETS["dyna"] = {
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
        "capacity": 10_000,
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
    "cartpoleswingup": "cartpole_swingup",
    "halfcheetah": "halfcheetah",
    "reacher": "reacher",
    "pusher": "pusher",
}


def default_preset(system: str, env: str) -> str | None:
    """The preset of ``system`` for an environment's id, or None.

    >>> default_preset("pets", "gymnasium:InvertedPendulum-v5")
    'inverted_pendulum'
    """
    task = env.rpartition(":")[2].partition("/")[0]
    preset = DEFAULT_PRESETS.get(re.sub(r"-v\d+$", "", task).replace("_", "").lower())
    return preset if preset in PRESETS.get(system, {}) else None
