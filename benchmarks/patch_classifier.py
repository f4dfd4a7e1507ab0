"""How good and how slow is the sliding-window network that the U-Net replaced, after the same training time?

    SEPTUM_DATA=... python benchmarks/patch_classifier.py --budget 20min [--window 65] [--slices 2]

The best method before the U-Net (Ciresan, Giusti, Gambardella, Schmidhuber: Deep Neural Networks Segment Neuronal
Membranes in Electron Microscopy Images, NIPS 2012), in the paper's sense: every pixel is classified from the window
around it by four convolutions with max-pooling and two fully connected layers (their N4: 48 maps, kernels 4, 5, 4, 4,
200 neurons). Membrane and interior pixels are drawn equally often, windows are rotated by 90 degrees and mirrored, and
the probabilities are corrected for that balance. Left out: foveation, averaging four networks, the median filter.

ISBI 2012: both train on slices 0-23 for the same time (the U-Net holds out four of them for validation) and are scored
on slices from 24 on, by the challenge's measures, without averaging. Both train with Adam. The time per image is for
all of its 512 x 512 windows, computed one by one as in 2012; sharing work between overlapping windows is what the
U-Net's convolutions do.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import record
import torch
from torch import nn

from septum.core.metrics import isbi
from septum.core.normalize import measure_normalization
from septum.core.tiling import ArraySource
from septum.data.catalog import find
from septum.data.dataset import Sample
from septum.experiments.em import EM
from septum.experiments.fold import train_fold
from septum.machine.generators import drain
from septum.model.predict import segment
from septum.training.holdout import hold_out
from septum.words import parse_duration

BATCH, LEARNING_RATE, SEED = 256, 1e-3, 0
INTERIOR = 1


def network(window: int) -> nn.Sequential:
    """N4 for a window of 95 x 95 pixels; the same layers on 65 x 65."""
    layers: list[nn.Module] = []
    channels, side = 1, window
    for kernel in (4, 5, 4, 4):
        layers += [nn.Conv2d(channels, 48, kernel), nn.ReLU(), nn.MaxPool2d(2)]
        channels, side = 48, (side - kernel + 1) // 2  # 95: 46, 21, 9, 3
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * side * side, 200), nn.ReLU(), nn.Linear(200, 2))


def windows(samples: list[Sample], window: int, device: torch.device) -> torch.Tensor:
    """(Z, Y, X, window, window) view of the normalised images, mirrored at their borders."""
    half = window // 2
    images = [measure_normalization(sample.image, "standardize")(sample.image) for sample in samples]
    padded = np.pad(np.concatenate(images), ((0, 0), (half, half), (half, half)), mode="reflect")
    return torch.from_numpy(padded).to(device).unfold(1, window, 1).unfold(2, window, 1)


def logits(net: nn.Sequential, batch: torch.Tensor) -> torch.Tensor:
    """(N, window, window) -> (N, 2), in bfloat16 inside."""
    with torch.autocast(batch.device.type, torch.bfloat16):
        return net(batch[:, None].contiguous(memory_format=torch.channels_last)).float()


def train(samples: list[Sample], window: int, budget: float, device: torch.device) -> tuple[nn.Sequential, int]:
    """Train for `budget` seconds; returns the network and its number of steps."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    net = network(window).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    source, labels = windows(samples, window, device), np.stack([sample.labels for sample in samples])
    pixels = [np.flatnonzero(labels == c) for c in range(2)]
    classes = torch.arange(2, device=device).repeat_interleave(BATCH // 2)
    begin, step = time.perf_counter(), 0
    while (share := (time.perf_counter() - begin) / budget) < 1:
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (0.5 + 0.5 * math.cos(math.pi * share))
        drawn = np.concatenate([rng.choice(each, BATCH // 2) for each in pixels])
        batch = source[tuple(torch.from_numpy(i).to(device) for i in np.unravel_index(drawn, labels.shape))]
        batch = torch.rot90(batch, int(rng.integers(4)), (1, 2))
        batch = batch.flip(2) if rng.random() < 0.5 else batch
        loss = nn.functional.cross_entropy(logits(net, batch), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step}, {share:.0%}, loss {loss.item():.3f}", flush=True)
    return net, step


def predict(net: nn.Sequential, sample: Sample, window: int, prior: float, device: torch.device) -> np.ndarray:
    """(Y, X) probability of interior from every window; `prior` is its share of the training pixels."""
    source = windows([sample], window, device)[0]
    interior = []
    with torch.inference_mode():
        for row in source:  # (X, window, window)
            odds = logits(net, row) @ torch.tensor(
                [-1.0, 1.0], device=device
            )  # as if both classes were equally frequent
            interior.append(torch.sigmoid(odds + math.log(prior / (1 - prior))).cpu())
    return torch.stack(interior).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=parse_duration, default=parse_duration("20min"))
    parser.add_argument("--window", type=int, choices=[65, 95], default=95)
    parser.add_argument(
        "--slices", type=int, choices=range(1, 7), default=2, help="number of test slices, from slice 24 on"
    )
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fold = next(fold for fold in EM.folds(find("isbi2012")) if fold.name == "24-29")
    dataset, tested = fold.train(), list(fold.test())[: arguments.slices]
    truth = [sample.labels for sample in tested]

    net, steps = train(list(dataset.samples), arguments.window, arguments.budget, device)
    prior = float(np.mean([sample.labels == INTERIOR for sample in dataset.samples]))
    with tempfile.TemporaryDirectory() as folder:
        training = train_fold(
            dataset,
            Path(folder, "run"),
            recipe_name="fast",
            changes={},
            held_out=hold_out(dataset),
            budget=arguments.budget,
            device=device,
        )
        model = drain(training)

    def sliding_window(sample: Sample) -> np.ndarray:
        return predict(net, sample, arguments.window, prior, device)

    def unet(sample: Sample) -> np.ndarray:
        prediction = drain(segment(model.net, model.card.config, ArraySource(sample.image)))
        return np.clip(prediction.probabilities[INTERIOR], 0, 1)

    unet(tested[0])  # allocates; for a sliding window, which takes minutes, that is negligible
    results: dict[str, dict[str, object]] = {}
    for name, method in (("sliding window", sliding_window), ("U-Net", unet)):
        begin = time.perf_counter()
        maps = [method(sample) for sample in tested]
        seconds = (time.perf_counter() - begin) / len(tested)
        best = isbi.evaluate_stack(truth, maps).best
        results[name] = {"seconds_per_image": seconds} | {key: vars(value) for key, value in best.items()}
    results["sliding window"]["steps"], results["U-Net"]["steps"] = steps, model.card.step
    times = [results[name]["seconds_per_image"] for name in ("sliding window", "U-Net")]
    results["ratio"] = {"sliding window / U-Net, seconds per image": times[0] / times[1]}
    record.save(
        "patch_classifier",
        settings={
            "budget_s": arguments.budget,
            "window": arguments.window,
            "batch": BATCH,
            "learning_rate": LEARNING_RATE,
            "seed": SEED,
            "slices": [sample.name for sample in tested],
            "weights": {
                "sliding window": sum(p.numel() for p in net.parameters()),
                "U-Net": sum(p.numel() for p in model.net.parameters()),
            },
            "unet": model.card.config.model_dump(mode="json"),
            "threads": torch.get_num_threads(),
        },
        results=results,
        packages=("scipy",),
        device=record.gpu_name() if device.type == "cuda" else "",
    )


if __name__ == "__main__":
    main()
