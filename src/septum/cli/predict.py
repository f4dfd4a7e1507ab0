"""The command predict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from septum import choices
from septum.cli.arguments import ChannelOption, DeviceOption, ModelArgument, QuietOption, parse_bytes
from septum.errors import ConfigError


def predict(
    model: ModelArgument,
    inputs: Annotated[
        list[str], typer.Argument(metavar="IMAGES", help="Images, folders of images, or patterns such as *.tif.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for labels, probabilities, overlays and objects.csv.")
    ],
    tta: Annotated[
        int | None,
        typer.Option(metavar="7|8", help="Average over 7 rotations (as in the paper) or 8 flips and quarter turns."),
    ] = None,
    rescale: Annotated[
        bool, typer.Option("--rescale", help="Resample images whose pixel size differs from the model's.")
    ] = False,
    channel: ChannelOption = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Total over all processes, e.g. 2GB. Default: free memory.")
    ] = None,
    form: Annotated[
        choices.StreamFormat | None,
        typer.Option("--format", help="Stream into OME-Zarr or tiled TIFF. Default: only large images are streamed."),
    ] = None,
    probabilities: Annotated[
        choices.StoredProbability, typer.Option(help="How streamed probabilities are stored.")
    ] = "uint8",
    level: Annotated[int, typer.Option(min=0, metavar="N", help="Resolution level of a pyramid; 0 is the finest.")] = 0,
    region: Annotated[str | None, typer.Option(metavar="Y0:Y1,X0:X1", help="Segment only this part; streams.")] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Segment (and measure brightness) only where this mask is non-zero; streams."),
    ] = None,
    statistics: Annotated[
        choices.Statistics,
        typer.Option(help="Normalise by the brightness of each image, or of the model's training images."),
    ] = "image",
    preview: Annotated[bool, typer.Option("--preview", help="Only write an overlay at low resolution.")] = False,
    verify: Annotated[
        int, typer.Option(min=0, metavar="N", help="Recompute N random regions as a check; streams.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Stream with N processes.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(metavar="TCP://HOST:PORT", help="Stream on the workers of this dask scheduler.")
    ] = None,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Segment images with a trained network.

    Large images are streamed, that is read and written block by block. Interrupted runs continue where they stopped.
    """
    from septum.cli.display import PredictionDisplay
    from septum.config import TtaConfig
    from septum.machine.memory import default_limit
    from septum.model.model import load_for_prediction
    from septum.prediction.files import list_inputs, predict_files
    from septum.prediction.preview import preview_files
    from septum.prediction.streaming.decide import StreamOptions, parse_region
    from septum.words import plural

    if cluster is not None and workers > 1:
        raise ConfigError(
            "--workers starts processes on this machine and --cluster uses its own workers; give only one of them"
        )
    unused: dict[str, Any] = {"--region": region, "--mask": mask, "--level": level, "--tta": tta, "--rescale": rescale}
    unused |= {"--format": form, "--verify": verify, "--workers": workers > 1, "--cluster": cluster}
    if preview and any(unused.values()):
        raise ConfigError(
            f"--preview shows the whole first frame at low resolution, so {next(filter(unused.get, unused))} has no "
            "effect; give only one of them"
        )
    averaging = TtaConfig.of(tta)
    memory = parse_bytes(max_memory) if max_memory is not None else default_limit()
    options = StreamOptions(
        format=form or "zarr",
        probabilities=probabilities,
        tta=averaging,
        channel=channel,
        level=level,
        region=parse_region(region) if region else None,
        mask=mask,
        workers=workers,
        cluster=cluster,
        verify=verify,
        statistics=statistics,
    )
    streamed = form is not None or options != StreamOptions(tta=averaging, channel=channel)
    loaded = load_for_prediction(model, device)
    if loaded.card.terms:
        print(f"{model}: {loaded.card.terms}", file=sys.stderr)
    paths = list_inputs(inputs)
    if preview:
        with PredictionDisplay(quiet, len(paths), loaded.card.kind) as display:
            for picture in preview_files(loaded, paths, output, channel=channel):
                display.show(picture)
        print(f"{plural(len(paths), 'preview')} -> {output}")
        return
    records = predict_files(
        loaded,
        paths,
        output,
        tta=averaging,
        rescale=rescale,
        channel=channel,
        max_memory=memory,
        stream=options if streamed else None,
    )
    with PredictionDisplay(quiet, len(paths), loaded.card.kind) as display:
        for record in records:
            display.show(record)
        display.say(f"next: look at the overlays in {output}, or score it: septum evaluate {output} TRUTH")
    print(f"{plural(len(paths), 'image')} -> {output}")
