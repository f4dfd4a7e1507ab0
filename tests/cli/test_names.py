"""check, train, predict and evaluate agree on which files belong together, and on their order."""

import contextlib
import io
import json
import sys
import unicodedata

import numpy as np
import pytest
import tifffile

from septum import cli
from septum.data.simulate import cells

TINY = ["--steps", "2", "--set", "unet.base_channels=2", "--set", "unet.depth=1", "--set", "patch=16"]
NFC, NFD = (unicodedata.normalize(form, "Zellkörper") for form in ("NFC", "NFD"))
# images as they are called, and their labels beside them or in a folder, in the order in which all commands take them
NAMES = {
    "accents": ("images", [f"{NFD} 2.tif", f"{NFC} 10.tif"], [f"{NFC} 2.tif", f"{NFD} 10.tif"]),
    "upper case": ("", ["a2.TIF", "a10.OME.TIF"], ["a2_Mask.tif", "a10_LABELS.TIF"]),
}


def septum(*words):
    """Run the command line in this process; returns what it prints."""
    out, argv = io.StringIO(), sys.argv
    sys.argv = ["septum", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as err:
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = argv
    assert code == 0, err.getvalue()
    return out.getvalue()


@pytest.mark.parametrize("case", NAMES)
def test_all_commands_pair_the_same_files_in_the_same_order(case, tmp_path):
    place, images, labels = NAMES[case]
    data, truth = tmp_path / "cells", tmp_path / "cells" / ("labels" if place else "")
    for folder in (data / place, truth, tmp_path / "truth"):
        folder.mkdir(parents=True, exist_ok=True)
    for seed, (image, label) in enumerate(zip(images, labels, strict=True)):
        pixels, objects = cells((64, 64), 4, seed)
        tifffile.imwrite(data / place / image, pixels[0])
        for folder in (truth, tmp_path / "truth"):
            tifffile.imwrite(folder / label, objects.astype(np.uint16))
    names = [unicodedata.normalize("NFC", image.split(".")[0]) for image in images]

    assert json.loads(septum("check", data, "--json")) == []

    septum("train", data, "--output", tmp_path / "run", *TINY)
    samples = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert [unicodedata.normalize("NFC", name) for name in samples] == names

    # the labels of a flat folder lie among its images, and are images to `predict`
    given = data / place if place else data / "*[02].*"
    septum("predict", tmp_path / "run", given, "--output", tmp_path / "out")
    journal = json.loads((tmp_path / "out" / "predictions.json").read_text(encoding="utf-8"))
    assert [*journal] == [image.split(".")[0] for image in images]

    scored = json.loads(septum("evaluate", tmp_path / "out", tmp_path / "truth", "--json"))
    assert [image["image"] for image in scored["images"]] == names
