"""PETS against a plain NumPy world in a Python loop: the documented example itself."""

import re
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "docs" / "by_hand.md"


def test_the_documented_example_learns(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text(), re.DOTALL)
    scope = {"EPISODE": 30, "EPISODES": 4, "__name__": "example"}
    exec(compile(code, str(EXAMPLE), "exec"), scope)
    returns = scope["returns"]
    assert len(returns) == 4
    assert max(returns[2:]) > -9.0  # standing still costs 30; the best possible is about -7
    assert scope["fit"]._cache_size() == 1
    assert scope["act"]._cache_size() == 1
