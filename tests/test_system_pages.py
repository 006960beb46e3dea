"""The pages of docs/systems say what is there: settings and defaults, commands, files, verdicts."""

import ast
import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest

from jmbrl import configs, envs
from jmbrl.agents import PRESETS, SYSTEMS
from jmbrl.cli import parser

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGES = {path.stem: path for path in sorted((ROOT / "docs" / "systems").glob("*.md")) if path.stem != "index"}
SHARED = {"model_free": ("sac", "dqn", "ppo", "recurrent_ppo", "trpo"), "bounds": ("random", "gt_cem")}
HEADINGS = ["Idea", "Algorithm", "Run it", "Our file", "What was measured", "Sources"]
PREFIXES = ("gymnax:", "brax:", "gymnasium:", "playground:")
pages = pytest.mark.parametrize("name", PAGES)


def systems_of(name: str) -> tuple[str, ...]:
    return SHARED.get(name, (name,))


def section(name: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGES[name].read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"{name}: no heading {heading}"
    return found[1]


def commands(name: str) -> list[list[str]]:
    """The words of each command of the page's sh blocks."""
    text = "\n".join(re.findall(r"```sh\n(.*?)```", section(name, "Run it"), re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def tables(name: str) -> dict[str, dict[str, str]]:
    """System -> setting -> the default that is stated; a table below a heading of the third level is that system's."""
    parts = re.split(r"^### `(\w+)`$", section(name, "Run it"), flags=re.MULTILINE)
    named = dict(zip(parts[1::2], parts[2::2], strict=True)) or {name: parts[0]}
    return {
        system: dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text, re.MULTILINE)) for system, text in named.items()
    }


def ran() -> set[str]:
    """The arms of all experiments that have a result."""
    files = [path for path in RESULTS.glob("*.json") if path.name.count(".") == 1]
    rows = [row for path in files for row in json.loads(path.read_text())["rows"]]
    return {str(row[key]) for row in rows for key in ("arm", "system") if key in row}


def test_every_system_has_a_page_and_every_page_a_system():
    assert sorted(system for name in PAGES for system in systems_of(name)) == sorted(SYSTEMS)


def test_the_index_lists_every_system_and_every_page_once():
    text = (ROOT / "docs" / "systems" / "index.md").read_text()
    (tree,) = re.findall(r"```\{toctree\}\n:maxdepth: 1\n\n(.*?)```", text, re.DOTALL)
    assert sorted(tree.split()) == sorted(PAGES)
    rows = "\n".join(line for line in text.splitlines() if line.startswith("| ["))
    listed = re.findall(r"\[`(\w+)`\]\((\w+)\.md\)", rows)
    assert sorted(listed) == sorted((system, name) for name in PAGES for system in systems_of(name))


@pages
def test_a_page_has_its_headings_in_order_and_a_readable_length(name):
    text = PAGES[name].read_text()
    assert re.findall(r"^# (.*)$", text.split("```")[0], re.MULTILINE), "no title"
    for system in systems_of(name):
        assert f"`{system}`" in text.splitlines()[0]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert 35 <= len(text.splitlines()) <= (70 if len(systems_of(name)) < 3 else 120)
    steps = re.findall(r"^ ?\d+ +\S", section(name, "Algorithm"), re.MULTILINE)
    assert 6 <= len(steps) / section(name, "Algorithm").count("```text") <= 14
    assert len(re.findall(r"!\[", text)) <= 1


@pages
def test_every_link_of_a_page_leads_somewhere(name):
    links = re.findall(r"\]\(([^)\s]+)\)", PAGES[name].read_text())
    assert any(link.startswith("../../src/jmbrl/agents/") for link in links)
    for link in links:
        path, _, anchor = link.partition("#")
        target = (PAGES[name].parent / path).resolve()
        assert target.exists(), link
        assert not anchor or re.search(rf"^## {anchor}$", target.read_text(), re.MULTILINE), link


@pages
def test_every_command_of_a_page_exists(name):
    trained = set()
    for words in commands(name):
        assert words[0] == "jmbrl", words
        arguments = parser().parse_args(words[1:])
        if words[1] != "train":
            continue
        trained.add(arguments.system)
        assert arguments.env.startswith(PREFIXES) or arguments.env in envs.names(), arguments.env
        configs.make(
            arguments.system, arguments.env, steps=arguments.steps, preset=arguments.preset, settings=arguments.set
        )
        if arguments.env_set:  # refused where there is no such option; ours cost nothing to make
            envs.make(arguments.env, **configs.parse_options(arguments.env_set))
    assert trained == set(systems_of(name))


@pages
def test_every_setting_of_a_page_has_the_default_that_is_stated(name):
    found = tables(name)
    assert set(found) == set(systems_of(name))
    for system, stated in found.items():
        assert 4 <= len(stated) <= 8 or name in SHARED
        fields = dataclasses.asdict(SYSTEMS[system].config())
        assert stated.keys() <= fields.keys()
        assert {key: ast.literal_eval(value) for key, value in stated.items()} == {key: fields[key] for key in stated}


@pages
def test_every_preset_that_a_page_names_exists(name):
    for paragraph in section(name, "Run it").strip().split("\n\n"):
        if paragraph.startswith(("```", "|", "#")) or not re.search(r"\b[Pp]resets?\b", paragraph):
            continue
        known = {*SYSTEMS, *(key for system in systems_of(name) for key in PRESETS.get(system, {}))}
        known |= {field.name for system in systems_of(name) for field in dataclasses.fields(SYSTEMS[system].config)}
        for word in re.findall(r"`([^`]+)`", paragraph):
            assert word in known or word.startswith("--"), word


@pages
def test_what_was_measured_is_what_the_results_say(name):
    """Each experiment is named with its verdict; one that is said not to have been run has no result."""
    text = section(name, "What was measured")
    named = re.findall(r"\[`(\w+)`\]\(\.\./results\.md#(\w+)\)\s(?:\((holds|does\s+not\s+hold)\))?", text)
    waiting = re.findall(r"\[`(\w+)`\]\(\.\./\.\./experiments/(\w+)\.py\)\s(?:\((not run)\))?", text)
    if re.match(r"\s*(Nothing|Not this system) yet", text):
        assert not ran() & set(systems_of(name))
    for shown, experiment, verdict in named:
        result = json.loads((RESULTS / f"{experiment}.json").read_text())
        assert shown == experiment
        held = "holds" if result["verdict"]["holds"] else "does not hold"
        assert " ".join(verdict.split()) == held, f"{experiment}: {held}"
    for shown, experiment, verdict in waiting:
        assert shown == experiment and verdict == "not run"  # noqa: PT018
        assert not (RESULTS / f"{experiment}.json").exists(), f"{experiment} was run"
