"""Run one contestant of peers.py in its own process and Python environment: train for a given time, then predict.

    PYTHON benchmarks/contestants.py NAME TASK.npz OUT.npz SECONDS SEED

TASK contains the training images_N (C, Y, X), labels_N (Y, X) and ignore_N (where not annotated), and test_N. OUT
contains result_N and `about`, a record of the training. The clock runs from the first use of the training images to the
last step. Imports, nnU-Net's planning, the choice of a peer's precision and prediction are not counted. All contestants
respect OMP_NUM_THREADS. The learning rates of the PyTorch peers decay over the given time, as they do over the steps in
their own schedules. Their convolutions run in bfloat16, channels last, if a few steps of that are faster on this
machine than a few in float32.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Images = list[np.ndarray]
THREADS = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
NAMES = ("fast", "fast-final", "paper", "monai", "nnunet", "stardist", "cellpose")
EM_CROP, EM_BATCH = 256, 2  # for MONAI


class Task:
    """What every contestant gets."""

    def __init__(self, path: str, seconds: float, seed: int) -> None:
        with np.load(path) as arrays:
            self.arrays = dict(arrays)
        self.kind = str(self.arrays["kind"])  # "em" asks for probabilities of the interior, "cells" for labels
        self.seconds, self.seed = seconds, seed
        self.images, self.labels, self.test = self.all("images"), self.all("labels"), self.all("test")
        self.ignore = [self.arrays.get(f"ignore_{n}") for n in range(len(self.images))]
        self.about: dict[str, Any] = {}

    def all(self, name: str) -> Images:
        count = sum(key.startswith(f"{name}_") for key in self.arrays)
        return [self.arrays[f"{name}_{n}"] for n in range(count)]

    def labels_where_known(self, elsewhere: int) -> Images:
        pairs = zip(self.labels, self.ignore, strict=True)
        return [labels if ignore is None else np.where(ignore, elsewhere, labels) for labels, ignore in pairs]

    def start(self) -> None:
        self.begin = time.perf_counter()

    def spent(self) -> float:
        """Share of the time that has passed."""
        return (time.perf_counter() - self.begin) / self.seconds

    def stop(self, **about: Any) -> None:
        self.about |= {"training_seconds": round(time.perf_counter() - self.begin, 2), **about}


def averaged(predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Y, X) probabilities of a (C, Y, X) image, and their average over the eight flips and quarter-turns."""
    versions = []
    for turns in range(4):
        for flipped in (False, True):
            seen = np.rot90(image, turns, (1, 2))
            answer = predict(np.ascontiguousarray(seen[:, :, ::-1] if flipped else seen))
            versions.append(np.rot90(answer[:, ::-1] if flipped else answer, -turns))
    return versions[0], np.mean(versions, axis=0)


def septum(task: Task, recipe_name: str, *, final: bool = False) -> Images:
    """Septum, as `septum train --budget` runs it; `final`: on all images, like `--final`, and like the peers on EM."""
    import torch

    from septum.config import TtaConfig
    from septum.core.tiling import ArraySource
    from septum.data.dataset import from_arrays
    from septum.machine.generators import drain
    from septum.model.predict import segment
    from septum.training.fit import fit
    from septum.training.holdout import hold_out, nothing_held_out
    from septum.training.recipe import recipe
    from septum.training.request import TrainingRequest

    torch.set_num_threads(THREADS)
    task.start()
    kind = "classes" if task.kind == "em" else "instances"
    dataset = from_arrays(task.images, task.labels, task.ignore, kind=kind)
    config = recipe(recipe_name, dataset, torch.device("cpu"), {"seed": task.seed})
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        held_out = nothing_held_out() if final else hold_out(dataset)
        steps = fit(TrainingRequest(dataset, config, run, held_out=held_out, budget=task.seconds, begin=task.begin))
        model = drain(steps)
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    task.stop(steps=max(line["step"] for line in log), chosen_step=model.card.step, precision=config.precision)
    tta, results = TtaConfig(kind="dihedral", versions=8), []
    for image in task.test:
        one, mean = (drain(segment(model.net, model.card.config, ArraySource(image), tta=t)) for t in (None, tta))
        if task.kind == "em":
            results.append(np.stack([one.probabilities[1], mean.probabilities[1]]))
        else:
            results.append(one.labels)
    return results


def faster_precision(net: Any, step: Callable[[], object], task: Task) -> Any:
    """Return a context for the forward pass: bfloat16 if a few steps of it are faster than in float32. Not timed."""
    import copy

    import torch

    start = time.perf_counter()
    saved, seconds = copy.deepcopy(net.state_dict()), {}
    for name in ("float32", "bfloat16"):
        net.to(memory_format=torch.channels_last if name == "bfloat16" else torch.contiguous_format)
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "bfloat16"):
            times = []
            for _ in range(3):
                begin = time.perf_counter()
                step()
                times.append(time.perf_counter() - begin)
        seconds[name] = min(times)
    net.load_state_dict(saved)
    best = min(seconds, key=lambda name: seconds[name])
    net.to(memory_format=torch.channels_last if best == "bfloat16" else torch.contiguous_format)
    task.about |= {"precision": best, "step_seconds_probed": {name: round(s, 4) for name, s in seconds.items()}}
    task.begin += time.perf_counter() - start
    return lambda: torch.autocast("cpu", torch.bfloat16, enabled=best == "bfloat16")


def monai(task: Task) -> Images:
    """BasicUNet with instance normalisation, Dice + cross-entropy, 256-pixel crops, and MONAI's usual transforms."""
    import monai.data
    import monai.transforms as mt
    import torch
    from monai.inferers import sliding_window_inference
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet

    torch.set_num_threads(THREADS)
    monai.utils.set_determinism(task.seed)
    task.start()
    normalize = mt.NormalizeIntensity(channel_wise=True)
    items = [
        {"image": normalize(torch.from_numpy(i).float()), "label": torch.from_numpy(label[None])}
        for i, label in zip(task.images, task.labels, strict=True)
    ]
    both = ["image", "label"]
    transforms = mt.Compose(
        [
            mt.RandSpatialCropd(both, (EM_CROP, EM_CROP), random_size=False),
            mt.RandFlipd(both, 0.5, 0),
            mt.RandFlipd(both, 0.5, 1),
            mt.RandRotate90d(both, 0.5),
            mt.RandGaussianNoised("image", 0.2, std=0.1),
            mt.RandGaussianSmoothd("image", prob=0.1),
            mt.RandScaleIntensityd("image", 0.1, 0.5),
            mt.RandShiftIntensityd("image", 0.1, 0.5),
        ]
    )
    net = BasicUNet(2, items[0]["image"].shape[0], 2)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-5)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    rng, data_seconds = random.Random(task.seed), 0.0

    def step(context: Callable[[], Any] | None = None) -> None:
        nonlocal data_seconds
        begin = time.perf_counter()
        drawn = [transforms(rng.choice(items)) for _ in range(EM_BATCH)]
        image, label = (torch.stack([torch.as_tensor(item[name]) for item in drawn]) for name in both)
        data_seconds += time.perf_counter() - begin
        if context:
            with context():
                logits = net(image)
        else:
            logits = net(image)
        optimizer.zero_grad()
        loss_of(logits.float(), label).backward()
        if context:
            optimizer.step()

    context = faster_precision(net, step, task)
    steps, data_seconds = 0, 0.0
    while (spent := task.spent()) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * spent))
        step(context)
        steps += 1
    task.stop(steps=steps, batch=EM_BATCH)
    task.about["share_of_drawing"] = round(data_seconds / task.about["training_seconds"], 3)
    net.eval()

    def predict(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), context():
            seen = normalize(torch.from_numpy(image).float())[None]
            logits = sliding_window_inference(seen, (EM_CROP, EM_CROP), 4, net, overlap=0.5, mode="gaussian")
        return torch.as_tensor(logits).float().softmax(1)[0, 1].numpy()

    return [np.stack(averaged(predict, image)) for image in task.test]


def nnunet(task: Task) -> Images:
    """nnU-Net's 2D plan: its planning, preprocessing, augmentation, network, loss and optimiser.

    Its loop ends when the time is up; its polynomial learning rate decays over that time. Planning and preprocessing
    happen once per data set and are not counted.
    """
    folder = Path(tempfile.mkdtemp())
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "0"}
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from skimage.io import imsave

    torch.set_num_threads(THREADS)
    np.random.seed(task.seed)  # noqa: NPY002 - nnU-Net draws from it
    torch.manual_seed(task.seed)
    task.start()
    raw = folder / "raw" / "Dataset001_task"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for n, (image, labels) in enumerate(zip(task.images, task.labels, strict=True)):
        imsave(raw / "imagesTr" / f"c{n:03d}_0000.png", image[0], check_contrast=False)
        imsave(raw / "labelsTr" / f"c{n:03d}.png", labels.astype(np.uint8), check_contrast=False)
    names = {"background": 0, "interior": 1}
    description = {"channel_names": {"0": "EM"}, "labels": names, "numTraining": len(task.images)}
    (raw / "dataset.json").write_text(json.dumps({**description, "file_ending": ".png"}))
    extract_fingerprints([1], num_processes=1, check_dataset_integrity=False)
    plan_experiments([1])
    preprocess([1], configurations=["2d"], num_processes=[1])
    base = folder / "preprocessed" / "Dataset001_task"
    plans = json.loads((base / "nnUNetPlans.json").read_text())
    plans["continue_training"] = False
    trainer = nnUNetTrainer(plans, "2d", "all", json.loads((base / "dataset.json").read_text()), torch.device("cpu"))
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    os.environ |= {
        "nnUNet_n_proc_DA": "0"
    }  # its planner needs one; training draws in this process, which takes little of a step
    loader, _ = trainer.get_dataloaders()
    task.about |= {"preparing_seconds_not_counted": round(time.perf_counter() - task.begin, 2)}
    task.start()
    net, data_seconds = trainer.network, 0.0

    def step(context: Callable[[], Any] | None = None) -> None:
        nonlocal data_seconds
        begin = time.perf_counter()
        drawn = next(loader)
        data_seconds += time.perf_counter() - begin
        if context:
            with context():
                output = net(drawn["data"])
        else:
            output = net(drawn["data"])
        trainer.optimizer.zero_grad()
        trainer.loss([one.float() for one in output], drawn["target"]).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 12)
        if context:
            trainer.optimizer.step()

    context = faster_precision(net, step, task)
    steps, data_seconds = 0, 0.0
    while (spent := task.spent()) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - spent) ** 0.9
        step(context)
        steps += 1
    planned = plans["configurations"]["2d"]
    task.stop(steps=steps, batch=planned["batch_size"], patch=planned["patch_size"])
    task.about["share_of_drawing"] = round(data_seconds / task.about["training_seconds"], 3)
    trainer.set_deep_supervision_enabled(False)
    net.eval()
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        net, trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json, "nnUNetTrainer", None
    )

    def predict(image: np.ndarray) -> np.ndarray:
        pixels = image.astype(np.float32)
        pixels = (pixels - pixels.mean()) / pixels.std()  # like its preprocessing of such images
        with torch.inference_mode(), context():
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(pixels[:, None]))
        return logits.float().softmax(0)[1, 0].numpy()

    return [np.stack(averaged(predict, image)) for image in task.test]


def cellpose(task: Task) -> Images:
    """Cellpose 3 from scratch, with its own training function; two short calls estimate how many epochs fit."""
    import torch
    from cellpose import models, train

    torch.set_num_threads(THREADS)
    torch.manual_seed(task.seed)
    task.start()
    images = [image.mean(0) for image in task.images]
    labels = task.labels_where_known(0)
    known = [i is None or i.mean() < 0.5 for i in task.ignore]  # it cannot ignore pixels
    images, labels = ([one for one, use in zip(ones, known, strict=True) if use] for ones in (images, labels))
    model = models.CellposeModel(gpu=False, pretrained_model=None, mkldnn=False)
    saved = {name: value.clone() for name, value in model.net.state_dict().items()}
    forward, precision = model.net.forward, torch.float32

    def in_precision(data: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            answer, style, *rest = forward(data)
        return answer.float(), style.float(), *rest

    model.net.forward = in_precision
    per_epoch = max(8, len(images))

    def fit(epochs: int) -> float:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            train.train_seg(
                model.net,
                train_data=images,
                train_labels=labels,
                channels=[0, 0],
                n_epochs=epochs,
                nimg_per_epoch=per_epoch,
                min_train_masks=1,
                save_path=folder,
            )
        return time.perf_counter() - begin

    start, pace = time.perf_counter(), {}
    fit(1)  # the first run compiles and allocates
    for precision in (torch.float32, torch.bfloat16):
        once, thrice = fit(1), fit(3)
        pace[precision] = max(1e-3, (thrice - once) / 2), once
    precision = min(pace, key=lambda one: pace[one][0])
    epoch, once = pace[precision]
    model.net.load_state_dict(saved)
    task.begin += time.perf_counter() - start
    epochs = max(1, int((task.seconds * (1 - task.spent()) - (once - epoch)) / epoch))
    fit(epochs)
    probed = {str(one): round(seconds, 4) for one, (seconds, _) in pace.items()}
    task.stop(
        steps=epochs * math.ceil(per_epoch / 8),
        epochs=epochs,
        images=len(images),
        precision=str(precision),
        epoch_seconds_probed=probed,
    )
    model.diam_labels = model.net.diam_labels.item()
    diameter = model.diam_labels
    return [model.eval(image.mean(0), channels=[0, 0], diameter=diameter)[0].astype(np.int32) for image in task.test]


def stardist(task: Task) -> Images:
    """StarDist from scratch, with its own training function until time is up; then it chooses its thresholds."""
    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    import tensorflow as tf
    from csbdeep.utils import normalize
    from stardist.models import Config2D, StarDist2D

    keras = __import__("tf_keras")
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.keras.utils.set_random_seed(task.seed)
    task.start()
    images = [normalize(np.moveaxis(image, 0, -1), 1, 99.8, axis=(0, 1)) for image in task.images]
    labels = task.labels_where_known(-1)  # negative labels are ignored in training
    count = max(1, len(images) // 5) if len(images) > 1 else 0
    split = len(images) - count
    train_images, train_labels = images[:split], labels[:split]
    chosen_images, chosen_labels = (images[split:], labels[split:]) if count else (images, labels)
    rng = np.random.default_rng(task.seed)

    def augment(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The augmentation of StarDist's example: flips, quarter-turns, grey values, noise."""
        turns = int(rng.integers(4))
        x, y = np.rot90(x, turns), np.rot90(y, turns)
        if rng.random() < 0.5:
            x, y = x[::-1], y[::-1]
        x = x * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
        return x + 0.02 * rng.uniform(0, 1) * rng.normal(size=x.shape), y

    side = min(256, *(16 * (size // 16) for image in images for size in image.shape[:2]))
    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=images[0].shape[-1],
        train_patch_size=(side, side),
        train_batch_size=4,
        train_epochs=10_000,
        train_steps_per_epoch=20,
        train_tensorboard=False,
    )

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        steps = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            if task.spent() >= 1:
                self.model.stop_training = True

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        model = StarDist2D(config, name="model", basedir=folder)
        model.prepare_for_training()
        model.callbacks.append(clock)
        model.train(train_images, train_labels, validation_data=(chosen_images, chosen_labels), augmenter=augment)
        task.stop(steps=clock.steps, batch=4, images=len(train_images), patch=side)
        begin = time.perf_counter()
        positive = [np.maximum(one, 0) for one in chosen_labels]
        model.optimize_thresholds(chosen_images, positive)
        task.about["seconds_for_thresholds_not_counted"] = round(time.perf_counter() - begin, 2)
    seen = [normalize(np.moveaxis(image, 0, -1), 1, 99.8, axis=(0, 1)) for image in task.test]
    return [model.predict_instances(image)[0].astype(np.int32) for image in seen]


def run(name: str, task: Task) -> Images:
    """Train and predict with one of `NAMES`."""
    if name in ("fast", "fast-final", "paper"):
        return septum(task, name.removesuffix("-final"), final=name.endswith("-final"))
    return {"monai": monai, "nnunet": nnunet, "stardist": stardist, "cellpose": cellpose}[name](task)


def versions() -> Iterator[tuple[str, str]]:
    """Return the versions of the packages that are imported."""
    import importlib.metadata

    packages = {"nnunetv2": "nnunetv2", "monai": "monai", "cellpose": "cellpose", "stardist": "stardist"}
    for module, package in {**packages, "torch": "torch", "tensorflow": "tensorflow_cpu", "numpy": "numpy"}.items():
        if module in sys.modules:
            yield module, importlib.metadata.version(package)


def main() -> None:
    name, source, out, seconds, seed = sys.argv[1:]
    task = Task(source, float(seconds), int(seed))
    results = run(name, task)
    task.about |= {"threads": THREADS, "versions": dict(versions())}
    np.savez(out, about=json.dumps(task.about), **{f"result_{n}": result for n, result in enumerate(results)})


if __name__ == "__main__":
    main()
