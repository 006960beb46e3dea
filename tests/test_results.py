"""The README's tables are those of experiments/results/, and every result has the stated form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted(p for p in (ROOT / "experiments" / "results").glob("*.json") if p.name.count(".") == 1)


def test_the_readme_is_not_stale():
    done = subprocess.run([sys.executable, ROOT / "experiments" / "tables.py", "--check"], check=False)
    assert done.returncode == 0, "run experiments/tables.py"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_has_a_claim_rows_a_verdict_and_a_figure(path):
    result = json.loads(path.read_text())
    assert {"claim", "source", "setting", "rows", "verdict"} <= set(result)
    assert isinstance(result["verdict"]["holds"], bool)
    assert result["verdict"]["why"]
    assert result["rows"]
    assert path.with_suffix(".png").exists()
    assert (ROOT / "experiments" / f"{path.stem}.py").exists()
