"""Names say what a file is and which image it belongs to, whatever the case of suffixes and the form of accents."""

import unicodedata
from pathlib import Path

import pytest

from septum.data.names import (
    frame_number,
    image_of,
    is_folder,
    is_image,
    is_label,
    is_map,
    is_overlay,
    is_roi,
    key_of,
    natural_order,
    stem_of,
    visible_entries,
)

FORMS = [unicodedata.normalize(form, "Zellkörper") for form in ("NFC", "NFD")]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.tif", "a"), ("a.TIF", "a"), ("a.ome.tif", "a"), ("a.OME.TIF", "a"), ("a.Ome.Tiff", "a"), ("a.b.png", "a.b"),
        ("a.ome.zarr", "a"), ("a.zarr", "a"), ("ome.tif", "ome"), ("a.somome.tif", "a.somome"), ("a", "a"),
    ],
)  # fmt: skip
def test_the_format_is_not_part_of_a_stem(name, stem):
    assert stem_of(Path("folder.ome", name)) == stem


def test_a_stem_is_as_written_and_a_key_the_same_for_both_forms_of_unicode():
    assert len(set(FORMS)) == 2
    assert [stem_of(Path(f"{form}.tif")) for form in FORMS] == FORMS
    assert {key_of(Path(f"{form}.tif")) for form in FORMS} == {FORMS[0]}
    assert {image_of(Path(f"{form}_Mask.TIF")) for form in FORMS} == {FORMS[0]}


@pytest.mark.parametrize("ending", ["_mask", "_masks", "_labels", "_probabilities", "_Mask", "_LABELS"])
def test_a_file_belongs_to_the_image_without_its_ending(ending):
    assert image_of(Path(f"a_1{ending}.ome.tif")) == "a_1"
    assert image_of(Path(f"a_1{ending}_2.tif")) == f"a_1{ending}_2"
    assert image_of(Path(f"{ending}.tif")) == ending  # nothing would be left
    assert image_of(Path(f"a{ending}.tif"), {f"a{ending}", "a"}) == f"a{ending}"  # an image may be called so


def test_names_say_what_a_file_is(tmp_path):
    names = (
        "a.tif", "a.TIFF", "a.btf", "a.jpeg", "a_Mask.TIF", "a_labels.ome.tif", "a.zip", "A.ZIP", "a_probabilities.tif",
        "a_overlay.png", "a_overlay_0012.png", "overlay.png", "a_masked.tif", "a.txt",
    )  # fmt: skip

    def those(question):
        return [name for name in names if question(Path(name))]

    assert those(is_image) == [name for name in names if name not in ("a.zip", "A.ZIP", "a.txt")]
    assert those(is_roi) == ["a.zip", "A.ZIP"]
    assert those(is_label) == ["a_Mask.TIF", "a_labels.ome.tif", "a.zip", "A.ZIP"]
    assert those(is_map) == ["a_probabilities.tif"]
    assert those(is_overlay) == ["a_overlay.png", "a_overlay_0012.png"]


def test_a_zarr_is_an_image_and_not_a_folder_of_images(tmp_path):
    for name, entry in (("a.ome.zarr", "zarr.json"), ("b", ".zgroup"), ("c", "a.tif")):
        (tmp_path / name).mkdir()
        (tmp_path / name / entry).touch()
    assert [is_image(tmp_path / name) for name in ("a.ome.zarr", "b", "c")] == [True, True, False]
    assert [is_folder(tmp_path / name) for name in ("a.ome.zarr", "b", "c", "none")] == [False, False, True, False]


def test_frames_are_numbered_as_written():
    assert [frame_number(name, "t", "mask") for name in ("t007", "T007", "mask12", "t", "t1a", "at1", "man_seg1")] == [
        "007", "007", "12", None, None, None, None,
    ]  # fmt: skip


def test_numbers_in_names_count_as_numbers_and_the_format_does_not_count():
    ordered = [
        "2.tif",
        "10.tif",
        "a2.ome.tif",
        "a10.tif",
        "a10_2.png",
        "a10_10.tif",
        "b1.ome.zarr",
        "s2/b.tif",
        "s10/a.tif",
    ]
    for shuffled in (sorted(ordered), sorted(ordered)[::-1]):
        assert sorted(map(Path, shuffled), key=natural_order) == [*map(Path, ordered)]
    short_first = [Path("b.tif"), Path("aa.tif")]  # part of every data set's order, on which weights depend
    assert sorted(map(Path, ("aa.tif", "b.tif")), key=natural_order) == short_first
    one, other = Path("a01.tif"), Path("a1.tif")
    assert sorted([one, other], key=natural_order) == sorted([other, one], key=natural_order)
    for form in ("NFC", "NFD"):
        accented = Path(unicodedata.normalize(form, "ä1.tif"))
        assert sorted([Path("ab1.tif"), accented], key=natural_order) == [accented, Path("ab1.tif")]


def test_a_folder_is_listed_in_natural_order_without_hidden_files(tmp_path):
    for name in ("a10.tif", "a2.tif", ".part.a3.tif", "b.txt"):
        (tmp_path / name).touch()
    assert [entry.name for entry in visible_entries(tmp_path)] == ["a2.tif", "a10.tif", "b.txt"]
    assert visible_entries(tmp_path / "nowhere") == []
    assert visible_entries(tmp_path / "b.txt") == []
