import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tifffile

from septum.core.metrics import ctc
from septum.errors import ImageError

DATA = os.environ.get("SEPTUM_DATA")
GOLDEN = Path(DATA).parent / "golden" / "ctc_seg" if DATA else None


@pytest.mark.skipif(GOLDEN is None or not GOLDEN.exists(), reason="needs golden/ beside the folder SEPTUM_DATA names")
def test_equals_the_official_log():
    expected = json.loads((GOLDEN / "seg.json").read_text())
    frames = []
    for frame in expected["jaccard_per_reference_label"]:
        truth, result = (tifffile.imread(GOLDEN / f"{name}_{frame}.tif") for name in ("reference", "result"))
        frames.append(ctc.match_frame(truth, result, frame=frame))
    scores = asdict(ctc.pool(frames))
    assert scores["n_reference"] == expected["n_reference"]
    assert scores["seg_over_these_frames"] == pytest.approx(expected["seg_over_these_frames"], abs=1e-6)
    for frame, labels in expected["jaccard_per_reference_label"].items():
        found = scores["jaccard_per_reference_label"][frame]
        assert {label: float(f"{jaccard:.6g}") for label, jaccard in found.items()} == labels


def sequence(seed, n_frames=5, size=72, n=9):
    """Discs that wander; the result lost, invented, split and merged some of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    places, radii = rng.uniform(0, size, (n, 2)), rng.uniform(4, 9, n)
    frames = []
    for _ in range(n_frames):
        truth, result = np.zeros((2, size, size), np.uint16)
        places += rng.normal(0, 3, places.shape)
        for label, ((cy, cx), radius) in enumerate(zip(places, radii, strict=True), 1):
            truth[(np.hypot(y - cy, x - cx) < radius) & (truth == 0)] = label
            dy, dx, dr = rng.normal(0, 1.5, 3)
            disc = np.hypot(y - cy - dy, x - cx - dx) < radius + dr
            fate = rng.choice(["good", "lost", "split", "merged"], p=[0.45, 0.1, 0.1, 0.35])
            if fate != "lost":
                result[disc] = max(label - 1, 1) if fate == "merged" else label
            if fate == "split":
                result[disc & (x < cx + dx + radius * rng.uniform(-0.6, 0.6))] = label + 20
        for label in range(40, 40 + rng.integers(3)):
            cy, cx = rng.uniform(0, size, 2)
            result[(np.hypot(y - cy, x - cx) < 4) & (result == 0)] = label
        truth[:, 0] = result[:, 0] = 0  # the peer takes the smallest number for background
        frames.append((truth, result))
    return frames


def write_challenge_folders(folder, frames):
    for name in ("01_GT/SEG", "01_GT/TRA", "01_RES"):
        (folder / name).mkdir(parents=True)
    tracks, result_tracks = {}, []
    for t, (truth, result) in enumerate(frames):
        tifffile.imwrite(folder / f"01_GT/SEG/man_seg{t:03}.tif", truth)
        tifffile.imwrite(folder / f"01_GT/TRA/man_track{t:03}.tif", truth)
        unique = np.where(result > 0, result + 100 * t, 0).astype(np.uint16)  # every object a track of its own
        tifffile.imwrite(folder / f"01_RES/mask{t:03}.tif", unique)
        result_tracks += [f"{label} {t} {t} 0" for label in np.unique(unique)[1:]]
        for label in np.unique(truth)[1:]:
            tracks.setdefault(label, []).append(t)
    lines = [f"{label} {min(ts)} {max(ts)} 0" for label, ts in tracks.items()]
    (folder / "01_GT/TRA/man_track.txt").write_text("\n".join(lines) + "\n")
    (folder / "01_RES/res_track.txt").write_text("\n".join(result_tracks) + "\n")


@pytest.mark.parametrize("seed", range(4))
def test_equals_py_ctcmetrics_on_simulated_sequences(seed, tmp_path):
    peer = pytest.importorskip("ctc_metrics.scripts.evaluate", reason="needs py-ctcmetrics, the extra 'dev'")
    frames = sequence(seed)
    write_challenge_folders(tmp_path, frames)
    theirs = peer.evaluate_sequence(
        res=str(tmp_path / "01_RES"), gt=str(tmp_path / "01_GT"), metrics=["SEG", "DET", "TRA"], threads=1
    )
    ours = ctc.pool([ctc.match_frame(*pair, frame=f"{t:03}") for t, pair in enumerate(frames)])
    assert ours.seg_over_these_frames == pytest.approx(theirs["SEG"], abs=1e-12)
    assert ours.det == pytest.approx(theirs["DET"], abs=1e-12)
    counts = (theirs["AOGM_NS"], theirs["AOGM_FN"], theirs["AOGM_FP"])
    assert (ours.n_split, ours.n_missed, ours.n_invented) == counts
    assert min(counts) > 0  # else the sequence tests too little


def test_a_match_covers_strictly_more_than_half():
    truth = np.array([[1, 1, 1, 1, 0, 0]])
    half, more = np.array([[5, 5, 0, 0, 0, 0]]), np.array([[5, 5, 5, 0, 0, 0]])
    assert ctc.match_frame(truth, half, frame="0").objects[0].prediction is None
    assert ctc.match_frame(truth, more, frame="0").objects[0].jaccard == 0.75


def test_one_predicted_object_may_match_several_and_owes_a_split_for_each_beyond_the_first():
    truth = np.array([[1, 1, 2, 2, 3, 3]])
    scores = ctc.match_frame(truth, np.full((1, 6), 7), frame="0")
    assert [each.jaccard for each in scores.objects] == [1 / 3] * 3
    assert (scores.n_split, scores.n_missed, scores.n_invented) == (2, 0, 0)
    assert ctc.pool([scores]).aogm_d == 10


def test_objects_count_the_same_whatever_their_frame():
    many, one = np.arange(1, 10)[None], np.array([[1, 0]])
    frames = [ctc.match_frame(many, many, frame="0"), ctc.match_frame(one, 0 * one, frame="1")]
    assert ctc.pool(frames).seg_over_these_frames == 0.9  # not the mean of 1 and 0


def test_two_frames_of_one_name_are_refused():
    frame = ctc.match_frame(np.array([[1]]), np.array([[1]]), frame="000")
    with pytest.raises(
        ImageError, match="frame '000' appears twice; name the frames of several sequences like '01/000'"
    ):
        ctc.pool([frame, frame])


def test_det_is_never_below_zero_and_one_if_perfect():
    truth, noise = np.array([[1, 0]]), np.arange(50)[None]
    assert ctc.pool([ctc.match_frame(truth, truth, frame="0")]).det == 1
    assert ctc.pool([ctc.match_frame(truth[:, :1].repeat(50, 1), noise, frame="0")]).det == 0


def test_label_numbers_do_not_matter():
    rng = np.random.default_rng(0)
    names = np.concatenate([[0], rng.permutation(1000)[:60] + 1])
    for truth, result in sequence(0):
        plain = ctc.match_frame(truth, result, frame="0")
        other = ctc.match_frame(names[truth], names[result], frame="0")
        assert [each.jaccard for each in other.objects] == [each.jaccard for each in plain.objects]
        assert (other.n_split, other.n_missed, other.n_invented) == (plain.n_split, plain.n_missed, plain.n_invented)


def test_ignored_pixels_take_part_in_nothing():
    truth, result = sequence(0)[0]
    ignore = np.zeros_like(truth, bool)
    ignore[20:45] = True
    strict = ctc.match_frame(*(np.where(ignore, 0, labels) for labels in (truth, result)), frame="0")
    assert ctc.match_frame(truth, result, frame="0", ignore=ignore) == strict
    for highest in (3, 20, 9999):  # numbers of objects that are there, or of none
        noise = np.random.default_rng(0).integers(0, highest, (2, *truth.shape))
        fresh = [np.where(ignore, n, labels) for n, labels in zip(noise, (truth, result), strict=True)]
        assert ctc.match_frame(*fresh, frame="0", ignore=ignore) == strict
