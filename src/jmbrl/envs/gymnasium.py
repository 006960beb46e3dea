"""Adapter, being written."""

NAMES: tuple[str, ...] = ()
