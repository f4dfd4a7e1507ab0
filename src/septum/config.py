"""Settings: one frozen object per component. Presets are functions. Unknown names are refused with "did you mean"."""

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
    """A frozen set of named values. An unknown name or a value out of range raises ConfigError with one sentence."""

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
            inner = settings.model_fields[last].annotation
            if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, Settings):
                value = {**place[last], **value}  # the settings that are not named stay
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
    """Where a data set was read from, and the options that were given for it."""

    data: str
    """Path of the images."""
    labels: str | None = None
    """Path of the labels, if not found beside the images."""
    kind: Kind | None = None
    """What the labels are; None: detected."""
    channel: int | None = None
    """The channel that is used; None: all."""
    unlabeled: int | None = None
    """The value in the label images that marks unannotated pixels; None: there is none."""


class UNetConfig(Settings):
    """The network. The defaults are the paper's; what the paper leaves open (docs/baseline.md) is a setting."""

    in_channels: Count = 1
    """Channels of the image."""
    n_classes: Annotated[int, Field(ge=2)] = 2
    """Classes that the network predicts, with the background."""
    depth: Annotated[int, Field(ge=1, le=7)] = 4
    """Number of 2x2 max poolings."""
    base_channels: Count = 64
    """Feature channels of the first level; each deeper level has twice as many."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of values set to 0 in training, after the last two levels of the contracting path."""
    relu_after_up: bool = True
    """ReLU after each up-convolution, as in the authors' release; the paper does not say."""
    wide_last_up: bool = False
    """Whether the last up-convolution keeps its number of channels, as in the release; Fig. 1 halves it."""
    normalization: Literal["none", "image"] = "none"
    """``image``: after every 3x3 convolution, each channel is normalised by its mean and deviation over the image."""
    init: Literal["paper", "release"] = "paper"
    """N of an up-convolution in the initialisation: ``paper``: input channels; ``release``: output channels * 4."""


class WeightMapConfig(Settings):
    """Loss weight per pixel, Eq. 2: class balance + w0 * exp(-(d1 + d2)**2 / (2 * sigma**2))."""

    w0: NotNegative = 10.0
    """Separation weight at zero distance."""
    sigma: Positive = 5.0
    """Pixels over which the separation weight falls off."""
    balance: Literal["frequency", "freiburg", "none"] = "frequency"
    """Class balance. ``frequency``: rare classes weigh more. ``freiburg`` (the Fiji plugin): 1 in instances, falling
    off around them to `background_weight`. ``none``: 1 everywhere."""
    background_weight: Fraction = 0.1
    """Weight far from instances, for ``freiburg``."""
    background_sigma: Positive = 10.0
    """Pixels over which the weight falls off to `background_weight`."""


class AugmentConfig(Settings):
    """Random changes of a training patch: one geometric transform and one grey-value curve per sample."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 180.0
    """Degrees; the angle is uniform between -rotation and rotation."""
    mirror: bool = True
    """Mirror each axis with probability 1/2."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The zoom factor is log-uniform between 1 / (1 + scale) and 1 + scale."""
    elastic_nodes: Annotated[int, Field(ge=2)] = 3
    """Nodes of the elastic deformation per axis of the input tile."""
    elastic_sd: NotNegative = 10.0
    """Standard deviation of the displacement of a node, in pixels."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """The slope of the grey-value curve is uniform between 1 - contrast and 1 + contrast."""
    brightness: NotNegative = 0.2
    """The offset is uniform between -brightness and brightness, in standard deviations of the image."""
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """The ratio of the slopes at bright and dark greys is log-uniform between 1 / (1 + gamma) and 1 + gamma."""


class TtaConfig(Settings):
    """Averaging over rotated or mirrored versions of an image at prediction."""

    kind: Literal["rotations", "dihedral"] = "rotations"
    """``rotations`` as in the paper, or ``dihedral``: flips and quarter turns."""
    versions: Count = 7
    """Number of versions. Rotations are by k * 360 / versions degrees about the image centre; dihedral always has 8."""
    average: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged."""

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
    """How probabilities become instances. Training chooses the values on the validation data and saves them."""

    seed: Fraction = 0.5
    """An instance begins where its probability is above this."""
    foreground: Fraction = 0.5
    """It grows where the probability of foreground is above this."""
    reach: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Pixels that it may grow beyond its seed."""
    smallest_object: Annotated[int, Field(ge=0)] = 0
    """Pixels; smaller objects are removed as debris."""
    largest_hole: Annotated[int, Field(ge=0)] = 0
    """Pixels; holes up to this size are filled."""


class TrainConfig(Settings):
    """Everything that decides the weights of a trained network, given the data."""

    recipe: Recipe = "fast"
    """``fast``: good scores quickly. ``paper``: exactly as published."""
    kind: Kind = "instances"
    """What the labels are."""
    instances: Literal["border", "rim"] = "border"
    """The target for instances (septum.core.targets)."""
    unet: UNetConfig
    """The network."""
    weight_map: WeightMapConfig = WeightMapConfig()
    """The loss weights."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation."""
    normalize: Literal["standardize", "percentile", "dtype"] = "standardize"
    """How the brightness of an image is normalised. ``standardize``: mean 0, standard deviation 1. ``percentile``: the
    1st to 0 and the 99.8th to 1. ``dtype``: the range of the integer type to 0..1."""
    loss_normalization: Literal["sum", "mean", "weights"] = "weights"
    """What the summed loss is divided by: nothing, the number of pixels, or the sum of the weights."""
    dice: NotNegative = 0.0
    """Weight of the soft Dice loss that is added to the cross-entropy."""
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; for Adam the first beta."""
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    """The learning rate over the steps."""
    warmup: Fraction = 0.05
    """Share of the steps over which the learning rate rises from zero."""
    weight_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential average of the weights; 0: no average."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the convolutions in training; the weights themselves are float32."""
    patch: Count = 260
    """Wanted output pixels per side of a training patch; the next admissible size is used."""
    batch: Count = 1
    """Patches per step."""
    decoding: Decoding = Decoding()
    """How probabilities become instances."""
    steps: Count | None = None
    """Training steps; None: as many as fit into the time budget, estimated from a few trial steps."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Same seed, same weights."""

    @property
    def target(self) -> str:
        """The target that the network learns: a file in septum.core.targets."""
        return "classes" if self.kind == "classes" else self.instances


def train_config_from_1(settings: dict[str, Any]) -> dict[str, Any]:
    """Migrate saved settings of format 1: `target` became `kind` and `instances`."""
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
