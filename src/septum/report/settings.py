"""The settings of a training as a table that explains each of them."""

from __future__ import annotations

from collections.abc import Mapping

from septum.config import TrainConfig
from septum.report.sections import Table

MEANINGS = {
    "recipe": "The preset that the other settings come from: fast, or paper (Ronneberger et al. 2015).",
    "kind": "What the labels mean: instances (one number per object) or classes.",
    "instances": "How instances are represented: border (a gap between touching objects) or rim (core and rim).",
    "unet.in_channels": "Channels of the images.",
    "unet.n_classes": "Classes that the network predicts, background included.",
    "unet.depth": "Number of 2x2 max poolings.",
    "unet.base_channels": "Channels of the first level; every level below has twice as many.",
    "unet.dropout": "Share of values set to 0 after the last two levels of the contracting path.",
    "unet.relu_after_up": "Whether a ReLU follows every up-convolution.",
    "unet.wide_last_up": "Whether the last up-convolution keeps its number of channels.",
    "unet.normalization": "image: each channel is normalised by its mean and deviation in the image; none: it is not.",
    "unet.init": "How the first weights are drawn: as in the paper, or as in the authors' release.",
    "weight_map.w0": "Largest extra loss weight between touching objects (Eq. 2 of the paper).",
    "weight_map.sigma": "How fast this weight falls off with distance, in pixels (Eq. 2 of the paper).",
    "weight_map.balance": "How the loss is balanced between classes: frequency, freiburg or none.",
    "weight_map.background_weight": "Weight of the background far from objects (freiburg only).",
    "weight_map.background_sigma": "How fast the weight falls to it around objects, in pixels (freiburg only).",
    "augment.rotation": "Patches are rotated by up to this angle, in degrees.",
    "augment.mirror": "Whether patches are mirrored at random.",
    "augment.scale": "Patches are zoomed by a factor of up to 1 plus this.",
    "augment.elastic_nodes": "Nodes per axis of the grid of the elastic deformation.",
    "augment.elastic_sd": "Standard deviation of the shifts at these nodes, in pixels.",
    "augment.contrast": "The contrast changes by up to this share.",
    "augment.brightness": "The brightness shifts by up to this many standard deviations of the image.",
    "augment.gamma": "How much the contrast of bright and dark greys may differ.",
    "normalize": "How images are brought to one scale: by mean and deviation, by percentiles, or by their data type.",
    "loss_normalization": "What the loss of a step is divided by: nothing (sum), its pixels (mean) or their weights.",
    "dice": "Weight of the soft Dice loss that is added to the cross-entropy.",
    "optimizer": "The optimiser: adam or sgd.",
    "learning_rate": "Highest learning rate of the training.",
    "momentum": "Momentum of SGD; the first beta of Adam.",
    "weight_decay": "How strongly the weights are pulled to 0.",
    "schedule": "How the learning rate changes: constant, or cosine (it falls to 0 at the end).",
    "warmup": "Share of the steps in which the learning rate rises from 0.",
    "weight_average": "The model is a running average of the weights with this decay; 0 is off.",
    "precision": "Number format of the convolutions in training.",
    "patch": "Side of the predicted area of a training patch, in pixels; rounded up to what the network allows.",
    "batch": "Patches per step.",
    "decoding.seed": "An object starts where its probability is above this; chosen on the held-out images.",
    "decoding.foreground": "It grows where the probability of foreground is above this; chosen on the held-out images.",
    "decoding.reach": "How far an object may grow beyond its start, in pixels.",
    "decoding.smallest_object": "Smaller objects are removed, in pixels.",
    "decoding.largest_hole": "Holes up to this size are filled, in pixels.",
    "steps": "Number of training steps.",
    "seed": "Start of the random numbers: the same seed and data give the same weights.",
}


def settings_table(config: TrainConfig) -> Table:
    """Return a folded table of all settings, each with its meaning."""
    rows = [[name, str(value), MEANINGS[name]] for name, value in dotted(config.model_dump()).items()]
    note = "Change a setting with --set NAME=VALUE."
    return Table("Settings", ["setting", "value", "meaning"], rows, note, folded=True)


def dotted(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Flatten nested settings to dotted names.

    Examples
    --------
    >>> dotted({"unet": {"depth": 4}, "seed": 0})
    {'unet.depth': 4, 'seed': 0}
    """
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
