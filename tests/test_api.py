"""The Python functions say and refuse what the command line says and refuses."""

import numpy as np
import pytest
import torch

import septum
from septum import api
from septum.data.simulate import cells
from septum.errors import ConfigError, ImageError
from septum.training.records import Notice, Planned, StepDone, Validated

SMALL = {"unet.base_channels": 2, "unet.depth": 1, "patch": 16}


@pytest.fixture(scope="module")
def arrays():
    pairs = [cells((40, 48), 5, seed, diameter=12) for seed in range(3)]
    return [image[0] for image, _ in pairs], [labels for _, labels in pairs]


@pytest.fixture(scope="module")
def model(arrays):
    return septum.train(*arrays, steps=3, settings=SMALL, log=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "papr", "steps": 3}, "there is no recipe 'papr'; did you mean 'paper'?"),
        ({"recipe": None, "steps": 3}, "there is no recipe None; known are: fast, paper"),
        ({"steps": 3, "budget": "1min"}, "a budget and a number of steps both set the length of the training"),
        (
            {"settings": {"steps": 3}, "budget": 60},
            "a budget and a number of steps both set the length of the training",
        ),
        ({}, "the training needs a length; give a budget, such as 20min, or a number of steps"),
        ({"budget": "20"}, "a budget must be a time such as 20min, 1h30min or 90s, got '20'"),
        ({"steps": 3, "settings": {"pach": 16}}, "TrainConfig has no setting 'pach'; did you mean 'patch'?"),
        ({"budget": -1}, "a budget must be a time such as 20min, or a number of seconds above 0, got -1"),
        ({"budget": 0}, "a budget must be a time such as 20min, or a number of seconds above 0, got 0"),
        ({"budget": float("nan")}, "a budget must be a time such as 20min, or a number of seconds above 0, got nan"),
        ({"budget": float("inf")}, "a budget must be a time such as 20min, or a number of seconds above 0, got inf"),
        ({"budget": [60]}, "a budget must be a time such as 20min, or a number of seconds above 0, got [60]"),
        ({"budget": True}, "a budget must be a time such as 20min, or a number of seconds above 0, got True"),
        ({"steps": 3, "device": "gpu"}, "there is no device 'gpu'; available: auto, "),
        ({"steps": 3, "device": None}, "there is no device 'None'; available: auto, "),
        ({"steps": 3, "settings": {"unet.n_classes": 4}}, "the network has unet.n_classes = 4, but these images and"),
        ({"steps": 3, "settings": {"kind": "classes"}}, "kind is 'classes' in the settings, but these labels are"),
        ({"steps": 3, "settings": {"recipe": "paper"}}, "recipe is 'paper' in the settings, but recipe 'fast' is used"),
    ],
)
def test_wrong_options_are_refused(arrays, options, message):
    with pytest.raises(ConfigError) as error:
        septum.train(*arrays, log=None, **options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(("budget", "seconds"), [("1h30min", 5400.0), (90, 90)])
def test_a_budget_is_text_or_seconds(arrays, monkeypatch, budget, seconds):
    requests = []

    def fit(request):
        requests.append(request)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(api, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        septum.train(*arrays, budget=budget, log=None)
    assert [request.budget for request in requests] == [seconds]


def test_steps_may_be_among_the_settings(arrays, model):
    other = septum.train(*arrays, settings={**SMALL, "steps": 3}, log=None)
    assert other.card == model.card


def test_settings_may_be_nested(arrays, model):
    nested = septum.train(*arrays, steps=3, settings={"unet": {"base_channels": 2, "depth": 1}, "patch": 16}, log=None)
    assert nested.card == model.card


def test_progress_is_printed_or_passed_on_or_silent(arrays, model, capsys):
    lines, records = [], []
    septum.train(*arrays, steps=3, settings=SMALL)
    printed = capsys.readouterr().out
    septum.train(*arrays, steps=3, settings=SMALL, log=lines.append, on_record=records.append)
    septum.train(*arrays, steps=3, settings=SMALL, log=None)
    assert printed == "\n".join(lines) + "\n"
    assert capsys.readouterr() == ("", "")
    assert lines[0] == "3 images in memory"
    assert lines[-1].startswith(f"best step: {model.card.step}, panoptic quality 0.")
    assert [record.step for record in records if isinstance(record, StepDone)] == [1, 2, 3]
    assert {Notice, Planned, StepDone, Validated} == {type(record) for record in records}


def test_a_number_of_versions_is_the_averaging_of_the_command_line(arrays, model):
    image = arrays[0][0]
    for versions, kind in ((7, "rotations"), (8, "dihedral")):
        one = model.predict(image, tta=versions)
        other = model.predict(image, tta=septum.TtaConfig(kind=kind, versions=versions))
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert not np.array_equal(one.probabilities, model.predict(image).probabilities)
    with pytest.raises(ConfigError, match=r"tta must be 7 .* or 8 .*, got 5"):
        model.predict(image, tta=5)


def test_auto_is_the_best_device_everywhere(model, tmp_path):
    best = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.save(tmp_path / "model.safetensors")
    for device in ("auto", best, best.type):
        loaded = septum.load(tmp_path / "model.safetensors", device)
        assert loaded.net.output.weight.device.type == model.net.output.weight.device.type == best.type
    with pytest.raises(ConfigError, match="there is no device 'gpu'; available: auto, "):
        septum.load(tmp_path / "model.safetensors", "gpu")


def test_an_evaluation_is_short_in_a_notebook_and_prints_its_scores(arrays):
    _, labels = arrays
    evaluation = septum.evaluate(labels, labels)
    assert repr(evaluation) == (
        "<Evaluation of 3 images, instances: f1 1.000, mean_matched_iou 1.000, panoptic_quality 1.000>"
    )
    lines = str(evaluation).splitlines()
    assert lines[0] == "per image"
    assert "F1           1.0000" in lines[lines.index("all images") + 2]


LABELS = np.kron([[1, 0, 2]], np.ones((8, 8), int))
LAST = np.zeros((*LABELS.shape, 3))


@pytest.mark.parametrize(
    ("predictions", "truth", "message"),
    [
        ([LAST], [LABELS], r"number 0 of the predictions has shape \(8, 24, 3\), .* np.moveaxis\(image, -1, 0\)"),
        ([LABELS], [LABELS[..., None]], r"truth 0 has shape \(8, 24, 1\), expected \(Y, X\); give one label per"),
        (LABELS, LABELS, r"truth 0 has shape \(24,\), expected \(Y, X\); give a list of label images"),
    ],
)
def test_evaluate_says_how_arrays_must_be_shaped(predictions, truth, message):
    with pytest.raises(ImageError, match=message):
        septum.evaluate(predictions, truth)


def test_evaluate_refuses_an_unknown_kind():
    with pytest.raises(ConfigError, match="labels have no kind 'instance'; did you mean 'instances'"):
        septum.evaluate([LABELS], [LABELS], kind="instance")


def test_square_maps_of_classes_are_channels_first():
    labels = np.eye(3, dtype=int)
    maps = np.stack([labels == 0, labels == 1, labels == 2]).astype(np.float32)
    assert septum.evaluate([maps], [labels], kind="classes").scores["pixel_error"].value == 0


def test_a_trained_model_knows_its_file_if_it_is_kept(arrays, model, tmp_path):
    assert model.file is None
    kept = septum.train(*arrays, steps=3, settings=SMALL, log=None, output=tmp_path / "run")
    assert kept.saved().path == tmp_path / "run" / "model.safetensors"
