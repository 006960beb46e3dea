"""Settings of PlaNet and the Dreamers for known sizes and tasks."""

# Dreamer v3's sizes by their number of weights; ``size_xs`` is ours, for two CPU cores.
SIZES = {
    "size_xs": {"deter": 128, "hidden": 32, "classes": 4, "depth": 4, "units": 32, "blocks": 4}
    | {"batch_size": 8, "length": 32},
    "size_1m": {},
    "size_12m": {"deter": 2048, "hidden": 256, "classes": 16, "depth": 16, "units": 256},
    "size_25m": {"deter": 3072, "hidden": 384, "classes": 24, "depth": 24, "units": 384},
    "size_50m": {"deter": 4096, "hidden": 512, "classes": 32, "depth": 32, "units": 512},
    "size_200m": {"deter": 8192, "hidden": 1024, "classes": 64, "depth": 64, "units": 1024},
}
# The paper's runs: its frames are steps here, and an action repeat is the environment's.
_V3_TASKS = {
    "dmc_proprio": {"train_ratio": 512.0},
    "dmc_vision": SIZES["size_12m"] | {"train_ratio": 256.0},
    "atari100k": SIZES["size_200m"] | {"train_ratio": 256.0},
    "bsuite": {"train_ratio": 1024.0},
}
# Small networks take larger steps; where observations are small (a pole's angle) symlog leaves nothing to reconstruct.
_SMALL = SIZES["size_xs"] | {
    "train_ratio": 64.0, "learning_rate": 1e-3, "rate_warmup": 200, "vectors": "normalized", "capacity": 50_000,
}  # fmt: skip
# A cart-pole is learned in as few steps from a quarter of the starts, if less steadily; a pendulum is not.
_V3_TASKS |= {"pendulum": _SMALL, "cartpole": _SMALL | {"start_frames": 8}}

_V2_TASKS = {
    "atari": {
        "deter": 600, "hidden": 600, "kl_scale": 0.1, "continuation_scale": 5.0, "gamma": 0.999, "entropy": 1e-3,
        "model_rate": 2e-4, "actor_rate": 4e-5, "critic_rate": 1e-4, "train_ratio": 50.0, "warmup": 50_000,
    },
    "dmc": {
        "deter": 200, "hidden": 200, "free_nats": 1.0, "entropy": 1e-4, "model_rate": 3e-4, "actor_rate": 8e-5,
        "critic_rate": 8e-5, "learn_termination": False, "warmup": 1000,
    },
}  # fmt: skip

LATENT_PRESETS: dict[str, dict] = {
    "planet": {
        "dmc": {},
        "pendulum": {
            "deter": 64, "stoch": 8, "hidden": 64, "depth": 4, "units": 64, "free_nats": 0.0, "kl_scale": 0.1,
            "updates": 200, "batch_size": 32, "length": 32, "horizon": 15, "population": 200, "elites": 20,
            "iterations": 6, "capacity": 50_000,
        },
    },
    "dreamer_v1": {
        "dmc": {},
        "pendulum": {
            "deter": 64, "stoch": 8, "hidden": 64, "depth": 4, "units": 64, "free_nats": 1.0, "train_ratio": 64.0,
            "train_every": None, "batch_size": 8, "length": 32, "model_rate": 1e-3, "actor_rate": 3e-4,
            "critic_rate": 3e-4, "reward_scale": 0.1, "warmup": 1000,
        },
    },
    "dreamer_v2": _V2_TASKS
    | {
        "pendulum": {
            "deter": 64, "stoch": 8, "classes": 8, "hidden": 64, "depth": 4, "units": 64, "free_nats": 1.0,
            "train_ratio": 64.0, "batch_size": 8, "length": 32, "learn_termination": False, "model_rate": 1e-3,
            "actor_rate": 3e-4, "critic_rate": 3e-4, "entropy": 1e-3, "reward_scale": 0.1, "warmup": 1000,
        },
    },
    "dreamer_v3": SIZES | _V3_TASKS,
    "plan2explore": SIZES | {"pendulum": _SMALL | {"heads": 5, "head_hidden": (64, 64), "intrinsic": 10.0}},
}  # fmt: skip
