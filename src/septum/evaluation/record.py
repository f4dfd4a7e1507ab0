"""The record of an evaluation: scores per image and over all images, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from septum.choices import Kind
from septum.core.metrics import confidence, ctc, isbi, matching, overlap
from septum.core.metrics.confidence import Interval
from septum.core.metrics.ctc import FrameScores, SequenceScores
from septum.core.metrics.isbi import Best, SliceCounts, StackScores
from septum.core.metrics.matching import MatchingScores
from septum.core.metrics.overlap import OverlapScores
from septum.core.metrics.surface import SurfaceScores
from septum.errors import DatasetError
from septum.evaluation.object_errors import KINDS, Objects
from septum.evaluation.reading import Arrays
from septum.words import plural

Ratio = tuple[float, float]  # a score as numerator and denominator; both are summed over pixels, objects or images

# name in JSON -> name in tables
SCORE_NAMES = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "mean_matched_iou": "mean IoU",
    "panoptic_quality": "PQ",
    "average_precision": "AP",
    "mean_average_precision": "mAP",
    "aggregated_jaccard": "AJI",
    "seg": "SEG",
    "det": "DET",
    "pixel_error": "pixel error",
    "iou": "IoU",
    "dice": "Dice",
    "hausdorff_95_px": "HD95 px",
    "hausdorff_95_um": "HD95 µm",
    "mean_surface_distance_px": "MSD px",
    "mean_surface_distance_um": "MSD µm",
    "pixel_f_error": "1 - pixel F",
    "warping_error": "warping error",
    "rand_error": "Rand error",
    "v_rand": "V_Rand",
    "v_info": "V_Info",
}
_MEANS_OVER_IMAGES = ("hausdorff", "mean_surface", "v_rand", "v_info")  # means over images
_SEG_KEYS = ("jaccard_per_reference_label", "seg_over_these_frames", "n_reference")


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """Everything measured on one image, and how to read the image again."""

    name: str
    overlap: OverlapScores
    surface: dict[int, SurfaceScores]  # class -> distances between outlines
    objects: Objects
    ctc: FrameScores | None
    isbi: tuple[SliceCounts, ...]  # per threshold
    video: str
    ignored_pixels: int  # not scored
    partly_annotated: bool  # pixels and objects are compared only on outlined cells
    arrays: Callable[[], Arrays]
    image: Callable[[], np.ndarray] | None  # (C, Y, X)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Predictions compared with the truth: one record per image, and the scores over all of them."""

    kind: Kind
    classes: tuple[int, ...]  # their numbers in the truth; (0, 1) for background and foreground
    measures: dict[str, str]  # name -> what it measures, and why it was chosen
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    detections: tuple[FrameScores, ...] | None  # of markers; () if a challenge has none; None: from the labels

    def __repr__(self) -> str:
        names = [name for name in self.scores if name not in ("precision", "recall")][:3]
        scores = ", ".join(f"{name} {self.scores[name].value:.3f}" for name in names)
        return f"<Evaluation of {plural(len(self.images), 'image')}, {self.kind}: {scores}>"

    def __str__(self) -> str:
        """Return the scores as tables, for print."""
        from septum.evaluation.tables import score_tables  # which imports this module

        return "\n\n".join(map(str, score_tables(self)))

    @property
    def note(self) -> str:
        """What was compared, how the labels were read and which measures were taken, one line each."""
        return "\n".join([*self.notes, *(f"{name}: {why}" for name, why in self.measures.items())])

    @cached_property
    def overlap(self) -> OverlapScores:
        """Pixel scores over all images."""
        return overlap.pool([image.overlap for image in self.images])

    @cached_property
    def matching(self) -> MatchingScores | None:
        """Object scores over all images, if the labels are instances."""
        return matching.pool([image.objects.scores for image in self.images]) if "matching" in self.measures else None

    @cached_property
    def isbi(self) -> StackScores | None:
        """ISBI 2012 scores over all slices that have cell interior, by their position among the images."""
        return (
            isbi.pool({k: image.isbi for k, image in enumerate(self.images) if image.isbi})
            if "isbi" in self.measures
            else None
        )

    @cached_property
    def ctc(self) -> SequenceScores | None:
        """All frames as one sequence. In a challenge DET is measured on the markers, and undefined without them."""
        return self._sequence("") if "ctc" in self.measures else None

    def _sequence(self, video: str) -> SequenceScores:
        """Return SEG and DET of one video, or of all if `video` is empty."""
        several = len({image.video for image in self.images}) > 1
        frames = [
            replace(image.ctc, frame=f"{image.video}_{image.ctc.frame}") if several and not video else image.ctc
            for image in self.images
            if image.ctc is not None and (not video or image.video == video)
        ]
        scores, detections = ctc.pool(frames), self._detections(video)
        if not detections:
            return scores
        detected = ctc.pool(detections)
        detection_fields = ("det", "aogm_d", "aogm_d0", "n_split", "n_missed", "n_invented")
        return replace(scores, **{name: getattr(detected, name) for name in detection_fields})

    def _detections(self, video: str) -> list[FrameScores]:
        """Return the detections of markers in one video, or in all if `video` is empty."""
        return [frame for frame in self.detections or () if not video or frame.frame.startswith(f"{video}_")]

    @cached_property
    def ratios(self) -> dict[str, list[Ratio]]:
        """Every score that is a ratio of sums, per image; ``iou.1`` is the IoU of class 1."""
        rows = [self._ratios(image) for image in self.images]
        table = {
            name: [row.get(name, (0.0, 0.0)) for row in rows] for name in dict.fromkeys(n for row in rows for n in row)
        }
        if "ctc" in self.measures:
            frames = [image.ctc for image in self.images if image.ctc] if self.detections is None else self.detections
            table["det"] = [_detection(frame) for frame in frames]
        return table

    def _ratios(self, image: ImageRecord) -> dict[str, Ratio]:
        found: dict[str, Ratio] = {}
        if "matching" in self.measures:
            at, scores = image.objects.scores.per_threshold[0], image.objects.scores
            found |= {
                "f1": (2 * at.tp, 2 * at.tp + at.fp + at.fn),
                "precision": (at.tp, at.tp + at.fp),
                "recall": (at.tp, at.tp + at.fn),
                "mean_matched_iou": (at.iou_sum, at.tp),
                "panoptic_quality": (at.iou_sum, at.tp + (at.fp + at.fn) / 2),
                "average_precision": (at.tp, at.tp + at.fp + at.fn),
                "aggregated_jaccard": (scores.aggregated_intersection, scores.aggregated_union),
            }
        if image.ctc is not None:
            found["seg"] = (sum(each.jaccard for each in image.ctc.objects), len(image.ctc.objects))
        if "overlap" in self.measures:
            found["pixel_error"] = (image.overlap.wrong_pixels, image.overlap.n_pixels)
            for each in image.overlap.classes:
                both = each.truth_pixels + each.prediction_pixels
                number = self.classes[each.label]
                found[f"iou.{number}"] = (each.intersection, both - each.intersection)
                found[f"dice.{number}"] = (2 * each.intersection, both)
            for label, distances in image.surface.items():
                for name, value in asdict(distances).items():
                    if name != "reason" and value is not None:
                        found[f"{name}.{self.classes[label]}"] = (value, 1)
        if image.isbi:
            at_best = {name: self._at_best(image, name) for name in ISBI_RATIOS}
            found |= {name: ratio(at_best[name]) for name, ratio in ISBI_RATIOS.items()}
        return found

    def _at_best(self, image: ImageRecord, name: str) -> SliceCounts:
        """Return the counts of a slice at the threshold that is best for all slices together."""
        return next(counts for counts in image.isbi if counts.threshold == self.best(name).threshold)

    def best(self, name: str) -> Best:
        """Return the best value of a challenge score over all thresholds, and its threshold."""
        assert self.isbi is not None
        return self.isbi.best["pixel_error" if name == "pixel_f_error" else name]

    @cached_property
    def scores(self) -> dict[str, Interval]:
        """Every score over all images, with its 95 % interval if there are enough images or objects."""
        scores = {name: self._interval(name, parts) for name, parts in self.ratios.items() if sum(d for _, d in parts)}
        if self.matching is not None:
            scores["mean_average_precision"] = self._over_thresholds(self.matching.mean_average_precision)
        return _in_order(scores)

    def _over_thresholds(self, value: float) -> Interval:
        return Interval(value, None, None, len(self.images), "image", "not available for a mean over thresholds")

    def _interval(self, name: str, parts: Sequence[Ratio]) -> Interval:
        """Resample images, or objects if there are fewer than five images."""
        units = [part for part in parts if any(part)]  # invented objects lower DET even where there are no true ones
        if len(units) >= confidence.FEWEST["image"]:
            return confidence.bootstrap(units, unit="image", statistic=_ratio)
        by_object = list(self._object_ratios(name))
        if not by_object:
            interval = confidence.bootstrap(units, unit="image", statistic=_ratio)
            return replace(
                interval, reason=f"{plural(len(units), 'image')}, an interval needs {confidence.FEWEST['image']}"
            )
        interval = confidence.bootstrap(by_object, unit="object", statistic=_ratio)
        if interval.low is None:
            units_found = f"{plural(len(units), 'image')} and {plural(len(by_object), 'object')}"
            return replace(interval, reason=f"{units_found}, an interval needs 5 images or 20 objects")
        return interval

    def _object_ratios(self, name: str) -> Iterator[Ratio]:
        """Yield what every object adds to a score; nothing for pixel scores."""
        if name == "seg":
            for image in self.images:
                yield from ((each.jaccard, 1) for each in (image.ctc.objects if image.ctc else ()))
        parts = _OBJECT_RATIOS.get(name)
        if parts is None:
            return
        for image in self.images:
            for k, row in enumerate(image.objects.rows):
                ratio = parts("tp" if row.matched else "fn" if k < image.objects.n_truth else "fp", row.iou)
                if ratio[1]:
                    yield ratio

    def compare(self, other: Evaluation) -> dict[str, Interval]:
        """Return each score minus that of other predictions for the same images, with its 95 % interval.

        Both are resampled together by image, which needs five images (`septum.core.metrics.confidence.compare`).
        An image counts if it adds to the sums of either; for a mean over images, if both have a value for it.

        Raises
        ------
        DatasetError
            The other evaluation covers other images.
        """
        if [image.name for image in self.images] != [image.name for image in other.images]:
            raise DatasetError(
                "a comparison needs the same images in both evaluations; score both against the same truth"
            )
        differences = {}
        for name in (name for name in self.ratios if name in self.scores and name in other.scores):
            needs = all if name.startswith(_MEANS_OVER_IMAGES) else any
            pairs = zip(self.ratios[name], other.ratios[name], strict=False)
            kept = [pair for pair in pairs if needs(any(part) for part in pair)]
            if kept:
                own, theirs = (np.array(side, float) for side in zip(*kept, strict=True))
                differences[name] = confidence.compare(own, theirs, unit="image", statistic=_ratio)
        if self.matching is not None and other.matching is not None:
            means = self.matching.mean_average_precision, other.matching.mean_average_precision
            differences["mean_average_precision"] = self._over_thresholds(means[0] - means[1])
        return _in_order(differences)

    def warnings_with(self, other: Evaluation | None) -> tuple[str, ...]:
        """Return the warnings, and those about the other predictions in a comparison."""
        return self.warnings + tuple(f"of the other predictions: {each}" for each in (other.warnings if other else ()))

    def image_scores(self, k: int) -> dict[str, float | None]:
        """Return every score of one image, None where it is undefined."""
        found = {name: _value(parts[k]) for name, parts in self.ratios.items() if name != "det"}
        if "matching" in self.measures:
            scores = self.images[k].objects.scores
            empty = scores.n_truth == scores.n_prediction == 0
            found["mean_average_precision"] = None if empty else scores.mean_average_precision
        return found

    def as_json(self, other: Evaluation | None = None) -> dict[str, Any]:
        """Return everything as plain values, with the difference to `other` predictions for the same images if given.

        ``isbi`` and ``ctc`` have the keys of the challenges' own logs.
        """
        answer: dict[str, Any] = {
            "kind": self.kind,
            "classes": list(self.classes),
            "measures": self.measures,
            "notes": list(self.notes),
            "warnings": list(self.warnings_with(other)),
            "overall": _nested({name: interval.value for name, interval in self.scores.items()}),
            "intervals": _nested({name: asdict(interval) for name, interval in self.scores.items()}),
            "errors": {kind: sum(image.objects.count(kind) for image in self.images) for kind in self.error_kinds},
            "images": [
                {
                    "image": image.name,
                    **_nested(self.image_scores(k)),
                    "errors": {kind: image.objects.count(kind) for kind in self.error_kinds},
                }
                for k, image in enumerate(self.images)
            ],
        }
        if self.matching is not None:
            answer["matching"] = asdict(self.matching)
        if self.isbi is not None:
            answer["isbi"] = asdict(self.isbi)
            per_slice = answer["isbi"].pop("per_slice")
            answer["isbi"]["per_slice"] = {self.images[k].name: scores for k, scores in per_slice.items()}
        if self.ctc is not None:
            answer["ctc"] = self._ctc_json("")
            if len({image.video for image in self.images}) > 1:
                scored = dict.fromkeys(image.video for image in self.images if image.ctc and image.ctc.objects)
                answer["ctc"]["sequences"] = {video: self._ctc_json(video) for video in scored}
        if other is not None:
            difference = {name: asdict(interval) for name, interval in self.compare(other).items()}
            answer["difference"] = _nested(difference)
        return answer

    def _ctc_json(self, video: str) -> dict[str, Any]:
        """Return the keys of the challenge's log for one video, or all; those of detection only if it was measured."""
        found = asdict(self._sequence(video))
        detected = self.detections is None or bool(self._detections(video))
        return {name: found[name] for name in found if detected or name in _SEG_KEYS}

    @property
    def error_kinds(self) -> tuple[str, ...]:
        """Kinds of error that can occur; objects can be mislabelled only if there are several classes of them."""
        return KINDS if len(self.classes) > 2 else KINDS[:-1]


ISBI_RATIOS: dict[str, Callable[[SliceCounts], Ratio]] = {
    "pixel_f_error": lambda at: (at.pixels.fp + at.pixels.fn, 2 * at.pixels.tp + at.pixels.fp + at.pixels.fn),
    "warping_error": lambda at: (at.mismatch_pixels["split"] + at.mismatch_pixels["merger"], at.n_pixels),
    "rand_error": lambda at: (at.rand.fp + at.rand.fn, 2 * at.rand.tp + at.rand.fp + at.rand.fn),
    "v_rand": lambda at: (at.v_rand.f_score, 1),
    "v_info": lambda at: (at.v_info, 1),
}

_OBJECT_RATIOS: dict[str, Callable[[str, float], Ratio]] = {
    "f1": lambda role, iou: (2, 2) if role == "tp" else (0, 1),
    "precision": lambda role, iou: (role == "tp", role != "fn"),
    "recall": lambda role, iou: (role == "tp", role != "fp"),
    "mean_matched_iou": lambda role, iou: (iou, 1) if role == "tp" else (0, 0),
    "panoptic_quality": lambda role, iou: (iou, 1) if role == "tp" else (0, 0.5),
    "average_precision": lambda role, iou: (role == "tp", 1),
}


def _detection(frame: FrameScores) -> Ratio:
    """Return DET as a ratio: 1 minus the cost of the errors over the cost of missing every object."""
    cost = ctc.SPLIT * frame.n_split + ctc.MISSED * frame.n_missed + ctc.INVENTED * frame.n_invented
    return ctc.MISSED * len(frame.objects) - cost, ctc.MISSED * len(frame.objects)


def _ratio(sums: confidence.Sums) -> confidence.Sums:
    """Return sum over sum, at least 0: DET is the only score that could be negative."""
    ratio: confidence.Sums = np.maximum(confidence.mean(sums), 0)
    return ratio


def _value(ratio: Ratio) -> float | None:
    return float(_ratio(np.array(ratio, float))) if ratio[1] else None


def _in_order(scores: dict[str, Interval]) -> dict[str, Interval]:
    """Sort scores in the order of `SCORE_NAMES`."""
    order = list(SCORE_NAMES)
    return dict(sorted(scores.items(), key=lambda item: order.index(item[0].split(".")[0])))


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """``{"iou.1": 0.9}`` -> ``{"iou": {"1": 0.9}}``."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        score, _, number = name.partition(".")
        if number:
            nested.setdefault(score, {})[number] = value
        else:
            nested[score] = value
    return nested
