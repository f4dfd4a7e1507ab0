"""Files are paired by name in every layout; what has no partner is named."""

import errno
import os
import sys
from pathlib import Path

import pytest

from septum.data.layout import find_pairs, stem


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
    assert pairing.rule == "3 pairs of equal names in images/ and labels/, 1 with ignore/"


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
    assert "did you mean 'cell_1'?" in pairing.findings[-1].cure


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
    assert pairing.rule == "4 pairs, labels are a.zip or a_labels.tif or a_mask.png or a_masks.tif beside a.*"


def test_single_images_find_their_partner_or_are_given_it(tmp_path):
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
        "has no labels; give its label file as well, or name that a_mask.tif for a.tif"
    )


def test_two_folders_are_paired_by_name(tmp_path):
    folder = make(tmp_path, "raw/a.tif", "C/truth/a.png", "ignore/a.tif", "C/ignore/a.tif")
    pairing = find_pairs(folder / "raw", folder / "C/truth")
    assert pairs_of(pairing, folder) == [("raw/a.tif", "C/truth/a.png", "C/ignore/a.tif")]
    assert pairing.rule == "1 pair of equal names in raw/ and truth/, 1 with ignore/"
    assert found(find_pairs(folder / "raw", folder / "C/truth/a.png")) == [("error", "no-data", "a.png")]


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
    expected = "Cell Tracking Challenge, 2 pairs of frame and gold truth (man_seg) in video 01, 02"
    assert pairing.rule == expected + "; left out, having none: 2 of 4 frames"


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
    assert "expected images/ and labels/" in pairing.findings[0].cure


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
        "images cannot be read (Permission denied); check path and permissions"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such names")
def test_names_that_are_no_utf8_are_to_be_changed(tmp_path):
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
    assert str(pairing.findings[-1]).endswith(r"labels/zelle_\udce4.tif' has a name that is no UTF-8; rename it")


def test_stem_knows_double_suffixes(tmp_path):
    assert [stem(tmp_path / name) for name in ("a.tif", "a.ome.tif", "a.b.png")] == ["a", "a", "a.b"]
