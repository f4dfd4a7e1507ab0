"""The shipped models load by name, describe themselves, and find what they were trained for."""

import re
from pathlib import Path

import numpy as np
import pytest

from septum.errors import ModelError
from septum.model.model import find_model, load, shipped

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_model_describes_itself_and_is_small(name):
    model = load(name)
    assert find_model(name).stat().st_size <= 8_000_000
    assert len(model.card.about) == 3
    assert model.card.scores
    assert f"`{name}`" in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    # half precision: every weight is exactly a float16
    for tensor in model.net.state_dict().values():
        np.testing.assert_array_equal(tensor.numpy().astype(np.float16).astype(np.float32), tensor.numpy())


def test_terms_are_in_the_card_and_in_a_file_of_their_own():
    card = load("em-membrane").card
    assert "non-commercial" in card.terms
    text = find_model("em-membrane").with_suffix(".LICENSE.txt").read_text(encoding="utf-8")
    assert re.search(r"non-commercial", text)
    assert "Cardona" in text


def test_membranes_and_cell_interiors_are_separated():
    """A drawn section: grey cells with dark walls, noise; four of five pixels and both classes have to be right."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 200, (40, 2))
    y, x = np.mgrid[:200, :200]
    distance = np.sort(np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1]), axis=-1)
    wall = distance[..., 1] - distance[..., 0] < 5
    image = np.where(wall, 70.0, 160.0) + rng.normal(0, 15, wall.shape)
    labels = load("em-membrane").predict(image.clip(0, 255).astype(np.uint8)).labels
    assert (labels == 0)[wall].mean() > 0.6
    assert (labels == 1)[~wall].mean() > 0.8


def test_nuclei_are_found_in_an_image_of_one_channel():
    """Bright discs of several sizes on a dark, noisy ground."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :200]
    image = np.full((200, 200), 20.0)
    discs = [(row, column, 7 + 3 * number) for number, (row, column) in enumerate([(40, 40), (40, 140), (140, 60)])]
    for row, column, radius in discs:
        image += 150 * (np.hypot(y - row, x - column) < radius)
    labels = load("nuclei").predict((image + rng.normal(0, 5, image.shape)).clip(0, 255).astype(np.uint8)).labels
    assert labels.max() >= 3
    assert len({labels[row, column] for row, column, _ in discs} - {0}) == 3


def test_an_unknown_name_lists_the_shipped_models():
    with pytest.raises(ModelError, match="did you mean 'em-membrane'"):
        load("em-membranes")
