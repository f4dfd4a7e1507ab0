from dataclasses import replace

import numpy as np
import pytest
import torch

from septum.core.targets import TARGETS
from septum.data.dataset import from_arrays
from septum.data.keep import InFiles, is_mapped
from septum.data.simulate import cells
from septum.model import predict
from septum.training import step, validate
from septum.training.holdout import hold_out
from septum.training.patches import prepare
from septum.training.recipe import recipe
from septum.training.validate import Part, choose_decoding, predictions

SMALL = {"unet.base_channels": 2, "unet.depth": 1, "steps": 1}


def held_out(probabilities_of):
    """An image, its data set and settings, with probabilities made from the true classes."""
    image, labels = cells((40, 40), 6, 0, diameter=12)
    dataset = from_arrays([image], [labels], kind="instances")
    config = recipe("fast", dataset, torch.device("cpu"), SMALL)
    encoded = np.moveaxis(np.eye(3)[TARGETS["rim"].encode(labels)], -1, 0)
    block = (slice(0, 40), slice(0, 40))
    return [Part(dataset.samples[0], block, probabilities_of(encoded))], config, dataset


def sure(certainty):
    """The right class has this probability, background has the rest."""
    return lambda encoded: certainty * encoded + (1 - certainty) * np.array([1.0, 0.0, 0.0])[:, None, None]


def doubting(encoded):
    """Two pixels of the rims are below one half."""
    certainty = np.full(encoded.shape[1:], 0.9)
    certainty.flat[np.flatnonzero(encoded[1])[:2]] = 0.45
    return sure(certainty)(encoded)


def test_a_certain_network_gets_thresholds_of_one_half():
    decoding, scores = choose_decoding(*held_out(sure(0.9)))
    assert (decoding.seed, decoding.foreground) == (0.5, 0.5)
    assert scores["f1"] == 1


def test_thresholds_change_from_one_half_only_for_a_gain():
    _, best = choose_decoding(*held_out(sure(0.9)))
    decoding, scores = choose_decoding(*held_out(doubting))  # 0.4 would have two pixels more, and no more than that
    assert (decoding.seed, decoding.foreground) == (0.5, 0.5)
    assert best["score"] - 0.01 < scores["score"] < best["score"]


def test_a_network_of_low_probabilities_gets_lower_thresholds():
    """It finds nothing at one half: the decoder learns where its cells begin."""
    decoding, scores = choose_decoding(*held_out(sure(0.45)))
    assert (decoding.seed, decoding.foreground) == (0.4, 0.4)
    assert scores["f1"] == 1


def test_of_a_streamed_data_set_no_more_than_one_image_is_in_memory_and_the_choice_is_the_same(tmp_path, monkeypatch):
    parts, config, dataset = held_out(sure(0.45))
    expected, looked_at = choose_decoding(iter(parts * 3), config, dataset), []

    def decode(target, probabilities, decoding):
        looked_at.append(probabilities)
        return decode_as_before(target, probabilities, decoding)

    decode_as_before = validate.decode
    monkeypatch.setattr(validate, "decode", decode)
    streamed = replace(dataset, keep=InFiles(tmp_path / "streamed"))
    assert choose_decoding(iter(parts * 3), config, streamed) == expected
    assert len(looked_at) > 3
    assert all(map(is_mapped, looked_at))
    assert not any((tmp_path / "streamed").iterdir())


def test_without_anything_held_out_the_settings_stay():
    _, config, dataset = held_out(sure(0.9))
    config = config.with_changes({"decoding.seed": 0.7})
    assert choose_decoding([], config, dataset) == (config.decoding, {})


@pytest.mark.parametrize("orders", [("contiguous_format", "channels_last"), ("channels_last", "contiguous_format")])
def test_a_validation_changes_nothing_in_the_steps_after_it(orders, monkeypatch):
    """Weights and momentum lie in one order of memory, predictions are made in another."""
    trained, predicted = (getattr(torch, name) for name in orders)
    monkeypatch.setattr(step, "fastest_order", lambda device: trained)
    monkeypatch.setattr(predict, "fastest_order", lambda device: predicted)
    image, labels = cells((40, 40), 6, 0, diameter=12)
    dataset, device = from_arrays([image], [labels], kind="instances"), torch.device("cpu")
    config = recipe("paper", dataset, device, {**SMALL, "unet.base_channels": 4, "patch": 20, "learning_rate": 1e-2})
    held = hold_out(dataset)
    images = prepare(dataset, config, held, device)
    weights = []
    for looks in (False, True):
        state = step.new_state(config, device)
        for number in range(4):
            state.step = number
            step.train_step(state, images, config, 4)
            if looks:
                list(predictions(state.average, config, dataset, held, 10**9))
        weights.append(torch.cat([values.flatten() for values in state.net.state_dict().values()]))
    assert torch.equal(*weights)
