"""Speed and memory, measured against something in the same process: ``jmbrl bench NAME``, one JSON line a row."""

from collections.abc import Iterator
from typing import Any

from jmbrl import checks
from jmbrl.bench.models import PRESETS, Preset, fit, matmul_rate, numpy_matmul_rate, planning
from jmbrl.bench.seeds import seeds

__all__ = ["PRESETS", "Preset", "fit", "matmul_rate", "numpy_matmul_rate", "planning", "run", "seeds"]


def run(name: str, **options: Any) -> Iterator[dict[str, Any]]:
    """Rows of the benchmark ``name``: ``"planning"``, ``"fit"`` or ``"seeds"``.

    Args:
      name: which one.
      options: ``preset`` (one name; both by default), ``repeats`` (timed calls, 10), and any field of ``Preset``;
        for planning ``propagation`` (``"ts1"``), for fit ``batch_size`` (256), ``rows`` (10000) and ``epochs`` (5);
        for seeds those of ``bench.seeds``.

    Raises:
      ValueError: an unknown name, preset or option.
    """
    benchmarks = {"planning": planning, "fit": fit, "seeds": seeds}
    checks.choice("name", name, tuple(benchmarks))
    if name == "seeds":
        yield {"bench": name, **_called(name, seeds, options)}
        return
    names = (options.pop("preset"),) if "preset" in options else tuple(PRESETS)
    changes = {key: options.pop(key) for key in tuple(options) if key in Preset._fields}
    for chosen in names:
        checks.choice("preset", chosen, tuple(PRESETS))
        changed = PRESETS[chosen]._replace(**changes)
        row = _called(name, benchmarks[name], {"preset": changed, **options})
        yield {"bench": name, "preset": chosen, **row}


def _called(name: str, benchmark: Any, options: dict[str, Any]) -> dict[str, Any]:
    try:
        return benchmark(**options)
    except TypeError as error:
        raise ValueError(f"options of bench {name}: {error}") from None
