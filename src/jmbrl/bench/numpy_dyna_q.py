"""Dyna-Q on the Dyna maze as a plain loop in Python and NumPy: what ``jmbrl bench tabular`` compares with.

Written from the box of Sutton & Barto 2018, section 8.2, and sharing no code with the library: a value is ``q[s, a]``,
the model a dictionary, one update at a time. It is also an oracle for the library's agent.
"""

import numpy as np

MAZE = (
    ".......#G",
    "..#....#.",
    "S.#....#.",
    "..#......",
    ".....#...",
    ".........",
)
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


def maze(resolution: int = 1) -> tuple[list[list[int]], set[int], int]:
    """Where each action leads from each state, ``[S][4]``; the goals; the start, upper left in its block.

    States are numbered row by row, walls too; every drawn cell is ``resolution x resolution`` states.
    """
    drawn = np.repeat(np.repeat(np.array([list(row) for row in MAZE]), resolution, axis=0), resolution, axis=1)
    rows, columns = drawn.shape

    def there(row: int, column: int) -> bool:
        return 0 <= row < rows and 0 <= column < columns and drawn[row, column] != "#"

    leads = []
    for row in range(rows):
        for column in range(columns):
            moved = [(row + down, column + right) for down, right in MOVES]
            leads.append([r * columns + c if there(r, c) else row * columns + column for r, c in moved])
    flat = drawn.ravel()
    return leads, set(np.flatnonzero(flat == "G").tolist()), int(np.flatnonzero(flat == "S")[0])


def dyna_q(
    seed: int,
    steps: int,
    planning_steps: int,
    *,
    resolution: int = 1,
    episodes: int | None = None,
    alpha: float = 0.1,
    gamma: float = 0.95,
    epsilon: float = 0.1,
) -> list[int]:
    """The lengths of the episodes finished within ``steps`` real steps, at most ``episodes`` of them."""
    rng = np.random.default_rng(seed)
    leads, goals, start = maze(resolution)
    q = np.zeros((len(leads), 4))
    model: dict[tuple[int, int], tuple[float, int, bool]] = {}
    visited: list[int] = []
    tried: dict[int, list[int]] = {}
    lengths: list[int] = []
    state, length = start, 0
    for _ in range(steps):
        if rng.random() < epsilon:
            action = int(rng.integers(4))
        else:
            best = np.flatnonzero(q[state] == q[state].max())
            action = int(best[rng.integers(len(best))])
        following = leads[state][action]
        done = following in goals
        reward = float(done)
        target = reward if done else reward + gamma * q[following].max()
        q[state, action] += alpha * (target - q[state, action])
        if state not in tried:
            tried[state] = []
            visited.append(state)
        if (state, action) not in model:
            tried[state].append(action)
        model[state, action] = reward, following, done
        for _ in range(planning_steps):
            s = visited[rng.integers(len(visited))]
            a = tried[s][rng.integers(len(tried[s]))]
            r, s2, end = model[s, a]
            target = r if end else r + gamma * q[s2].max()
            q[s, a] += alpha * (target - q[s, a])
        length += 1
        state = following
        if done:
            lengths.append(length)
            state, length = start, 0
            if len(lengths) == episodes:
                break
    return lengths
