"""Every planted fault is found with its code and file; intact data, real and simulated, have no findings."""

import os
import re
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import septum.data.check
from septum.core.objects import smallest_inner_object
from septum.core.targets.rim import needed_reach
from septum.data.check import check, check_dataset, merged_objects
from septum.data.dataset import from_arrays, load_dataset
from septum.data.findings import LEVELS
from septum.data.labels import MAX_LABEL
from septum.data.markers import unannotated
from septum.data.simulate import cells, membranes
from septum.training.holdout import hold_out

DATA = os.environ.get("SEPTUM_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="SEPTUM_DATA does not name a folder of data sets")


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", **options)


@pytest.fixture
def data(tmp_path):
    """Six sound pairs."""
    for seed in range(6):
        image, labels = cells((96, 128), 8, seed)
        write(tmp_path / "images" / f"{seed}.tif", image[0])
        write(tmp_path / "labels" / f"{seed}.tif", labels.astype(np.uint16))
    return tmp_path


def label_of(data, name):
    return tifffile.imread(data / "labels" / f"{name}.tif")


def image_of(data, name):
    return tifffile.imread(data / "images" / f"{name}.tif")


def jpeg_label(data):
    (data / "labels" / "3.tif").unlink()
    Image.fromarray(label_of(data, 2).astype(np.uint8)).save(data / "labels" / "3.jpg")


def rgb_label(data):
    labels = label_of(data, 3)
    (data / "labels" / "3.tif").unlink()
    Image.fromarray(np.stack([labels, labels * 3, labels * 7], -1).astype(np.uint8)).save(data / "labels" / "3.png")


def merge_touching(data):
    """Give two touching round cells one number."""
    labels = np.zeros((96, 128), np.uint16)
    y, x = np.mgrid[:96, :128]
    labels[np.hypot(y - 30, x - 30) < 12] = 1
    labels[np.hypot(y - 30, x - 52) < 12] = 1
    labels[np.hypot(y - 70, x - 80) < 12] = 2
    write(data / "labels" / "3.tif", labels)


def share_number(data):
    labels = label_of(data, 3)
    sizes = np.bincount(labels.ravel())[1:]
    first, second = np.argsort(sizes)[-2:] + 1
    labels[labels == first] = second
    write(data / "labels" / "3.tif", labels)


def truncate(path):
    path.write_bytes(path.read_bytes()[:5000])


def infinite(data):
    image = image_of(data, 3).astype(np.float32)
    image[5, 5] = np.inf
    write(data / "images" / "3.tif", image)


def saturate(data):
    image = image_of(data, 3).astype(int) * 4
    write(data / "images" / "3.tif", image.clip(max=255).astype(np.uint8))


def resize(data):
    """Smooth the labels, as an image program does that does not know them."""
    labels = Image.fromarray(label_of(data, 3).astype(np.int32))
    write(data / "labels" / "3.tif", np.asarray(labels.resize((128, 96), Image.Resampling.BILINEAR, (0, 0, 96, 70))))


def give_pixel_sizes(data):
    for name, size in (("0", 0.2), ("1", 0.2), ("2", 0.2), ("3", 0.3), ("4", 0.2), ("5", 0.201)):
        options = {"imagej": True, "resolution": (1 / size, 1 / size), "metadata": {"unit": "um"}}
        write(data / "images" / f"{name}.tif", image_of(data, name), **options)


def two_channels(data):
    write(data / "images" / "3.tif", np.stack([image_of(data, 3)] * 2), metadata={"axes": "CYX"})


def take_markers(data):
    """Make a challenge folder of it, with markers for all frames but one."""
    for seed in range(6):
        video, labels = data / "01_GT", label_of(data, seed)
        (data / "01").mkdir(exist_ok=True)
        (data / "images" / f"{seed}.tif").rename(data / "01" / f"t{seed}.tif")
        write(video / "SEG" / f"man_seg{seed}.tif", labels)
        if seed != 3:
            write(video / "TRA" / f"man_track{seed}.tif", labels)
    shutil.rmtree(data / "images")


FAULTS = {
    "missing-markers": take_markers,
    "missing-label": lambda data: (data / "labels" / "3.tif").unlink(),
    "missing-image": lambda data: (data / "images" / "3.tif").rename(data / "images" / "three.tif"),
    "ambiguous-name": lambda data: Image.fromarray(image_of(data, 3)).save(data / "images" / "3.png"),
    "ignored-file": lambda data: (data / "labels" / "3.npy").touch(),
    "size-mismatch": lambda data: write(data / "labels" / "3.tif", label_of(data, 3)[:-1]),
    "frame-mismatch": lambda data: write(data / "labels" / "3.tif", np.stack([label_of(data, 3)] * 2)),
    "unreadable": lambda data: truncate(data / "images" / "3.tif"),
    "label-format": rgb_label,
    "label-values": lambda data: write(data / "labels" / "3.tif", label_of(data, 3) / np.float32(2)),
    "grey-edges": resize,
    "nothing-annotated": lambda data: write(data / "ignore" / "3.tif", np.ones((96, 128), np.uint8)),
    "not-finite": infinite,
    "channels-differ": two_channels,
    "empty-labels": lambda data: write(data / "labels" / "3.tif", np.zeros((96, 128), np.uint8)),
    "constant-image": lambda data: write(data / "images" / "3.tif", np.full((96, 128), 7, np.uint8)),
    "saturated": saturate,
    "depth-differs": lambda data: write(data / "images" / "3.tif", image_of(data, 3).astype(np.uint16) * 200),
    "pixel-size-differs": give_pixel_sizes,
    "merged": merge_touching,
    "shared-number": share_number,
    "duplicate": lambda data: (data / "images" / "5.tif").write_bytes((data / "images" / "3.tif").read_bytes()),
}


def test_intact_simulated_data_have_no_findings(data):
    assert check(data) == []


@pytest.mark.parametrize("code", FAULTS)
def test_a_planted_fault_is_found_and_names_its_file(code, data):
    FAULTS[code](data)
    findings = check(data)
    if code == "missing-image":  # the renamed image now has no labels, and both are reported
        assert [finding.code for finding in findings] == ["missing-image", "missing-label"]
        findings = findings[:1]
    assert [finding.code for finding in findings] == [code]
    assert re.search(r"/[35]\.\w+" if code == "duplicate" else r"/(man_seg)?3\.\w+", findings[0].file)
    assert findings[0].fix
    assert findings[0].level == LEVELS[code]


def test_labels_as_jpeg_are_found(data):
    jpeg_label(data)
    assert [(finding.code, Path(finding.file).name) for finding in check(data)] == [("label-format", "3.jpg")]


def test_all_faults_at_once_are_all_found(tmp_path, data):
    """Errors do not hide one another as long as they are in different files."""
    truncate(data / "images" / "0.tif")
    write(data / "labels" / "1.tif", label_of(data, 1) / np.float32(2))
    infinite(data)
    write(data / "labels" / "2.tif", label_of(data, 2)[:-1])
    (data / "labels" / "4.tif").unlink()
    findings = check(data)
    assert Counter(finding.code for finding in findings) == Counter(
        ["unreadable", "label-values", "not-finite", "size-mismatch", "missing-label"]
    )
    assert [finding.level for finding in findings] == ["error"] * 4 + ["warning"]


def test_a_wrong_image_and_wrong_labels_of_one_pair_are_both_found(data):
    truncate(data / "images" / "3.tif")
    write(data / "labels" / "3.tif", label_of(data, 3) / np.float32(2))
    assert sorted(finding.code for finding in check(data)) == ["label-values", "unreadable"]


def test_errors_of_a_data_set_as_a_whole(tmp_path):
    assert [finding.code for finding in check(tmp_path / "nowhere")] == ["no-data"]
    assert [finding.code for finding in check(tmp_path)] == ["no-data"]
    write(tmp_path / "a.tif", np.arange(2500.0).reshape(50, 50))
    write(tmp_path / "a_mask.tif", np.ones((50, 50), np.uint8))
    assert [finding.code for finding in check(tmp_path)] == ["one-class"]


def test_the_table_of_codes_is_complete():
    table = re.findall(r"^([a-z-]+) +(error|warning) ", septum.data.check.__doc__, re.MULTILINE)
    assert dict(table) == LEVELS
    assert set(LEVELS) - set(FAULTS) == {"no-data", "one-class", "missing-file"}


def test_training_and_check_give_the_same_warnings(data):
    merge_touching(data)
    (data / "labels" / "4.tif").unlink()
    assert check_dataset(load_dataset(data)) == check(data)


def test_the_largest_labels_take_no_more_memory(data):
    share_number(data)
    labels = label_of(data, 3).astype(np.uint32)
    large = labels == np.bincount(labels[labels > 0]).argmax()  # the shared number has the most pixels
    labels[large] = MAX_LABEL
    write(data / "labels" / "3.tif", labels)
    markers = np.where(large, 1, 2 * (labels == 0))
    tracemalloc.start()
    findings = check(data)
    held_out = hold_out(from_arrays(image_of(data, 3), labels))
    smallest, unknown = smallest_inner_object(labels), unannotated(labels, markers)
    reach = needed_reach(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [finding.code for finding in findings] == ["shared-number"]
    assert str(MAX_LABEL) in findings[0].problem
    assert list(held_out.blocks) == [0]
    assert reach == needed_reach(np.where(large, 1000, labels))
    assert smallest in np.unique(labels, return_counts=True)[1]
    np.testing.assert_array_equal(unknown, labels == 0)
    assert peak < 50 * 2**20  # a table as long as the largest number takes 16 GiB


def test_dim_images_with_few_intensities_are_not_reported_as_saturated():
    _, labels = cells((96, 128), 8, 0)
    dim = np.random.default_rng(0).integers(0, 50, labels.shape)  # 2 % of the pixels at each value
    assert check_dataset(from_arrays(dim, labels)) == []


def test_stacks_name_the_slice():
    image, labels = cells((96, 128), 8, 0)
    findings = check_dataset(
        from_arrays(np.stack([image[0], image[0] * 0, image[0]]), np.stack([labels, labels, labels * 0]))
    )
    assert [(finding.code, finding.file) for finding in findings] == [
        ("constant-image", "image 1"),
        ("empty-labels", "label image 2"),
        ("duplicate", "image 2"),
    ]
    assert "but their labels differ" in findings[-1].problem


def test_membranes_as_classes_are_not_reported_as_merged_objects():
    image, labels = membranes((128, 128), 20, 0)
    assert check_dataset(from_arrays(image, np.where(labels > 0, 255, 0))) == []


@pytest.mark.parametrize(("gap", "found"), [(14, False), (18, False), (22, True), (23, True), (40, False)])
def test_two_discs_of_radius_12_are_merged_once_they_have_a_neck(gap, found):
    """At centre distance g the neck is sqrt(12**2 - (g / 2)**2) wide: half of the radius at g = 20.8."""
    y, x = np.mgrid[:60, :100]
    labels = 5 * ((np.hypot(y - 30, x - 25) < 12) | (np.hypot(y - 30, x - 25 - gap) < 12))
    if gap == 40:
        labels[:, 45:] *= 2
    assert merged_objects(labels).tolist() == ([5] if found else [])


def test_touching_objects_with_different_labels_are_not_merged():
    for seed in range(4):
        assert merged_objects(cells((200, 200), 40, seed)[1]).size == 0


@needs_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("isbi2012/train", {}),
        ("DIC-C2DH-HeLa", {}),
        # Looked at: numbers 2 of 785555c0, 18 and 356 of a102535b and 32 of c0f17283 are two nuclei each
        ("dsb2018", {"785555c0": 1, "a101a00f": 1, "a102535b": 5, "c0f17283": 2, "f4c4db3d": 1}),
    ],
)
def test_real_data_have_no_errors_and_few_warnings(name, expected):
    findings = check(Path(DATA) / name)
    assert {finding.code for finding in findings} <= {"merged"}
    assert {Path(f.file).name[:8]: len(re.findall(r"\d+", f.problem)) for f in findings} == expected
