"""Bad arrays get one sentence from every score."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

import septum
from septum.core import metrics
from septum.core.metrics import ctc, isbi, matching, overlap, surface
from septum.errors import ConfigError, ImageError

GOOD = np.array([[0, 1, 1], [0, 0, 2]])
PAIRWISE = {
    "ctc": lambda t, p, ignore=None: ctc.match_frame(t, p, frame="000", ignore=ignore),
    "matching": lambda t, p, ignore=None: matching.match(t, p, ignore=ignore),
    "overlap": lambda t, p, ignore=None: overlap.class_overlap(t, p, ignore=ignore),
    "surface": lambda t, p, ignore=None: surface.surface_distance(t, p, ignore=ignore),
}


@pytest.fixture(params=PAIRWISE)
def score(request):
    return PAIRWISE[request.param]


def test_shapes_that_differ(score):
    with pytest.raises(ImageError, match=r"prediction has shape \(2, 2\), but truth has \(2, 3\); pair images"):
        score(GOOD, GOOD[:, :2])


def test_an_ignore_mask_of_another_shape(score):
    with pytest.raises(ImageError, match=r"ignore has shape \(3,\), but truth has \(2, 3\)"):
        score(GOOD, GOOD, np.zeros(3, bool))


@pytest.mark.parametrize("name", ["truth", "prediction"])
def test_float_and_negative_labels(score, name):
    def give(bad):
        return score(bad, GOOD) if name == "truth" else score(GOOD, bad)

    with pytest.raises(ImageError, match=f"{name} has float64 values, but labels are whole numbers"):
        give(GOOD.astype(float))
    with pytest.raises(ImageError, match=f"{name} has the negative label -2, but labels are 0 for background"):
        give(-GOOD)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int64, np.uint64])
def test_labels_of_every_integer_type_score_the_same(score, dtype):
    binary = (GOOD > 0).astype(dtype)
    assert score(binary, binary[::-1]) == score(GOOD > 0, GOOD[::-1] > 0)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (np.full((2, 3), 1.5), "slice 1 of the probabilities runs from 1.5 to 1.5, expected 0..1"),
        (np.full((2, 3), -0.1), "runs from -0.1 to -0.1, expected 0..1"),
        (np.full((2, 3), 200.0), "runs from 200 to 200, expected 0..1; divide 8-bit values by 255"),
        (np.full((2, 3), np.nan), "has NaN in 6 of 6 pixels, expected 0..1"),
        (np.full((2, 3), 255, np.uint8), "has uint8 values, expected floats in 0..1; divide by 255"),
        (np.full((2, 3), 9, np.uint16), "has uint16 values, expected floats in 0..1; divide by 65535"),
        (np.full((2, 3), True), "has bool values, expected floats in 0..1; save probabilities"),
        (np.zeros((3, 3)), r"slice 1 of the probabilities has shape \(3, 3\), but its truth has \(2, 3\)"),
    ],
)
def test_probabilities_that_are_none(bad, sentence):
    with pytest.raises(ImageError, match=sentence):
        isbi.evaluate_stack([GOOD, GOOD], [np.zeros((2, 3)), bad])


def test_stacks_that_do_not_fit():
    with pytest.raises(ImageError, match="probabilities has 1 slices, but labels has 2; pair the stacks"):
        isbi.evaluate_stack([GOOD, GOOD], [np.zeros((2, 3))])
    with pytest.raises(ImageError, match="ignore has 1 slices, but labels has 2"):
        isbi.evaluate_stack([GOOD, GOOD], np.zeros((2, 2, 3)), ignore=[GOOD == 0])
    with pytest.raises(ImageError, match=r"slice 0 has 1 axes, but a slice is \(Y, X\)"):
        isbi.evaluate_stack(GOOD, np.zeros((2, 3)))
    with pytest.raises(ImageError, match="slice 0 of the truth has float64 values"):
        isbi.evaluate_stack(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)))


def test_an_empty_truth():
    nothing = np.zeros_like(GOOD)
    with pytest.raises(ImageError, match="slice 1 of the truth has no cell interior"):
        isbi.evaluate_stack([GOOD, nothing], np.zeros((2, 2, 3)))
    with pytest.raises(ImageError, match="the truth has no object in any frame, so SEG is not defined"):
        ctc.pool([ctc.match_frame(nothing, GOOD, frame="000")])
    with pytest.raises(ImageError, match="the truth has no object in any image"):
        matching.pool([matching.match(nothing, GOOD).scores])


def test_nothing_left_to_score():
    everywhere = np.ones_like(GOOD, bool)
    with pytest.raises(ImageError, match="there is no slice to score"):
        isbi.evaluate_stack([GOOD], np.zeros((1, 2, 3)), ignore=[everywhere])
    with pytest.raises(ImageError, match="there is no pixel to compare"):
        overlap.class_overlap(GOOD, GOOD, ignore=everywhere)
    with pytest.raises(ImageError, match="there is no image to score"):
        overlap.pool([])


def test_thresholds_and_radii_out_of_range():
    with pytest.raises(
        ConfigError, match=r"thresholds must lie in 0.5..1, where the matching of objects is unique; got 0.4"
    ):
        matching.match(GOOD, GOOD, thresholds=[0.5, 0.4])
    with pytest.raises(ConfigError, match="got none at all"):
        matching.match(GOOD, GOOD, thresholds=[])
    with pytest.raises(ConfigError, match=r"thresholds must lie in 0..1, as probabilities do; got 20"):
        isbi.evaluate_stack([GOOD], np.zeros((1, 2, 3)), thresholds=[20])
    with pytest.raises(ConfigError, match="radius must be at least 1 pixel, got 0"):
        isbi.evaluate_stack([GOOD], np.zeros((1, 2, 3)), radius=0)
    with pytest.raises(ImageError, match=r"pixel_size needs one positive number for each of 2 axes, got \(0.1,\)"):
        surface.surface_distance(GOOD, GOOD, pixel_size=(0.1,))


def test_scores_have_short_names_and_are_loaded_on_first_use():
    code = (
        "import sys, septum; septum.metrics.__all__; assert not {'numba', 'scipy'} & {*sys.modules}\n"
        "print(septum.metrics.match([[1]], [[1]]).scores.per_threshold[0].f1)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout == "1.0\n", ran.stderr
    for name in metrics.__all__:
        assert getattr(metrics, name).__doc__, name
    assert metrics.match is matching.match
    assert importlib.import_module("septum.metrics").dice is metrics.dice
    assert septum.metrics.__all__ == metrics.__all__
    assert {"match", "class_overlap", "surface_distance", "bootstrap", "compare"} <= {*metrics.__all__}
    with pytest.raises(AttributeError, match="scores"):
        metrics.scores  # noqa: B018
