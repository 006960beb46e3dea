"""Improving a policy or a value from batches: one file a method."""

from jmbrl.learners.sac import SACState, sac

__all__ = ["SACState", "sac"]
