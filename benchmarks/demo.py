"""How well and how fast does `septum demo` do, over two runs?

python benchmarks/demo.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record

REPEATS = 2


def main() -> None:
    runs = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [sys.executable, "-m", "septum.cli", "demo", "--json", "--output", str(Path(folder) / "demo")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append({"seconds": time.perf_counter() - start, "scores": json.loads(done.stdout)})
    record.save(
        "demo",
        settings={"command": "septum demo --json", "repeats": REPEATS},
        results={
            "median_f1": statistics.median(run["scores"]["f1"] for run in runs),
            "median_seconds": statistics.median(run["seconds"] for run in runs),
            "runs": runs,
        },
        packages=("stardist",),
    )


if __name__ == "__main__":
    main()
