"""Every draw is a function of (seed, step, sample, purpose), never of call order."""

import itertools

import numpy as np
import torch

from septum.core.randomness import generator, torch_seed


def test_draws_do_not_depend_on_the_order_of_calls():
    keys = list(itertools.product(range(2), range(3), range(2), ("geometry", "grey")))
    forward = {key: generator(*key).random(5).tolist() for key in keys}
    backward = {key: generator(*key).random(5).tolist() for key in reversed(keys)}
    assert forward == backward


def test_streams_differ_in_each_of_the_four():
    keys = itertools.product((0, 1, 11), (0, 1, 11), (0, 1, 11), ("a", "b", "1 a"))
    first = {generator(*key).random() for key in keys}
    assert len(first) == 81


def test_neighbouring_streams_are_uncorrelated():
    # A scheme that offsets one stream by the step would show as correlation 1 at some lag.
    a, b = (generator(0, step, 0, "geometry").standard_normal(4096) for step in (1, 2))
    correlation = np.correlate(a, b, mode="full") / 4096
    assert np.abs(correlation).max() < 0.1  # standard error 1/64, 8,191 lags


def test_numpy_integers_are_integers():
    assert generator(np.int64(3), np.int32(1), np.int64(0), "x").random() == generator(3, 1, 0, "x").random()
    assert torch_seed(np.int64(3), np.int32(1), "x") == torch_seed(3, 1, "x")


def test_streams_are_frozen():
    # Other values here mean other weights from the same seed, in every training run.
    assert generator(0, 0, 0, "geometry").integers(2**32, size=2).tolist() == [2436784572, 1740070657]
    assert torch_seed(0, 0, "dropout") == 5454407017116582338


def test_torch_takes_every_seed():
    seeds = [torch_seed(seed, 7, "dropout") for seed in (-5, 0, 2**70)]
    assert [torch.Generator().manual_seed(seed).initial_seed() for seed in seeds] == seeds
    assert len(set(seeds)) == 3
