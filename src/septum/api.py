"""The verbs of the command line for arrays: train and evaluate (load and predict live with the model)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from septum.choices import Kind
from septum.data.dataset import from_arrays
from septum.evaluation.evaluate import evaluate_arrays as evaluate
from septum.machine.generators import drain
from septum.model.model import Model
from septum.training.fit import fit
from septum.training.holdout import hold_out
from septum.training.recipe import recipe as make_recipe
from septum.training.request import TrainingRequest

__all__ = ["evaluate", "train"]


def train(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    ignore: Sequence[np.ndarray | None] | None = None,
    pixel_size: tuple[float, float] | None = None,
    kind: Kind | None = None,
    recipe: str = "fast",
    budget: float | None = None,
    steps: int | None = None,
    settings: dict[str, Any] | None = None,
    output: str | Path | None = None,
    device: str = "cpu",
) -> Model:
    """Train a network on annotated images.

    Parameters
    ----------
    images : sequence of (Y, X) or (C, Y, X) arrays
    labels : sequence of (Y, X) integer arrays
        Instances (touching objects have different numbers) or classes.
    ignore : sequence of (Y, X) bool arrays or None, optional
        True where nothing is annotated.
    pixel_size : (float, float), optional
        Micrometre per pixel (y, x).
    kind : {"instances", "classes"}, optional
        What the labels are; by default read from the data.
    recipe : {"fast", "paper"}
    budget : float, optional
        Seconds to train; or give `steps`.
    steps : int, optional
        Number of steps to train.
    settings : dict, optional
        Changes of the recipe, such as ``{"unet.base_channels": 32}``.
    output : path, optional
        Folder to keep the run in.
    device : str

    Returns
    -------
    Model
        The best by its validation score; `Model.card` says on what it was measured.

    Raises
    ------
    ConfigError, DatasetError, ImageError
        One sentence about what is wrong with the settings or the data.
    """
    dataset = from_arrays(images, labels, ignore=ignore, pixel_size=pixel_size, kind=kind)
    config = make_recipe(recipe, dataset, torch.device(device), {**(settings or {}), "steps": steps})
    with tempfile.TemporaryDirectory() as temporary:
        return drain(
            fit(
                TrainingRequest(
                    dataset,
                    config,
                    output or temporary + "/run",
                    held_out=hold_out(dataset),
                    budget=budget,
                    device=torch.device(device),
                )
            )
        )
