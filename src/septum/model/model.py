"""The model file: weights and everything else that a prediction needs, in one .safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from septum.choices import Kind
from septum.config import Settings, TrainConfig, TtaConfig, train_config_from_1
from septum.core.normalize import Normalization
from septum.core.tiling import ArraySource
from septum.core.unet import UNet
from septum.errors import ConfigError, ModelError, did_you_mean
from septum.machine.device import pick_device
from septum.machine.generators import drain
from septum.machine.memory import DEFAULT_MEMORY
from septum.model.predict import Prediction, convert_to_fastest_order, segment
from septum.model.tensors import read_tensors, write_tensors
from septum.words import plural

FORMAT = 2  # of the card; MIGRATIONS[n] turns a card of format n into one of format n + 1


def _to_2(card: dict[str, Any]) -> dict[str, Any]:
    return {**card, "config": train_config_from_1(card["config"]), "format": 2}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _to_2}


class ModelCard(Settings):
    """The description inside a model file."""

    format: int = FORMAT
    config: TrainConfig
    class_names: tuple[str, ...]
    channels: int
    pixel_size: tuple[float, float] | None  # micrometre per pixel (y, x) of the training images
    data: dict[str, str]  # training image -> sha256 of image and labels
    held_out: str  # what the scores were measured on
    scores: dict[str, float]
    step: int  # the training step that the weights are from
    brightness: Normalization | None = None  # mean normalisation of the training images
    about: tuple[str, ...] = ()  # of a shipped model: data, split, the command that trains it again
    terms: str = ""  # restrictions that come with the training data; shown when a command loads the model
    versions: dict[str, str]

    @property
    def kind(self) -> Kind:
        """What the values of a predicted label image mean."""
        return self.config.kind


@dataclass(frozen=True)
class ModelFile:
    """The file that a model was loaded from, and its sha256 at that time."""

    path: Path
    sha256: str


@dataclass(repr=False)
class Model:
    """A trained network with its card.

    Examples
    --------
    >>> septum.load("nuclei")                             # doctest: +SKIP
    Model(instances: background, foreground; U-Net of depth 4, 16 base channels, 1,943,795 weights; f1 0.7849, ...)
    >>> septum.load("nuclei").predict(image).labels       # doctest: +SKIP
    """

    net: UNet
    card: ModelCard
    file: ModelFile | None = None  # none if it was trained in memory, or its file is gone

    def __repr__(self) -> str:
        parts = [
            f"{self.card.kind}: {', '.join(self.card.class_names)}",
            self._network(),
            ", ".join(self._scores()[:2]),
        ]
        return f"Model({'; '.join(filter(None, parts))})"

    def saved(self) -> ModelFile:
        """Return the file that the model was loaded from; ModelError if there is none."""
        if self.file is None:
            raise ModelError("this model has no file; save it with model.save(path) and load it with septum.load(path)")
        return self.file

    def _network(self) -> str:
        unet = self.card.config.unet
        return f"U-Net of depth {unet.depth}, {unet.base_channels} base channels, {parameters(self.net):,} weights"

    def _scores(self) -> list[str]:
        return [f"{name} {value:.4f}" for name, value in self.card.scores.items()]

    def predict(
        self, image: np.ndarray, *, tta: int | TtaConfig | None = None, max_memory: int = DEFAULT_MEMORY
    ) -> Prediction:
        """Segment one image.

        Parameters
        ----------
        image : (Y, X) or (C, Y, X) array
            Raw values; they are normalised here.
        tta : {7, 8} or TtaConfig, optional
            Average over 7 rotations (as in the paper) or 8 flips and quarter turns of the image.
        max_memory : int
            Bytes that the prediction may take in addition to image and result.

        Returns
        -------
        Prediction
            labels (Y, X) int32, probabilities (K, Y, X) float32.

        Raises
        ------
        ImageError
            For the wrong number of axes or channels, no pixels, NaN or infinity.
        """
        from septum.data.images import as_channels

        pixels = as_channels(image, self.card.channels)
        return drain(
            segment(self.net, self.card.config, ArraySource(pixels), tta=TtaConfig.of(tta), max_memory=max_memory)
        )

    def describe(self) -> list[tuple[str, str]]:
        """Describe the model as pairs of a name and a text."""
        card = self.card
        size = f"{card.pixel_size[0]:.4g} x {card.pixel_size[1]:.4g} micrometre" if card.pixel_size else "unknown"
        target = f" (by {card.config.target})" if card.config.target != card.kind else ""
        return [
            ("network", self._network()),
            ("input", f"{plural(card.channels, 'channel')}, pixel size {size}"),
            ("output", f"{card.kind}{target}: {', '.join(card.class_names)}"),
            ("recipe", f"{card.config.recipe}, step {card.step} of {card.config.steps}, seed {card.config.seed}"),
            ("scores", ", ".join(self._scores()) or "none"),
            ("measured on", card.held_out),
            ("training data", ", ".join(card.data)),
            ("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
            *(("about", sentence) for sentence in card.about),
            *([("terms", card.terms)] if card.terms else []),
        ]

    def save(self, path: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the model file, whole or not at all; a `dtype` such as ``torch.float16`` rounds its weights."""
        tensors = {name: tensor.to(dtype or tensor.dtype) for name, tensor in self.net.state_dict().items()}
        write_tensors(path, tensors, {"septum": self.card.model_dump_json()})


def parameters(net: UNet) -> int:
    """Return the number of weights and biases."""
    return sum(parameter.numel() for parameter in net.parameters())


def load(path: str | Path, device: str | torch.device = "auto") -> Model:
    """Load a trained network. Nothing is unpickled, so a file from someone else cannot run code.

    Parameters
    ----------
    path : path or str
        A model file, a run folder, or the name of a network that ships with Septum: em-membrane, nuclei.
    device : str or torch.device
        ``"auto"`` (the first of ``"cuda"``, ``"mps"`` and ``"cpu"`` that is available) or a device by name.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        The file is missing, cut short, not a Septum model, or of a later format.
    ConfigError
        The device is unknown or not available.
    """
    file = find_model(path)
    sha256 = fingerprint(file)
    tensors, metadata = read_tensors(file)
    if "septum" not in metadata:
        raise ModelError(f"{file} is a safetensors file but not a Septum model; give a file that septum train wrote")
    try:
        values = json.loads(metadata["septum"])
        number = values.get("format") if isinstance(values, dict) else None
        if not isinstance(number, int) or number < 1:
            raise ConfigError("it has no format number")
        if number > FORMAT:
            raise ModelError(
                f"{file} has model format {number}, but this version of Septum reads up to {FORMAT}; update Septum"
            )
        for step in range(number, FORMAT):
            values = MIGRATIONS[step](values)
        card = ModelCard(**values)
    except (ConfigError, ValueError) as error:
        raise ModelError(
            f"the description inside {file} is damaged: {error}; download the file again or train again"
        ) from None
    net = UNet(card.config.unet)
    try:
        net.load_state_dict(tensors)
    except RuntimeError:
        raise ModelError(f"the weights in {file} do not fit the network it describes; download it again") from None
    return Model(net.to(pick_device(device)).eval(), card, ModelFile(file, sha256))


def load_for_prediction(path: str | Path, device: str | torch.device = "auto") -> Model:
    """Load a model with its weights in the order of memory that predictions are fastest in, so that none copies them.

    In that order the last bits of its logits differ from those of the same model by `load`.
    """
    model = load(path, device)
    if model.net.config.normalization == "none":  # else predictions run on another network, made for each image
        convert_to_fastest_order(model.net)
    return model


SHIPPED = Path(__file__).parents[1] / "models"


def shipped() -> dict[str, Path]:
    """Return the files of the models that ship with Septum, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}


def find_model(path: str | Path) -> Path:
    """Return the file of a model: of a path to it, of a run folder (final/ if there is one) or of a shipped model."""
    given, path = str(path), Path(path)
    if not path.exists():
        if given in shipped():
            return shipped()[given]
        raise ModelError(
            f"there is no model at {path}; give a run folder, a model file, or the name of a model that ships with "
            f"Septum{did_you_mean(given, shipped())}"
        )
    if path.is_file():
        return path
    for candidate in (path / "final" / "model.safetensors", path / "model.safetensors"):
        if candidate.exists():
            return candidate
    raise ModelError(f"the folder {path} has no model.safetensors; give the folder that septum train --output wrote")


def fingerprint(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
