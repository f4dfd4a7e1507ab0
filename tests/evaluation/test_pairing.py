"""Predictions and truths are paired by name in every layout; what has no partner is refused with its name."""

import re
import unicodedata

import numpy as np
import pytest
import tifffile
import zarr

from septum.errors import DatasetError
from septum.evaluation.pairing import cases_from_files

NUMBERS = {}  # each file written has a pixel value of its own, so that cases say which files they read


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        value = NUMBERS[str(path)] = len(NUMBERS) % 250 + 1
        pixels = np.full((4, 5), value, np.float32 if "probabilities" in name else np.uint8)
        if name.endswith(".zarr"):
            zarr.create_array(path, data=pixels)
        else:
            tifffile.imwrite(path, pixels)
    return folder


def files_of(cases, folder):
    """The files that each case reads, as (truth, prediction, probabilities, ignore mask, image, markers)."""
    names = {value: name.removeprefix(f"{folder}/") for name, value in NUMBERS.items() if name.startswith(str(folder))}
    return [
        tuple(
            None if reader is None else names[int(np.max(reader()))]
            for reader in (case.truth, case.prediction, case.probabilities, case.ignore, case.image, case.markers)
        )
        for case in cases
    ]


def refused(predictions, truth, **more):
    with pytest.raises(DatasetError) as caught:
        cases_from_files(predictions, truth, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_results_of_predict_are_paired_with_labels_ignore_and_images_beside_them(tmp_path):
    write(
        tmp_path, "out/a10_labels.tif", "out/a2_labels.tif", "out/a2_probabilities.tif", "out/a2_overlay.png",
        "cells/labels/a2_mask.tif", "cells/labels/a10_mask.png", "cells/ignore/a10.tif", "cells/images/a2.png",
        "cells/images/unrelated.tif",
    )  # fmt: skip
    (tmp_path / "out" / "objects.csv").touch()
    found = cases_from_files(tmp_path / "out", tmp_path / "cells")
    assert [case.name for case in found.images] == ["a2", "a10"]
    assert files_of(found.images, tmp_path) == [
        (
            "cells/labels/a2_mask.tif",
            "out/a2_labels.tif",
            "out/a2_probabilities.tif",
            None,
            "cells/images/a2.png",
            None,
        ),
        ("cells/labels/a10_mask.png", "out/a10_labels.tif", None, "cells/ignore/a10.tif", None, None),
    ]
    assert found.rule == "2 predictions matched by name, 1 with an ignore mask, 1 with probabilities"
    write(tmp_path, "out/a10_probabilities.tif")
    rule = cases_from_files(tmp_path / "out", tmp_path / "cells").rule
    assert rule == "2 predictions matched by name, 1 with an ignore mask, all with probabilities"


def test_what_comes_with_a_single_prediction_is_not_counted(tmp_path):
    write(tmp_path, "out/a_labels.tif", "out/a_probabilities.tif", "cells/labels/a.tif")
    assert cases_from_files(tmp_path / "out", tmp_path / "cells").rule == "out against labels, with probabilities"


def test_numbers_in_names_count_as_numbers(tmp_path):
    names = [f"a{number}" for number in (7, 100, 20, 3, 11)]
    write(tmp_path, *(f"{folder}/{name}.tif" for name in names for folder in ("out", "truth")))
    found = cases_from_files(tmp_path / "out", tmp_path / "truth")
    assert [case.name for case in found.images] == ["a3", "a7", "a11", "a20", "a100"]


def test_images_may_lie_beside_their_labels(tmp_path):
    write(tmp_path, "out/a.tif", "cells/a.tif", "cells/a_labels.tif")
    found = cases_from_files(tmp_path / "out", tmp_path / "cells")
    assert files_of(found.images, tmp_path) == [("cells/a_labels.tif", "out/a.tif", None, None, "cells/a.tif", None)]
    assert found.rule == "out against cells"
    write(tmp_path, "out/a_overlay.png", "out/a_overlay_0001.png")
    again = cases_from_files(tmp_path / "out", tmp_path / "cells")
    assert files_of(again.images, tmp_path) == files_of(found.images, tmp_path)


def test_two_files_belong_together_whatever_they_are_called(tmp_path):
    write(tmp_path, "one.tif", "other_mask.tif", "sub/a_labels.tif", "sub/a_probabilities.tif")
    found = cases_from_files(tmp_path / "one.tif", tmp_path / "other_mask.tif")
    assert files_of(found.images, tmp_path) == [("other_mask.tif", "one.tif", None, None, None, None)]
    found = cases_from_files(tmp_path / "sub/a_labels.tif", tmp_path / "one.tif")
    assert files_of(found.images, tmp_path) == [
        ("one.tif", "sub/a_labels.tif", "sub/a_probabilities.tif", None, None, None)
    ]
    found = cases_from_files(tmp_path / "sub/a_probabilities.tif", tmp_path / "one.tif")
    assert files_of(found.images, tmp_path) == [("one.tif", None, "sub/a_probabilities.tif", None, None, None)]


def test_a_file_finds_its_partner_in_a_folder(tmp_path):
    write(tmp_path, "out/a_labels.tif", "out/b_labels.tif", "truth/a.tif", "truth/b.tif")
    for given in ((tmp_path / "out/a_labels.tif", tmp_path / "truth"), (tmp_path / "out", tmp_path / "truth/a.tif")):
        found = cases_from_files(*given)
        assert files_of(found.images, tmp_path) == [("truth/a.tif", "out/a_labels.tif", None, None, None, None)]
    message = refused(write(tmp_path, "c.tif") / "c.tif", tmp_path / "truth")
    assert message.endswith(f"has no truth of the same name in {tmp_path / 'truth'}; give the truth file itself")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_case_and_zarr_make_no_difference(forms, tmp_path):
    of_result, of_truth = (unicodedata.normalize(form, "Zelle_ä") for form in forms)
    write(tmp_path, f"out/{of_result}_Labels.TIF", f"truth/{of_truth}.OME.TIF", "out/b_labels.ome.zarr", "truth/B.tif")
    (tmp_path / "truth" / "B.tif").rename(tmp_path / "truth" / "b.TIFF")
    NUMBERS[str(tmp_path / "truth" / "b.TIFF")] = NUMBERS.pop(str(tmp_path / "truth" / "B.tif"))
    found = cases_from_files(tmp_path / "out", tmp_path / "truth")
    assert [case.name for case in found.images] == ["b", unicodedata.normalize("NFC", "Zelle_ä")]
    assert files_of(found.images, tmp_path) == [
        ("truth/b.TIFF", "out/b_labels.ome.zarr", None, None, None, None),
        (f"truth/{of_truth}.OME.TIF", f"out/{of_result}_Labels.TIF", None, None, None, None),
    ]
    one = cases_from_files(tmp_path / "out" / "b_labels.ome.zarr", tmp_path / "truth")
    assert files_of(one.images, tmp_path) == files_of(found.images, tmp_path)[:1]


def test_challenge_folders_are_paired_by_frame(tmp_path):
    write(
        tmp_path, "01/t000.TIF", "01_RES/mask000.TIF", "01_RES/t002_labels.tif", "01_RES/t002_probabilities.tif",
        "01_GT/SEG/man_seg000.TIF", "01_GT/SEG/man_seg002.tif", "01_GT/TRA/man_track000.tif",
        "01_GT/TRA/man_track002.tif",
    )  # fmt: skip
    expected = [
        ("01_GT/SEG/man_seg000.TIF", "01_RES/mask000.TIF", None, None, "01/t000.TIF", "01_GT/TRA/man_track000.tif"),
        (
            "01_GT/SEG/man_seg002.tif", "01_RES/t002_labels.tif", "01_RES/t002_probabilities.tif", None, None,
            "01_GT/TRA/man_track002.tif",
        ),
    ]  # fmt: skip
    for truth in ("01_GT", "01_GT/SEG", "01", ""):
        found = cases_from_files(tmp_path / "01_RES" if truth else tmp_path, tmp_path / truth)
        assert files_of(found.images, tmp_path) == expected
        assert [case.frame for case in found.detections] == ["000", "002"]
        assert found.rule == "Cell Tracking Challenge, video 01: 2 frames with gold truth, 2 with markers"


def test_what_has_no_partner_is_named(tmp_path):
    write(tmp_path, "out/cell1.tif", "truth/cell_1.tif")
    (tmp_path / "empty").mkdir()
    out, truth, empty = (tmp_path / name for name in ("out", "truth", "empty"))
    assert refused(out, truth) == (
        f"{truth / 'cell_1.tif'} has no prediction in {out}, such as cell_1.tif or cell_1_labels.tif; "
        "did you mean 'cell1'?"
    )
    assert refused(tmp_path / "nowhere", truth) == f"{tmp_path / 'nowhere'} does not exist; check the path"
    assert refused(out, empty) == (
        f"{empty} has no label image; Septum reads .tif .tiff .btf .png .jpg .jpeg .zip and OME-Zarr"
    )
    write(tmp_path, "out/cell_1.tif", "out/more.tif", "ignore/x.tif")
    assert refused(out, truth) == (
        f"{out / 'cell1.tif'} (and 1 more) has no truth in {truth}; add its truth, or move it elsewhere"
    )
    for name in ("cell1", "more"):
        (out / f"{name}.tif").unlink()
    assert refused(out, truth, images=empty) == (
        f"{empty} has no file for any of the images, such as cell_1.tif; use the same names as the truth"
    )
    write(tmp_path, "out/cell_1.png")
    assert refused(out, truth) == (
        f"{out / 'cell_1.png'} and {out / 'cell_1.tif'} belong to the same image; keep one of them"
    )


def test_a_challenge_that_is_not_complete_is_refused(tmp_path):
    write(tmp_path, "01_RES/mask000.tif", "01_GT/SEG/man_seg000.tif", "01_GT/SEG/man_seg001.tif")
    predictions, truth = tmp_path / "01_RES", tmp_path / "01_GT"
    assert refused(predictions, truth) == (
        f"{truth / 'SEG' / 'man_seg001.tif'} has no prediction mask001.tif in {predictions}; predict that frame"
    )
    write(tmp_path, "01_RES/t000_labels.tif")
    assert re.search(
        "t000_labels.tif and .*mask000.tif belong to the same frame; keep one", refused(predictions, truth)
    )
    (tmp_path / "02_GT" / "SEG").mkdir(parents=True)
    (predictions / "t000_labels.tif").unlink()
    assert f"{tmp_path / '02_GT' / 'SEG'} has no man_segTTT.tif; check the path" in refused(
        predictions, tmp_path / "02_GT"
    )
