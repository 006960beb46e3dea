"""From a chunk's metrics to rows of ``metrics.jsonl``, and from rows to a summary; and when to call a run broken.

Metrics come as ``dict[str, array[S, T, ...]]``, seed first, time second. All of it is NumPy on the host and
deterministic: the same metrics give the same bytes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jmbrl.health import is_counter

Row = dict[str, Any]

EPISODE = ("episode_return", "episode_length")
FINAL_EPISODES = 5
WORST_SHARE = 0.5  # of the updates or transitions of a chunk


def chunk_rows(metrics: dict[str, np.ndarray], seeds: Sequence[int], start: int, end: int) -> list[Row]:
    """One row for each episode that ended, in the order of time, then one for each seed with the chunk's averages.

    Args:
      metrics: of environment steps ``[start, end)``, which the rows of time share equally.
      seeds: the name of each lane.
    """
    returns, lengths = metrics.get("episode_return", np.zeros((len(seeds), 0, 1))), metrics.get("episode_length")
    each = (end - start) // max(returns.shape[1], 1)
    # NaN marks "no episode ended", and so does length 0; a return that is itself NaN must not hide an episode. Where no
    # lengths are told a row is the mean of several episodes.
    ended = ~np.isnan(returns) if lengths is None else lengths > 0
    rows = []
    for time, lane, world in np.argwhere(np.moveaxis(ended, 1, 0)).tolist():
        row = {
            "env_steps": start + (time + 1) * each,
            "seed": seeds[lane],
            "episode_return": float(returns[lane, time, world]),
        }
        rows.append(row if lengths is None else row | {"episode_length": int(lengths[lane, time, world])})
    for lane, seed in enumerate(seeds):
        row: Row = {"env_steps": end, "seed": seed}
        for name, values in sorted(metrics.items()):
            if name not in EPISODE and values[lane].size:
                row[name] = _reduce(name, values[lane])
        rows.append(row)
    return rows


def work(row: Row) -> int:
    """How far the run was when a row was written: its environment steps, or what else it counts."""
    return row.get("work", row["env_steps"])


def summarise(rows: Sequence[Row], seeds: Sequence[int]) -> dict[str, Any]:
    """Per seed, in the order of ``seeds``: the final return, how many episodes ended, and the health counters.

    The final return is the mean over the last five training episodes; None where none ended.
    """
    final, episodes, health = [], [], {}
    for lane, seed in enumerate(seeds):
        mine = [row for row in rows if row["seed"] == seed]
        returns = [row["episode_return"] for row in mine if row.get("episode_return") is not None]
        last = returns[-FINAL_EPISODES:]
        final.append(float(np.mean(last)) if last else None)
        episodes.append(len(returns))
        for row in mine:
            for name, value in row.items():
                if is_counter(name) and value is not None:
                    health.setdefault(name, [0] * len(seeds))[lane] += value
    return {
        "final_return": final,
        "final_return_is": f"mean of the last {FINAL_EPISODES} training episodes of each seed",
        "episodes": episodes,
        "health": health,
    }


def broken(metrics: dict[str, np.ndarray], seeds: Sequence[int]) -> dict[int, str]:
    """Seeds whose chunk shows a run that cannot go on, each with the reason.

    A metric ``.../diverged`` above 0; more than half of the updates skipped (``.../skipped`` against
    ``.../updates`` where reported, else against its number of rows); more than half of the transitions bad.
    """
    found: dict[int, str] = {}
    for name, values in sorted(metrics.items()):
        group, _, kind = name.rpartition("/")
        for lane, seed in enumerate(seeds):
            if seed in found or not values[lane].size:
                continue
            count = float(np.nansum(values[lane]))
            if kind == "diverged" and count > 0:
                found[seed] = f"{name} is {_text(count)}"
            elif kind == "skipped":
                updates = metrics.get(f"{group}/updates")
                total = float(np.nansum(updates[lane])) if updates is not None else values[lane].size
                if count > WORST_SHARE * total:
                    found[seed] = f"{name}: {_text(count)} of {_text(total)} updates were not finite"
            elif name == "bad_transitions" and count > WORST_SHARE * values[lane].size:
                found[seed] = f"{name}: {_text(count)} of {values[lane].size} observations or rewards were not finite"
    return found


def exploded(metrics: dict[str, np.ndarray], seeds: Sequence[int]) -> dict[int, str]:
    """Seeds whose values were beyond what rewards allow (``.../exploded``) in more than half of the chunk's updates."""
    found: dict[int, str] = {}
    for name, values in sorted(metrics.items()):
        group, _, kind = name.rpartition("/")
        if kind != "exploded" or f"{group}/updates" not in metrics:
            continue
        for lane, seed in enumerate(seeds):
            count, total = float(np.nansum(values[lane])), float(np.nansum(metrics[f"{group}/updates"][lane]))
            if count > WORST_SHARE * total:
                found[seed] = f"{name}: in {_text(count)} of {_text(total)} updates"
    return found


def first_bad(metrics: dict[str, np.ndarray], lane: int) -> str:
    """The metric that went non-finite first, for the error message."""
    first: tuple[float, str] | None = None
    for name, values in sorted(metrics.items()):
        if name in EPISODE or is_counter(name) or not np.issubdtype(values.dtype, np.floating):
            continue
        rows = values[lane].reshape(len(values[lane]), -1)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if bad.size:
            # Updates and interactions have rows of their own: compare them as shares of the chunk.
            first = min(filter(None, (first, (bad[0] / len(rows), f"{name}, row {bad[0]} of {len(rows)}"))))
    return first[1] if first else "no metric (they are all finite)"


def _reduce(name: str, values: np.ndarray) -> float | int | None:
    if is_counter(name):
        total = float(np.nansum(values))
        return int(total) if total.is_integer() else total
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _text(count: float) -> str:
    return f"{count:g}"
