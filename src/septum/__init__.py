"""Septum: from a handful of annotated biomedical images to trustworthy segmentations of all the others.

Everything here is loaded on first use, so that ``import septum`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from septum.api import evaluate, train
    from septum.config import (
        AugmentConfig,
        TrainConfig,
        TtaConfig,
        UNetConfig,
        WeightMapConfig,
        falk_2019,
        paper_2015,
        release_2015,
    )
    from septum.core import metrics
    from septum.core.unet import UNet
    from septum.core.weight_map import separation_weight, weight_map
    from septum.data.dataset import load_dataset
    from septum.errors import SeptumError
    from septum.model.model import Model, load
    from septum.model.predict import Prediction

__version__ = "0.1.0"

_HOMES = {
    "AugmentConfig": "septum.config",
    "Model": "septum.model.model",
    "Prediction": "septum.model.predict",
    "SeptumError": "septum.errors",
    "TrainConfig": "septum.config",
    "TtaConfig": "septum.config",
    "UNet": "septum.core.unet",
    "UNetConfig": "septum.config",
    "WeightMapConfig": "septum.config",
    "evaluate": "septum.api",
    "falk_2019": "septum.config",
    "load": "septum.model.model",
    "load_dataset": "septum.data.dataset",
    "metrics": "septum.core",
    "paper_2015": "septum.config",
    "release_2015": "septum.config",
    "separation_weight": "septum.core.weight_map",
    "train": "septum.api",
    "weight_map": "septum.core.weight_map",
}

__all__ = [
    "AugmentConfig",
    "Model",
    "Prediction",
    "SeptumError",
    "TrainConfig",
    "TtaConfig",
    "UNet",
    "UNetConfig",
    "WeightMapConfig",
    "__version__",
    "evaluate",
    "falk_2019",
    "load",
    "load_dataset",
    "metrics",
    "paper_2015",
    "release_2015",
    "separation_weight",
    "train",
    "weight_map",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'septum' has no attribute {name!r}")
    if name == "metrics":
        return importlib.import_module("septum.core.metrics")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
