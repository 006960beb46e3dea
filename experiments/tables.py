"""The results tables in the README and docs/results.md, made from results/*.json. ``--check``: fail where stale."""

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
README, DETAILS = ROOT / "README.md", ROOT / "docs" / "results.md"
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


def benchmark_table(result: dict) -> list[str]:
    """A line a system with all tasks, best first; what has not run, and what stands elsewhere."""
    lines = [
        "| system | steps | interquartile mean [95 % interval] | mean rank | published score (200k steps) "
        "| minutes a seed (two cores) | published hours |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in result["overall"]:
        low, high = line["interval"]
        hours = "" if line["published_hours"] is None else "{} ({})".format(*line["published_hours"])
        published = "" if line["published_score"] is None else f"{line['published_score']:.2f}"
        lines.append(
            f"| `{line['system']}` | {line['env_steps']} | **{line['iqm']:.2f}** [{low:.2f}, {high:.2f}] "
            f"| {line['mean_rank']:.1f} | {published} | {line['minutes_a_seed']:.1f} | {hours} |"
        )
    if result["missing"]:
        lines += ["", "Not run on all tasks yet: " + ", ".join(f"`{name}`" for name in result["missing"]) + "."]
    elsewhere = "; ".join(f"{name} ({why})" for name, why in result["elsewhere"].items())
    return [*lines, "", f"Systems that these tasks do not fit: {elsewhere}."]


def results() -> dict[str, dict]:
    """Name -> result, of every finished experiment."""
    paths = sorted(p for p in RESULTS.glob("*.json") if p.name.count(".") == 1)
    return {path.stem: json.loads(path.read_text()) for path in paths}


def claims_table(found: dict[str, dict]) -> list[str]:
    """A line a claim."""
    lines = ["| experiment | claim | computed verdict |", "|---|---|---|"]
    for name, result in found.items():
        lines.append(f"| [`{name}`](docs/results.md#{name}) | {result['claim']} | {verdict_words(result)} |")
    return lines


def verdict_words(result: dict) -> str:
    return "holds" if result["verdict"]["holds"] else "**does not hold**"


def duration(result: dict) -> str:
    """How long the cells took on two cores, other programs beside them; nothing where it was not written down."""
    seconds = result.get("wall_seconds")
    return "" if seconds is None else f", {max(1, round(seconds / 60))} min on two CPU cores"


def section() -> str:
    found = results()
    result = found["pets"]
    lines = [BEGIN, "", f"{result['claim']} ({result['source']}). {result['setting']}.", "", *pets_table(result), ""]
    lines += ["![PETS](experiments/results/pets.png)", "", "Run it: `python experiments/pets.py`.", ""]
    if "benchmark" in found:
        result = found["benchmark"]
        lines += ["### The 2019 benchmark", "", f"{result['source']}. {result['setting']}.", ""]
        lines += [*benchmark_table(result), "", "![benchmark](experiments/results/benchmark.png)", ""]
    lines += ["The field's claims, each an experiment of its own (`python experiments/NAME.py`):", ""]
    lines += [*claims_table(found), "", END]
    return "\n".join(lines)


def details() -> str:
    """The gallery, a section an experiment: claim, setting, command and time, every arm, the verdict, the figure."""
    lines = ["# Results", "", "Made by `experiments/tables.py` from `experiments/results/*.json`.", ""]
    lines += ["| experiment | claim | verdict |", "|---|---|---|"]
    for name, result in results().items():
        lines.append(f"| [`{name}`](#{name}) | {result['claim']} | {verdict_words(result)} |")
    lines.append("")
    for name, result in results().items():
        lines += [f"## {name}", "", f"Claim: {result['claim']}. Source: {result['source']}.", ""]
        lines += [f"Setting: {result['setting']}.", ""]
        lines += [f"Run it: `python experiments/{name}.py`{duration(result)}.", ""]
        rows = [row for row in result["rows"] if "arm" in row]
        if rows:
            lines += ["| setting | arm | metric | value [95 % interval] | seeds |", "|---|---|---|---|---|"]
        for row in rows:
            value = row.get("mean", row.get("median"))
            low, high = row["interval"]
            lines.append(
                f"| {row['setting']} | {row['arm']} | {row['metric']} | {value:.4g} [{low:.4g}, {high:.4g}] "
                f"| {row['seeds']} |"
            )
        lines += [""] * bool(rows) + [f"Verdict, computed: {verdict_words(result)}.", ""]
        lines += [f"- {why}" for why in result["verdict"]["why"].split("; ")]
        lines += ["", f"![{name}](../experiments/results/{name}.png)", ""]
    return "\n".join(lines)


def main() -> int:
    text = README.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    wanted = {README: before + section() + after, DETAILS: details()}
    if "--check" in sys.argv[1:]:
        return int(any(not path.exists() or path.read_text() != fresh for path, fresh in wanted.items()))
    for path, fresh in wanted.items():
        path.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
