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
from septum.machine.generators import drain
from septum.machine.memory import DEFAULT_MEMORY
from septum.model.predict import Prediction, segment
from septum.model.tensors import read_tensors, write_tensors

FORMAT = 2  # of the card; MIGRATIONS[n] turns a card of format n into one of n + 1


def _to_2(card: dict[str, Any]) -> dict[str, Any]:
    return {**card, "config": train_config_from_1(card["config"]), "format": 2}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _to_2}


class ModelCard(Settings):
    """What a model file says about itself."""

    format: int = FORMAT
    config: TrainConfig
    class_names: tuple[str, ...]
    channels: int
    pixel_size: tuple[float, float] | None  # micrometre per pixel (y, x) of the training images
    data: dict[str, str]  # training image -> sha256 of image and labels
    held_out: str  # what the scores were measured on
    scores: dict[str, float]
    step: int  # the step whose weights these are
    brightness: Normalization | None = None  # the mean of how the training images were normalised
    about: tuple[str, ...] = ()  # of a model that ships: data, split, how to make it again
    terms: str = ""  # restrictions that come with the training data; said whenever the model is loaded
    versions: dict[str, str]

    @property
    def kind(self) -> Kind:
        """What the numbers of a predicted label image mean."""
        return self.config.kind


@dataclass
class Model:
    """A trained network with its card.

    Examples
    --------
    >>> model = septum.load("run")                        # doctest: +SKIP
    >>> model.predict(image).labels                       # doctest: +SKIP
    """

    net: UNet
    card: ModelCard

    def predict(
        self, image: np.ndarray, *, tta: TtaConfig | None = None, max_memory: int = DEFAULT_MEMORY
    ) -> Prediction:
        """Segment one image.

        Parameters
        ----------
        image : (Y, X) or (C, Y, X) array
            As it comes from the microscope: it is normalised here.
        tta : TtaConfig, optional
            Average over rotated or mirrored versions.
        max_memory : int
            Bytes that the activations of one tile may take.

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
        return drain(segment(self.net, self.card.config, ArraySource(pixels), tta=tta, max_memory=max_memory))

    def describe(self) -> list[tuple[str, str]]:
        """Say in names and sentences what the model is."""
        card, unet = self.card, self.card.config.unet
        size = f"{card.pixel_size[0]:.4g} x {card.pixel_size[1]:.4g} micrometre" if card.pixel_size else "unknown"
        return [
            (
                "network",
                f"U-Net, depth {unet.depth}, {unet.base_channels} base channels, {parameters(self.net):,} weights",
            ),
            ("input", f"{card.channels} channel{'s' if card.channels > 1 else ''}, pixel size {size}"),
            ("learned", f"{card.config.target}: {', '.join(card.class_names)}"),
            ("recipe", f"{card.config.recipe}, step {card.step} of {card.config.steps}, seed {card.config.seed}"),
            ("scores", ", ".join(f"{name} {value:.4f}" for name, value in card.scores.items()) or "none"),
            ("measured on", card.held_out),
            ("training data", ", ".join(card.data)),
            ("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
            *(("about", sentence) for sentence in card.about),
            *([("terms", card.terms)] if card.terms else []),
        ]

    def save(self, path: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the model file, whole or not at all; `dtype` such as ``torch.float16`` rounds the weights in it."""
        tensors = {name: tensor.to(dtype or tensor.dtype) for name, tensor in self.net.state_dict().items()}
        write_tensors(path, tensors, {"septum": self.card.model_dump_json()})


def parameters(net: UNet) -> int:
    """Return the number of weights and biases."""
    return sum(parameter.numel() for parameter in net.parameters())


def load(path: str | Path, device: str | torch.device = "cpu") -> Model:
    """Load a model file, the model of a run folder, or by its name one that ships with Septum. Nothing is unpickled.

    Raises
    ------
    ModelError
        If it is missing, cut short, not a Septum model, or of a later format.
    """
    file = find_model(path)
    tensors, metadata = read_tensors(file)
    if "septum" not in metadata:
        raise ModelError(f"{file} is a safetensors file, but not a Septum model; give a file that septum train wrote")
    try:
        values = json.loads(metadata["septum"])
        number = values.get("format") if isinstance(values, dict) else None
        if not isinstance(number, int) or number < 1:
            raise ConfigError("it has no format number")
        if number > FORMAT:
            raise ModelError(
                f"{file} is of model format {number}, this version of Septum reads up to {FORMAT}; update Septum"
            )
        for step in range(number, FORMAT):
            values = MIGRATIONS[step](values)
        card = ModelCard(**values)
    except (ConfigError, ValueError) as error:
        raise ModelError(
            f"the description inside {file} is damaged: {error}; train again or get the file again"
        ) from None
    net = UNet(card.config.unet)
    try:
        net.load_state_dict(tensors)
    except RuntimeError:
        raise ModelError(f"the weights in {file} do not fit the network it describes; get the file again") from None
    return Model(net.to(device).eval(), card)


SHIPPED = Path(__file__).parents[1] / "models"


def shipped() -> dict[str, Path]:
    """Return the models that ship with Septum, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}


def find_model(path: str | Path) -> Path:
    """Return the file of a model: itself, that of a run folder (the final one if there is one), or a shipped one's."""
    given, path = str(path), Path(path)
    if not path.exists():
        if given in shipped():
            return shipped()[given]
        raise ModelError(
            f"there is no model at {path}; give a run folder or a model.safetensors, or the name of one that ships "
            f"with Septum{did_you_mean(given, shipped())}"
        )
    if path.is_file():
        return path
    for candidate in (path / "final" / "model.safetensors", path / "model.safetensors"):
        if candidate.exists():
            return candidate
    raise ModelError(f"{path} holds no model.safetensors; give the folder that septum train --output wrote")


def fingerprint(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
