"""How good and how fast is `septum demo`?

Run: python benchmarks/demo.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "septum", "demo", "--json", "--output", str(Path(folder) / "demo")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
    record.save(
        "demo",
        settings={"command": "septum demo --json"},
        results={"seconds": seconds, "scores": json.loads(done.stdout)},
        packages=("stardist",),
    )


if __name__ == "__main__":
    main()
