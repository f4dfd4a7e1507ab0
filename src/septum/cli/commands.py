"""The commands: each parses, calls one function, prints, sets the exit code."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from septum.cli.arguments import (
    ChannelOption,
    Device,
    DeviceOption,
    Format,
    Json,
    KindOption,
    LabelsOption,
    Paper,
    Quiet,
    Recipe,
    Statistics,
    Stored,
    UnlabeledOption,
    check_outputs,
    interruptible,
    parse_bytes,
    parse_duration,
    parse_settings,
    parse_tta,
    pick_device,
)
from septum.cli.display import CountDisplay, PredictionDisplay, TrainingDisplay, cell_text, print_table
from septum.errors import ConfigError, SeptumError

if TYPE_CHECKING:
    pass

app = typer.Typer(
    help="From a handful of annotated biomedical images to trustworthy segmentations of all the others.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Public data sets: list them, get one.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@app.command(epilog="Example:  septum check cells")
def check(
    data: Annotated[Path, typer.Argument(help="A folder with images/ and labels/, or another layout of docs/data.md.")],
    labels: LabelsOption = None,
    kind: KindOption = None,
    channel: ChannelOption = None,
    unlabeled: UnlabeledOption = None,
    as_json: Json = False,
) -> None:
    """Say what is understood of a data set, and what is wrong with it, with a fix for each finding."""
    from septum.data.check import examine

    notes, findings = examine(
        data, labels=labels, kind=kind.value if kind else None, channel=channel, unlabeled=unlabeled
    )
    if as_json:
        print(json.dumps([finding.__dict__ for finding in findings], indent=1, default=str))
    else:
        for note in notes:
            print(note)
        for finding in findings:
            print(f"{finding.level}: {finding}")
        errors = sum(finding.level == "error" for finding in findings)
        print(f"{errors} errors, {len(findings) - errors} warnings" if findings else "nothing is wrong with it")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(2)


@app.command(
    epilog="Examples:  septum train cells --output run --budget 20min   |   septum train cells --output run --resume"
)
def train(
    data: Annotated[Path, typer.Argument(help="The annotated images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder: settings, log, checkpoint, model.")],
    labels: LabelsOption = None,
    recipe: Annotated[
        Recipe | None, typer.Option(help="fast (default): soonest to a good score; paper: to the letter.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="How long to train, such as 20min, 1h30min or 90s.")] = None,
    steps: Annotated[int | None, typer.Option(help="How many steps to train, instead of a budget.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, data, steps and machine: the same network.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting, such as unet.base_channels=32."),
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Hold no more, such as 4GB: makes patches smaller, or says what it would take.")
    ] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Begin with the weights of this model.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Same weights on the same GPU, bit for bit; says what it costs."),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write curves for TensorBoard into --output (extra: track).")
    ] = False,
    final: Annotated[
        bool, typer.Option("--final", help="Then train again on everything, for the same number of steps.")
    ] = False,
    kind: KindOption = None,
    channel: ChannelOption = None,
    unlabeled: UnlabeledOption = None,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
) -> None:
    """Train a network on annotated images; several processes share the work under torchrun -m septum train."""
    begin = time.perf_counter()
    from septum.training.files import Request, train_files
    from septum.training.processes import joined
    from septum.training.tensorboard import TensorBoard

    request = Request(
        data=data,
        labels=labels,
        output=output,
        recipe=recipe.value if recipe else None,
        budget=parse_duration(budget) if budget is not None else None,
        steps=steps,
        max_memory=parse_bytes(max_memory) if max_memory is not None else None,
        begin=begin,
        deterministic=deterministic,
        seed=seed,
        changes=parse_settings(settings or []),
        start=start,
        resume=resume,
        final=final,
        kind=kind.value if kind else None,
        channel=channel,
        unlabeled=unlabeled,
    )
    chosen = pick_device(device)
    with joined(chosen) as processes, TrainingDisplay(quiet or not processes.writes) as display:
        board = TensorBoard(output) if tensorboard and processes.writes else None
        records = train_files(request, chosen, processes)
        with interruptible() as interrupted:
            for record in records:
                display.show(record)
                if board:
                    board.show(record)
                if interrupted:
                    records.close()
                    again = f"septum train {data} --output {output} --resume{' --final' * final}"
                    display.say(f"stopped, everything is saved; go on with: {again}")
                    raise typer.Exit(130)
        if board:
            board.close()


@app.command(
    epilog="Examples:  septum predict run images/*.tif --output masks   |   septum predict run stack.tif -o out --tta 7"
)
def predict(
    model: Annotated[
        Path, typer.Argument(help="A run folder, a model file, or a model that ships: em-membrane, nuclei.")
    ],
    inputs: Annotated[list[str], typer.Argument(help="Images, folders of images, or globs.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for labels, probabilities, overlays, objects.csv.")
    ],
    tta: Annotated[
        int | None, typer.Option(help="Average over 7 rotated versions as in the paper, or 8 flips and quarter-turns.")
    ] = None,
    rescale: Annotated[
        bool, typer.Option("--rescale", help="Resample images whose pixel size differs from the model's.")
    ] = False,
    channel: ChannelOption = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Of all processes together, such as 2GB; by default what is free.")
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Stream, into OME-Zarr or tiled TIFF; by default large images only."),
    ] = None,
    probabilities: Annotated[Stored, typer.Option(help="How streamed probabilities are stored.")] = Stored.uint8,
    level: Annotated[int, typer.Option(min=0, help="Resolution level of a pyramid; 0 is the finest.")] = 0,
    region: Annotated[
        str | None, typer.Option(metavar="Y0:Y1,X0:X1", help="Stream this part of the image only.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Stream, and look only where this image is not zero; also for the statistics.")
    ] = None,
    statistics: Annotated[
        Statistics,
        typer.Option(help="Brightness and contrast of this image, or of the model's training images on average."),
    ] = Statistics.image,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only a quick look: an overlay at low resolution.")
    ] = False,
    verify: Annotated[
        int, typer.Option(min=0, help="Stream, then compute so many random regions again by a whole-image pass.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Stream by so many processes.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(metavar="TCP://HOST:PORT", help="Stream by the workers of this dask scheduler.")
    ] = None,
    device: DeviceOption = Device.auto,
    quiet: Quiet = False,
) -> None:
    """Segment images with a trained network. Large ones are streamed, and gone on with where a run was stopped."""
    from septum.machine.memory import default_limit
    from septum.model.model import find_model, fingerprint, load
    from septum.prediction.files import list_inputs, predict_files
    from septum.prediction.preview import preview_files
    from septum.prediction.streaming.files import StreamOptions, parse_region
    from septum.words import count

    if cluster is not None and workers > 1:
        raise ConfigError(
            "--workers is for processes on this machine, --cluster has workers of its own; give one of both"
        )
    unused: dict[str, Any] = {"--region": region, "--mask": mask, "--level": level, "--tta": tta, "--rescale": rescale}
    unused |= {"--format": form, "--verify": verify, "--workers": workers > 1, "--cluster": cluster}
    if preview and any(unused.values()):
        raise ConfigError(
            f"--preview looks at all of the first frame at low resolution, which {next(filter(unused.get, unused))} "
            "has no part in; give one of both"
        )
    averaging = parse_tta(tta)
    memory = parse_bytes(max_memory) if max_memory is not None else default_limit()
    options = StreamOptions(
        format=form.value if form else "zarr",
        probabilities=probabilities.value,
        tta=averaging,
        channel=channel,
        level=level,
        region=parse_region(region) if region else None,
        mask=mask,
        workers=workers,
        cluster=cluster,
        verify=verify,
        statistics=statistics.value,
    )
    streamed = form is not None or options != StreamOptions(tta=averaging, channel=channel)
    loaded = load(model, pick_device(device))
    if loaded.card.terms:
        print(f"{model}: {loaded.card.terms}", file=sys.stderr)
    paths = list_inputs(inputs)
    if preview:
        with PredictionDisplay(quiet, len(paths), loaded.card.kind) as display:
            for picture in preview_files(loaded, paths, output, channel=channel):
                display.show(picture)
        print(f"{count(len(paths), 'preview')} -> {output}")
        return
    records = predict_files(
        loaded,
        fingerprint(find_model(model)),
        paths,
        output,
        tta=averaging,
        rescale=rescale,
        channel=channel,
        max_memory=memory,
        stream=options if streamed else None,
        model_path=find_model(model),
    )
    with PredictionDisplay(quiet, len(paths), loaded.card.kind) as display:
        for record in records:
            display.show(record)
    print(f"{count(len(paths), 'image')} -> {output}")


@app.command(
    epilog="Examples:  septum evaluate masks cells/labels   |   "
    "septum evaluate maps truth.tif --metrics isbi --report errors.html   |   septum evaluate 01_RES 01_GT --json"
)
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="A label image or map, a stack, or a folder of them.")],
    truth: Annotated[Path, typer.Argument(help="The same with the true labels.")],
    kind: KindOption = None,
    metrics: Annotated[
        str | None, typer.Option(help="Of isbi,ctc,matching,overlap; by default those that fit the data.")
    ] = None,
    ignore: Annotated[
        Path | None, typer.Option(help="Masks of pixels that count nowhere; by default ignore/ beside TRUTH.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Images for the report; by default images/ beside TRUTH.")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Score the inverse of maps or masks.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="Other predictions for the same truth: say how the scores differ.")
    ] = None,
    as_json: Json = False,
    csv: Annotated[Path | None, typer.Option(help="Write a line per object.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with curves, overlays and every error.")] = None,
    run: Annotated[Path | None, typer.Option(help="The run folder, for its training curve on the page.")] = None,
    quiet: Quiet = False,
) -> None:
    """Score predictions against the truth."""
    from septum.evaluation.evaluate import evaluate_files
    from septum.evaluation.tables import difference_table, objects_csv, score_tables

    options: dict[str, Any] = {
        "kind": kind.value if kind else None,
        "metrics": [name.strip() for name in metrics.split(",")] if metrics is not None else None,
        "ignore": ignore,
        "images": images,
        "invert": invert,
    }
    if run is not None and report is None:
        raise ConfigError("--run is for the training curve on the page; add --report FILE")
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
    print(evaluation.note)
    tables = score_tables(evaluation) + ([difference_table(evaluation, other)] if other is not None else [])
    for table in tables:
        print(f"\n{table.title}")
        print_table(table.header, table.rows)
    for warning in evaluation.warnings_with(other):
        print(f"warning: {warning}")
    for file in filter(None, (csv, report)):
        print(f"look at {file}")


@app.command(epilog="Example:  septum report run")
def report(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write report.html of a training: curves, overlays and scores on what was held out."""
    from septum.report.run import report_run

    print(report_run(run))


@app.command(epilog="Example:  septum info run")
def info(
    model: Annotated[
        Path, typer.Argument(help="A run folder, a model file, or a model that ships: em-membrane, nuclei.")
    ],
    as_json: Json = False,
) -> None:
    """Show the model card."""
    from septum.model.model import load

    loaded = load(model)
    if as_json:
        print(loaded.card.model_dump_json(indent=1))
        return
    for name, value in loaded.describe():
        print(f"{name:20} {value}")


@app.command(epilog="Example:  septum demo --output septum-demo")
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("septum-demo"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Do all of it on a small real image: train on its left half, judge on its right half."""
    from septum.experiments.demo import run_demo

    with TrainingDisplay(quiet or as_json) as display:
        steps = run_demo(output)
        while True:
            try:
                display.show(next(steps))
            except StopIteration as end:
                result = end.value
                break
    if as_json:
        print(json.dumps(result.scores, indent=1))
        return
    print_table(
        ["score on the unseen right half", "value"], [[name, f"{value:.3f}"] for name, value in result.scores.items()]
    )
    print(f"look at {result.report}")


@app.command(
    epilog="Examples:  septum reproduce em --output em --budget 20min   |   "
    "septum reproduce dic-hela --output hela --recipe paper --folds 01"
)
def reproduce(
    name: Annotated[Paper, typer.Argument(help="Which of the paper's experiments.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the report, figures, networks, and what the challenge takes."),
    ],
    recipe: Annotated[
        Recipe | None, typer.Option(help="fast (default): soonest to a good score; paper: to the letter.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="How long to train each fold, such as 20min (default) or 10h.")
    ] = None,
    folds: Annotated[
        str | None, typer.Option(help="Only these, named after what they are tested on, such as 24-29,test or 01.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting, such as unet.base_channels=32."),
    ] = None,
    device: DeviceOption = Device.auto,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Repeat an experiment of the U-Net paper and put its numbers beside yours; goes on where it was stopped."""
    from septum.data.catalog import find
    from septum.experiments.reproduce import EXPERIMENTS, Asked
    from septum.experiments.reproduce import reproduce as repeat

    asked = Asked(
        recipe=recipe.value if recipe else None,
        budget=parse_duration(budget) if budget is not None else None,
        changes=parse_settings(settings) if settings else None,
        folds=folds.split(",") if folds is not None else None,
    )
    with CountDisplay(quiet or as_json, name.value) as download:
        folder = find(EXPERIMENTS[name.value].data, progress=download.show)
    with TrainingDisplay(quiet or as_json) as display, interruptible() as interrupted:
        records = repeat(name.value, folder, output, asked, pick_device(device))
        while True:
            try:
                display.show(next(records))
            except StopIteration as end:
                result = end.value
                break
            if interrupted:
                records.close()
                again = f"septum reproduce {name.value} --output {output}"
                again += f" --folds {folds}" if folds is not None else ""
                again += f" --device {device.value}" if device != Device.auto else ""
                display.say(f"stopped, everything is saved; go on with: {again}")
                raise typer.Exit(130)
    if as_json:
        print(json.dumps(result.results, indent=1))
        return
    for table in result.tables:
        print(f"\n{table.title}")
        print_table([str(name) for name in table.header], [[cell_text(cell) for cell in row] for row in table.rows])
    print(f"look at {result.report}")


@data_app.command("list", epilog="Example:  septum data list")
def data_list(as_json: Json = False) -> None:
    """List the public data sets that Septum can find or download."""
    from dataclasses import asdict

    from septum.data.catalog import CATALOG

    if as_json:
        print(json.dumps([asdict(entry) for entry in CATALOG.values()], indent=1, default=str))
        return
    print_table(["name", "what", "terms"], [[entry.name, entry.title, entry.terms] for entry in CATALOG.values()])


@data_app.command("get", epilog='Example:  septum train "$(septum data get isbi2012)" --output run')
def data_get(name: Annotated[str, typer.Argument(help="One of septum data list.")], quiet: Quiet = False) -> None:
    """Find a data set in $SEPTUM_DATA or the cache, or download it; prints its folder."""
    from septum.data.catalog import find

    with CountDisplay(quiet, name) as display:
        folder = find(name, progress=display.show)
    print(folder)


def main() -> None:
    """Run the command line: exit code 2 and one sentence for the user's errors, 130 after Ctrl-C (by typer)."""
    try:
        app(prog_name="septum")
    except SeptumError as error:
        public = next(kind for kind in type(error).__mro__ if kind.__module__ == SeptumError.__module__)
        print(f"{public.__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    except PermissionError as error:  # of a path that was only looked at: below a folder that is closed to the user
        print(f"PermissionError: {error.filename}: {error.strerror}; check path and permissions", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
