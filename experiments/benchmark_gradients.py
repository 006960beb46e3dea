"""Policies by derivatives through models on the 2019 benchmark's classic tasks: SVG, PILCO, iLQG, guided policy search.

Claim: SVG and guided policy search reach with 20,000 steps, and PILCO with 1,000, at least what the benchmark reports
for 200,000, its mean less its spread. Source: Wang et al. 2019 (arXiv 1907.02057), table 1. The bar of each row is
fixed by the table, whose iLQG plans with the true dynamics: ours, which learns local models, stands beside it without a
bar, as do BPTT through an ensemble and soft actor-critic. Measured as in ``benchmark_imagined``: the mean return of 20
episodes of the final policy, four seeds. Random actions are to miss a task's lowest bar unless the table's own random
row is above it (the control). The pendulum of this benchmark pays for hanging down.
"""

from benchmark_parts import Benchmark, Budget, publish

GRADIENTS = Benchmark(
    "benchmark_gradients",
    ("svg", "pilco", "gps"),
    ("ilqg", "bptt", "sac"),
    Budget(20_000),
    # A handful of episodes, each seed alone: exact inference of all rows, in float64.
    budgets={"pilco": Budget(1_000, together=False)},
)

if __name__ == "__main__":
    publish(
        GRADIENTS,
        __doc__.splitlines()[0],
        "after 20,000 steps (PILCO: 1,000) SVG, PILCO and guided policy search score what the benchmark reports for "
        "200,000",
        "four seeds; networks sized for two CPU cores, settings in each row, found in pilots on seeds 0 and 1",
    )
