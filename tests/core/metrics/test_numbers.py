"""Each number is the entry of the record that has all scores."""

import numpy as np
import pytest

from septum.core.metrics import ctc, matching, numbers, overlap
from septum.data.simulate import cells
from septum.errors import ConfigError, ImageError

TRUTH = cells((80, 90), 12, seed=1, diameter=14)[1]
PREDICTION = np.where(TRUTH == 3, 0, np.roll(TRUTH, 1, axis=1))
IGNORE = np.arange(90)[None].repeat(80, axis=0) < 20


@pytest.mark.parametrize("ignore", [None, IGNORE])
@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_numbers_of_instances(ignore, threshold):
    scores = matching.match(TRUTH, PREDICTION, ignore=ignore, thresholds=[threshold]).scores
    for name in ("f1", "average_precision", "panoptic_quality"):
        number = getattr(numbers, name)(TRUTH, PREDICTION, threshold=threshold, ignore=ignore)
        assert number == getattr(scores.per_threshold[0], name)
        assert 0 < number < 1
    assert numbers.aggregated_jaccard(TRUTH, PREDICTION, ignore=ignore) == scores.aggregated_jaccard
    frames = [ctc.match_frame(TRUTH, PREDICTION, frame="a", ignore=ignore)]
    assert numbers.seg(TRUTH, PREDICTION, ignore=ignore) == ctc.pool(frames).seg_over_these_frames


@pytest.mark.parametrize("label", [0, 1, 2])
def test_numbers_of_pixels(label):
    truth, prediction = TRUTH % 3, PREDICTION % 3
    pixels, both = (truth == label) | (prediction == label), (truth == label) & (prediction == label)
    assert numbers.iou(truth, prediction, label=label) == both.sum() / pixels.sum()
    of_class = overlap.class_overlap(truth, prediction).classes[label]
    assert numbers.dice(truth, prediction, label=label) == of_class.dice != of_class.iou


def test_what_has_no_number():
    assert numbers.dice(TRUTH > 0, PREDICTION > 0, label=7) is None
    with pytest.raises(ImageError, match="SEG is not defined"):
        numbers.seg(0 * TRUTH, PREDICTION)
    with pytest.raises(ConfigError, match=r"got 0.3"):
        numbers.f1(TRUTH, PREDICTION, threshold=0.3)
