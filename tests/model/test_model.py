import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from septum.config import TrainConfig, UNetConfig
from septum.core.decode import decode
from septum.core.normalize import measure_normalization
from septum.core.unet import UNet, input_size, margin
from septum.errors import ImageError, ModelError, OutputError
from septum.model import model as module
from septum.model.model import (
    FORMAT,
    Model,
    ModelCard,
    ModelFile,
    find_model,
    fingerprint,
    load,
    load_for_prediction,
    parameters,
)
from septum.model.tensors import read_tensors, write_tensors


def small_model(seed=1, **unet) -> Model:
    config = TrainConfig(unet=UNetConfig(**{"base_channels": 2, "depth": 1, **unet}), steps=3)
    card = ModelCard(
        config=config,
        class_names=("background", "foreground"),
        channels=config.unet.in_channels,
        pixel_size=(0.25, 0.5),
        data={"a": "1f", "b": "2e"},
        held_out="1 of 2 images held out for validation: b",
        scores={"score": 0.5, "f1": 0.25},
        step=2,
        versions={"python": "3.11"},
    )
    return Model(UNet(config.unet, seed).eval(), card)


def with_card(path, card) -> Path:
    """A model file whose card is any text, beside sound weights."""
    text = card if isinstance(card, str) else json.dumps(card)
    write_tensors(path, small_model().net.state_dict(), {"septum": text})
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    small_model().save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_saved_and_loaded_gives_the_same_logits_card_and_file(file, tmp_path):
    model, again = small_model(), load(file)
    pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 40, 48)).astype(np.float32))
    with torch.inference_mode():
        assert torch.equal(model.net(pixels), again.net(pixels))
    assert again.card == model.card
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    assert fingerprint(file) == fingerprint(tmp_path / "again.safetensors")


def test_a_loaded_network_is_ready_to_predict(file):
    assert not load(file).net.training  # dropout would make every prediction another one


@pytest.mark.parametrize("shape", [(40, 52), (10, 10), (1, 5000), (1, 1)])
def test_a_prediction_is_one_pass_over_the_whole_mirrored_image(shape):
    model = small_model()
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    lost = margin(1)
    beyond = [(lost, input_size(size, 1) - size - lost) for size in shape]
    mirrored = np.pad(measure_normalization(image[None], "standardize")(image[None])[0], beyond, mode="reflect")
    with torch.inference_mode():
        logits = model.net(torch.from_numpy(mirrored)[None, None])[0, :, : shape[0], : shape[1]]
    expected = torch.softmax(logits, dim=0).numpy()
    result = model.predict(image, max_memory=102 * 10**6)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(result.labels, decode("border", expected))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 8, 8)) + np.arange(3)[:, None, None], "3 channels, but the model was trained on 1"),
        (np.zeros((8, 9, 3)), r"shape \(8, 9, 3\), .* move the channels first with np\.moveaxis\(image, -1, 0\)"),
        (np.zeros((2, 2, 8, 8)), r"expected \(Y, X\) or \(C, Y, X\)"),
        (np.zeros((0, 8)), "no pixels"),
        (np.full((8, 8), np.nan), "NaN or infinite"),
        (np.full((8, 8), np.inf), "NaN or infinite"),
    ],
)
def test_images_that_do_not_fit_are_refused(image, message):
    with pytest.raises(ImageError, match=message):
        small_model().predict(image)


def test_a_model_is_shown_in_one_line():
    assert repr(small_model()) == (
        "Model(instances: background, foreground; U-Net of depth 1, 2 base channels, 434 weights; "
        "score 0.5000, f1 0.2500)"
    )


def test_a_loaded_model_knows_its_file_and_a_model_in_memory_has_none(file, tmp_path):
    digest = fingerprint(file)
    shutil.copy(file, tmp_path / "run.safetensors")
    model = load(file)
    file.write_bytes(b"replaced")
    assert model.saved() == model.file == ModelFile(file, digest)
    assert load(tmp_path / "run.safetensors").saved().sha256 == digest
    with pytest.raises(ModelError, match=r"this model has no file; save it with model\.save\(path\) and load it with"):
        small_model().saved()


@pytest.mark.parametrize("normalization", ["none", "image"])
def test_a_model_that_is_loaded_for_prediction_predicts_the_same_bits(tmp_path, normalization, monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8)
    for order in (torch.contiguous_format, torch.channels_last):
        monkeypatch.setattr("septum.model.predict.fastest_order", lambda device, order=order: order)
        small_model(normalization=normalization).save(tmp_path / "m.safetensors")
        first, again = (one(tmp_path / "m.safetensors").predict(image) for one in (load, load_for_prediction))
        np.testing.assert_array_equal(first.probabilities, again.probabilities)


def test_a_model_describes_itself():
    # 1->2: 20, 2->2: 38, 2->4: 76, 4->4: 148, up 4->2: 34, 4->2: 74, 2->2: 38, 1x1: 6
    assert parameters(small_model().net) == 434
    assert dict(small_model().describe()) == {
        "network": "U-Net of depth 1, 2 base channels, 434 weights",
        "input": "1 channel, pixel size 0.25 x 0.5 micrometre",
        "output": "instances (by border): background, foreground",
        "recipe": "fast, step 2 of 3, seed 0",
        "scores": "score 0.5000, f1 0.2500",
        "measured on": "1 of 2 images held out for validation: b",
        "training data": "a, b",
        "versions": "python 3.11",
    }


@pytest.mark.parametrize("where", ["start", "header", "weights", "last byte"])
def test_a_file_cut_short_is_refused(file, where):
    data = file.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    ends = {
        "start": range(9),
        "header": range(9, header + 1, 97),
        "weights": range(header, len(data), 97),
        "last byte": [len(data) - 1],
    }
    for end in ends[where]:
        file.write_bytes(data[:end])
        with pytest.raises(ModelError, match="cut short"):
            load(file)


def test_a_file_with_something_appended_is_refused(file):
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="is not a safetensors file or is cut short"):
        load(file)


class Trap:
    """What an unpickler would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch", "torch before 1.6", *range(2, 6)])
def test_a_pickle_is_refused_and_not_opened(tmp_path, how):
    file, sprung = tmp_path / "model.safetensors", tmp_path / "sprung"
    if isinstance(how, int):
        file.write_bytes(pickle.dumps(Trap(sprung), protocol=how))
    else:
        torch.save({"trap": Trap(sprung)}, file, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ModelError, match=r"is a pickled PyTorch file.*Septum reads only \.safetensors"):
        load(file)
    assert not sprung.exists()


def test_other_files_are_refused(tmp_path):
    foreign, text = tmp_path / "foreign.safetensors", tmp_path / "text.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, foreign, {"format": "pt"})
    text.write_text("this is a text file, long enough to have a header")
    with pytest.raises(ModelError, match="is a safetensors file but not a Septum model; give a file that septum"):
        load(foreign)
    with pytest.raises(ModelError, match="is not a safetensors file"):
        load(text)


def test_a_later_format_is_refused_with_the_fix(tmp_path):
    card = json.loads(small_model().card.model_dump_json()) | {"format": FORMAT + 1, "news": 1}
    with pytest.raises(ModelError, match=f"has model format {FORMAT + 1}, but this version .* up to {FORMAT}; update"):
        load(with_card(tmp_path / "m.safetensors", card))


def test_an_earlier_format_is_migrated_step_by_step(tmp_path, monkeypatch):
    card = json.loads(small_model().card.model_dump_json())
    old = {**card, "format": 1, "names": card["class_names"]}
    del old["class_names"], old["held_out"]
    monkeypatch.setattr(module, "FORMAT", 3)
    monkeypatch.setitem(module.MIGRATIONS, 1, lambda c: {**c, "class_names": c["names"], "format": 2})
    monkeypatch.setitem(
        module.MIGRATIONS,
        2,
        lambda c: {**{k: v for k, v in c.items() if k != "names"}, "held_out": "b", "format": 3},
    )
    assert load(with_card(tmp_path / "m.safetensors", old)).card.held_out == "b"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda card: json.dumps(card)[:-1], "delimiter"),
        (lambda card: [1, 2], "no format number"),
        (lambda card: {**card, "format": "1"}, "no format number"),
        (lambda card: {**card, "format": 0}, "no format number"),
        (lambda card: {name: card[name] for name in card if name != "config"}, "needs a value for 'config'"),
        (lambda card: {**card, "chanels": 1}, "did you mean 'channels'"),
        (lambda card: {**card, "config": {**card["config"], "patch": -3}}, "patch"),
        (lambda card: {**card, "config": {**card["config"], "unet": {"depth": 99}}}, "depth"),
    ],
)
def test_a_damaged_card_is_refused(tmp_path, damage, what):
    card = json.loads(small_model().card.model_dump_json())
    with pytest.raises(ModelError, match=rf"the description inside .*m\.safetensors is damaged: .*{what}.*; download"):
        load(with_card(tmp_path / "m.safetensors", damage(card)))


def test_weights_that_do_not_fit_the_card_are_refused(tmp_path):
    card = json.loads(small_model(base_channels=3).card.model_dump_json())
    with pytest.raises(ModelError, match="do not fit the network"):
        load(with_card(tmp_path / "m.safetensors", card))


def test_the_model_of_a_run_folder_is_found_the_final_one_first(tmp_path):
    with pytest.raises(ModelError, match=r"there is no model at .*nowhere; give a run folder"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"has no model\.safetensors; give the folder that septum train"):
        find_model(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert find_model(tmp_path) == tmp_path / "model.safetensors"
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "model.safetensors").touch()
    assert find_model(tmp_path) == tmp_path / "final" / "model.safetensors"
    assert find_model(tmp_path / "model.safetensors") == tmp_path / "model.safetensors"


def test_saving_to_a_folder_that_cannot_be_written_to_is_refused(file):
    before = file.read_bytes()
    with pytest.raises(OutputError, match="cannot write"):
        small_model(seed=2).save(file / "model.safetensors")
    assert file.read_bytes() == before


def test_reading_tensors_of_a_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        read_tensors(tmp_path)


def test_a_card_of_format_1_is_read(tmp_path):
    card = json.loads(small_model().card.model_dump_json())
    config = {name: value for name, value in card["config"].items() if name not in ("kind", "instances", "decoding")}
    old = {**card, "format": 1, "config": {**config, "target": "border", "smallest_object": 7}}
    path = tmp_path / "old.safetensors"
    small_model().save(path)
    tensors, _ = read_tensors(path)
    write_tensors(path, tensors, {"septum": json.dumps(old)})
    read = load(path).card
    assert (read.format, read.kind, read.config.target, read.config.decoding.smallest_object) == (
        2,
        "instances",
        "border",
        7,
    )


def test_weights_in_half_precision_are_rounded_once(tmp_path):
    model, file = small_model(), tmp_path / "half.safetensors"
    model.save(file, torch.float16)
    stored, _ = read_tensors(file)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    for name, tensor in load(file).net.state_dict().items():
        assert torch.equal(tensor, model.net.state_dict()[name].half().float())
