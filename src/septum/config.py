"""Settings: one frozen object per component, presets as functions, unknown names refused with "did you mean"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from septum.choices import Kind, Recipe
from septum.errors import ConfigError, did_you_mean

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """A frozen set of named values. Raises ConfigError, one sentence, for anything unknown or out of range."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_sentence(type(self), error)) from None

    def with_changes(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with some settings replaced; a dotted name reaches into a nested object.

        Examples
        --------
        >>> paper_2015().with_changes({"depth": 3}).depth
        3
        """
        values = self.model_dump()
        for name, value in changes.items():
            *path, last = name.split(".")
            place: dict[str, Any] = values
            settings: type[Settings] = type(self)
            for step in path:
                if step not in settings.model_fields:
                    raise ConfigError(_unknown(settings, step))
                inner = settings.model_fields[step].annotation
                if not (isinstance(inner, type) and issubclass(inner, Settings)):
                    raise ConfigError(
                        f"{settings.__name__}.{step} is a single value, so there is no {name!r}; set {step!r}"
                    )
                place, settings = place[step], inner
            if last not in settings.model_fields:
                raise ConfigError(_unknown(settings, last))
            place[last] = value
        return type(self)(**values)


def _unknown(settings: type[Settings], name: str) -> str:
    return f"{settings.__name__} has no setting {name!r}{did_you_mean(name, settings.model_fields)}"


def _sentence(settings: type[Settings], error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown(settings, name)
    if first["type"] == "missing":
        return f"{settings.__name__} needs a value for {name!r}"
    expected = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{settings.__name__}.{name} {expected}, got {first['input']!r}"


class DataSource(Settings):
    """Where a data set was read from, and what the user said about it."""

    data: str
    labels: str | None = None
    kind: Kind | None = None
    channel: int | None = None
    unlabeled: int | None = None


class UNetConfig(Settings):
    """The network. Defaults are the paper's; the paper's silences (docs/baseline.md) are settings of their own."""

    in_channels: Count = 1
    n_classes: Annotated[int, Field(ge=2)] = 2
    depth: Annotated[int, Field(ge=1, le=7)] = 4  # number of 2x2 max poolings
    base_channels: Count = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5  # after the last two levels of the contracting path
    relu_after_up: bool = True  # the release has it, the paper is silent; keeps feature maps at unit variance
    wide_last_up: bool = False  # the release's last up-convolution keeps its channels; the paper's Fig. 1 halves them
    # 'image': after every 3x3 convolution, each channel is normalised by its mean and deviation over the image
    normalization: Literal["none", "image"] = "none"
    init: Literal["paper", "release"] = "paper"  # N of an up-convolution: its input channels, or output channels * 4


class WeightMapConfig(Settings):
    """Loss weight per pixel: w = class balance + w0 * exp(-(d1 + d2)**2 / (2 * sigma**2)), Eq. 2."""

    w0: NotNegative = 10.0
    sigma: Positive = 5.0  # pixels
    balance: Literal["frequency", "freiburg", "none"] = "frequency"
    # 'freiburg' (the Fiji plugin): 1 in cells, falling off around them to background_weight with background_sigma
    background_weight: Fraction = 0.1
    background_sigma: Positive = 10.0  # pixels


class AugmentConfig(Settings):
    """Random changes of a training patch: one geometric map and one grey-value curve per sample."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 180.0  # degrees, uniform in +-rotation
    mirror: bool = True  # along each axis with probability 1/2
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0  # zoom factor log-uniform in 1/(1+scale) .. 1+scale
    elastic_nodes: Annotated[int, Field(ge=2)] = 3  # per axis, over the input tile
    elastic_sd: NotNegative = 10.0  # pixels
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2  # slope of the grey-value curve uniform in 1 +- contrast
    brightness: NotNegative = 0.2  # offset uniform in +-brightness standard deviations of the image
    gamma: Annotated[float, Field(ge=0, lt=1)] = (
        0.2  # slope of bright : dark greys log-uniform in 1/(1+gamma) .. 1+gamma
    )


class TtaConfig(Settings):
    """Averaging over rotated or mirrored versions of an image at prediction."""

    kind: Literal["rotations", "dihedral"] = "rotations"
    versions: Count = 7  # rotations: angles k * 360 / versions about the image centre; dihedral: always 8
    average: Literal["probabilities", "logits"] = "probabilities"

    @classmethod
    def of(cls, versions: int | TtaConfig | None) -> TtaConfig | None:
        """Return the settings for a number of versions: 7 rotations or 8 flips and quarter turns.

        Examples
        --------
        >>> TtaConfig.of(8)
        TtaConfig(kind='dihedral', versions=8, average='probabilities')
        """
        if versions is None or isinstance(versions, TtaConfig):
            return versions
        if versions not in (7, 8):
            raise ConfigError(f"tta must be 7 (the paper's rotations) or 8 (flips and quarter turns), got {versions}")
        return cls(kind="dihedral" if versions == 8 else "rotations", versions=versions)


class Decoding(Settings):
    """How probabilities become instances; a training chooses the values on what is held out, and keeps them."""

    seed: Fraction = 0.5  # an object begins where its probability is above this
    foreground: Fraction = 0.5  # and grows where that of foreground is above this
    reach: Annotated[int, Field(ge=0, le=10_000)] = 0  # pixels that an object may grow beyond its seed
    smallest_object: Annotated[int, Field(ge=0)] = 0  # pixels; smaller ones are debris and dropped
    largest_hole: Annotated[int, Field(ge=0)] = 0  # pixels; holes up to this are filled


class TrainConfig(Settings):
    """Everything that decides the weights of a trained network, given the data."""

    recipe: Recipe = "fast"
    kind: Kind = "instances"  # what the labels are
    instances: Literal["border", "rim"] = "border"  # how instances are represented (septum.core.targets)
    unet: UNetConfig
    weight_map: WeightMapConfig = WeightMapConfig()
    augment: AugmentConfig = AugmentConfig()
    normalize: Literal["standardize", "percentile", "dtype"] = "standardize"
    loss_normalization: Literal["sum", "mean", "weights"] = "weights"
    dice: NotNegative = 0.0  # share of the soft Dice loss that is added to the cross-entropy
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of SGD; Adam's first beta
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Fraction = 0.05  # share of the steps over which the learning rate rises from zero
    weight_average: Annotated[float, Field(ge=0, lt=1)] = 0.0  # exponential average of the weights; 0 is off
    precision: Literal["float32", "bfloat16"] = "float32"  # of the convolutions in training; weights are float32
    patch: Count = 260  # wanted output pixels per side; the network's next admissible size is used
    batch: Count = 1
    decoding: Decoding = Decoding()
    steps: Count | None = None  # None: from the budget, by a probe
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def target(self) -> str:
        """The representation of labels that the network learns, a file of septum.core.targets."""
        return "classes" if self.kind == "classes" else self.instances


def train_config_from_1(settings: dict[str, Any]) -> dict[str, Any]:
    """Migrate saved settings of format 1: `target` became `kind` and `instances`, the size of debris a `decoding`."""
    kept = {name: value for name, value in settings.items() if name not in ("target", "smallest_object")}
    kind = "classes" if settings.get("target") == "classes" else "instances"
    return {**kept, "kind": kind, "decoding": {"smallest_object": settings.get("smallest_object", 0)}}


def paper_2015(in_channels: int = 1, n_classes: int = 2) -> UNetConfig:
    """Return the network of Fig. 1: 23 convolutions, 31,030,658 parameters, 572 -> 388."""
    return UNetConfig(in_channels=in_channels, n_classes=n_classes)


def release_2015(in_channels: int = 1, n_classes: int = 2) -> UNetConfig:
    """Return the network of the authors' release phseg_v5: wide last up-convolution, 31,100,354 parameters."""
    return UNetConfig(in_channels=in_channels, n_classes=n_classes, wide_last_up=True, init="release")


def falk_2019() -> WeightMapConfig:
    """Return the weight map of the Freiburg Fiji plugin (Falk et al. 2019)."""
    return WeightMapConfig(w0=50.0, sigma=6.0, balance="freiburg")
