"""Records of a training as lines of text, for the command line and for Python; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping

from septum.training.records import Changed, EndedEarly, Finished, ImagesDone, Notice, Planned, Record, Validated

NAMES = {
    "f1": "F1",
    "mean_matched_iou": "mean IoU of matched objects",
    "mean_iou": "mean IoU",
    "pixel_error": "pixel error",
}


def describe(record: Record | ImagesDone) -> list[str]:
    """Return what a record says, as lines of text; nothing for the records of single steps and images.

    Examples
    --------
    >>> describe(Validated(50, {"score": 0.52, "f1": 0.642}, best=True, score_name="panoptic quality"))
    ['step 50: panoptic quality 0.520, F1 0.642 (best so far)']
    """
    match record:
        case Notice() | Changed() | EndedEarly():
            return [record.text]
        case Planned(run, steps, step):
            slowdown = f"deterministic: a step takes {run.deterministic:.2f} times as long" if run.deterministic else ""
            start = f"continuing after step {step} of {steps}" if step else f"plan: {steps} steps"
            pace = f", {run.step_seconds:.2f} s each" if run.step_seconds else ""
            return [*filter(None, [slowdown]), *run.changes, f"{start}{pace}; {run.held_out}"]
        case Validated(step, scores, best, score_name):
            return [f"step {step}: {describe_scores(scores, score_name)}{' (best so far)' if best else ''}"]
        case Finished(_, model_file, step, _, scores, score_name, held_out):
            return [describe_best(step, scores, score_name, held_out), f"model: {model_file}"]
    return []


def describe_best(step: int, scores: Mapping[str, float], score_name: str, held_out: str) -> str:
    """Say which weights were kept, and their scores."""
    kept = f"best step: {step}, {describe_scores(scores, score_name)}" if scores else f"last step: {step}"
    return f"{kept}; {held_out}"


def describe_scores(scores: Mapping[str, float], score_name: str) -> str:
    """Return scores as text, beginning with the one that decides which weights are kept.

    Examples
    --------
    >>> describe_scores({"score": 0.9, "mean_iou": 0.9, "pixel_error": 0.012}, "mean IoU")
    'mean IoU 0.900, pixel error 0.012'
    """
    named = {score_name: scores["score"]} | {NAMES[name]: value for name, value in scores.items() if name in NAMES}
    return ", ".join(f"{name} {value:.3f}" for name, value in named.items())
