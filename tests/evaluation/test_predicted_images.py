import json

import numpy as np
import tifffile

from septum.data.files import write_text
from septum.evaluation.evaluate import evaluate_files
from septum.evaluation.predicted_images import predicted_images


def folders(tmp_path):
    """Predictions and truth of a and b, and images of both in a folder that neither of the two lies beside."""
    truth = np.zeros((8, 8), np.uint16)
    truth[2:5, 2:5] = 1
    for number, name in enumerate("ab", 1):
        for file in (f"masks/{name}_labels.tif", f"truth/{name}.tif", f"elsewhere/{name}.tif"):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / file, truth * number, photometric="minisblack")
    return tmp_path / "masks", tmp_path / "truth", tmp_path / "elsewhere"


def journal(masks, **images):
    entries = {stem: {"key": {}, "outputs": [], "objects": 1, "image": str(path)} for stem, path in images.items()}
    write_text(masks / "predictions.json", json.dumps(entries))


def seen(evaluation):
    """The largest pixel of every image, None without an image."""
    return [None if image.image is None else int(image.image().max()) for image in evaluation.images]


def test_images_are_those_that_predict_recorded(tmp_path):
    masks, truth, images = folders(tmp_path)
    assert seen(evaluate_files(masks, truth)) == [None, None]
    journal(masks, a=images / "a.tif", b=images / "b.tif")
    assert seen(evaluate_files(masks, truth)) == [1, 2]
    renamed = (truth / "b.tif").rename(tmp_path / "other_name.tif")
    assert seen(evaluate_files(masks / "b_labels.tif", renamed)) == [2]


def test_images_that_were_given_or_lie_beside_the_truth_come_first(tmp_path):
    masks, truth, images = folders(tmp_path)
    journal(masks, a=images / "a.tif", b=images / "a.tif")
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.full((8, 8), 9, np.uint8))
    assert seen(evaluate_files(masks, truth)) == [9, 1]
    assert seen(evaluate_files(masks, truth, images=images)) == [1, 2]


def test_a_streamed_plan_names_its_image_too(tmp_path):
    masks, _, images = folders(tmp_path)
    write_text(masks / "a_plan.json", json.dumps({"image_path": str(images / "a.tif")}))
    journal(masks, b=images / "b.tif")
    assert predicted_images(masks) == {"a": images / "a.tif", "b": images / "b.tif"}


def test_older_journals_missing_images_and_foreign_files_name_none(tmp_path):
    masks, truth, _ = folders(tmp_path)
    journal(masks, a=tmp_path / "moved.tif")
    assert predicted_images(masks) == {}
    for text in ('{"a": {"key": {}, "outputs": [], "objects": 1}}', "[1, 2]", '{"a": 3, "b": {"image": 4}}', "{", ""):
        write_text(masks / "predictions.json", text)
        assert predicted_images(masks) == {}
    assert seen(evaluate_files(masks, truth)) == [None, None]
