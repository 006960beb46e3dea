"""The trainer that a model needs."""

import inspect
from typing import Any

from jmbrl.models.fit import Trainer, trainer
from jmbrl.models.sequences import sequence_trainer
from jmbrl.types import DataKind, Model


def trainer_for(model: Model, **options: Any) -> Trainer:
    """``trainer`` or ``sequence_trainer``, as the model needs.

    Args:
      model: with a ``loss`` or a ``fit``.
      **options: of the gradient trainer that is chosen (``optimizer``, ``batch_size``, ...). They mean nothing to a
        model that is solved rather than trained, and are then not used.

    Raises:
      ValueError: a model that does not learn, or an option its trainer does not have.
    """
    if model.fit is not None:
        return trainer(model)
    if model.loss is None:
        raise ValueError("model has neither loss nor fit: it does not learn and needs no trainer")
    make = trainer if model.data_kind is DataKind.ROWS else sequence_trainer
    known = [name for name in inspect.signature(make).parameters if name != "model"]
    for name in options:
        if name not in known:
            raise ValueError(f"{make.__name__} has no option {name}; it has {', '.join(known)}")
    return make(model, **options)
