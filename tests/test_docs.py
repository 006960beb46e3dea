"""The documents' code runs and prints what they say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def test_environments_md_runs_and_prints_what_it_says(capsys):
    scope: dict = {"__name__": "example"}
    for code in blocks("docs/environments.md", "python"):
        exec(compile(code, "environments.md", "exec"), scope)
    printed = capsys.readouterr().out
    for text in blocks("docs/environments.md", "text"):
        # Numbers may differ in their last digits on another processor.
        wanted = re.escape(re.sub(r"-?\d+\.\d+", "NUMBER", text.strip()))
        assert re.search(wanted.replace("NUMBER", r"-?\d+\.\d+"), printed), text
    assert re.search(r"Agreement\(reward=1.0, reward_error=\S+, termination=1.0\)", printed)
    assert scope["flat"].spec.obs_shape == (48,)
    assert scope["stacked"].spec.obs_names == ("position[t-2]", "position[t-1]", "position[t-0]")
    assert scope["slow"].spec.max_steps == 25
    assert scope["robot"].spec.host


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("tabular", 27),
        ("imagined_trials", 100),
        ("world_models", None),
        ("latent_models", None),
        ("search", None),
        ("exploration", None),
        ("auxiliary_losses", None),
    ],
)
def test_a_guide_runs_and_prints_what_it_says(name, least, capsys):
    (code,) = blocks(f"docs/{name}.md", "python")
    exec(compile(code, f"{name}.md", "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    (text,) = blocks(f"docs/{name}.md", "text")
    found = re.fullmatch(re.escape(text).replace("NUMBER", r"(\d+)"), printed)
    assert found, printed
    assert least is None or int(found[1]) >= least


@pytest.mark.parametrize("name", ["tour", "own_parts", "logged_data", "robot", "changing_worlds", "many_devices"])
def test_a_guide_of_several_programs_runs_and_prints_what_it_says(name, capsys, monkeypatch):
    monkeypatch.setattr("jmbrl.lanes.COMPILER_OPTIONS", {"xla_backend_optimization_level": 0})  # most is compiling
    scope: dict = {"__name__": "example"}
    for code in blocks(f"docs/{name}.md", "python"):
        exec(compile(code, f"{name}.md", "exec"), scope)
    assert capsys.readouterr().out == "".join(blocks(f"docs/{name}.md", "text"))


def test_environments_md_names_the_functions_that_are_known():
    from jmbrl.envs import gymnasium, gymnax

    section = (ROOT / "docs/environments.md").read_text().partition("## Known rewards and ends")[2]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    told = {}
    for names, reward, end in rows:
        prefixes = re.findall(r"`(\w+:)`", names)
        for name in re.findall(r"`([\w:-]+)`", names):
            if name in prefixes:
                continue
            for full in [prefix + name for prefix in prefixes] or [name]:
                told[full] = (reward == "yes", end)
    for module, prefix in ((gymnax, "gymnax:"), (gymnasium, "gymnasium:")):
        assert {name for name in told if name.startswith(prefix)} == {prefix + name for name in module.KNOWN}
        for name, known in module.KNOWN.items():
            reward, end = told[prefix + name]
            assert reward == ("reward_fn" in known), name
            assert end == ("never" if known["termination_fn"].__name__ == "never" else "yes"), name


def test_the_readmes_program_fits_together():
    """Traced, not run: with the steps and networks it shows it would train for minutes."""
    (code,) = blocks("README.md", "python")
    assert code.count("jax.jit(jax.vmap(train))(") == 1
    scope: dict = {"__name__": "example"}
    exec(code.replace("jax.jit(jax.vmap(train))(", "jax.eval_shape(jax.vmap(train), "), scope)
    assert scope["history"]["reward"].shape == (8, 2000, 1)


def test_models_and_planners_md_names_what_exists_and_its_program_finds_the_length():
    from jmbrl import models, planners

    text = (ROOT / "docs/models_and_planners.md").read_text()
    named = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert set(planners.__all__) <= set(named)
    assert all(hasattr(models, name) or hasattr(planners, name) for name in named)
    (code,) = blocks("docs/models_and_planners.md", "python")
    exec(code, {"__name__": "example"})  # it asserts the length itself
