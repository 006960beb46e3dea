"""Planning makes Dyna-Q need fewer real steps in the Dyna maze (Sutton & Barto 2018, Figure 8.2).

200 runs of 50 episodes for each number of planning steps, side by side in one program; the published numbers are means
of 30 runs of the textbook's reference code. The control is the first episode: before any reward was seen there is
nothing to plan with, and every run is the same random walk.
"""

import matplotlib.pyplot as plt
import numpy as np

from jmbrl import envs

import common

TASK, EPISODES, PUBLISHED_RUNS = "maze", 50, 30
PLANNING = (0, 5, 50)
SETTINGS = {"alpha": 0.1, "gamma": 0.95, "epsilon": 0.1}
# Mean steps of episodes 1, 2, ...; of the last ten; and in all.
SHEET = {
    0: {1: 741, 2: 743, 3: 506, 4: 284, 5: 294, 6: 219, 10: 146, 21: 37, "last 10": 17.7, "all 50": 4783},
    5: {1: 890, 2: 149, 3: 60, 4: 34, 5: 27, 6: 18, 10: 17, 21: 17, "last 10": 16.9, "all 50": 1914},
    50: {1: 610, 2: 41, 3: 17, 4: 17, 5: 17, 6: 17, 10: 17, 21: 16, "last 10": 16.8, "all 50": 1459},
}
BELOW_20 = {0: 30, 5: 6, 50: 3}  # the first episode whose mean is below 20 steps
COMPARISONS = [
    common.Compare("episode 2", "n = 5", "n = 0", paired=False),
    common.Compare("episode 2", "n = 50", "n = 5", paired=False),
    common.Compare("all 50", "n = 5", "n = 0", paired=False),
    common.Compare("all 50", "n = 50", "n = 5", paired=False),
    common.Compare("episode 1", "n = 50", "n = 0", expected=False, paired=False),
]


def episode_lengths(n: int, runs: int) -> dict:
    """Steps of the first 50 episodes of each run, ``[runs, 50]``."""
    env = envs.make(TASK, max_steps=1_000_000)  # the textbook has no time limit
    train = common.make_run("dyna_q", env, {**SETTINGS, "planning_steps": n}, steps=2**31 - 1)
    ended = lambda history: history["episode_length"][..., 0] > 0  # noqa: E731
    enough = lambda h: ended(h).sum(axis=1).min() >= EPISODES  # noqa: E731
    # Seeds of its own: with the same ones the first episodes would be the same walks.
    _, history = common.lanes(train, runs, 2_000, first=1000 * n, enough=enough)
    lengths = history["episode_length"][..., 0]
    return {"lengths": [row[row > 0][:EPISODES].tolist() for row in lengths]}


def pick(lengths: np.ndarray, what: int | str) -> np.ndarray:
    """A number a run."""
    if what == "last 10":
        return lengths[:, -10:].mean(axis=1)
    return lengths.sum(axis=1) if what == "all 50" else lengths[:, what - 1]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("dyna_maze", options.quick, options.fresh)
    runs = 20 if options.quick else 200
    curves, rows, checks, firsts = {}, [], [], []
    for n in PLANNING:
        settings = {**SETTINGS, "planning_steps": n, "runs": runs}
        found = cells.get(f"n={n}", settings, lambda n=n: episode_lengths(n, runs))
        curves[n] = np.asarray(found["lengths"], float)
        for what, published in SHEET[n].items():
            label = what if isinstance(what, str) else f"episode {what}"
            values = pick(curves[n], what)
            rows.append(common.row(label, f"n = {n}", values, "steps", published=published))
            checks.append(common.like_the_sheet(f"n = {n}, {label}", values, published, PUBLISHED_RUNS, 0))
        mean = curves[n].mean(axis=0)
        below = int(np.argmax(mean < 20)) + 1
        firsts.append(below)
        fits = abs(below - BELOW_20[n]) <= max(1, 0.2 * BELOW_20[n])
        checks.append((fits, f"n = {n}: mean below 20 steps from episode {below}, published {BELOW_20[n]}"))
    result = {
        "claim": "In the Dyna maze 5 planning steps need fewer real steps than none, and 50 fewer than 5, as published",
        "source": "Sutton & Barto 2018, Example 8.1 and Figure 8.2; numbers: its reference code run for 30 runs",
        "setting": f"Dyna maze, 14 steps at best, alpha 0.1, gamma 0.95, epsilon 0.1, {runs} runs of 50 episodes; the "
        "textbook's words are 'about 25 episodes' for n = 0, 'about five' and 'only three' (from memory, unchecked), "
        f"here the first episodes with a mean below 20 steps are {', '.join(map(str, firsts))}",
        "rows": rows,
        "verdict": common.together(common.judge(rows, COMPARISONS), common.agreement(checks)),
    }
    path = common.write("dyna_maze", options.quick, result)
    draw(curves, path)


def draw(curves: dict, path: common.Path) -> None:
    fig, axis = plt.subplots(figsize=(5.4, 3.6), constrained_layout=True)
    for n, lengths in curves.items():
        axis.plot(np.arange(1, EPISODES + 1), lengths.mean(axis=0), label=f"{n} planning steps")
        at = [what for what in SHEET[n] if isinstance(what, int)]
        axis.plot(at, [SHEET[n][what] for what in at], "k+", ms=5)
    axis.plot([], [], "k+", label="published (30 runs)")
    axis.axhline(14, color="0.7", lw=0.8)
    axis.set(yscale="log", xlabel="episode", ylabel="steps, mean", title="Dyna maze")
    axis.legend(frameon=False)
    fig.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main()
