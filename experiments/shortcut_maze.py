"""Only Dyna-Q+ finds a shortcut that opens in a world it already knows (Sutton & Barto 2018, Figure 8.5)."""

import changing

from common import Compare

CASE = changing.Case(
    name="shortcut_maze",
    change_at=3000,
    steps=6000,
    planning_steps=50,
    kappa=1e-3,
    optimum=(16, 10),
    sheet={
        "Dyna-Q": {1000: (25.5, None), 2000: (71.8, None), 3000: (124.7, 36), 4500: (206.6, None), 5900: (283.3, 36.5)},
        "Dyna-Q+": {
            1000: (37.5, None),
            2000: (86.3, None),
            3000: (135.9, 3.5),
            4500: (244.0, None),
            5900: (356.8, 6.3),
        },
    },
    published_runs=24,
    claim="In the shortcut maze only Dyna-Q+ finds the shorter way that opens late; Dyna-Q keeps to the old one",
    source="Sutton & Barto 2018, Example 8.3 and Figure 8.5; numbers: its reference code run for 24 runs",
    setting="16 steps at best, 10 after step 3000; n = 50, alpha 1, gamma 0.95, epsilon 0.1, kappa 1e-3",
    comparisons=[
        Compare("step 5900", "Dyna-Q+", "Dyna-Q", lower_is_better=False, paired=False),
        Compare("end", "Dyna-Q+", "Dyna-Q", lower_is_better=False, paired=False),
        Compare("end", "untried only", "Dyna-Q", expected=False, lower_is_better=False, paired=False),
    ],
    knows={"Dyna-Q": False, "Dyna-Q+": True, "untried only": False},
)

if __name__ == "__main__":
    changing.run(CASE)
