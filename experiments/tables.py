"""The results tables in the README, made from results/*.json. ``--check`` fails where they are stale."""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- results: made by experiments/tables.py -->", "<!-- end of results -->"


def number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def pets_table(result: dict) -> list[str]:
    """A line a task: random actions, PETS with its interval, the simulator, the threshold's verdict."""
    rows = {(row["task"], row["system"]): row for row in result["rows"]}
    lines = [
        "| task | steps | random | **PETS**: median [95 % interval], seeds | metric | through the true simulator |",
        "|---|---|---|---|---|---|",
    ]
    for (task, system), row in rows.items():
        if system != "pets":
            continue
        bound = rows.get((task, "gt_cem"))
        low, high = map(number, row["interval"])
        lines.append(
            f"| `{row['env']}` | {row['env_steps']} | {number(rows[task, 'random']['median'])} "
            f"| **{number(row['median'])}** [{low}, {high}], {row['seeds']} | {row['metric']} "
            f"| {number(bound['median']) if bound else 'not run'} |"
        )
    curve = rows["cartpole_swingup", "pets"]["curve"]
    lines += [
        "",
        "`cartpole_swingup`, means over seeds by trial (trial 1 follows the random episode; the published curve is "
        "a running maximum: 0, 5, 52, 76, 129, 168, 176):",
        "",
        "| trial | " + " | ".join(str(i + 1) for i in range(len(curve["plain"]))) + " |",
        "|---" * (len(curve["plain"]) + 1) + "|",
        "| return | " + " | ".join(map(number, curve["plain"])) + " |",
        "| running maximum | " + " | ".join(map(number, curve["running_maximum"])) + " |",
    ]
    verdict = result["verdict"]
    lines += ["", f"Verdict ({'holds' if verdict['holds'] else 'does not hold'}): {verdict['why']}."]
    return lines


def section() -> str:
    result = json.loads((RESULTS / "pets.json").read_text())
    lines = [BEGIN, "", f"{result['claim']} ({result['source']}). {result['setting']}.", "", *pets_table(result), ""]
    lines += ["![PETS](experiments/results/pets.png)", "", "Run it: `python experiments/pets.py`.", "", END]
    return "\n".join(lines)


def main() -> int:
    text = README.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    fresh = before + section() + after
    if "--check" in sys.argv[1:]:
        return int(fresh != text)
    README.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
