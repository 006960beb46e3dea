"""jmbrl: model-based reinforcement learning in JAX.

The packages are imported by name (``from jmbrl import agents, envs, models, planners``); ``jmbrl.load(run)`` gives the
policy of a finished run.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def load(directory: Any) -> Any:
    """The policy that ``jmbrl train`` left in ``directory``: ``load(directory).act(obs)`` answers in the environment's
    own units. See ``jmbrl.runner.load_policy``."""
    from jmbrl.runner import load_policy  # orbax and the environments take a second to import

    return load_policy(directory)
