"""Settings of the systems that search trees, sized for two CPU cores."""

SEARCH_PRESETS: dict[str, dict[str, dict[str, object]]] = {}

# Returns of 40 steps, ended by what the newest network says: with the source's 10 and the values of old searches a
# value of several hundred is learned ten steps at a time, and one seed stood at 150 after 40,000 steps.
_SMALL: dict[str, object] = {
    "simulations": 16,
    "bootstrap": "network",
    "bins": 101,
    "limit": 25.0,
    "learning_rate": 1e-3,
    "batch_size": 128,
    "updates": 0.125,
}
SEARCH_PRESETS["muzero"] = {
    "cartpole": {**_SMALL, "n_step": 40, "warmup": 1600},
    # MinAtar's rewards are rare and small, and its images are read by 3 x 3 filters as its baselines' are.
    "minatar": {**_SMALL, "channels": 16, "bins": 51, "limit": 10.0, "gamma": 0.99, "warmup": 4800},
}
SEARCH_PRESETS["alphazero"] = {
    # A quarter of the moves are random and returns two moves long. With the outcomes of games of its own choice (and 16
    # simulations) it had seen too few of the positions that others bring about: 5 to 53 lines of play beat it.
    "tictactoe": {
        "simulations": 32,
        "random_moves": 0.25,
        "n_step": 2,
        "channels": 0,
        "layers": 2,
        "units": 64,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "updates": 1 / 32,
        "capacity": 512,
    },
    "connect_four": {
        "simulations": 32,
        "channels": 32,
        "blocks": 2,
        "units": 64,
        "batch_size": 256,
        "updates": 1 / 32,
        "capacity": 1024,
    },
}
