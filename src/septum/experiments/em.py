"""ISBI 2012: membranes of neurons in electron micrographs, with the scores of the challenge."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from scipy import ndimage

from septum.core.metrics import isbi
from septum.core.overlay import paint, to_rgb
from septum.core.tiling import ArraySource
from septum.data.dataset import Dataset, Sample, load_pairs
from septum.data.files import atomic_path
from septum.data.images import open_image
from septum.data.names import is_image, visible_entries
from septum.errors import DatasetError, ImageError
from septum.experiments import figures
from septum.experiments.fold import AVERAGING, Fold, Reference, Summary, fold_folder
from septum.machine.generators import drain
from septum.model.model import Model
from septum.model.predict import segment
from septum.report.run import LEGEND
from septum.report.sections import Picture, Pictures, Section, Table, Text
from septum.training.holdout import HoldOut, hold_out, nothing_held_out
from septum.training.patches import prepare
from septum.training.records import ImagesDone
from septum.training.run import RunFolder

SLICES, BLOCK = 30, 6
CHALLENGE = "test"  # the fold that trains on all slices and predicts the test slices of the challenge
SUBMISSION = Path("challenge") / "test-volume-interior.tif"
INTERIOR = 1  # the class of pixels that are 255 in the labels
MEASURES = {
    "warping error": "warping_error",
    "Rand error": "rand_error",
    "pixel error": "pixel_error",
    "V_Rand": "v_rand",
    "V_Info": "v_info",
}
PUBLISHED = (  # test slices, March 2015 (Table 1 of the paper); V_Rand and V_Info: Guo et al., ICME 2019
    Reference(
        "U-Net, 2015 (the paper)",
        {
            "warping error": 0.000353,
            "Rand error": 0.0382,
            "pixel error": 0.0611,
            "V_Rand": 0.97276,
            "V_Info": 0.98662,
        },
    ),
    Reference("second best, 2015 (DIVE-SCI)", {"warping error": 0.000355, "Rand error": 0.0305, "pixel error": 0.0584}),
    Reference("sliding window, 2015 (IDSIA)", {"warping error": 0.000420, "Rand error": 0.0504, "pixel error": 0.0613}),
    Reference("best published since (SFCNNs)", {"V_Rand": 0.98680, "V_Info": 0.99144}),
    Reference("human values, 2015", {"warping error": 0.000005, "Rand error": 0.0021, "pixel error": 0.0010}),
)


@dataclass(frozen=True)
class _Em:
    title: str = "EM segmentation (ISBI 2012)"
    data: str = "isbi2012"
    split: Sequence[str] = (
        "The truth of the challenge's 30 test slices was never published. Here the 30 annotated slices are cut into "
        "five contiguous blocks of six. Five networks are trained, each on 24 slices, and tested on the other six. The "
        "scores are those of all tested slices together.",
        "The published scores were measured on other slices: compare the order of magnitude, not the ranking. Our "
        "networks train on 24 slices, a fifth of which are held out for validation; the paper's network had all 30. "
        "Our task is easier in one respect: the slices next to a tested block, 50 nm away, are in the training; the "
        "test volume of the challenge lies apart.",
        "Each score is the best over ten thresholds (0, 0.1, ... 0.9), one threshold for all tested slices, which is "
        "the rule of the challenge. Cell interior is foreground. A map that never falls below a threshold has no "
        "splits, so read the warping error together with its threshold.",
    )

    def folds(self, folder: Path) -> Sequence[Fold]:
        """Return five blocks of six slices, and the test slices of the challenge."""
        pairs = _pairs(folder)
        blocks = [range(start, start + BLOCK) for start in range(0, SLICES, BLOCK)]
        folds = [
            Fold(
                f"{block[0]:02d}-{block[-1]:02d}",
                f"trained on {SLICES - BLOCK} slices, tested on slices {block[0]} to {block[-1]}",
                partial(load_pairs, [pair for z, pair in enumerate(pairs) if z not in block], kind="classes"),
                partial(_samples, [pairs[z] for z in block]),
                hold_out,
            )
            for block in blocks
        ]
        if _test_images(folder):
            last = f"trained on all {SLICES} slices, predicts the test slices of the challenge (truth secret)"
            folds.append(Fold(CHALLENGE, last, partial(load_pairs, pairs, kind="classes"), list, _nothing_held_out))
        return folds

    def score(
        self, fold: Fold, folder: Path, model: Model, output: Path
    ) -> Generator[ImagesDone, None, dict[str, Any]]:
        """Predict the cell interior with every kind of averaging; score it, or write the stack for the challenge."""
        if fold.name == CHALLENGE:
            images = [open_image(path).frames[0].read() for path in _test_images(folder)]
            interior, seconds = yield from _predict(model, images, "7 rotations", fold.name)
            write_challenge_stack(output / SUBMISSION, interior)
            found = check_challenge_stack(output / SUBMISSION, images)
            return {
                "file": SUBMISSION.as_posix(),
                "averaging": "7 rotations",
                **found,
                "seconds_per_image": seconds,
            }
        samples = fold.test()
        scores: dict[str, Any] = {}
        for averaging in AVERAGING:
            interior, seconds = yield from _predict(model, [s.image for s in samples], averaging, fold.name)
            tifffile.imwrite(_map_file(output, fold, averaging), interior)
            scores[averaging] = {**_best([s.labels for s in samples], interior), "seconds_per_image": seconds}
        return scores

    def summarize(self, folder: Path, output: Path, done: Mapping[Fold, dict[str, Any]]) -> Summary:
        """Score all tested slices together, as the challenge scores its 30."""
        blocks = {fold: result for fold, result in done.items() if fold.name != CHALLENGE}
        samples = {fold: fold.test() for fold in blocks}
        truth = [sample.labels for fold in blocks for sample in samples[fold]]
        rows: list[list[object]] = [
            [reference.name, *(reference.scores.get(name) for name in MEASURES), "the 30 test slices"]
            for reference in PUBLISHED
        ]
        scores: dict[str, Any] = {}
        for averaging in AVERAGING if blocks else ():
            maps = np.concatenate([tifffile.imread(_map_file(output, fold, averaging)) for fold in blocks])
            best = _best(truth, maps)
            each = [result["scores"][averaging] for result in blocks.values()]
            scores[averaging] = best | {"slices": len(truth)}
            seconds = float(np.mean([one["seconds_per_image"] for one in each]))
            scores[averaging]["seconds_per_image"] = seconds
            name = "here, no averaging" if averaging == "none" else f"here, averaged over {averaging}"
            rows.append(
                [
                    name,
                    *(best[key]["value"] for key in MEASURES.values()),
                    f"{len(truth)} of the 30 training slices, each unseen",
                ]
            )
        tables = [
            Table(
                "Compared with the paper",
                ["", *MEASURES, "measured on"],
                rows,
                note="Errors: lower is better. V_Rand and V_Info: higher is better. The paper averaged over 7 "
                "rotations. The test truth of the challenge is secret, so ours is a cross-validation on the training "
                "slices, in five contiguous blocks of six: compare with care (see below).",
            )
        ]
        if blocks:
            tables += [_table_of_folds(blocks), _table_of_thresholds(scores)]
        sections, drawn = _pictures(output, samples)
        sections = [_submission_text(r["scores"]) for f, r in done.items() if f.name == CHALLENGE] + sections
        return Summary(scores, tables, sections, drawn)


EM = _Em()


def write_challenge_stack(path: Path, interior: np.ndarray) -> None:
    """Write a stack that the challenge accepts: (Z, Y, X) float32, 1 = cell interior (white), 0 = membrane.

    The probabilities are written unprocessed and uncompressed.
    """
    with atomic_path(path) as beside:
        tifffile.imwrite(
            beside, interior.astype(np.float32), imagej=True, photometric="minisblack", metadata={"axes": "ZYX"}
        )


def check_challenge_stack(path: Path, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """Read a stack and describe it; ImageError if the challenge would refuse it.

    Parameters
    ----------
    path : Path
        The stack.
    images : sequence of (1, Y, X) arrays
        The test slices of the challenge.

    Returns
    -------
    dict
        Shape, type and range, and the mean grey value of the images where the stack predicts interior and where
        membrane, weighted by its probabilities. Interior must be brighter; otherwise the stack is inverted or the
        network has learned nothing.

    Raises
    ------
    ImageError
        The shape or type is wrong, or values lie outside 0..1.
    """
    stack = tifffile.imread(path)
    shape = (len(images), *images[0].shape[1:])
    if stack.shape != shape or stack.dtype != np.float32:
        raise ImageError(
            f"{path} contains {stack.dtype} of shape {stack.shape}, but the challenge takes float32 of {shape}; "
            "predict it again"
        )
    if not np.isfinite(stack).all() or stack.min() < 0 or stack.max() > 1:
        raise ImageError(
            f"{path} has values from {stack.min()} to {stack.max()}, but the challenge takes probabilities in 0..1; "
            "predict it again"
        )
    grey = np.stack([image[0] for image in images]).astype(np.float64)
    return {
        "shape": list(stack.shape),
        "type": str(stack.dtype),
        "range": [float(stack.min()), float(stack.max())],
        "grey_of_interior": float((grey * stack).sum() / max(stack.sum(dtype=np.float64), 1e-9)),
        "grey_of_membrane": float((grey * (1 - stack)).sum() / max((1 - stack).sum(dtype=np.float64), 1e-9)),
    }


def _submission_text(scores: Mapping[str, Any]) -> Text:
    """Return the section about the stack for the challenge."""
    size = " x ".join(map(str, scores["shape"]))
    low, high = scores["range"]
    interior, membrane = scores["grey_of_interior"], scores["grey_of_membrane"]
    right = (
        "correct, since membranes are dark"
        if interior > membrane
        else "WRONG, since membranes are dark: the network has learned nothing, or the stack is inverted"
    )
    return Text(
        "For the challenge",
        [
            f"{scores['file']}: the test slices, predicted by a network that was trained on all {SLICES} annotated "
            f"slices, averaged over {scores['averaging']}, without pre- or post-processing. {size}, {scores['type']}, "
            f"values from {low:.3g} to {high:.3g}: 1 is cell interior (white), 0 is membrane (black).",
            f"The mean grey value of the images is {interior:.0f} in predicted interior and {membrane:.0f} in "
            f"predicted membrane: {right}.",
        ],
    )


def _images(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name; none if it does not exist."""
    return [file for file in visible_entries(folder) if is_image(file)]


def _pairs(folder: Path) -> list[tuple[Path, Path, None]]:
    images, labels = _images(folder / "images"), _images(folder / "labels")
    if [path.stem for path in images] != [path.stem for path in labels] or len(images) != SLICES:
        raise DatasetError(
            f"{folder} has {len(images)} images and {len(labels)} labels, expected the {SLICES} slices of ISBI 2012 as "
            "images/00.tif ... 29.tif and labels/ with the same names; get them with 'septum data get isbi2012'"
        )
    return [(image, label, None) for image, label in zip(images, labels, strict=True)]


def _samples(pairs: Sequence[tuple[Path, Path, None]]) -> Sequence[Sample]:
    return load_pairs(pairs, kind="classes").samples


def _test_images(folder: Path) -> list[Path]:
    return _images(folder.parent / "test" / "images")


def _nothing_held_out(_dataset: Dataset) -> HoldOut:
    return nothing_held_out()


def _map_file(output: Path, fold: Fold, averaging: str) -> Path:
    return fold_folder(output, fold) / f"interior_{averaging.replace(' ', '-')}.tif"


def _predict(
    model: Model, images: Sequence[np.ndarray], averaging: str, name: str
) -> Generator[ImagesDone, None, tuple[np.ndarray, float]]:
    """Return (Z, Y, X) probabilities of interior, and the seconds per image."""
    maps = []
    begin = time.perf_counter()
    for z, image in enumerate(images):
        yield ImagesDone(f"fold {name}: predicting, averaging {averaging}", z, len(images))
        prediction = drain(segment(model.net, model.card.config, ArraySource(image), tta=AVERAGING[averaging]))
        maps.append(np.clip(prediction.probabilities[INTERIOR], 0, 1))  # a mean of softmaxes may be 1 + 1e-7
    yield ImagesDone(f"fold {name}: predicting, averaging {averaging}", len(images), len(images))
    return np.stack(maps), (time.perf_counter() - begin) / len(images)


def _best(truth: Sequence[np.ndarray], interior: np.ndarray) -> dict[str, Any]:
    """Return the scores of the challenge, each with its best threshold."""
    best = isbi.evaluate_stack(truth, interior).best
    return {key: {"value": best[key].value, "threshold": round(best[key].threshold, 1)} for key in best}


def _table_of_folds(blocks: Mapping[Fold, dict[str, Any]]) -> Table:
    rows = [
        [fold.name, averaging, *(one[key]["value"] for key in MEASURES.values()), one["seconds_per_image"]]
        for fold, result in blocks.items()
        for averaging, one in result["scores"].items()
    ]
    return Table(
        "Every fold",
        ["slices", "averaging", *MEASURES, "seconds per slice"],
        rows,
        note="Each with the best thresholds for its six slices.",
    )


def _table_of_thresholds(scores: Mapping[str, Any]) -> Table:
    rows = [[averaging, *(one[key]["threshold"] for key in MEASURES.values())] for averaging, one in scores.items()]
    return Table("Thresholds of the first table", ["averaging", *MEASURES], rows)


def _pictures(output: Path, samples: Mapping[Fold, Sequence[Sample]]) -> tuple[list[Section], list[figures.Figure]]:
    """Draw the figures of the paper from the first tested block, and every tested slice."""
    if not samples:
        return [], []
    maps = {fold: tifffile.imread(_map_file(output, fold, "7 rotations")) for fold in samples}
    first = next(iter(samples))
    middle = BLOCK // 2
    sample, interior = samples[first][middle], maps[first][middle]
    config = RunFolder(fold_folder(output, first)).config().train
    dataset = first.train()
    learned = prepare(dataset, config, nothing_held_out(), torch.device("cpu"))[0]
    shown = dataset.samples[0]
    grey = np.repeat((255 * interior).astype(np.uint8)[..., None], 3, axis=2)
    cells, true_cells = (ndimage.label(mask)[0] for mask in (interior > 0.5, sample.labels == INTERIOR))
    drawn = [
        figures.overlap_tile(
            sample.image, grey, config.unet.depth, f"Slice {sample.name}, which the network never saw"
        ),
        figures.targets(
            shown.image,
            ndimage.label(shown.labels == INTERIOR)[0],
            np.asarray(learned.classes) == INTERIOR,
            np.asarray(learned.weights),
            f"Slice {shown.name}",
        ),
        figures.Figure(
            "figure4",
            "Fig. 4: the result",
            f"Slice {sample.name}, which the network never saw, averaged over 7 rotations. Cells are the 4-connected "
            "parts where the probability of interior is above 0.5; the outlines of the true ones are yellow.",
            [
                Picture(figures.enlarged(to_rgb(sample.image)), "image", "unseen slice"),
                Picture(figures.enlarged(grey), "probability of interior (white)", "probability of interior"),
                Picture(
                    figures.segmented(to_rgb(sample.image), cells, true_cells),
                    "predicted cells; truth in yellow",
                    "predicted cells in colours with true outlines",
                ),
            ],
            columns=3,
        ),
    ]
    every = [
        Picture(
            paint(to_rgb(one.image), (probability > 0.5).astype(np.int32), truth=one.labels, kind="classes"),
            one.name,
            f"interior of slice {one.name} against its truth",
        )
        for fold in samples
        for one, probability in zip(samples[fold], maps[fold], strict=True)
    ]
    note = "Interior above 0.5, averaged over 7 rotations: where prediction and truth differ."
    legend = {name: colour for name, colour in LEGEND.items() if name.startswith("only")}
    return [Pictures("Every tested slice", every, note=note, legend=legend)], drawn
