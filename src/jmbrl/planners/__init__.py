"""Choosing actions by search: one file a method."""

from jmbrl.planners.cem import cem
from jmbrl.planners.gradient import gradient
from jmbrl.planners.icem import icem
from jmbrl.planners.ilqr import ilqr
from jmbrl.planners.mppi import mppi
from jmbrl.planners.policy_mppi import policy_mppi
from jmbrl.planners.random_shooting import random_shooting
from jmbrl.planners.tree_search import tree_search

__all__ = ["cem", "gradient", "icem", "ilqr", "mppi", "policy_mppi", "random_shooting", "tree_search"]
