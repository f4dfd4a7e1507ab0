"""What does the decoder add? The same network and probabilities, decoded by Septum and by plain connected components.

    SEPTUM_DATA=... python benchmarks/reproduce.py dic-hela --output DIR --budget 20min
    SEPTUM_DATA=... python benchmarks/instances.py DIR

DIR is the output of a reproduction. Each of its networks is tested on the video that it was not trained on. Plain
components are the 8-connected components of pixels that are more likely cell than background, without debris below the
same size. We found no published StarDist or Cellpose scores on the gold truth of these two videos to compare with.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import record

from septum.config import TtaConfig
from septum.core.decode import connected_components, decode
from septum.core.metrics import ctc, matching
from septum.core.objects import drop_small
from septum.core.tiling import ArraySource
from septum.data.catalog import find
from septum.data.dataset import load_dataset
from septum.machine.generators import drain
from septum.model.model import load
from septum.model.predict import segment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for video in ("01", "02"):
        model = load(arguments.runs / "folds" / video)
        config = model.card.config
        frames: dict[str, list[Any]] = {"septum": [], "connected components": []}
        matched: dict[str, list[Any]] = {name: [] for name in frames}
        for sample in load_dataset(find("dic-hela") / video).samples:
            source, tta = ArraySource(sample.image), TtaConfig(kind="dihedral", versions=8)
            probabilities = drain(segment(model.net, config, source, tta=tta)).probabilities
            foreground = 1 - probabilities[0] > 0.5
            decoded = {
                "septum": decode(config.target, probabilities, config.decoding),
                "connected components": drop_small(connected_components(foreground), config.decoding.smallest_object),
            }
            for name, labels in decoded.items():
                frames[name].append(ctc.match_frame(sample.labels, labels, frame=sample.name))
                matched[name].append(
                    matching.match(sample.labels, labels, ignore=sample.ignore, thresholds=[0.5]).scores
                )
        results[f"tested on {video}"] = {
            name: {
                "seg": float(ctc.pool(frames[name]).seg_over_these_frames or np.nan),
                "f1": matching.pool(matched[name]).per_threshold[0].f1,
            }
            for name in frames
        }
    settings = {"averaging": "8 dihedral", "instances": config.instances, "steps": config.steps}
    record.save("instances_dic-hela", settings=settings, results=results, packages=("scipy",))


if __name__ == "__main__":
    main()
