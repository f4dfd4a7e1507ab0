import time

import pytest
import torch

from septum.machine.device import be_deterministic
from septum.training.step import determinism_slowdown


@pytest.fixture
def restored(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def test_the_determinism_slowdown_is_the_ratio_of_steps_with_and_without(restored):
    be_deterministic()

    def step(number):
        time.sleep(0.04 if torch.are_deterministic_algorithms_enabled() else 0.02)

    assert determinism_slowdown(step) == pytest.approx(2.0, abs=0.3)
    assert torch.are_deterministic_algorithms_enabled()
