"""Policies trained in learned models on the 2019 benchmark's classic tasks, after a tenth of its environment steps.

Claim: ME-TRPO, SLBO, MB-MF and MB-MPO reach with 20,000 steps at least what the benchmark reports for 200,000, its
mean less its spread.
Source: Wang et al. 2019 (arXiv 1907.02057), table 1. The bar of each row is fixed by the table. Measured: the mean
return of 20 episodes of the policy's mode after the last step, four seeds as in the table; networks and imagined
batches are sized for two CPU cores (the settings are in each row). Beside them soft actor-critic after the same steps,
without a bar, and random actions, which are to miss the lowest bar of a task unless the table's own random row is above
it (the control). The pendulum of this benchmark pays for hanging down.
"""

from benchmark_parts import Benchmark, Budget, publish

IMAGINED = Benchmark(
    "benchmark_imagined", ("me_trpo", "slbo", "mb_mf", "mb_mpo"), ("sac",), Budget(20_000), shown=("sac",)
)

if __name__ == "__main__":
    publish(
        IMAGINED,
        __doc__.splitlines()[0],
        "after 20,000 steps policies trained in learned models score what the benchmark reports for 200,000",
        "four seeds side by side; networks and imagined batches sized for two CPU cores (see each row); "
        "the presets were found on one to four of these seeds, MB-MPO's of the cart-pole after a first result of -180 "
        "with its pendulum's; the optimum of the pendulum is near 170 from these start states, which four systems "
        "reach",
    )
