import numpy as np
import torch

from septum.core.targets import TARGETS
from septum.core.unet import UNet
from septum.data.dataset import from_arrays
from septum.data.simulate import cells
from septum.engine.holdout import hold_out, nothing_held_out
from septum.engine.model import Model, ModelCard
from septum.engine.plan import recipe
from septum.engine.predict import Prediction
from septum.engine.validate import with_chosen_decoding

SMALL = {"unet.base_channels": 2, "unet.depth": 1, "steps": 1}


def dataset_and_model():
    pairs = [cells((40, 40), 6, seed, diameter=12) for seed in range(2)]
    dataset = from_arrays([image for image, _ in pairs], [labels for _, labels in pairs], kind="instances")
    config = recipe("fast", dataset, torch.device("cpu"), SMALL)
    card = ModelCard(
        config=config, class_names=("a", "b"), channels=1, pixel_size=None, data={}, held_out="", scores={}, step=1,
        versions={},
    )  # fmt: skip
    return dataset, Model(UNet(config.unet), card)


def test_thresholds_leave_one_half_only_for_a_gain(monkeypatch):
    """A network that says too little finds nothing at one half: the decoder learns where its cells begin."""
    dataset, model = dataset_and_model()
    held_out = hold_out(dataset)
    truth = dataset.samples[next(iter(held_out.blocks))].labels

    def chosen(certainty, doubted=0):
        encoded = np.moveaxis(np.eye(3)[TARGETS["rim"].encode(truth)], -1, 0)
        certainty = np.full(truth.shape, certainty)
        certainty.flat[np.flatnonzero(encoded[1])[:doubted]] = 0.45  # pixels that one half leaves out
        chances = certainty * encoded + (1 - certainty) * np.array([1.0, 0.0, 0.0])[:, None, None]

        def segment(net, config, source, max_memory):
            yield from ()
            return Prediction(truth, chances)

        monkeypatch.setattr("septum.engine.validate.segment", segment)
        changed, scores = with_chosen_decoding(model, dataset, held_out, 10**9)
        return changed.card.config.decoding, scores

    decoding, sure = chosen(0.9)
    assert (decoding.seed, decoding.foreground) == (0.5, 0.5)
    decoding, scores = chosen(0.9, doubted=2)  # 0.4 would have them, and no more than that
    assert (decoding.seed, decoding.foreground) == (0.5, 0.5)
    assert sure["score"] - 0.01 < scores["score"] < sure["score"]
    decoding, scores = chosen(0.45)
    assert (decoding.seed, decoding.foreground) == (0.4, 0.4)
    assert scores["f1"] == 1


def test_without_anything_held_out_the_thresholds_stay():
    dataset, model = dataset_and_model()
    assert with_chosen_decoding(model, dataset, nothing_held_out(), 10**9) == (model, None)
