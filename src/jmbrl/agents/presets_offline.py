"""Settings of the systems that learn from a log, as ``experiments/offline.py`` has them."""

OFFLINE_PRESETS: dict[str, dict[str, dict[str, object]]] = {
    "mopo": {
        "pendulum": {
            "members": 5,
            "elites": 5,
            "hidden": (64, 64),
            "weight_decay": (2.5e-5, 5e-5, 1e-4),
            "model_learning_rate": 2e-3,
            "model_batch_size": 32,
            "epochs": 400,
            "patience": 20,
            "penalty": 5.0,
            "scaled": True,
            "length": 10,
            "rollouts": 400,
            "policy_hidden": (64, 64),
            "learning_rate": 1e-3,
            "batch_size": 128,
            "gamma": 0.97,
            "alpha": 0.2,
            "updates": 20_000,
            "round_updates": 500,
            "evaluations": 1,
        },
    },
    "bc": {"pendulum": {"hidden": (64, 64), "batch_size": 128, "epochs": 100, "every": 100}},
}
