"""The field's scores: arrays in, frozen records out; one file per family, loaded when first used.

``isbi`` (pixel, Rand, warping, V_Rand, V_Info of ISBI 2012) with ``warping`` below it · ``ctc`` (SEG, DET) ·
``matching`` (AP, F1, PQ, AJI and the types of error) · ``overlap`` (IoU, Dice) · ``surface`` (Hausdorff, mean
distance) · ``confidence`` (bootstrap intervals).
"""

import importlib
from typing import Any

_FAMILIES = ("confidence", "ctc", "isbi", "matching", "overlap", "surface", "warping")


def __getattr__(name: str) -> Any:
    if name not in _FAMILIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
