import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from septum.core.loss import dice_loss, weighted_cross_entropy
from septum.core.targets import border
from septum.core.targets import classes as class_target
from septum.errors import ConfigError, ImageError


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(0, 3, (2, 5, 7), generator=generator)
    weights = torch.rand(2, 5, 7, generator=generator, dtype=torch.float64) * 5
    return logits, classes, weights


@pytest.mark.parametrize(("normalization", "divisor"), [("sum", 1), ("mean", 70), ("weights", None)])
def test_loss_is_the_formula_pixel_by_pixel(batch, normalization, divisor):
    logits, classes, weights = (tensor.detach().numpy() for tensor in batch)
    energy = 0.0
    for n, y, x in np.ndindex(classes.shape):
        p = np.exp(logits[n, :, y, x]) / np.exp(logits[n, :, y, x]).sum()
        energy -= weights[n, y, x] * np.log(p[classes[n, y, x]])
    expected = energy / (divisor or weights.sum())
    assert weighted_cross_entropy(*batch, normalization).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_is_weight_times_softmax_minus_truth(batch):
    logits, classes, weights = batch
    weighted_cross_entropy(logits, classes, weights, "sum").backward()
    truth = one_hot(classes, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(logits.grad, weights[:, None] * (logits.detach().softmax(1) - truth))


def test_weights_by_class_divided_by_their_sum_are_torchs_weighted_mean(batch):
    logits, classes, _ = batch
    balance = torch.tensor([0.2, 1.0, 0.5], dtype=torch.float64)
    ours = weighted_cross_entropy(logits, classes, balance[classes], "weights")
    torch.testing.assert_close(ours, cross_entropy(logits, classes, weight=balance))


def test_scale_of_the_weights_cancels_when_divided_by_them(batch):
    logits, classes, weights = batch
    ours = [weighted_cross_entropy(logits, classes, factor * weights, "weights") for factor in (1, 7)]
    torch.testing.assert_close(*ours)


def test_pixels_of_weight_zero_change_nothing_and_get_no_gradient(batch):
    logits, classes, weights = batch
    weights[:, 2:4] = 0
    other = logits.detach().clone()
    other[:, :, 2:4] = 1e3
    other.requires_grad_()
    losses = [weighted_cross_entropy(scores, classes, weights, "weights") for scores in (logits, other)]
    torch.testing.assert_close(*losses)
    losses[1].backward()
    assert not other.grad[:, :, 2:4].any()
    assert other.grad[:, :, :2].all()


@pytest.mark.parametrize("normalization", ["sum", "mean", "weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_weights_zero_give_loss_and_gradient_zero(batch, normalization, dtype):
    logits = batch[0].detach().to(dtype).requires_grad_()
    loss = weighted_cross_entropy(logits, batch[1], torch.zeros(2, 5, 7, dtype=dtype), normalization)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_both_targets_use_the_papers_loss():
    assert border.loss is class_target.loss is weighted_cross_entropy


def test_unknown_normalization_is_refused(batch):
    with pytest.raises(ConfigError, match="'sum', 'mean' or 'weights', got 'average'"):
        weighted_cross_entropy(*batch, "average")


def test_weights_of_another_shape_are_refused_rather_than_broadcast(batch):
    logits, classes, weights = batch
    with pytest.raises(ImageError, match=r"\(2, 5, 7\), got \(2, 1, 5, 7\)"):
        weighted_cross_entropy(logits, classes, weights[:, None], "sum")


def test_dice_is_one_minus_the_coefficient_of_certain_predictions_and_blind_where_nothing_counts():
    rng = np.random.default_rng(0)
    classes, predicted = rng.integers(0, 3, (2, 2, 9, 8))
    weights = (rng.random((2, 9, 8)) < 0.7) * 5.0
    logits = 200.0 * np.moveaxis(np.eye(3)[predicted], -1, 1)
    known = weights > 0
    coefficients = [
        2
        * ((classes == k) & (predicted == k) & known).sum()
        / (((classes == k) & known).sum() + ((predicted == k) & known).sum())
        for k in range(3)
    ]
    loss = dice_loss(torch.tensor(logits), torch.tensor(classes), torch.tensor(weights))
    assert loss.item() == pytest.approx(1 - np.mean(coefficients), abs=1e-6)
