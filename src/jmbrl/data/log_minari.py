"""Minari's data sets as replays."""

import dataclasses
import importlib
from typing import Any

from jmbrl.data.log_episodes import from_episodes
from jmbrl.data.logs import Log
from jmbrl.envs import host_spaces
from jmbrl.types import Spec


def from_minari(dataset: Any, *, spec: Spec | None = None, act_limit: float | None = None, clip: bool = False) -> Log:
    """A replay from a Minari data set: true successors, ends and time limits apart, actions scaled from its bounds.

    Args:
      dataset: a ``minari.MinariDataset``, or the id of one on this machine (``minari.download_dataset`` brings it).
        Dictionaries and discrete entries are flattened into a vector, as ``envs.make("gymnasium:...")`` does.
      spec: of the environment that it was recorded in, whose shapes it must have; None: one made from the data set.
      act_limit: bound of actions that have none, as in ``envs.make``.
      clip: pull actions outside the bounds back to them; else they are refused.

    Raises:
      ImportError: an id, and Minari is not installed.
      ValueError: a data set that is not there, is empty, or has other spaces than vectors, images, dictionaries and
        discrete numbers; what ``from_log`` refuses.

    Source: Younis et al. 2024, Minari (format of episodes: one observation more than actions).
    """
    dataset = _load(dataset) if isinstance(dataset, str) else dataset
    name = str(getattr(getattr(dataset, "spec", None), "dataset_id", "log"))
    space, _ = host_spaces.action(name, dataset.action_space, act_limit)
    seen = host_spaces.observation(name, dataset.observation_space)
    start = int(getattr(dataset.action_space, "start", 0))

    def read(episode: Any) -> dict[str, Any]:
        actions = episode.actions - start if start else episode.actions
        return {
            "obs": [seen.read(obs) for obs in _rows(episode.observations, len(episode.rewards) + 1)],
            "action": actions if not space.shape else actions.reshape(len(actions), -1),
            "reward": episode.rewards,
            "terminated": episode.terminations,
            "truncated": episode.truncations,
        }

    log = from_episodes(map(read, dataset.iterate_episodes()), spec=spec, space=space, clip=clip, names=seen.names)
    if spec is not None:
        return log
    return log._replace(spec=dataclasses.replace(log.spec, name=name, obs_parts=seen.parts))


def _rows(tree: Any, count: int) -> list[Any]:
    """One observation a row, from arrays of all rows: dictionaries and tuples of arrays become such of rows."""
    if isinstance(tree, dict):
        parts = {name: _rows(part, count) for name, part in tree.items()}
        return [{name: part[i] for name, part in parts.items()} for i in range(count)]
    if isinstance(tree, tuple):
        return list(zip(*(_rows(part, count) for part in tree), strict=True))
    if len(tree) != count:
        raise ValueError(f"observations of an episode must be one more than its {count - 1} rewards, got {len(tree)}")
    return list(tree)


def _load(name: str) -> Any:
    try:
        minari = importlib.import_module("minari")
    except ImportError as error:
        raise ImportError(f"the data set {name!r} needs Minari: pip install jmbrl[minari]") from error
    try:
        return minari.load_dataset(name)
    except (FileNotFoundError, OSError) as error:
        raise ValueError(f"dataset {name!r} is not on this machine: {error}") from error
