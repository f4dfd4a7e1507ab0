"""The command evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from septum.cli.arguments import JsonOption, KindOption, QuietOption, check_outputs
from septum.errors import ConfigError


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Label images or probability maps: a file, stack or folder.")
    ],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="The true labels, named like the predictions.")],
    kind: KindOption = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Some of isbi,ctc,matching,overlap. Default: those that fit the data."),
    ] = None,
    ignore: Annotated[
        Path | None, typer.Option(help="Masks of pixels to leave out. Default: ignore/ beside TRUTH.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Images for the report. Default: images/ beside TRUTH.")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Score the inverse of the predictions.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="Other predictions of the same images; shows how the scores differ.")
    ] = None,
    as_json: JsonOption = False,
    csv: Annotated[Path | None, typer.Option(help="Write one line per object to this file.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page with curves, overlays and every error to this file.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The run folder, to show its training curve on the page.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Score predictions against the true labels."""
    from septum.cli.display import CountDisplay
    from septum.evaluation.evaluate import evaluate_files
    from septum.evaluation.tables import difference_table, objects_csv

    options: dict[str, Any] = {
        "kind": kind,
        "metrics": [name.strip() for name in metrics.split(",")] if metrics is not None else None,
        "ignore": ignore,
        "images": images,
        "invert": invert,
    }
    if run is not None and report is None:
        raise ConfigError("--run adds the training curve to the page of --report; add --report FILE")
    check_outputs(csv=csv, report=report)
    with CountDisplay(quiet, "scoring") as display:
        evaluation = evaluate_files(predictions, truth, progress=display.show, **options)
        other = evaluate_files(against, truth, progress=display.show, **options) if against is not None else None
    if report is not None:
        from septum.report.evaluation import report_evaluation

        report_evaluation(report, evaluation, other=other, run=run)
    if csv is not None:
        from septum.data.files import write_text

        write_text(csv, objects_csv(evaluation))
    if as_json:
        print(json.dumps(evaluation.as_json(other), indent=1))
        return
    print(f"{evaluation.note}\n\n{evaluation}")
    if other is not None:
        print(f"\n{difference_table(evaluation, other)}")
    for warning in evaluation.warnings_with(other):
        print(f"warning: {warning}")
    if csv is not None:
        print(f"objects: {csv}")
    if report is not None:
        print(f"report: {report}")
    elif not quiet:
        print("next: add --report errors.html to see every error")
