"""Does a training stay within its memory limit? Measured by the peak of the whole process.

    SEPTUM_DATA=... python benchmarks/training_memory.py
    SEPTUM_DATA=... python benchmarks/training_memory.py 0 3      (some of the four)

Each training runs in its own process, with less memory than it would use without a limit. The peak is the resident
memory reported by the operating system. The last data set, random parts of ISBI 2012, is larger than the limit and has
to be streamed. Appends one line per training to results/training_memory.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import record

from septum.cli.arguments import parse_bytes
from septum.data.catalog import find
from septum.data.dataset import load_dataset
from septum.data.images import write_labels
from septum.training.run import RunFolder

RUNS: list[tuple[str, str, list[str]]] = [  # data set, memory limit, options
    ("isbi2012", "900MB", []),
    ("dic-hela", "1GB", ["--set=unet.base_channels=32", "--set=batch=4"]),
    ("isbi2012", "2GB", ["--recipe=paper"]),
    ("large", "900MB", []),
]
STEPS = 6
LOG = record.RESULTS / "training_memory.jsonl"
# A process inherits the peak of its parent, so a small process starts the measured one.
BETWEEN = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([done.returncode, peak, done.stderr]))
"""


def write_large(folder: Path, images: int = 8, side: int = 2000) -> None:
    """Write images of 2,000 x 2,000 pixels, made of mirrored slices."""
    dataset, rng = load_dataset(find("isbi2012")), np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for n in range(images):
        sample = dataset.samples[n]
        pad = [(0, side - 512), (0, side - 512)]
        shift = tuple(rng.integers(0, 512, 2))
        image, labels = (
            np.roll(np.pad(array, pad, "symmetric"), shift, (0, 1)) for array in (sample.image[0], sample.labels)
        )
        write_labels(folder / "images" / f"{n}.tif", image)
        write_labels(folder / "labels" / f"{n}.tif", labels)


def measure(data: Path, limit: str | None, options: list[str]) -> dict[str, Any]:
    """The peak of one training, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "septum", "train", str(data), "--output", f"{folder}/run", f"--steps={STEPS}"]
        words += [*options, *([f"--max-memory={limit}"] if limit else [])]
        done = subprocess.run([sys.executable, "-c", BETWEEN, *words], capture_output=True, text=True, check=True)
        code, peak, said = json.loads(done.stdout)
        if code:
            return {"refused": said.strip().splitlines()[-1]}
        run = RunFolder(Path(folder) / "run").config()
    settings = {"batch": run.train.batch, "patch": run.train.patch, "threads": run.threads}
    return {"peak": peak, **settings, "streamed": "it is streamed" in said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="*")
    numbers = parser.parse_args().runs or range(len(RUNS))
    with tempfile.TemporaryDirectory() as folder:
        for data, limit, options in (RUNS[number] for number in numbers):
            if data == "large":
                write_large(Path(folder))
                path = Path(folder)
            else:
                path = find(data) / ("01" if data == "dic-hela" else "")
            entry: dict[str, Any] = {"data": data, "limit": parse_bytes(limit), "options": options}
            entry |= measure(path, limit, options) | {"without_limit": measure(path, None, options)}
            entry |= {"steps": STEPS, "date": datetime.date.today().isoformat(), "hardware": record.hardware()}
            entry |= {"commit": record.commit(), "versions": record.versions("torch", "numpy")}
            with LOG.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            print(entry, flush=True)


if __name__ == "__main__":
    main()
