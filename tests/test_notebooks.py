"""The notebooks are their scripts, and both run."""

import json
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
FAST = ("06", "07")  # the cheapest two, whose code runs with every change
LIMIT = 600  # seconds of one cell in quick mode


def cells(script):
    """``(kind, source)`` of a percent script, told apart by its ``# %%`` lines alone."""
    found = []
    for block in ("\n" + script.read_text()).split("\n# %%")[1:]:
        head, _, body = block.partition("\n")
        if "[markdown]" in head:
            found.append(("markdown", re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip("\n")))
        else:
            found.append(("code", body.strip("\n")))
    return found


def code_of(script):
    return [source for kind, source in cells(script) if kind == "code"]


def notebook(script):
    return json.loads(script.with_suffix(".ipynb").read_text())


def named(scripts):
    return [pytest.param(script, id=script.stem) for script in scripts]


def test_there_are_eight_and_every_notebook_has_a_script():
    assert [script.stem[:2] for script in SCRIPTS] == [f"{number:02}" for number in range(1, 9)]
    assert sorted(FOLDER.glob("*.ipynb")) == [script.with_suffix(".ipynb") for script in SCRIPTS]


@pytest.mark.parametrize("script", named(SCRIPTS))
def test_a_notebook_is_its_script(script):
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook(script)["cells"]]
    assert found == cells(script), "run `python notebooks/build.py`"


@pytest.mark.parametrize("script", named(SCRIPTS))
def test_a_notebook_is_small_installs_first_and_says_nothing_of_a_machine(script):
    text = script.with_suffix(".ipynb").read_text()
    assert len(text) < 150_000
    assert not re.search(r"/(tmp|home|root|work|Users)/|\.py:\d+: \w*Warning", text)
    code = code_of(script)
    assert 'find_spec("jmbrl") is None' in code[0]
    assert '"pip", "install"' in code[0]
    assert 'QUICK = bool(os.environ.get("JMBRL_QUICK"))' in code[1]
    assert any("plt.subplots" in source for source in code)
    assert all(cell.get("outputs", []) == [] for cell in notebook(script)["cells"])


@pytest.mark.parametrize("script", named(SCRIPTS))
def test_jupytext_reads_the_same_cells(script):
    jupytext = pytest.importorskip("jupytext")
    read = jupytext.reads(script.read_text(), fmt="py:percent")
    assert [(cell.cell_type, cell.source) for cell in read.cells] == cells(script)


def test_the_readme_tells_every_title():
    text = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| (\d) \| \[(.+?)\]\((\S+?)\) \|", text, re.MULTILINE)
    titles = [cells(script)[0][1].splitlines()[0] for script in SCRIPTS]
    assert [f"# {number}. {title}" for number, title, _ in rows] == titles
    assert [link for *_, link in rows] == [script.with_suffix(".ipynb").name for script in SCRIPTS]


@pytest.mark.parametrize("script", named(SCRIPTS))
def test_links_between_notebooks_lead_somewhere(script):
    for kind, source in cells(script):
        for link in re.findall(r"\]\((\S+?)\)", source) if kind == "markdown" else ():
            assert (FOLDER / link).exists(), link
        for path in re.findall(r"`(docs/\S+?)`", source):
            assert (FOLDER.parent / path).exists(), path


@pytest.fixture
def run_cells(tmp_path, monkeypatch):
    """A script's code in this process, so that a warning is an error here too, without Jupyter and off screen."""
    monkeypatch.setenv("JMBRL_QUICK", "1")
    monkeypatch.chdir(tmp_path)

    def run(script):
        scope = {"__name__": "notebook"}
        with matplotlib.rc_context({"backend": "Agg"}):
            for number, code in enumerate(code_of(script)):
                exec(compile(code, f"{script.name}, cell {number}", "exec"), scope)
        return scope

    yield run
    plt.close("all")


@pytest.mark.parametrize("script", named(x for x in SCRIPTS if x.stem.startswith(FAST)))
def test_its_code_runs(script, run_cells):
    assert run_cells(script)["QUICK"]


@pytest.mark.slow
@pytest.mark.parametrize("script", named(x for x in SCRIPTS if not x.stem.startswith(FAST)))
def test_its_code_runs_too(script, run_cells):
    assert run_cells(script)["QUICK"]


@pytest.mark.slow
@pytest.mark.parametrize("script", named(SCRIPTS))
def test_it_runs_in_jupyter_and_shows_figures(script, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("JMBRL_QUICK", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    book = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    nbclient.NotebookClient(
        book, timeout=LIMIT, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not any("Warning" in output.get("text", "") for output in outputs if output.get("name") == "stderr")
