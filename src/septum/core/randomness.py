"""Counter-based randomness: every draw is a function of (seed, step, sample, purpose), never of call order."""

import hashlib

import numpy as np


def _hash(text: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "little")


def generator(seed: int, step: int, sample: int, purpose: str) -> np.random.Generator:
    """Return the generator that belongs to one purpose of one sample of one training step.

    The four values are hashed (BLAKE2b) into the 128-bit key of a Philox generator, so streams that differ in any
    of the four are independent, and the same four give the same stream on every computer.

    Parameters
    ----------
    seed : int
        Seed of the run.
    step : int
        Training step.
    sample : int
        Number of the sample within its step, over all processes.
    purpose : str
        What the draws are for, such as ``"geometry"``.

    Returns
    -------
    numpy.random.Generator
        At the start of its stream.

    Examples
    --------
    >>> first, again = generator(0, 7, 1, "geometry"), generator(0, 7, 1, "geometry")
    >>> bool(first.random() == again.random())
    True
    """
    return np.random.Generator(np.random.Philox(key=_hash(f"{seed:d} {step:d} {sample:d} {purpose}", 16)))


def torch_seed(seed: int, step: int, purpose: str) -> int:
    """Return a seed for ``torch.manual_seed`` that belongs to one purpose of one training step.

    For draws that have to happen on the device, such as dropout masks: same seed, same masks, per kind of device.

    Examples
    --------
    >>> torch_seed(0, 7, "dropout") == torch_seed(0, 7, "dropout") != torch_seed(0, 8, "dropout")
    True
    """
    return _hash(f"{seed:d} {step:d} {purpose}", 8) >> 1  # 63 bits: torch keeps seeds as signed 64-bit integers
