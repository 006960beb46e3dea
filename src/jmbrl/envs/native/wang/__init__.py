"""Four classic tasks as the 2019 benchmark of model-based reinforcement learning defines them.

Wang et al., "Benchmarking Model-Based Reinforcement Learning" (arXiv 1907.02057): the dynamics of Gym's classic
control, a dense reward that is a function of the state *before* the step and the action, no termination, 200 steps.
Its Table 1 is what returns here compare with; ``experiments/benchmark_anchors.py`` checks the anchors.

The released code stops an episode when its step count *exceeds* 200, at 201 steps. The table fits 200: planning with
the true dynamics scores 199.9 on the cart pole there, where 201 steps pay 200.9. ``max_steps=201`` gives the other.
"""

MAX_STEPS = 200

THRESHOLDED = (
    "the continuous action is thresholded to a few forces: its derivative is zero wherever it exists; use a planner "
    "that samples"
)
