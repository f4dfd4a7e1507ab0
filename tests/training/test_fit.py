import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from septum.config import TrainConfig
from septum.data.dataset import from_arrays
from septum.data.images import write_labels, write_png
from septum.data.simulate import cells
from septum.errors import ConfigError, DatasetError
from septum.machine.generators import drain
from septum.model.model import load
from septum.model.tensors import read_tensors
from septum.training import fit as loop
from septum.training.fit import OVERTIME, fit, with_lower_rate
from septum.training.holdout import HoldOut, hold_out, nothing_held_out
from septum.training.patches import Batch
from septum.training.processes import Processes
from septum.training.recipe import recipe
from septum.training.records import Changed, EndedEarly, Notice, Planned, StepDone, Validated
from septum.training.request import TrainingRequest
from septum.training.run import RunFolder
from septum.training.step import is_collapsed, new_state, train_step

SMALL = {"unet.base_channels": 2, "unet.depth": 1, "unet.dropout": 0.3, "patch": 16, "augment.elastic_sd": 2.0}


def small_dataset(images=2, size=40):
    pairs = [cells((size, size), 6, seed, diameter=12) for seed in range(images)]
    return from_arrays([image for image, _ in pairs], [labels for _, labels in pairs], kind="instances")


def small_config(dataset, steps=12, **changes) -> TrainConfig:
    return recipe("fast", dataset, torch.device("cpu")).with_changes({**SMALL, "steps": steps, **changes})


def run_to_the_end(steps):
    records = []
    model = drain(steps, records.append)
    return records, model


def same_weights(folder, other):
    first, second = (read_tensors(RunFolder(path).checkpoint_file)[0] for path in (folder, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    dataset = small_dataset()
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run_to_the_end(
            fit(TrainingRequest(dataset, small_config(dataset, seed=seed), tmp_path / name, held_out=hold_out(dataset)))
        )
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_stopped_after_any_step_and_resumed_equals_never_stopped(tmp_path, optimizer):
    dataset = small_dataset()
    config, held_out = small_config(dataset, optimizer=optimizer, batch=2), hold_out(dataset)
    expected, whole = run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "whole", held_out=held_out)))
    stops, resume = iter([2, 3, 7, 11]), False
    records = []
    for stop in [*stops, None]:
        steps = fit(TrainingRequest(dataset, config, tmp_path / "parts", held_out=held_out, resume=resume))
        resume = True
        if stop is None:
            rest, model = run_to_the_end(steps)
            records += rest
            break
        for record in steps:
            records.append(record)
            if isinstance(record, StepDone) and record.step == stop:
                steps.close()
                break
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert model.card == whole.card
    assert all(torch.equal(a, b) for a, b in zip(model.net.parameters(), whole.net.parameters(), strict=True))

    def described(records):
        return [(r.step, r.loss) for r in records if isinstance(r, StepDone)]

    assert described(records) == described(expected)

    def log(folder):
        return [{k: v for k, v in r.items() if k != "seconds"} for r in RunFolder(tmp_path / folder).records()]

    assert log("whole") == log("parts")


class Killed(BaseException):
    """Ends a training as kill -9 does: nothing is saved."""


@pytest.mark.parametrize(
    ("moment", "calls"),
    [("step", (2, 12, 9)), ("log", (2, 7, 5)), ("save_model", (1, 2, 1)), ("save_checkpoint", (1, 3, 2))],
)
def test_killed_before_a_step_or_before_anything_is_written_equals_never_killed(tmp_path, monkeypatch, moment, calls):
    dataset = small_dataset()
    config, held_out = small_config(dataset, steps=40), hold_out(dataset)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    run_to_the_end(fit(TrainingRequest(dataset, config, whole.path, held_out=held_out)))
    place, name = (loop, "train_step") if moment == "step" else (RunFolder, moment)
    action = getattr(place, name)
    for last in calls:
        left = iter(range(last - 1))

        def killed(*arguments, left=left):
            if next(left, None) is None:
                raise Killed
            return action(*arguments)

        monkeypatch.setattr(place, name, killed)
        request = TrainingRequest(dataset, config, parts.path, held_out=held_out, resume=parts.exists())
        with pytest.raises(Killed):
            run_to_the_end(fit(request))
    monkeypatch.undo()
    assert 0 < parts.last_step() < 40
    run_to_the_end(fit(TrainingRequest(dataset, config, parts.path, held_out=held_out, resume=True)))
    assert same_weights(whole.path, parts.path)
    assert whole.model_file.read_bytes() == parts.model_file.read_bytes()
    assert [{**one, "seconds": 0} for one in whole.records()] == [{**one, "seconds": 0} for one in parts.records()]


@pytest.mark.slow
def test_killed_five_times_at_random_steps_equals_never_killed(tmp_path):
    """The command line, real processes, kill -9: bit for bit the same weights, log and model."""
    for seed in range(2):
        image, labels = cells((40, 40), 6, seed, diameter=12)
        write_png(tmp_path / "data" / "images" / f"{seed}.png", np.repeat(image, 3, axis=0).transpose(1, 2, 0))
        write_labels(tmp_path / "data" / "labels" / f"{seed}.tif", labels)
    settings = [f"--set={name}={value}" for name, value in {**SMALL, "batch": 2}.items()]

    def command(folder, *options):
        train = [
            sys.executable,
            "-m",
            "septum",
            "train",
            str(tmp_path / "data"),
            "--output",
            str(tmp_path / folder),
        ]
        return [*train, "--quiet", "--device", "cpu", *options]

    begin = [*settings, "--steps", "400"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command("whole", *begin), check=True, env=environment)
    run = RunFolder(tmp_path / "killed")
    for step in sorted(random.Random(0).sample(range(1, 200), 5)):
        options = ["--resume"] if run.exists() else begin
        process = subprocess.Popen(command("killed", *options), env=environment)
        while process.poll() is None and not (run.records() and run.records()[-1]["step"] >= step):
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
        process.kill()
        process.wait()
    subprocess.run(command("killed", "--resume"), check=True, env=environment)
    assert same_weights(tmp_path / "whole", tmp_path / "killed")
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "killed/model.safetensors").read_bytes()
    assert not list((tmp_path / "killed").glob(".part.*"))


def test_what_is_held_out_has_no_influence_on_the_weights(tmp_path):
    """Labels in the block of the only image, and in its guard band, are never learned from."""
    (dataset,) = (small_dataset(images=1, size=64),)
    held_out = hold_out(dataset)
    labels = dataset.samples[0].labels.copy()
    labels[held_out.guards[0]] = 0
    other = from_arrays([dataset.samples[0].image], [labels], kind="instances")
    for name, data in (("a", dataset), ("b", other)):
        run_to_the_end(fit(TrainingRequest(data, small_config(data), tmp_path / name, held_out=held_out)))
    assert same_weights(tmp_path / "a", tmp_path / "b")
    labels = dataset.samples[0].labels.copy()
    free = np.ones(labels.shape, bool)
    free[held_out.guards[0]] = False
    labels[free] = 0
    changed = from_arrays([dataset.samples[0].image], [labels], kind="instances")
    run_to_the_end(fit(TrainingRequest(changed, small_config(changed), tmp_path / "c", held_out=held_out)))
    assert not same_weights(tmp_path / "a", tmp_path / "c")


def test_ignored_pixels_have_no_influence_on_the_weights(tmp_path):
    dataset = small_dataset(images=1, size=48)
    sample = dataset.samples[0]
    ignore = np.zeros((48, 48), bool)
    ignore[:, 30:] = True
    first = from_arrays([sample.image], [sample.labels], [ignore], kind="instances")
    second = from_arrays([sample.image], [np.where(ignore, 0, sample.labels)], [ignore], kind="instances")
    for name, data in (("a", first), ("b", second)):
        run_to_the_end(fit(TrainingRequest(data, small_config(data), tmp_path / name, held_out=nothing_held_out())))
    assert same_weights(tmp_path / "a", tmp_path / "b")


def test_a_budget_becomes_a_number_of_steps_that_is_written_before_the_first(tmp_path, ticks):
    dataset = small_dataset()
    config = small_config(dataset, steps=None)
    steps = fit(TrainingRequest(dataset, config, tmp_path / "run", held_out=hold_out(dataset), budget=5.0, begin=0.0))
    planned = next(steps)
    assert isinstance(planned, Planned)
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["train"]["steps"] == planned.steps > 0
    assert not RunFolder(tmp_path / "run").checkpoint_file.exists()
    records, _ = run_to_the_end(steps)
    assert 0.8 * 5.0 < ticks[-1] < OVERTIME * 5.0
    assert next(r.step for r in records if isinstance(r, StepDone)) == 1


def test_a_plan_with_too_few_steps_is_reported_before_it_starts(tmp_path, ticks):
    dataset = small_dataset()
    config, held_out = small_config(dataset, steps=None), hold_out(dataset)
    short = fit(TrainingRequest(dataset, config, tmp_path / "short", held_out=held_out, budget=5.0, begin=0.0))
    planned, notice = next(short), next(short)
    assert isinstance(planned, Planned)
    assert re.fullmatch(
        rf"{planned.steps} steps are too few to learn much; give a budget of \d+ s or more, for at least 100 steps",
        notice.text,
    )
    given = TrainingRequest(dataset, small_config(dataset, steps=2), tmp_path / "given", held_out=held_out)
    records, model = run_to_the_end(fit(given))
    assert records[1] == Notice("2 steps are too few to learn much; train for at least 100 steps")
    start = TrainingRequest(dataset, given.config, tmp_path / "from", held_out=held_out, start=model)
    again = replace(given, resume=True)
    for request in (start, again):
        assert not any(isinstance(record, Notice) for record in run_to_the_end(fit(request))[0])


def test_the_probe_leaves_no_trace_in_the_weights(tmp_path, ticks):
    dataset = small_dataset()
    held_out = hold_out(dataset)
    config = small_config(dataset, steps=None)
    steps = fit(TrainingRequest(dataset, config, tmp_path / "a", held_out=held_out, budget=5.0, begin=0.0))
    records, _ = run_to_the_end(steps)
    count = records[0].steps
    run_to_the_end(fit(TrainingRequest(dataset, small_config(dataset, steps=count), tmp_path / "b", held_out=held_out)))
    first, second = (read_tensors(RunFolder(tmp_path / n).checkpoint_file)[0] for n in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_clock_that_runs_out_ends_the_run_early_and_says_so(tmp_path, monkeypatch, ticks):
    dataset = small_dataset()
    monkeypatch.setattr("septum.training.fit.OVERTIME", 0.0)
    steps = fit(
        TrainingRequest(
            dataset,
            small_config(dataset, steps=None),
            tmp_path / "run",
            held_out=hold_out(dataset),
            budget=25.0,
            begin=0.0,
        )
    )
    records, model = run_to_the_end(steps)
    assert [type(record) for record in records] == [Planned, StepDone, EndedEarly, Validated]
    assert {"step", "ended_early", "seconds"} <= RunFolder(tmp_path / "run").records()[0].keys()
    assert model.card.step == 1


def test_a_run_that_ended_early_is_over(tmp_path, monkeypatch, ticks):
    dataset, folder = small_dataset(), tmp_path / "run"
    config, held_out = small_config(dataset, steps=None), hold_out(dataset)
    monkeypatch.setattr("septum.training.fit.OVERTIME", 0.0)
    run_to_the_end(fit(TrainingRequest(dataset, config, folder, held_out=held_out, budget=5.0, begin=0.0)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    records, model = run_to_the_end(fit(TrainingRequest(dataset, config, folder, held_out=held_out, resume=True)))
    assert [type(record) for record in records] == [Planned]
    assert model.card.step == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_killed_before_the_checkpoint_of_its_early_end_is_not_over(tmp_path):
    dataset = small_dataset()
    steps = fit(TrainingRequest(dataset, small_config(dataset), tmp_path / "run", held_out=hold_out(dataset)))
    while getattr(next(steps), "step", 0) < 3:
        pass
    steps.close()
    run = RunFolder(tmp_path / "run")
    run.log({"step": 4, "ended_early": True, "seconds": 1.0})
    assert run.last_step() == 3
    assert not run.is_finished()
    run.log({"step": 3, "ended_early": True, "seconds": 1.0})
    assert run.is_finished()


def test_without_a_budget_a_checkpoint_is_written_every_half_minute_however_few_steps_that_are(tmp_path, monkeypatch):
    dataset, saved, ticks = small_dataset(), [], iter(range(0, 10**6, 20))  # each look takes twenty seconds
    save = RunFolder.save_checkpoint

    def note(run, tensors, state):
        saved.append(state["step"])
        save(run, tensors, state)

    monkeypatch.setattr(RunFolder, "save_checkpoint", note)
    monkeypatch.setattr(Processes, "clock", lambda _: float(next(ticks)))
    run_to_the_end(
        fit(TrainingRequest(dataset, small_config(dataset, steps=60), tmp_path / "run", held_out=hold_out(dataset)))
    )
    assert saved[:5] == [2, 3, 5, 6, 8]  # later than thirty seconds after the one before, and every twentieth
    assert saved[-1] == 60


def test_the_best_weights_are_kept_with_their_score(tmp_path):
    dataset = small_dataset()
    records, model = run_to_the_end(
        fit(
            TrainingRequest(
                dataset, small_config(dataset, steps=40, patch=32), tmp_path / "run", held_out=hold_out(dataset)
            )
        )
    )
    scores = {record.step: record.scores["score"] for record in records if isinstance(record, Validated)}
    assert len(scores) == 20
    assert model.card.scores["score"] == max(scores.values())
    assert model.card.step == max(step for step, score in scores.items() if score == max(scores.values()))


def test_two_images_can_be_learned_by_heart(tmp_path):
    """End to end: labels -> border, weights, patches, network, tiles, components: every object comes back."""
    pairs = [cells((48, 48), 3, seed, diameter=20) for seed in range(2)]
    dataset = from_arrays([image for image, _ in pairs], [labels for _, labels in pairs], kind="instances")
    still = {f"augment.{name}": 0.0 for name in ("rotation", "elastic_sd", "contrast", "brightness", "gamma")}
    changes = {
        **still,
        "augment.mirror": False,
        "unet.base_channels": 8,
        "unet.depth": 2,
        "unet.dropout": 0.0,
        "patch": 48,
        "batch": 2,
        "learning_rate": 1e-2,
        "weight_map.w0": 2.0,
    }
    config = small_config(dataset, steps=150, **changes)
    _, model = run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "run", held_out=nothing_held_out())))
    for sample in dataset.samples:
        predicted = model.predict(sample.image).labels
        union = np.count_nonzero((predicted > 0) | (sample.labels > 0))
        assert np.count_nonzero((predicted > 0) & (sample.labels > 0)) / union > 0.95
        assert predicted.max() == sample.labels.max()


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    dataset = small_dataset()
    run_to_the_end(
        fit(TrainingRequest(dataset, small_config(dataset, steps=2), tmp_path / "run", held_out=hold_out(dataset)))
    )
    message = "already contains a run; continue it with --resume or choose another --output"
    with pytest.raises(ConfigError, match=message):
        next(
            fit(TrainingRequest(dataset, small_config(dataset, steps=2), tmp_path / "run", held_out=hold_out(dataset)))
        )


def test_a_resumed_run_refuses_other_data(tmp_path):
    dataset = small_dataset()
    run_to_the_end(
        fit(TrainingRequest(dataset, small_config(dataset, steps=2), tmp_path / "run", held_out=hold_out(dataset)))
    )
    other = from_arrays([s.image + np.uint8(1) for s in dataset.samples], [s.labels for s in dataset.samples])
    with pytest.raises(
        DatasetError, match=r"the images or labels have changed since .*run was started; start a new run"
    ):
        next(fit(TrainingRequest(other, small_config(other), tmp_path / "run", held_out=hold_out(other), resume=True)))


def test_a_finished_run_resumed_returns_its_model(tmp_path):
    dataset = small_dataset()
    config, held_out = small_config(dataset, steps=3), hold_out(dataset)
    run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "run", held_out=held_out)))
    records, model = run_to_the_end(
        fit(TrainingRequest(dataset, config, tmp_path / "run", held_out=held_out, resume=True))
    )
    assert [type(record) for record in records] == [Planned]
    assert model.card == load(tmp_path / "run").card


DEADLY = {"optimizer": "sgd", "learning_rate": 0.1, "warmup": 0.0, "unet.normalization": "none"}


def test_a_collapsed_network_starts_again_once_and_equals_one_started_with_a_tenth_of_the_rate(tmp_path):
    dataset = small_dataset()
    held_out = hold_out(dataset)
    records, model = run_to_the_end(
        fit(TrainingRequest(dataset, small_config(dataset, steps=40, **DEADLY), tmp_path / "died", held_out=held_out))
    )
    (change,) = [record for record in records if isinstance(record, Changed)]
    assert change.step == 0
    assert re.fullmatch(
        r"up to step \d+, every pixel got the same prediction for 25 steps; starting again with a tenth of the "
        r"learning rate, 0.01, for 40 steps",
        change.text,
    )
    gentle = small_config(dataset, steps=40, **{**DEADLY, "learning_rate": 0.01})
    _, expected = run_to_the_end(fit(TrainingRequest(dataset, gentle, tmp_path / "gentle", held_out=held_out)))
    assert same_weights(tmp_path / "died", tmp_path / "gentle")
    assert model.card == expected.card
    run = RunFolder(tmp_path / "died")
    assert run.config().asked == {"learning_rate": 0.1, "steps": 40}
    assert [r for r in run.records() if "change" in r] == [{"step": 0, "change": change.text}]
    assert [r["step"] for r in run.records() if "loss" in r] == list(range(1, 41))


@pytest.mark.parametrize("stop", [0, 7])
def test_a_run_that_started_again_and_was_stopped_continues_with_the_lower_rate(tmp_path, stop):
    dataset = small_dataset()
    config, held_out = small_config(dataset, steps=40, **DEADLY), hold_out(dataset)
    first, again = fit(TrainingRequest(dataset, config, tmp_path / "parts", held_out=held_out)), False
    for record in first:
        again |= isinstance(record, Changed)
        if again and record.step == stop:
            first.close()
    records, _ = run_to_the_end(
        fit(TrainingRequest(dataset, config, tmp_path / "parts", held_out=held_out, resume=True))
    )
    assert records[0].step == stop
    run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "whole", held_out=held_out)))
    assert same_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_training_from_a_model_that_starts_again_after_a_stop_starts_from_that_model(tmp_path):
    dataset = small_dataset()
    held_out = hold_out(dataset)
    gentle = small_config(dataset, steps=60, **{**DEADLY, "learning_rate": 0.05})
    wild = gentle.with_changes({"learning_rate": 0.5})
    learned = gentle.with_changes({"learning_rate": 0.01})
    _, model = run_to_the_end(fit(TrainingRequest(dataset, learned, tmp_path / "model", held_out=held_out)))
    steps = fit(TrainingRequest(dataset, wild, tmp_path / "a", held_out=held_out, start=model))
    for record in steps:
        if record.step == 20:
            steps.close()
    records, _ = run_to_the_end(fit(TrainingRequest(dataset, gentle, tmp_path / "a", held_out=held_out, resume=True)))
    assert any(isinstance(record, Changed) for record in records)
    run_to_the_end(fit(TrainingRequest(dataset, gentle, tmp_path / "b", held_out=held_out, start=model)))
    assert same_weights(tmp_path / "a", tmp_path / "b")


def test_with_a_budget_a_run_starts_again_for_the_time_that_is_left(tmp_path):
    dataset = small_dataset()
    steps = fit(
        TrainingRequest(dataset, small_config(dataset, steps=100), tmp_path / "run", held_out=hold_out(dataset))
    )
    settings = next(steps).run.with_changes({"budget": 60.0})
    state = new_state(settings.train, torch.device("cpu"), seconds=15.0)
    assert with_lower_rate(settings, state, "it died").steps == 75


def test_a_network_that_collapses_twice_stops_the_run_with_a_fix(tmp_path):
    dataset = small_dataset()
    config = small_config(dataset, steps=60, **{**DEADLY, "learning_rate": 10.0})
    message = r"got the same prediction for 25 steps; set a learning rate below 1, the one last tried, with --set"
    with pytest.raises(ConfigError, match=message):
        run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "run", held_out=hold_out(dataset))))


def test_a_loss_that_is_not_finite_twice_stops_the_run_with_a_fix(tmp_path):
    dataset = small_dataset()
    config = small_config(dataset, steps=50, optimizer="sgd", learning_rate=1e30, warmup=0.0)
    steps = fit(TrainingRequest(dataset, config, tmp_path / "run", held_out=hold_out(dataset)))
    begun_again = next(record for record in steps if isinstance(record, Changed)).text
    assert re.match(r"the loss became (nan|inf) at step \d+; starting again with .* learning rate, 1e\+29", begun_again)
    with pytest.raises(ConfigError, match=r"the loss became (nan|inf) at step \d+; set a learning rate below 1e\+29"):
        run_to_the_end(steps)


def test_a_network_is_not_called_collapsed_for_patches_of_one_class():
    flat, lively = torch.zeros(1, 2, 3, 3), torch.arange(18.0).reshape(1, 2, 3, 3)
    one, two = torch.zeros(1, 3, 3, dtype=torch.long), torch.eye(3, dtype=torch.long)[None]
    everywhere, unknown = torch.ones(1, 3, 3), 1.0 - two
    images = torch.zeros(1, 1, 7, 7)
    assert is_collapsed(flat, Batch(images, two, everywhere)) is True
    assert is_collapsed(lively, Batch(images, two, everywhere)) is False
    assert is_collapsed(flat, Batch(images, one, everywhere)) is None
    assert is_collapsed(flat, Batch(images, two, unknown)) is None  # the other class is ignored


def test_a_step_that_runs_out_of_memory_is_repeated_with_half_the_batch_from_the_same_weights(tmp_path, monkeypatch):
    dataset = small_dataset()
    config, held_out = small_config(dataset, batch=4), hold_out(dataset)

    def short_of_memory(state, images, config, *more):
        if config.batch > 2 and state.step == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return train_step(state, images, config, *more)

    monkeypatch.setattr("septum.training.fit.train_step", short_of_memory)
    records, _ = run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "short", held_out=held_out)))
    (change,) = [record for record in records if isinstance(record, Changed)]
    assert change == Changed(5, "memory ran out at step 6; continuing with 2 patches of 16 x 16 pixels per step")
    run = RunFolder(tmp_path / "short")
    assert (run.config().train.batch, run.config().asked) == (2, {"batch": 4, "patch": 16})
    assert {"step": 5, "change": change.text} in run.records()

    steps = fit(TrainingRequest(dataset, config, tmp_path / "by-hand", held_out=held_out))
    for record in steps:
        if isinstance(record, StepDone) and record.step == 5:
            steps.close()
    run = RunFolder(tmp_path / "by-hand")
    run.config_file.write_text(run.config_file.read_text().replace('"batch": 4', '"batch": 2'))
    run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "by-hand", held_out=held_out, resume=True)))
    assert same_weights(tmp_path / "short", tmp_path / "by-hand")


def test_an_error_that_is_not_about_memory_is_not_taken_for_one(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("septum.training.fit.train_step", broken)
    dataset = small_dataset()
    with pytest.raises(RuntimeError, match="shapes differ"):
        run_to_the_end(
            fit(TrainingRequest(dataset, small_config(dataset), tmp_path / "run", held_out=hold_out(dataset)))
        )


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_a_class_that_is_only_in_what_is_held_out_is_not_learned_and_does_no_harm(tmp_path, dice):
    pairs = [cells((40, 40), 6, seed, diameter=12) for seed in range(2)]
    classes = [np.where(labels > 0, 1 + index, 0) for index, (_, labels) in enumerate(pairs)]
    dataset = from_arrays([image for image, _ in pairs], classes, kind="classes")
    held_out = HoldOut({1: (slice(None), slice(None))}, {}, "the image with the other class")
    config = small_config(dataset, steps=40, dice=dice, **{"weight_map.balance": "frequency"})
    records, model = run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "run", held_out=held_out)))
    assert model.card.class_names == dataset.class_names == ("background", "class 1", "class 2")
    assert np.isfinite([record.loss for record in records if isinstance(record, StepDone)]).all()
    assert not (model.predict(dataset.samples[0].image).labels == 2).any()


def test_without_steps_and_budget_nothing_starts(tmp_path):
    dataset = small_dataset()
    with pytest.raises(
        ConfigError, match="the training needs a length; give a budget, such as 20min, or a number of steps"
    ):
        next(
            fit(
                TrainingRequest(
                    dataset, small_config(dataset, steps=None), tmp_path / "run", held_out=hold_out(dataset)
                )
            )
        )
    assert not (tmp_path / "run").exists()


def test_a_training_can_start_from_the_weights_of_a_model(tmp_path):
    dataset = small_dataset()
    config = small_config(dataset, steps=2)
    _, model = run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "a", held_out=hold_out(dataset))))
    slow = config.with_changes({"learning_rate": 1e-12, "steps": 1, "weight_average": 0.0})
    _, again = run_to_the_end(
        fit(TrainingRequest(dataset, slow, tmp_path / "b", held_out=hold_out(dataset), start=model))
    )
    for before, after in zip(model.net.parameters(), again.net.parameters(), strict=True):
        torch.testing.assert_close(before, after, atol=1e-9, rtol=0)


def test_a_training_from_a_model_that_stops_before_its_first_step_continues_from_that_model(tmp_path):
    dataset = small_dataset()
    config, held_out = small_config(dataset, steps=3), hold_out(dataset)
    _, model = run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "first", held_out=held_out)))
    run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "whole", held_out=held_out, start=model)))
    next(
        fit(TrainingRequest(dataset, config, tmp_path / "stopped", held_out=held_out, start=model))
    )  # planned, then gone
    run_to_the_end(fit(TrainingRequest(dataset, config, tmp_path / "stopped", held_out=held_out, resume=True)))
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_objects_beside_pixels_without_annotation_do_not_count_for_the_size_of_debris():
    labels = np.zeros((60, 60), int)
    labels[5:15, 5:15], labels[30:50, 30:50] = 1, 2
    ignore = np.zeros(labels.shape, bool)
    whole = from_arrays([labels * 1.0], [labels], kind="instances")
    ignore[:, :13] = True  # leaves 20 pixels of the smaller one
    cut = from_arrays([labels * 1.0], [labels], [ignore], kind="instances")
    sizes = [recipe("fast", data, torch.device("cpu")).decoding.smallest_object for data in (whole, cut)]
    assert sizes == [100 // 4, 400 // 4]
