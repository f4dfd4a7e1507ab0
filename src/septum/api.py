"""train and evaluate for arrays: what the command line does with files. Loading and predicting are in model/."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from septum.choices import Kind, Recipe
from septum.data.check import check_dataset
from septum.data.dataset import from_arrays
from septum.errors import ConfigError
from septum.evaluation.evaluate import evaluate_arrays as evaluate
from septum.machine.device import pick_device
from septum.machine.generators import drain
from septum.model.model import Model
from septum.training.fit import fit
from septum.training.holdout import hold_out
from septum.training.progress import describe, describe_best
from septum.training.recipe import recipe as make_recipe
from septum.training.records import Notice, Record
from septum.training.request import TrainingRequest
from septum.training.score import SCORE_NAMES
from septum.words import parse_budget

__all__ = ["evaluate", "train"]


def train(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    ignore: Sequence[np.ndarray | None] | None = None,
    pixel_size: tuple[float, float] | None = None,
    kind: Kind | None = None,
    recipe: Recipe = "fast",
    budget: str | float | None = None,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    device: str | torch.device = "auto",
    log: Callable[[str], object] | None = print,
    on_record: Callable[[Record], object] | None = None,
) -> Model:
    """Train a network on annotated images.

    Some of the images, or a part of a single one, are held out: they are not trained on, and the weights that score
    best on them are kept.

    Parameters
    ----------
    images : sequence of (Y, X) or (C, Y, X) arrays
        Grey values as they come from the microscope. All images have the same number of channels; sizes may differ.
    labels : sequence of (Y, X) integer arrays
        0 is background. Other values are instances (every object has its own value) or classes.
    ignore : sequence of (Y, X) arrays or None, optional
        Non-zero where a pixel is not annotated: it does not count in the loss.
    pixel_size : (float, float), optional
        Micrometre per pixel (y, x) of all images. `septum predict` warns of images that differ.
    kind : {"instances", "classes"}, optional
        What label values mean. By default it is detected from the data and reported.
    recipe : {"fast", "paper"}
        ``"fast"``: good scores quickly. ``"paper"``: the U-Net paper's network and training.
    budget : str or float, optional
        Training time: ``"20min"``, ``"1h30min"``, or a number of seconds. Give this or `steps`.
    steps : int, optional
        Number of training steps.
    settings : mapping, optional
        Changes to the recipe, by dotted name: ``{"unet.base_channels": 32}``. The names are those of `TrainConfig`.
    output : path, optional
        Run folder to write: settings, log, checkpoint and model. By default nothing is kept on disk.
    device : str or torch.device
        ``"auto"`` (the first of ``"cuda"``, ``"mps"`` and ``"cpu"`` that is available) or a device by name.
    log : function of str, optional
        Called with a line of text at the start, after every validation and at the end; by default the line is printed.
        None: silent.
    on_record : function of Record, optional
        Called with every record of `septum.training.records`, such as `StepDone` (step, steps, loss, eta in seconds)
        and `Validated` (step, scores), for a progress bar or a plot of your own.

    Returns
    -------
    Model
        With the best weights; `Model.card` has its scores and what they were measured on.

    Raises
    ------
    ConfigError
        An unknown recipe, setting or device; a value out of range; neither `budget` nor `steps`, or both; `output`
        already contains a run.
    DatasetError
        Images and labels do not fit together, or nothing can be learned from them.
    ImageError
        An array has the wrong shape or type, or contains NaN or infinity.

    Examples
    --------
    >>> model = septum.train(images, labels, budget="20min")                     # doctest: +SKIP
    >>> model.predict(image).labels                                              # doctest: +SKIP
    """

    def report(record: Record) -> None:
        if log is not None:
            for line in describe(record):
                log(line)
        if on_record is not None:
            on_record(record)

    chosen = pick_device(device)
    seconds = None if budget is None else parse_budget(budget)
    changes = dict(settings or {}) | ({} if steps is None else {"steps": steps})
    if seconds is not None and "steps" in changes:
        raise ConfigError("a budget and a number of steps both set the length of the training; give one of them")
    dataset = from_arrays(images, labels, ignore=ignore, pixel_size=pixel_size, kind=kind)
    for text in [*dataset.notes, *map(str, check_dataset(dataset))]:
        report(Notice(text))
    config = make_recipe(recipe, dataset, chosen, changes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = output or temporary
        request = TrainingRequest(dataset, config, folder, held_out=hold_out(dataset), budget=seconds, device=chosen)
        model = drain(fit(request), report)
    card = model.card
    report(Notice(describe_best(card.step, card.scores, SCORE_NAMES[card.kind], card.held_out)))
    return model if output is not None else replace(model, file=None)  # the temporary folder is gone
