"""The command line: parses, calls one function, prints, sets the exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from septum.errors import ConfigError, SeptumError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

app = typer.Typer(
    help="From a handful of annotated biomedical images to trustworthy segmentations of all the others.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Public data sets: list them, get one.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


class Recipe(StrEnum):
    fast = "fast"
    paper = "paper"


class Paper(StrEnum):
    em = "em"
    dic_hela = "dic-hela"
    phc_u373 = "phc-u373"


class Kind(StrEnum):
    instances = "instances"
    classes = "classes"


class Format(StrEnum):
    zarr = "zarr"
    tiff = "tiff"


class Stored(StrEnum):
    uint8 = "uint8"
    float16 = "float16"


class Statistics(StrEnum):
    image = "image"
    model = "model"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
KindOption = Annotated[
    Kind | None, typer.Option(help="What the labels are; by default read from the data and said aloud.")
]
LabelsOption = Annotated[
    Path | None, typer.Option(help="The label file or folder, if DATA is an image or a folder of images only.")
]
ChannelOption = Annotated[int | None, typer.Option(min=0, help="Use this channel of the images only.")]
UnlabeledOption = Annotated[
    int | None, typer.Option(min=0, help="The label of pixels that nobody annotated, such as 0 between scribbles.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where the network runs.")]


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
    from septum.engine.processes import joined
    from septum.engine.track import TensorBoard
    from septum.engine.train_files import Request, train_files

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
    from septum.engine.evaluation import count
    from septum.engine.memory import free
    from septum.engine.model import find_model, fingerprint, load
    from septum.engine.predict_files import list_inputs, predict_files
    from septum.engine.preview import preview_files
    from septum.engine.stream_files import StreamOptions, parse_region

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
    memory = parse_bytes(max_memory) if max_memory is not None else free()
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
    from septum.engine.evaluate import evaluate_files
    from septum.engine.score_tables import difference_table, objects_csv, score_tables

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
    from septum.engine.model import load

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


def check_outputs(**files: Path | None) -> None:
    """Refuse what results cannot be called, by option, before the work is done."""
    from septum.data.files import check_writable
    from septum.data.images import SUFFIXES

    given = {option: path for option, path in files.items() if path is not None}
    for option, path in given.items():
        if path.suffix.lower() in SUFFIXES:
            raise ConfigError(f"--{option} {path} has the name of an image; give a name of its own kind")
        check_writable(path)
    if len({path.resolve() for path in given.values()}) < len(given):
        raise ConfigError(f"{' and '.join('--' + option for option in given)} name one file; give each its own")


def parse_duration(text: str) -> float:
    """Turn ``20min``, ``1h30min``, ``90s`` into seconds.

    Examples
    --------
    >>> parse_duration("1h30min"), parse_duration("90s"), parse_duration("0.5h")
    (5400.0, 90.0, 1800.0)
    """
    units = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)", text)
    if not parts or "".join("".join(part) for part in parts) != re.sub(r"\s", "", text):
        raise ConfigError(f"a budget is a time such as 20min, 1h30min or 90s, got {text!r}")
    seconds = sum(float(number) * units[unit] for number, unit in parts)
    if seconds <= 0:
        raise ConfigError(f"the budget must be more than zero, got {text!r}; give for example 20min")
    return seconds


def parse_bytes(text: str) -> int:
    """Turn ``2GB``, ``500MB`` into bytes.

    Examples
    --------
    >>> parse_bytes("1.5GB")
    1500000000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(kB|KB|MB|GB|TB)", text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"an amount of memory is a number with a unit, such as 2GB or 500MB, got {text!r}")
    return round(float(match[1]) * {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[match[2][0].upper()])


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Turn ``["unet.depth=3"]`` into ``{"unet.depth": 3}``; values are JSON, or else words."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, such as --set unet.base_channels=32, got {pair!r}")
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value
    return changes


def parse_tta(versions: int | None) -> Any:
    """Turn the number of --tta into settings."""
    from septum.config import TtaConfig

    if versions is None:
        return None
    if versions == 8:
        return TtaConfig(kind="dihedral", versions=8)
    if versions == 7:
        return TtaConfig(kind="rotations", versions=7)
    raise ConfigError(f"--tta takes 7 (rotations, as in the paper) or 8 (flips and quarter-turns), got {versions}")


def pick_device(device: Device) -> torch.device:
    """Return the device that was asked for, or the best there is."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = next(name for name in ("cuda", "mps", "cpu") if available[name]) if device is Device.auto else device.value
    if not available[name]:
        there = ", ".join(other for other, is_there in available.items() if is_there)
        raise ConfigError(f"there is no {name} device here; available: {there}")
    local = os.environ.get("LOCAL_RANK")  # from torchrun: each process has a GPU of its own
    return torch.device(name, int(local)) if local and name == "cuda" else torch.device(name)


@contextmanager
def interruptible() -> Iterator[list[bool]]:
    """Turn the first Ctrl-C into an entry of the list that is yielded; the second one stops at once."""
    asked: list[bool] = []

    def note(_signal: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        print("\nfinishing this step, then saving (press Ctrl-C again to stop at once)", file=sys.stderr)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print columns, numbers to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def is_number(text: str) -> bool:
        return bool(re.fullmatch(r"-?[\d.]+(e-?\d+)?|nan|-", text))

    for row in [header, *rows]:
        cells = [cell.rjust(w) if is_number(cell) else cell.ljust(w) for cell, w in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def cell_text(cell: object) -> str:
    """Return a cell of a table as text: a number to four digits, a dash where there is none."""
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


class Display:
    """A rich progress bar on standard error, or nothing if quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=self.quiet,
        )
        self.progress.start()
        self.task = self.progress.add_task("", total=None, visible=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.progress.stop()
        if kind is KeyboardInterrupt:
            print("interrupted; what was finished is saved", file=sys.stderr)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self.quiet:
            self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, description: str, done: float, total: float) -> None:
        """Move the bar."""
        self.progress.update(self.task, description=description, completed=done, total=total, visible=True)


class TrainingDisplay(Display):
    """Draws the records of a training."""

    def show(self, record: Any) -> None:
        name = type(record).__name__
        if name == "Said":
            self.say(record.text)
        elif name == "Planned":
            self.score = ""
            begun = f"goes on at step {record.step} of" if record.step else "plan:"
            pace = f", {record.run.step_seconds:.2f} s each" if record.run.step_seconds else ""
            if record.run.deterministic:
                self.say(f"deterministic: a step takes {record.run.deterministic:.2f} times as long as without")
            for change in record.run.changes:
                self.say(change)
            self.say(f"{begun} {record.steps} steps{pace}; {record.run.held_out}")
        elif name == "StepDone":
            self.advance(
                f"step {record.step}/{record.steps}  loss {record.loss:.4f}{self.score}", record.step, record.steps
            )
        elif name == "Validated":
            self.score = f"  validation {record.scores['score']:.3f}"
            scores = "  ".join(f"{key} {value:.3f}" for key, value in record.scores.items() if key != "score")
            self.say(f"step {record.step}: {scores}{'  (best so far)' if record.best else ''}")
        elif name == "Changed":
            self.say(record.text)
        elif name == "Progress":
            self.advance(record.text, record.done, record.total)
        elif name == "EndedEarly":
            self.say(
                f"the machine was slower than its probe: ended at step {record.step} of {record.steps} "
                f"after {record.seconds:.0f} s; the model is from these steps, with its learning rate not run down"
            )


class PredictionDisplay(Display):
    """Draws the records of a prediction."""

    def __init__(self, quiet: bool, files: int, kind: str) -> None:
        super().__init__(quiet)
        self.files, self.file, self.kind = files, 0, kind

    def say_done(self, record: Any) -> None:
        from septum.engine.evaluation import count

        found = count(record.objects, "object") if self.kind == "instances" else "done"
        self.say(f"{record.path.name}: {'done before, skipped' if record.skipped else found}")

    def show(self, record: Any) -> None:
        name = type(record).__name__
        if name == "FileStarted":
            self.frames, self.name = record.frames, record.path.name
            for note in record.notes:
                self.say(note)
        elif name == "FrameProgress":
            part = (record.frame + record.done / record.total) / self.frames
            self.advance(self.name, self.file + part, self.files)
        elif name == "StreamStarted":
            self.name, self.fresh = record.path.name, True
            for note in record.notes:
                self.say(note)
        elif name == "StreamProgress":
            if self.fresh:  # what was done before says nothing about the pace
                self.progress.reset(self.task, total=1.0, completed=record.part)
                self.fresh = False
            self.advance(f"{self.name}: {record.step}", record.part, 1.0)
        elif name == "StreamDone":
            self.file += 1
            self.say_done(record)
            if record.certificates:
                worst = max(record.certificates, key=lambda one: one.difference)
                differing = sum(one.labels for one in record.certificates)
                print(
                    f"{record.path.name}: {len(record.certificates)} regions verified, largest difference "
                    f"{worst.difference:.6f} (stored to +-{worst.step:.6f}), {differing} differing labels"
                )
        elif name == "FileDone":
            self.file += 1
            self.say_done(record)
            self.advance(record.path.name, self.file, self.files)


class CountDisplay(Display):
    """Draws how much is done of a known number of bytes or images."""

    def __init__(self, quiet: bool, name: str) -> None:
        super().__init__(quiet)
        self.name = name

    def show(self, done: int, total: int) -> None:
        self.advance(self.name, done, total)


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
