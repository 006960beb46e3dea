"""Settings per system and task: data, not code.

``paper_cartpole``, ``pusher``, ``reacher`` and ``halfcheetah`` are the paper's own settings (Chua et al. 2018 and its
code). The others are sized for two CPU cores; what they change is said beside them.
"""

import re

from jmbrl.agents.presets_gradients import GRADIENT_PRESETS
from jmbrl.agents.presets_latent import LATENT_PRESETS
from jmbrl.agents.presets_offline import OFFLINE_PRESETS
from jmbrl.agents.presets_search import SEARCH_PRESETS

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
    # Smaller networks, fewer rollouts, a fit every 100 steps. With a few hundred rows the paper's patience of 5 epochs
    # ends before the networks have found the dynamics, as one epoch is a handful of updates.
    "pendulum": {
        "members": 5,
        "elites": 5,
        "hidden": (64, 64),
        "weight_decay": (2.5e-5, 5e-5, 1e-4),
        "model_learning_rate": 2e-3,
        "model_batch_size": 32,
        "epochs": 400,
        "patience": 20,
        "rollouts": 2_000,
        "retain": 2,
        "policy_hidden": (64, 64),
        "learning_rate": 1e-3,
        "batch_size": 128,
        "updates": 20,
        "gamma": 0.97,
        "alpha": 0.2,
        "fit_every": 100,
        "warmup": 200,
        "capacity": 10_000,
    },
    # Next to nothing is paid where random actions lead, so a learned reward promises nothing elsewhere: the true one is
    # used, and the policy kept from becoming still (a target entropy of 0). After 4,200 steps five of five seeds are
    # above 175 with rollouts of 15, none with rollouts of 1 (experiments/mbpo_rollouts.py).
    "cartpole_swingup": {
        "members": 5,
        "elites": 5,
        "hidden": (64, 64),
        "weight_decay": (2.5e-5, 5e-5, 1e-4),
        "model_batch_size": 32,
        "epochs": 200,
        "learn_reward": False,
        "rollouts": 1_333,
        "rollout": (0, 1, 15, 15),
        "retain": 2,
        "policy_hidden": (64, 64),
        "learning_rate": 1e-3,
        "batch_size": 128,
        "updates": 10,
        "gamma": 0.98,
        "alpha": 0.05,
        "target_entropy": 0.0,
        "fit_every": 200,
        "warmup": 200,
        "capacity": 20_000,
    },
    # The paper's schedule (reference sheet 2.9) with smaller networks and a fifth of its rollouts.
    "inverted_pendulum": {
        "hidden": (128, 128),
        "weight_decay": (2.5e-5, 5e-5, 1e-4),
        "rollouts": 20_000,
        "rollout": (1, 15, 1, 1),
        "epoch": 250,
        "policy_hidden": (128, 128),
        "updates": 10,
        "target_entropy": -0.05,
        "warmup": 500,
        "capacity": 50_000,
    },
    # The paper's own (reference sheet 2.9).
    "paper_inverted_pendulum": {
        "rollout": (1, 15, 1, 1),
        "epoch": 250,
        "updates": 10,
        "target_entropy": -0.05,
        "warmup": 500,
    },
    "inverted_double_pendulum": {"rollout": (1, 15, 1, 1), "epoch": 250, "target_entropy": -0.5},
    "hopper": {"rollout": (20, 150, 1, 15), "target_entropy": -1.0},
    "walker2d": {"target_entropy": -3.0},
    "halfcheetah": {"updates": 40, "target_entropy": -3.0},
    "ant": {"rollout": (20, 100, 1, 25), "target_entropy": -4.0},
    "humanoid": {
        "hidden": (400, 400, 400, 400),
        "rollout": (20, 300, 1, 25),
        "rollouts": 400_000,
        "retain": 5,
        "target_entropy": -2.0,
        "fit_every": 1000,
    },
}
# Smaller stages, networks and turns than SLBO's: 50 policy updates a stage. Where a model of cosines may leave the
# data's range the policy finds states that pay more than any there is, hence the acrobot's.
PRESETS["slbo"] = {
    "wang": {
        "hidden": (128, 128),
        "clip_range": 2.0,
        "inner": 5,
        "policy_updates": 10,
        "imagined": 3_000,
        "fit_every": 2_000,
        "warmup": 2_000,
        "capacity": 20_000,
    },
}
PRESETS["slbo"]["wang_acrobot"] = PRESETS["slbo"]["wang"] | {"clip_range": 0.1}
# 5 % of 20,000 steps at random, 20 % planned, 15 % imitated; a tenth of the benchmark's candidates. PPO in the last
# stage: small steps from a policy that is good already, around which it explores little.
PRESETS["mb_mf"] = {
    "wang": {
        "hidden": (64, 64),
        "batch_size": 128,
        "epochs": 10,
        "horizon": 15,
        "population": 500,
        "initial_std": 0.2,
        "imitation_epochs": 100,
        "imitation_batch_size": 128,
        "learner": "ppo",
        "learner_options": {"reward_scale": 0.05, "minibatches": 16},
        "batch": 2_000,
        "gamma": 0.99,
        "warmup": 1_000,
        "fit_every": 200,
        "mpc_steps": 4_000,
        "dagger_steps": 1_000,
        "capacity": 20_000,
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
PRESETS["sac"]["wang"] = PRESETS["sac"]["pendulum"] | {"capacity": 20_000}
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
# Network, batch, an update every step and a target renewed every 1,000 of Young & Tian 2019 (arXiv 1903.03176); parts
# and Adam's epsilon of Obando-Ceron & Castro 2021 (arXiv 2011.14826, their code, which updates every fourth step).
# Ours: the range of returns (theirs is -100 to 100) and an epsilon that falls within 10,000 steps, for runs of 100,000.
# Breakout at 50,000 steps, one seed: 7.3; with an update every fourth step 3.9, and then with noisy layers 3.5.
# ``minatar_rainbow`` has all parts.
PRESETS["dqn"]["minatar"] = {
    "conv": 16,
    "hidden": (128,),
    "learning_rate": 2.5e-4,
    "adam_eps": 3.125e-4,
    "double": True,
    "dueling": True,
    "atoms": 51,
    "v_min": 0.0,
    "v_max": 20.0,
    "n_step": 3,
    "prioritized": True,
    "epsilon": (1.0, 0.02),
    "epsilon_updates": 10_000,
    "target_every": 1_000,
    "batch_size": 32,
    "updates": 1,
    "warmup": 1_000,
    "capacity": 100_000,
}
PRESETS["dqn"]["minatar_rainbow"] = PRESETS["dqn"]["minatar"] | {"noisy": True, "epsilon": None}
# A bit to carry over ten steps is found within 20,000 steps of 16 environments; 500 on the cart-pole without velocities
# within 60,000, where PPO without a memory stays below 50.
PRESETS["recurrent_ppo"] = {
    "memory_chain": {"learning_rate": 1e-3},
    "cartpole": {"learning_rate": 1e-3, "reward_scale": 0.1},
}
# The 2019 benchmark's classic tasks with a tenth of its 200,000 steps. The variant with a value network and discounts,
# as the benchmark's; paths of 50 steps (on the cart pole, TRPO in the true world needs 20 updates of them, and more
# than 50 of 100 steps), and little shaking of the policy: data from far away cost accuracy where it matters.
PRESETS["me_trpo"] = {
    "wang": {
        "hidden": (64, 64),
        "model_batch_size": 64,
        "epochs": 50,
        "patience": 5,
        "improvement": 0.01,
        "gamma": 0.99,
        "lam": 0.95,
        "max_kl": 0.02,
        "baseline": "network",
        "bootstrap": True,
        "horizon": 50,
        "batch": 4_000,
        "updates": 40,
        "validation": 50,
        "action_noise": 1.0,
        "parameter_noise": 1.0,
        "fit_every": 2_000,
        "warmup": 2_000,
        "capacity": 20_000,
    },
}
# A task per member, and paths, networks and meta steps for two CPU cores. The cart-pole is learned (200 at 5,000 to
# 7,500 steps) but not kept; fewer, smaller and longer meta steps lose less of it.
PRESETS["mb_mpo"] = {
    "wang": {
        "hidden": (64, 64),
        "model_batch_size": 128,
        "epochs": 60,
        "tasks": 5,
        "paths": 10,
        "horizon": 100,
        "meta_steps": 40,
        "initial_std": 0.5,
        "max_kl": 0.02,
        "fit_every": 2500,
        "warmup": 2500,
        "capacity": 20_000,
    },
}
# The car's reward lies 100 steps and more ahead, and the acrobot's swing about as many.
PRESETS["me_trpo"]["wang_mountain_car"] = PRESETS["me_trpo"]["wang"] | {"horizon": 200, "batch": 6_000, "gamma": 0.995}
PRESETS["me_trpo"]["wang_acrobot"] = PRESETS["me_trpo"]["wang"] | {"horizon": 100, "batch": 5_000}
PRESETS["mb_mpo"]["wang_cartpole"] = PRESETS["mb_mpo"]["wang"] | {"horizon": 200, "meta_steps": 15, "max_kl": 0.01}
PRESETS["mb_mpo"]["wang_mountain_car"] = PRESETS["mb_mpo"]["wang"] | {"horizon": 200}
# 32 x 32 greys and populations for two cores (``--env-set size=32 --env-set channels=1 --env-set max_steps=250``):
# a seed takes minutes. Latents and memories are as small as the task allows, as the search for a controller slows down
# with every feature; without their weight pixels so few are not worth the nats of a fireball's place.
PRESETS["world_models"] = {
    "dodge": {
        "episodes": 2_000,
        "collector": "held",
        "latent": 16,
        "channels": (16, 32, 64),
        "pixel_weight": 12.0,
        "vision_updates": 5_000,
        "vision_batch_size": 64,
        "vision_learning_rate": 2e-3,
        "hidden": 128,
        "memory_updates": 4_000,
        "memory_batch_size": 32,
        "memory_learning_rate": 2e-3,
        "length": 64,
        "population": 24,
        "rollouts": 8,
        "sigma": 0.5,
        "generations": 60,
        "check_every": 20,
        "check_rollouts": 64,
    },
    # The paper's own on the paper's tasks.
    "paper_car_racing": {"view": "car_racing", "length": 999, "learn_termination": False},
    "paper_take_cover": {"collector": "held", "latent": 64, "hidden": 512, "inputs": "zch", "bias": False},
}
# ``--env-set level=one``
PRESETS["world_models"]["dodge_one"] = PRESETS["world_models"]["dodge"] | {
    "episodes": 3_000,
    "latent": 8,
    "vision_updates": 3_000,
    "hidden": 64,
    "memory_updates": 5_000,
    "generations": 80,
}
PRESETS["world_models"]["car_racing"] = PRESETS["world_models"]["dodge"] | {
    "episodes": 200,
    "collector": "networks",
    "vision_updates": 3_000,
    "hidden": 64,
    "memory_updates": 2_000,
    "rollouts": 4,
    "generations": 30,
    "check_every": 10,
}
# The released code's sizes ``5m`` (the defaults) and ``1m``. ``small`` and ``pendulum`` are for two CPU cores: smaller
# networks, batches and populations, and the model-free baselines' learning rate.
PRESETS["td_mpc2"] = {
    "5m": {},
    "1m": {"latent": 128, "hidden": 384, "critics": 2},
    "small": {
        "latent": 64,
        "encoder_hidden": 64,
        "hidden": 128,
        "critics": 2,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "population": 128,
        "proposals": 12,
        "elites": 16,
        "iterations": 4,
        "capacity": 100_000,
    },
}
PRESETS["td_mpc2"]["pendulum"] = PRESETS["td_mpc2"]["small"]
PRESETS |= LATENT_PRESETS | GRADIENT_PRESETS | SEARCH_PRESETS | OFFLINE_PRESETS
PRESETS["gt_cem"] = {
    task: {k: v for k, v in settings.items() if k in ("horizon", "population", "elites", "iterations")}
    for task, settings in PRESETS["pets"].items()
}

# Which preset an environment gets when none is named, by its task without package, backend and version.
DEFAULT_PRESETS = {
    "pendulum": "pendulum",
    "pendulummasked": "pendulum",
    "pendulumpixels": "pendulum",
    "invertedpendulum": "inverted_pendulum",
    "inverteddoublependulum": "inverted_double_pendulum",
    "hopper": "hopper",
    "walker2d": "walker2d",
    "ant": "ant",
    "humanoid": "humanoid",
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
    "dodge": "dodge",
    "carracing": "car_racing",
    "gymnasium:carracing": "paper_car_racing",
    "wang": "wang",
    "pilco/cartpole": "pilco_cartpole",
    "pilco/pendulum": "pilco_pendulum",
    "memorychain-bsuite": "memory_chain",
    "cartpolemasked": "cartpole",
    "cartpolepixels": "cartpole",
    "asterix-minatar": "minatar",
    "breakout-minatar": "minatar",
    "freeway-minatar": "minatar",
    "seaquest-minatar": "minatar",
    "spaceinvaders-minatar": "minatar",
    "tictactoe": "tictactoe",
    "connectfour": "connect_four",
}


def default_preset(system: str, env: str) -> str | None:
    """The preset of ``system`` for an environment's id, or None.

    >>> default_preset("pets", "gymnasium:InvertedPendulum-v5")
    'inverted_pendulum'
    """
    whole = re.sub(r"-v\d+$", "", env).replace("_", "").lower()
    task = whole.rpartition(":")[2].partition("/")[0]
    preset = DEFAULT_PRESETS.get(whole, DEFAULT_PRESETS.get(task))
    return preset if preset in PRESETS.get(system, {}) else None
