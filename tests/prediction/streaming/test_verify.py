import numpy as np
import pytest
import tifffile

from septum.config import TtaConfig
from septum.core.normalize import measure_normalization
from septum.core.tiling import ArraySource
from septum.machine.generators import drain
from septum.model.predict import fit_to_image, predict_probabilities
from septum.prediction.streaming import verify
from septum.prediction.streaming.decide import StreamOptions
from septum.prediction.streaming.job import Job
from tests.prediction.streaming.test_job import (
    DIHEDRAL,
    PLAIN,
    SHAPE,
    image_of,
    load,
    make_model,
    plan_small_tiles,
    stream,
)

LABELS = np.kron([[0, 1, 1, 0], [2, 2, 0, 3]], np.ones((5, 5), int))
INNER = (slice(0, 10), slice(0, 20))
NOT_CUT = [(False, False), (False, False)]


def finished(model_path, image, output, options=PLAIN):
    """A job of which everything is done, with its results."""
    stream(model_path, image, output, options)
    plan_small_tiles(model_path, image, output, options)
    job = Job(output / "a_work")
    for frame in range(job.plan.frames):
        job.measure(frame)
    return job


@pytest.mark.parametrize("normalization", ["none", "image"])
@pytest.mark.parametrize("tta", [None, TtaConfig(), DIHEDRAL, TtaConfig(kind="dihedral", versions=8, average="logits")])
def test_one_pass_over_a_region_is_the_crop_of_one_over_the_image(tmp_path, normalization, tta):
    model = load(make_model(tmp_path, normalization=normalization))
    pixels = image_of()
    source = ArraySource(measure_normalization(pixels, "standardize")(pixels))
    net = fit_to_image(model.net, source)
    expected = drain(predict_probabilities(net, source, tta=tta, max_memory=10**12))
    region = (slice(37, 61), slice(5, 50))
    found = verify.one_pass(net, source, region, tta)
    np.testing.assert_allclose(found, expected[(slice(None), *region)], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("instances", StreamOptions()),
        ("instances", StreamOptions(region=(7, 140, 13, 170), probabilities="float16")),
        ("instances", StreamOptions(tta=DIHEDRAL)),
        ("classes", StreamOptions()),
    ],
)
def test_the_certificate_of_a_right_result_finds_nothing(image, tmp_path, kind, options, monkeypatch):
    monkeypatch.setattr(verify, "SIDE", 40)
    monkeypatch.setattr(verify, "CONTEXT", 20)
    job = finished(make_model(tmp_path, kind=kind), image, tmp_path / "out", options)
    found = list(verify.certify(job, 4))
    assert len(found) == 4
    assert len({str(one.region) for one in found}) == 4
    for one in found:
        assert one.difference <= 1.01 * one.rounding
        assert one.differing == 0
        assert all(0 <= part.start < part.stop <= size for part, size in zip(one.region, job.plan.shape, strict=True))
    assert found == list(verify.certify(job, 4))
    assert found != list(verify.certify(job, 4, seed=1))


def test_the_certificate_of_a_masked_result_finds_nothing(model_path, image, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[70:, 40:130] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    job = finished(model_path, image, tmp_path / "out", StreamOptions(mask=tmp_path / "mask.tif"))
    for one in verify.certify(job, 2):
        assert one.difference <= 1.01 * one.rounding
        assert one.differing == 0


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_the_certificate_of_a_wrong_result_finds_it(image, tmp_path, kind):
    job = finished(make_model(tmp_path, kind=kind), image, tmp_path / "out")
    everything = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    probabilities, labels = job.probabilities.frames[0], job.labels.frames[0]
    probabilities.write(everything, probabilities.read(everything)[::-1])
    labels.write(everything, np.roll(labels.read(everything), 9, axis=2))
    for one in verify.certify(job, 3):
        assert one.difference > 5 * one.rounding
        assert one.differing > 50


def test_numbers_of_objects_do_not_matter():
    renumbered = np.array([0, 7, 5, 9])[LABELS]
    assert verify._differing(LABELS, renumbered, INNER, 0, NOT_CUT) == 0


def test_pixels_with_another_label_are_counted():
    wrong = LABELS.copy()
    wrong[0, 5:8] = 0  # three pixels less
    wrong[9, 14] = 4  # one more
    wrong[5:7, 0] = 8  # two of another object
    assert verify._differing(LABELS, wrong, INNER, 0, NOT_CUT) == 6
    inside = (slice(1, 10), slice(1, 20))  # leaves five of them out
    assert verify._differing(LABELS, wrong, inside, 0, NOT_CUT) == 1


def test_debris_is_left_out_except_where_the_edge_cuts_it():
    """The object at the lower right is of 25 pixels, and touches the lower and the right edge."""
    without = np.where(LABELS == 3, 0, LABELS)
    assert verify._differing(LABELS, without, INNER, 26, NOT_CUT) == 0
    assert verify._differing(LABELS, without, INNER, 26, [(True, False), (True, False)]) == 0
    for cut in ([(False, True), (False, False)], [(False, False), (False, True)]):
        assert verify._differing(LABELS, without, INNER, 26, cut) == 25
