"""Targets: the representations of labels that a network can learn, one file each.

======== ============================================================================== =================
file     what the network learns                                                        decoded into
======== ============================================================================== =================
border   foreground, with a border cut between touching instances (the paper's)         instances
rim      the core of each instance, the rim around it, background                       instances
classes  the class of every pixel                                                       class ids
======== ============================================================================== =================

A target is a module with the functions of `Target`, and one for instances also those of `InstanceTarget`. All but
`loss` take and return NumPy arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from septum.config import Decoding
from septum.core.loss import Sum
from septum.core.targets import border, classes, rim

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int32, Int64, UInt8


class Target(Protocol):
    """What training needs."""

    def n_classes(self, largest_label: int) -> int:
        """Return how many classes K the network predicts for labels 0..largest_label."""
        ...

    def encode(self, labels: npt.ArrayLike) -> UInt8[np.ndarray, "Y X"]:
        """Turn (Y, X) labels into the (Y, X) classes 0..K-1 that the network learns."""
        ...

    def ambiguous(self, labels: npt.ArrayLike, unknown: Bool[np.ndarray, "Y X"]) -> Bool[np.ndarray, "Y X"]:
        """Return the (Y, X) pixels whose class depends on how the pixels marked `unknown` would be annotated."""
        ...

    def loss(
        self,
        logits: Float[Tensor, "N K Y X"],
        classes: Int64[Tensor, "N Y X"],
        weights: Float[Tensor, "N ..."],
        normalization: Literal["sum", "mean", "weights"] = ...,
        total: Sum = ...,
    ) -> Float[Tensor, ""]:
        """Compare (N, K, Y, X) logits with (N, Y, X) classes; see `septum.core.loss.weighted_cross_entropy`."""
        ...


class InstanceTarget(Target, Protocol):
    """What `septum.core.decode` needs in addition, to turn probabilities back into instances."""

    def seeds(self, probabilities: Float[np.ndarray, "K Y X"], decoding: Decoding) -> Bool[np.ndarray, "Y X"]:
        """Return the (Y, X) pixels of (K, Y, X) probabilities of which each 8-connected component is one instance."""
        ...

    def extend(
        self, components: Int32[np.ndarray, "Y X"], probabilities: Float[np.ndarray, "K Y X"], decoding: Decoding
    ) -> Int32[np.ndarray, "Y X"]:
        """Add to the (Y, X) numbered seeds what the encoding took off; a pixel depends on those within `reach`."""
        ...

    def reach(self, decoding: Decoding) -> int:
        """Return how many pixels away `extend` looks."""
        ...

    def needed_reach(self, labels: npt.ArrayLike) -> int:
        """Return the `Decoding.reach`, in pixels, with which instances like these keep all of their pixels."""
        ...


INSTANCE_TARGETS: dict[str, InstanceTarget] = {"border": border, "rim": rim}
TARGETS: dict[str, Target] = {**INSTANCE_TARGETS, "classes": classes}
