"""PETS against a plain NumPy world in a Python loop: the documented example itself."""

import re
from pathlib import Path

import chex

from jmbrl import agents

EXAMPLE = Path(__file__).parents[2] / "docs" / "by_hand.md"


def traced_once(make):
    """The agent that ``make`` makes, whose ``act`` and updates fail when they are traced a second time."""

    def agent(*args, **settings):
        made = make(*args, **settings)
        once = [(period, chex.assert_max_traces(update, n=1)) for period, update in made.phases]
        return made._replace(act=chex.assert_max_traces(made.act, n=1), phases=tuple(once))

    return agent


def test_the_documented_example_learns(capsys, monkeypatch):
    chex.clear_trace_counter()
    monkeypatch.setattr(agents, "mpc", traced_once(agents.mpc))
    (code,) = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text(), re.DOTALL)
    scope = {"EPISODE": 30, "EPISODES": 4, "__name__": "example"}
    exec(compile(code, str(EXAMPLE), "exec"), scope)
    returns = scope["returns"]
    assert len(returns) == 4
    assert max(returns[2:]) > -9.0  # standing still costs 30; the best possible is about -7
