"""Settings of the systems that follow derivatives through models: BPTT, SVG, PILCO, iLQG, guided policy search."""

GRADIENT_PRESETS: dict[str, dict[str, dict[str, object]]] = {}

# SVG(H) is a short horizon and a learned value after it, in rewards of about 1.
_SVG_H: dict[str, object] = {
    "stochastic": True,
    "terminal_value": True,
    "horizon": 5,
    "updates": 600,
    "gamma": 0.97,
    "value_learning_rate": 3e-3,
    "slow_rate": 0.05,
    "fit_every": 200,
}
GRADIENT_PRESETS["bptt"] = {
    "pendulum": {"stochastic": True, "fit_every": 200},
    "cartpole_swingup": {"horizon": 25, "fit_every": 200},
    "svg_h_pendulum": {**_SVG_H, "reward_scale": 0.1},
    "svg_h_cartpole_swingup": _SVG_H,
    # The model and the phases of SVG(1)'s, so that the two differ by what they climb.
    "wang": {
        "members": 3,
        "hidden": (64, 64),
        "epochs": 20,
        "stochastic": True,
        "fit_every": 1_000,
        "warmup": 1_000,
        "capacity": 20_000,
    },
}
# The true derivative of most of an episode leads nowhere (two pilots of the pendulum stayed at -1,150); cut after 20
# steps, which is not the derivative of that return any more, it solves the task in 600 updates.
_EPISODE: dict[str, object] = {
    "stochastic": True,
    "horizon": 150,
    "truncation": 20,
    "updates": 60,
    "batch_size": 32,
    "fit_every": 200,
}
GRADIENT_PRESETS["analytic"] = {"pendulum": _EPISODE, "cartpole_swingup": _EPISODE}
GRADIENT_PRESETS["svg"] = {
    # SVG(1). Smaller networks, a phase every five episodes.
    "wang": {
        "members": 3,
        "hidden": (64, 64),
        "epochs": 20,
        "updates": 1_000,
        "batch_size": 256,
        "gamma": 0.98,
        "value_learning_rate": 3e-3,
        "slow_rate": 0.05,
        "fit_every": 1_000,
        "warmup": 1_000,
        "capacity": 20_000,
    },
}
# Twenty iterations of five episodes. The network learns from 1,000 rows an iteration; a third of the paper's updates
# and half its width do. The car must rock in the same states in both directions before it has any speed to go by.
GRADIENT_PRESETS["ilqg"] = {"wang": {}}
GRADIENT_PRESETS["gps"] = {"wang": {"hidden": (32, 32), "updates": 1000}}
GRADIENT_PRESETS["gps"]["wang_mountain_car"] = GRADIENT_PRESETS["gps"]["wang"] | {"clock": True}
GRADIENT_PRESETS["pilco"] = {
    # The original's (reference sheet 2.12): the tip's distance from the point above the start, known starts.
    "pilco_cartpole": {
        "angles": (3,),
        "target": (0.0, 0.0, 0.0, 0.0, -1.0),
        "rows": ((1.0, 0.0, 0.0, 0.5, 0.0), (0.0, 0.0, 0.0, 0.0, 0.5)),
        "width": 0.25,
        "start_mean": (0.0, 0.0, 0.0, 0.0),
        "lengths": (1.0, 1.0, 1.0, 0.7, 0.7),
        "points": 320,
        # Observations are noisy in the original. Here this keeps the cost from being rugged: with 0.001 a step
        # of 1e-3 of the weights could change it by 0.06, and line searches failed.
        "noise_floor": 0.01,
        # The paper's 2.5 s rather than the code's 4 s, and a fresh policy beside the last: without them it swings up
        # and lets go, as spreading over all angles costs 0.84 a step and no small change does better.
        "horizon": 25,
        "restarts": 1,
        "searches": 150,
        # With 120 one of five seeds learned to balance within eight trials: the search ended long before its minimum.
        "evaluations": 400,
    },
    "pilco_pendulum": {
        "angles": (1,),
        "target": (0.0, 0.0, -1.0),
        "rows": ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        "width": 0.5,
        "start_mean": (0.0, 0.0),
        "centres": 20,
        "lengths": (1.0, 0.7, 0.7),
        "searches": 75,
        "evaluations": 150,
        "noise_floor": 0.01,
    },
    # For observations and rewards as they are, the latter's mean by cubature; episodes of 200 steps are seen 40 far.
    "wang": {"points": 300, "horizon": 40, "noise_floor": 0.01, "searches": 50, "evaluations": 100},
}
