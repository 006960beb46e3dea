"""Every command in the documents is one that the command line takes, with settings, presets and options that exist."""

import re
import shlex
from pathlib import Path

import pytest

from jmbrl import cli, configs
from jmbrl.cli.sweep import grid

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """The lines of shell blocks that call jmbrl, continued lines joined, comments cut."""
    text = "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("jmbrl ")]


CASES = [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), CASES, ids=lambda value: value if value.endswith(".md") else None)
def test_a_printed_command_is_understood(page, line):
    words = shlex.split(line, comments=True)[1:]
    try:
        arguments = cli.parser().parse_args(words)
    except SystemExit:
        pytest.fail(f"{page}: {line}")
    if words[0] not in ("train", "sweep"):
        return
    cells = [arguments.set or []]
    if words[0] == "sweep":
        cells = [[f"{name}={value}" for name, value in cell.items()] for cell in grid(arguments.set or [])]
    for settings in cells:
        made = configs.make(
            arguments.system, arguments.env, steps=arguments.steps, preset=arguments.preset, settings=settings,
            env_options=configs.parse_options(arguments.env_set),
        )  # fmt: skip
        assert made["system"] == arguments.system


def test_there_are_commands_to_check():
    assert len(CASES) > 40
