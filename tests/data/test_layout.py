"""Files are paired by name in every layout; what has no partner is named."""

import errno
import os
import sys
import unicodedata
from pathlib import Path

import pytest

from septum.data.layout import find_pairs


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def pairs_of(pairing, folder):
    return [
        tuple(str(path.relative_to(folder)) if path else None for path in (pair.image, pair.labels, pair.ignore))
        for pair in pairing.pairs
    ]


def found(pairing):
    return [(finding.level, finding.code, finding.file.rsplit("/", 1)[-1]) for finding in pairing.findings]


def test_images_labels_and_ignore_go_by_name_whatever_the_format(tmp_path):
    folder = make(
        tmp_path, "images/b10.tif", "images/b2.png", "images/c.ome.tif", "images/.hidden.tif", "labels/b2.tiff",
        "labels/b10.PNG", "labels/c.zip", "ignore/b2.tif",
    )  # fmt: skip
    pairing = find_pairs(folder)
    assert pairs_of(pairing, folder) == [
        ("images/b2.png", "labels/b2.tiff", "ignore/b2.tif"),
        ("images/b10.tif", "labels/b10.PNG", None),
        ("images/c.ome.tif", "labels/c.zip", None),
    ]
    assert pairing.findings == ()
    assert pairing.rule == "3 pairs with equal names in images/ and labels/, 1 with ignore/"


def test_what_has_no_partner_is_named(tmp_path):
    folder = make(
        tmp_path, "images/a.tif", "images/b.tif", "images/b.png", "images/cell_1.tif", "labels/a.tif", "labels/b.tif",
        "labels/cell1.tif", "labels/notes.txt",
    )  # fmt: skip
    pairing = find_pairs(folder)
    assert [pair.name for pair in pairing.pairs] == ["a", "b"]
    assert found(pairing) == [
        ("error", "ambiguous-name", "b.tif"),
        ("warning", "ignored-file", "notes.txt"),
        ("warning", "missing-label", "cell_1.tif"),
        ("error", "missing-image", "cell1.tif"),
    ]
    assert [str(one).removeprefix(f"{folder}/") for one in pairing.findings] == [
        "images/b.tif belongs to the same image as b.png; rename or remove one of them",
        "labels/notes.txt is skipped: its suffix is not one of .tif .tiff .btf .png .jpg .jpeg .zip; "
        "if it is an image, save it as TIFF",
        "images/cell_1.tif has no labels and is left out; annotate it, or give its label file the same name",
        "labels/cell1.tif has no image in images/; give both the same name; did you mean 'cell_1'?",
    ]


def test_labels_beside_images_by_their_ending(tmp_path):
    folder = make(
        tmp_path, "a.tif", "a_mask.png", "b.png", "b_masks.tif", "c.jpg", "c_labels.tif", "d.tif", "d.zip", "e.tif",
        "f_mask.tif", "g.tif", "g_mask.tif", "g_labels.tif", "readme.txt",
    )  # fmt: skip
    pairing = find_pairs(folder)
    assert [pair[:2] for pair in pairs_of(pairing, folder)] == [
        ("a.tif", "a_mask.png"), ("b.png", "b_masks.tif"), ("c.jpg", "c_labels.tif"), ("d.tif", "d.zip"),
    ]  # fmt: skip
    assert found(pairing) == [
        ("error", "ambiguous-name", "g.tif"),
        ("warning", "missing-label", "e.tif"),
        ("error", "missing-image", "f_mask.tif"),
    ]
    assert pairing.rule == "4 pairs: labels are a.zip or a_labels.tif or a_mask.png or a_masks.tif beside images a.*"


def test_a_single_image_finds_its_labels_or_is_given_them(tmp_path):
    folder = make(tmp_path, "a.tif", "a_mask.tif", "b.tif", "truth.tif", "c.tif")
    assert [pair[:2] for pair in pairs_of(find_pairs(folder / "a.tif"), folder)] == [("a.tif", "a_mask.tif")]
    pairing = find_pairs(folder / "b.tif", folder / "truth.tif")
    assert [pair[:2] for pair in pairs_of(pairing, folder)] == [("b.tif", "truth.tif")]
    make(folder, "labels/truth.tif", "ignore/truth.png", "ignore/b.tif")
    pairing = find_pairs(folder / "b.tif", folder / "labels/truth.tif")
    assert pairs_of(pairing, folder) == [("b.tif", "labels/truth.tif", "ignore/truth.png")]
    assert pairing.rule == "b.tif with labels truth.tif and ignore/truth.png"
    pairing = find_pairs(folder / "c.tif")
    assert found(pairing) == [("error", "no-data", "c.tif")]
    assert str(pairing.findings[0]).endswith(
        "has no labels; give its label file with --labels, or name it a_mask.tif beside a.tif"
    )


def test_two_folders_are_paired_by_name(tmp_path):
    folder = make(tmp_path, "raw/a.tif", "C/truth/a.png", "ignore/a.tif", "C/ignore/a.tif")
    pairing = find_pairs(folder / "raw", folder / "C/truth")
    assert pairs_of(pairing, folder) == [("raw/a.tif", "C/truth/a.png", "C/ignore/a.tif")]
    assert pairing.rule == "1 pair with equal names in raw/ and truth/, 1 with ignore/"
    pairing = find_pairs(folder / "raw", folder / "C/truth/a.png")
    assert found(pairing) == [("error", "no-data", "a.png")]
    assert f"a.png cannot be paired with {folder / 'raw'}; give two files or two folders" in str(pairing.findings[0])


def test_challenge_folders_by_data_set_or_video(tmp_path):
    folder = make(
        tmp_path / "Cells", "01/t000.tif", "01/t001.tif", "01/t002.tif", "01_GT/SEG/man_seg001.tif",
        "01_GT/SEG/man_seg007.tif", "01_GT/TRA/man_track001.tif", "01_ST/SEG/man_seg000.tif", "02/t000.tif",
        "02_GT/SEG/man_seg000.tif",
    )  # fmt: skip
    pairing = find_pairs(folder)
    assert [(pair.name, pair.video, pair.markers) for pair in pairing.pairs] == [
        ("01_t001", "01", folder / "01_GT/TRA/man_track001.tif"),
        ("02_t000", "02", None),
    ]
    assert pairs_of(pairing, folder)[0][:2] == ("01/t001.tif", "01_GT/SEG/man_seg001.tif")
    assert found(pairing) == [("error", "missing-image", "man_seg007.tif")]
    assert [pair.name for pair in find_pairs(folder / "02").pairs] == ["02_t000"]
    expected = "Cell Tracking Challenge, video 01, 02: 2 frames with gold truth (man_seg)"
    assert pairing.rule == expected + "; 2 of 4 frames have none and are left out"


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "has no images"),
        (["images/a.tif"], "has images/ but no labels/"),
        (["images/a.tif", "labels/.keep"], "has no labels"),
        (["images/.keep", "labels/a.tif"], "has no images"),
        (["images/.keep", "labels/.keep"], "has no images"),
        (["a.tif", "b.tif"], "has no labels"),
        (["01/t000.tif", "01_GT/SEG/.keep"], "has no man_seg*.tif in its _GT/SEG"),
    ],
)
def test_a_folder_without_a_pair_says_what_was_expected(names, problem, tmp_path):
    pairing = find_pairs(make(tmp_path / "data", "x/.keep", *names))
    assert pairing.pairs == ()
    assert [(finding.level, finding.problem) for finding in pairing.findings] == [("error", problem)]
    assert "expected images/ and labels/" in pairing.findings[0].fix


def test_a_path_that_does_not_exist_is_an_error(tmp_path):
    assert found(find_pairs(tmp_path / "nowhere")) == [("error", "no-data", "nowhere")]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    pairing = find_pairs(tmp_path / ("x" * 300))
    assert [one.problem for one in pairing.findings] == ["cannot be read (File name too long)"]
    folder = make(tmp_path, "images/a.tif", "labels/a.tif")
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert str(find_pairs(folder).findings[0]).endswith(
        "images cannot be read (Permission denied); check the path and its permissions"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such names")
def test_names_that_are_not_utf8_are_an_error(tmp_path):
    folder = make(tmp_path, "images/a.tif", "labels/a.tif")
    for name in (b"images/zelle_\xe4.tif", b"labels/zelle_\xe4.tif", b"images/\xfc.txt"):
        (folder / os.fsdecode(name)).touch()
    pairing = find_pairs(folder)
    assert pairing.pairs == ()
    assert found(pairing) == [
        ("error", "unreadable", r"zelle_\udce4.tif'"),
        ("error", "unreadable", r"\udcfc.txt'"),
        ("error", "unreadable", r"zelle_\udce4.tif'"),
    ]
    assert str(pairing.findings[-1]).endswith(r"labels/zelle_\udce4.tif' has a name that is not valid UTF-8; rename it")


def test_labels_in_a_folder_of_their_own_may_have_an_ending(tmp_path):
    folder = make(
        tmp_path, "images/a.tif", "images/b_mask.tif", "labels/a_Mask.TIF", "labels/b_mask.tif", "ignore/a_mask.png"
    )
    assert pairs_of(find_pairs(folder), folder) == [
        ("images/a.tif", "labels/a_Mask.TIF", "ignore/a_mask.png"),
        ("images/b_mask.tif", "labels/b_mask.tif", None),
    ]
    make(folder, "labels/a.tif")
    assert [str(one).removeprefix(f"{folder}/") for one in find_pairs(folder).findings] == [
        "labels/a_Mask.TIF belongs to the same image as a.tif; rename or remove one of them"
    ]


def test_zarr_folders_are_images_and_labels(tmp_path):
    folder = make(
        tmp_path, "images/a.ome.zarr/zarr.json", "labels/a.tif", "b.ome.zarr/zarr.json", "b_labels.ome.zarr/zarr.json"
    )
    assert pairs_of(find_pairs(folder), folder) == [("images/a.ome.zarr", "labels/a.tif", None)]
    assert pairs_of(find_pairs(folder / "b.ome.zarr"), folder) == [("b.ome.zarr", "b_labels.ome.zarr", None)]
    pairing = find_pairs(folder / "images/a.ome.zarr", folder / "labels/a.tif")
    assert pairs_of(pairing, folder) == [("images/a.ome.zarr", "labels/a.tif", None)]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_the_same_in_both_forms(forms, tmp_path):
    of_image, of_labels = (unicodedata.normalize(form, "Zelle_ä") for form in forms)
    folder = make(tmp_path, f"images/{of_image}.tif", f"labels/{of_labels}.tif", f"ignore/{of_labels}.tif")
    make(tmp_path / "flat", f"{of_image}.tif", f"{of_labels}_mask.tif")
    (pair,) = find_pairs(folder).pairs
    assert (pair.name, pair.labels.name, pair.ignore.name) == (of_image, f"{of_labels}.tif", f"{of_labels}.tif")
    for path in (tmp_path / "flat", tmp_path / "flat" / f"{of_image}.tif"):
        pairing = find_pairs(path)
        assert [pair.labels.name for pair in pairing.pairs] == [f"{of_labels}_mask.tif"]
        assert pairing.rule == "1 pair: labels are a_mask.tif beside images a.*"


def test_the_case_of_suffixes_and_endings_does_not_count(tmp_path):
    flat = make(tmp_path / "flat", "0.TIF", "0_Mask.tif", "1.OME.TIF", "1_labels.tif")
    assert [pair[:2] for pair in pairs_of(find_pairs(flat), flat)] == [
        ("0.TIF", "0_Mask.tif"),
        ("1.OME.TIF", "1_labels.tif"),
    ]
    video = make(tmp_path / "video", "01/t000.TIF", "01_GT/SEG/man_seg000.TIF", "01_GT/TRA/MAN_TRACK000.tif")
    (pair,) = find_pairs(video).pairs
    assert (pair.name, pair.labels.name, pair.markers.name) == ("01_t000", "man_seg000.TIF", "MAN_TRACK000.tif")


def test_two_files_of_one_frame_are_an_error(tmp_path):
    folder = make(tmp_path, "01/t000.tif", "01/t000.png", "01_GT/SEG/man_seg000.tif")
    assert [(one.code, one.problem) for one in find_pairs(folder).findings] == [
        ("ambiguous-name", "belongs to the same image as t000.png")
    ]
