"""Choosing actions by search: one file a method."""

from jmbrl.planners.cem import cem
from jmbrl.planners.gradient import gradient
from jmbrl.planners.icem import icem
from jmbrl.planners.ilqr import ilqr
from jmbrl.planners.mppi import mppi
from jmbrl.planners.random_shooting import random_shooting

__all__ = ["cem", "gradient", "icem", "ilqr", "mppi", "random_shooting"]
