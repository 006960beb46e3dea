"""Choosing actions by search: one file a method."""

from jmbrl.planners.cem import cem
from jmbrl.planners.random_shooting import random_shooting

__all__ = ["cem", "random_shooting"]
