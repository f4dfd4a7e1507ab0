"""A data set read from disk is what was written; what cannot be trained on is refused in one sentence."""

import os
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile

from septum.data.check import check
from septum.data.dataset import from_arrays, load_dataset, load_pairs
from septum.data.markers import unannotated
from septum.data.simulate import cells
from septum.errors import DatasetError

DATA = os.environ.get("SEPTUM_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="SEPTUM_DATA does not name a folder of data sets")
RNG = np.random.default_rng(0)
PIXELS = [RNG.integers(0, 255, (1, 96, 128), np.uint8) for _ in range(3)]
LABELS = [cells((96, 128), 8, seed)[1] for seed in range(3)]


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", **options)


def folder_of(folder, images=PIXELS, labels=LABELS, ignore=()):
    for index, (image, truth) in enumerate(zip(images, labels, strict=True)):
        write(folder / "images" / f"{index}.tif", image, metadata={"axes": "CYX"} if image.ndim == 3 else None)
        write(folder / "labels" / f"{index}.tif", truth)
    for index, mask in enumerate(ignore):
        write(folder / "ignore" / f"{index}.tif", mask)
    return folder


def test_a_folder_is_read_as_it_was_written(tmp_path):
    ignore = np.zeros((96, 128), np.uint8)
    ignore[:10] = 255
    dataset = load_dataset(folder_of(tmp_path, ignore=[ignore]))
    assert (dataset.kind, dataset.class_names, dataset.channels) == ("instances", ("background", "foreground"), 1)
    for index, sample in enumerate(dataset.samples):
        np.testing.assert_array_equal(sample.image, PIXELS[index])
        np.testing.assert_array_equal(
            sample.labels, np.where(sample.ignore, 0, LABELS[index]) if index == 0 else LABELS[index]
        )
        assert (sample.name, sample.group, sample.frame, sample.labels.dtype) == (str(index), "", 0, np.int32)
    np.testing.assert_array_equal(dataset.samples[0].ignore, ignore > 0)
    assert dataset.samples[1].ignore is None
    assert "1 of 3 images partly annotated: unannotated pixels are ignored" in dataset.notes


def test_arrays_and_files_make_the_same_data_set(tmp_path):
    from_files = load_dataset(folder_of(tmp_path))
    from_memory = from_arrays([image[0] for image in PIXELS], LABELS)
    assert list(from_memory.hashes.values()) == list(from_files.hashes.values())
    pairs = [(tmp_path / "images" / f"{i}.tif", tmp_path / "labels" / f"{i}.tif", None) for i in range(3)]
    assert load_pairs(pairs).hashes == from_files.hashes


def test_pairs_of_the_same_name_in_different_folders_are_kept_apart(tmp_path):
    pairs = []
    for index in range(2):
        write(tmp_path / str(index) / "a.tif", PIXELS[index][0])
        write(tmp_path / str(index) / "b.tif", LABELS[index])
        pairs.append((tmp_path / str(index) / "a.tif", tmp_path / str(index) / "b.tif", None))
    assert list(load_pairs(pairs).hashes) == ["0_a", "1_a"]


def test_the_hash_changes_with_any_pixel_label_or_ignored_area():
    base = from_arrays(PIXELS[:1], LABELS[:1]).hashes
    image, labels, ignore = PIXELS[0].copy(), LABELS[0].copy(), np.zeros((96, 128), bool)
    image[0, 5, 5] ^= 1
    labels[5, 5] += 1
    ignore[labels == 0] = True
    others = [
        from_arrays([image], LABELS[:1]),
        from_arrays(PIXELS[:1], [labels]),
        from_arrays(PIXELS[:1], LABELS[:1], [ignore]),
    ]
    assert len({other.hashes["image 0"] for other in others} | {base["image 0"]}) == 4
    flat, mask = PIXELS[0].ravel(), LABELS[0].ravel() > 0  # the same bytes in another shape
    shapes = [(96, 128), (128, 96)]
    hashes = [from_arrays([flat.reshape(shape)], [mask.reshape(shape)]).hashes["image 0"] for shape in shapes]
    assert hashes[0] != hashes[1]


def test_stacks_are_paired_page_by_page(tmp_path):
    write(tmp_path / "cells.tif", np.concatenate(PIXELS), metadata={"axes": "ZYX"}, imagej=True)
    write(tmp_path / "cells_labels.tif", np.stack(LABELS).astype(np.uint16), metadata={"axes": "ZYX"})
    dataset = load_dataset(tmp_path)
    assert [(s.name, s.group, s.frame) for s in dataset.samples] == [(f"cells_00{i}", "cells", i) for i in range(3)]
    for sample, image, labels in zip(dataset.samples, PIXELS, LABELS, strict=True):
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.labels, labels)
    stacked = from_arrays(np.concatenate(PIXELS), np.stack(LABELS))
    assert [sample.group for sample in stacked.samples] == ["stack"] * 3
    assert list(stacked.hashes.values()) == list(dataset.hashes.values())


def test_masks_of_0_and_255_become_classes_0_and_1(tmp_path):
    dataset = load_dataset(
        folder_of(tmp_path, labels=[np.where(labels > 0, 255, 0).astype(np.uint8) for labels in LABELS])
    )
    assert (dataset.kind, dataset.n_classes, dataset.class_names) == ("classes", 2, ("background", "foreground"))
    for sample, labels in zip(dataset.samples, LABELS, strict=True):
        np.testing.assert_array_equal(sample.labels, labels > 0)
    assert "label values 0 -> class 0, 255 -> class 1" in dataset.notes


def test_masks_forced_to_instances_are_split_into_pieces():
    masks = [np.where(labels > 0, 255, 0) for labels in LABELS]
    dataset = from_arrays(PIXELS, masks, kind="instances")
    for sample, mask in zip(dataset.samples, masks, strict=True):
        np.testing.assert_array_equal(sample.labels > 0, mask > 0)
        assert sample.labels.max() > 1
    assert "each 4-connected component of the masks is one object" in dataset.notes


def test_classes_are_numbered_in_order_and_keep_their_names():
    classes = np.array([[0, 3, 0, 3], [7, 0, 7, 0]]).repeat(8, 0).repeat(8, 1)
    dataset = from_arrays([np.zeros((16, 32))], [classes])
    assert dataset.class_names == ("background", "class 3", "class 7")
    np.testing.assert_array_equal(dataset.samples[0].labels, np.searchsorted([0, 3, 7], classes))


def test_values_under_an_ignore_mask_are_not_classes():
    labels = np.where(LABELS[0] > 0, 1, 0)
    labels[:20] = 255
    dataset = from_arrays(PIXELS[0], labels, labels == 255)
    assert (dataset.kind, dataset.n_classes) == ("classes", 2)
    assert not dataset.samples[0].labels[:20].any()


def test_grey_saved_as_rgb_is_one_channel_only_if_all_images_are_grey():
    grey, colour = np.repeat(PIXELS[0], 3, axis=0), RNG.integers(0, 255, (3, 96, 128), np.uint8)
    dataset = from_arrays([grey, PIXELS[1]], LABELS[:2])
    assert dataset.channels == 1
    np.testing.assert_array_equal(dataset.samples[0].image, PIXELS[0])
    assert "greyscale saved as RGB in 1 of 2 images: read as one channel" in dataset.notes
    dataset = from_arrays([grey, colour], LABELS[:2])
    assert [len(sample.image) for sample in dataset.samples] == [3, 3]
    assert "greyscale saved as RGB in 1 of 2 images: kept as RGB, because other images are in colour" in dataset.notes


def test_rois_are_instances_even_when_there_is_one(tmp_path):
    write(tmp_path / "a.tif", PIXELS[0][0])
    roi = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, top=2, left=3, bottom=9, right=11, name="cell")
    roifile.roiwrite(tmp_path / "a.zip", [roi], mode="w")
    dataset = load_dataset(tmp_path)
    assert dataset.kind == "instances"
    assert "read as instances: each ImageJ ROI is one object" in dataset.notes
    assert np.argwhere(dataset.samples[0].labels == 1)[[0, -1]].tolist() == [[2, 3], [8, 10]]


def test_rois_of_a_hyperstack_are_on_their_time_point_and_slice(tmp_path):
    write(tmp_path / "a.tif", np.stack(PIXELS * 2).reshape(2, 3, 96, 128), imagej=True, metadata={"axes": "TZYX"})
    square = {"roitype": roifile.ROI_TYPE.RECT, "top": 2, "left": 3, "bottom": 9, "right": 11, "name": "cell"}
    roifile.roiwrite(tmp_path / "a.zip", [roifile.ImagejRoi(**square, t_position=2, z_position=1)], mode="w")
    assert [sample.labels.any() for sample in load_dataset(tmp_path).samples] == [
        False,
        False,
        False,
        True,
        False,
        False,
    ]


def challenge(folder, frames):
    """Write {number: (labels, markers)} as a video."""
    for number, (labels, markers) in frames.items():
        write(folder / "01" / f"t{number:03d}.tif", PIXELS[0][0])
        write(folder / "01_GT" / "SEG" / f"man_seg{number:03d}.tif", labels.astype(np.uint16))
        if markers is not None:
            write(folder / "01_GT" / "TRA" / f"man_track{number:03d}.tif", markers.astype(np.uint16))
    return folder


def test_background_around_uncovered_markers_of_a_challenge_is_ignored(tmp_path):
    full = LABELS[0]
    markers = np.zeros_like(full)
    for number in range(1, full.max() + 1):
        y, x = np.argwhere(full == number)[10]
        markers[y, x] = 100 + number  # tracks have numbers of their own
    partly = np.where(full == 2, 0, full)
    video = challenge(tmp_path, {1: (full, markers), 2: (partly, markers), 3: (partly, None)})
    samples = load_dataset(video).samples
    assert [(sample.name, sample.group) for sample in samples] == [(f"01_t00{i}", "01") for i in (1, 2, 3)]
    assert samples[0].ignore is None  # every marker lies on a cell
    np.testing.assert_array_equal(samples[1].ignore, unannotated(partly, markers))  # the marker of cell 2 does not
    assert samples[2].ignore is None  # without markers, nothing is known of other cells


@needs_data
def test_real_challenge_folders_are_partly_annotated_where_a_marker_is_uncovered():
    dataset = load_dataset(Path(DATA) / "DIC-C2DH-HeLa")
    partly = [sample.name for sample in dataset.samples if sample.ignore is not None]
    assert partly == [
        "01_t034", "01_t039", "01_t067", "02_t007", "02_t014", "02_t042", "02_t061", "02_t067",
    ]  # fmt: skip
    assert dataset.kind == "instances"
    assert len(dataset.samples) == 18
    assert dataset.pixel_size == pytest.approx((0.19, 0.19), rel=1e-4)


@needs_data
def test_real_membranes_are_classes_and_real_nuclei_instances():
    membranes = load_dataset(Path(DATA) / "isbi2012" / "train")
    assert (len(membranes.samples), membranes.kind, membranes.class_names) == (
        30,
        "classes",
        ("background", "foreground"),
    )
    nuclei = load_dataset(Path(DATA) / "dsb2018")
    assert (len(nuclei.samples), nuclei.kind, nuclei.channels) == (40, "instances", 3)


def test_one_frame_of_background_is_not_an_error():
    dataset = from_arrays(PIXELS[:2], [LABELS[0], np.zeros((96, 128), int)])
    assert dataset.kind == "instances"


def scribbles():
    """Strokes of class 1 and 2, in the first image also of 3, in the last only of 1, in one piece each; else 0."""
    labels = [np.zeros((96, 128), int) for _ in range(3)]
    for truth in labels:
        truth[10, 5:100], truth[40:42, 20:90] = 1, 2
    labels[0][60:80, 7] = 3
    labels[2][labels[2] == 2] = 1
    return labels


def test_pixels_with_the_unlabeled_value_are_ignored_and_not_a_class(tmp_path):
    dataset = load_dataset(folder_of(tmp_path, labels=scribbles()), unlabeled=0)
    assert (dataset.kind, dataset.class_names) == ("classes", ("class 1", "class 2", "class 3"))
    for sample, drawn in zip(dataset.samples, scribbles(), strict=True):
        np.testing.assert_array_equal(sample.ignore, drawn == 0)
        np.testing.assert_array_equal(sample.labels, np.maximum(drawn, 1) - 1)
    assert "read as classes: label 0 means unannotated, so there is no background for instances" in dataset.notes
    assert any(note.startswith("pixels with label 0 are unannotated, as specified: 98.") for note in dataset.notes)
    assert check(tmp_path, unlabeled=0) == []  # also not that some images have one class only


def test_a_label_for_unannotated_pixels_combines_with_ignore_masks(tmp_path):
    labels = [np.where(truth > 0, 2, 1) for truth in LABELS]
    for truth in labels:
        truth[:10] = 7
    ignore = np.zeros((96, 128), np.uint8)
    ignore[50:60] = 1
    dataset = load_dataset(folder_of(tmp_path, labels=labels, ignore=[ignore]), unlabeled=7)
    assert (dataset.kind, dataset.class_names) == ("classes", ("class 1", "class 2"))
    for index, sample in enumerate(dataset.samples):
        expected = labels[index] == 7
        np.testing.assert_array_equal(sample.ignore, expected | (ignore > 0) if index == 0 else expected)
        np.testing.assert_array_equal(sample.labels[~sample.ignore], labels[index][~sample.ignore] - 1)


def test_instances_may_have_a_label_for_unannotated_pixels(tmp_path):
    labels = [truth.copy() for truth in LABELS]
    for truth in labels:
        truth[:, 100:] = 99
    dataset = load_dataset(folder_of(tmp_path, labels=labels), unlabeled=99)
    assert dataset.kind == "instances"
    for sample, truth in zip(dataset.samples, LABELS, strict=True):
        np.testing.assert_array_equal(sample.labels[:, :100], truth[:, :100])
        assert sample.ignore[:, 100:].all()
        assert not sample.ignore[:, :100].any()


def test_an_impossible_unlabeled_value_is_refused(tmp_path):
    folder_of(tmp_path, labels=scribbles())
    with pytest.raises(
        DatasetError, match=r"no pixel has label 255 \(--unlabeled\), found labels 0, 1, 2, 3; choose one"
    ):
        load_dataset(tmp_path, unlabeled=255)
    with pytest.raises(
        DatasetError,
        match=r"has instances, where label 0 is background, but --unlabeled 0 .*; mark unannotated pixels in an ignore",
    ):
        load_dataset(tmp_path, unlabeled=0, kind="instances")


def change(what, **to):
    """The arrays of a good data set with one of them replaced."""
    arrays = {"images": list(PIXELS), "labels": list(LABELS), **to}
    return what, arrays


ONE = np.ones((96, 128), int)
MANY = np.kron(np.arange(12 * 16).reshape(12, 16), np.ones((8, 8), int))
BLURRED = np.rint(np.clip(60 - np.hypot(*np.mgrid[:96, :128]), 0, 9) * 25).astype(int)
NAN = np.where(ONE.cumsum().reshape(96, 128) == 1, np.nan, 0.5)
TWO_CHANNELS = np.zeros((2, 96, 128), np.uint8)
BAD = [
    change(
        "image 1 has 96 x 128 pixels, but its labels have 95 x 128; export both", labels=[LABELS[0], LABELS[1][1:], ONE]
    ),
    change(
        r"image 0 has shape \(96, 128, 3\), which looks like \(Y, X, C\), expected .*; move the channels first with",
        images=[np.ones((96, 128, 3))] * 3,
    ),
    change("image 2 has 1 NaN or infinite pixel, the first at", images=[*PIXELS[:2], NAN]),
    change("the data set has only one label: every annotated pixel is 1; annotate", labels=[ONE] * 3),
    change("the data set has only one label: every annotated pixel is 0; annotate", labels=[0 * ONE] * 3),
    change("every annotated pixel is 1", labels=[(image > 0) * 1 for image in LABELS], ignore=[i == 0 for i in LABELS]),
    change("image 0 has no annotated pixels: all are ignored; annotate part of it", ignore=[ONE, None, None]),
    change("image 0 has 96 x 128 pixels, but its ignore mask has 2 x 2; export both", ignore=[np.eye(2), None, None]),
    change(
        "label image 2 has intermediate values along its edges, as after interpolation, .*; export it again",
        labels=[*LABELS[:2], BLURRED],
    ),
    change("label image 0 has negative labels, such as -1", labels=[-ONE, *LABELS[1:]]),
    change("image 1 has 2 channels, but most images have 1; convert it", images=[PIXELS[0], TWO_CHANNELS, PIXELS[2]]),
    change(
        "the data set has 192 different labels, but classes can be at most 64; if the labels are instances",
        labels=[MANY] * 3,
        kind="classes",
    ),
    change(
        "the data set has only labels 1 and 2, but instances need background 0; set background to 0",
        labels=[np.where(labels > 0, 2, 1) for labels in LABELS],
        kind="instances",
    ),
    change(
        r"label image 1 has shape \(\d+, \d+, 3\), expected \(Y, X\); give one label per pixel",
        labels=[LABELS[0], np.stack([LABELS[1]] * 3, -1), LABELS[2]],
    ),
    change("got 3 images and 2 label images; give one of each per image", labels=LABELS[:2]),
]


@pytest.mark.parametrize(("sentence", "arrays"), BAD)
def test_what_cannot_be_trained_on_is_refused_in_one_sentence(sentence, arrays):
    with pytest.raises(DatasetError, match=sentence) as caught:
        from_arrays(**arrays)
    assert "\n" not in str(caught.value)


def test_a_broken_folder_names_the_first_error_and_counts_the_others(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "images" / "0.tif").write_text("text")
    write(tmp_path / "labels" / "1.tif", LABELS[1][:50])
    with pytest.raises(
        DatasetError, match=rf"0.tif is not a TIFF, .* \(and 1 more: septum check {tmp_path} lists them\)"
    ):
        load_dataset(tmp_path)
    pairs = [(tmp_path / "images" / f"{i}.tif", tmp_path / "labels" / f"{i}.tif", None) for i in range(3)]
    with pytest.raises(DatasetError, match=r"0.tif is not a TIFF, .* \(and 1 more\)$"):  # no one path to check
        load_pairs(pairs)


def test_a_stack_with_too_few_label_slices_is_refused(tmp_path):
    write(tmp_path / "cells.tif", np.concatenate(PIXELS), metadata={"axes": "ZYX"}, imagej=True)
    write(tmp_path / "cells_mask.tif", np.stack(LABELS[:2]).astype(np.uint16), metadata={"axes": "ZYX"})
    with pytest.raises(
        DatasetError, match=r"cells_mask.tif has 2 frames, but its image cells.tif has 3 frames; save one"
    ):
        load_dataset(tmp_path)


def test_markers_with_another_size_are_refused(tmp_path):
    video = challenge(tmp_path, {1: (LABELS[0], LABELS[0][:50])})
    with pytest.raises(
        DatasetError,
        match=r"man_track001.tif has 1 frame of 50 x 128 pixels, but man_seg001.tif has 1 frame of 96 x 128; export",
    ):
        load_dataset(video)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_that_is_empty_or_missing_says_what_to_do(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DatasetError, match=r"(nowhere does not exist; check|empty has no images; expected images/ and labels/)"
    ):
        load_dataset(tmp_path / name)


def test_a_missing_channel_is_refused(tmp_path):
    folder_of(tmp_path)
    with pytest.raises(
        DatasetError,
        match=r"0.tif has 1 channel, counted from 0, but channel 2 was requested; omit the channel \(and 2 more",
    ):
        load_dataset(tmp_path, channel=2)
