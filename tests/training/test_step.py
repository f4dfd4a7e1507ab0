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


def test_the_determinism_slowdown_is_the_ratio_of_steps_with_and_without(restored, monkeypatch):
    be_deterministic()
    now = [0.0]

    def step(number):
        now[0] += 2.0 if torch.are_deterministic_algorithms_enabled() else 1.0

    monkeypatch.setattr("septum.training.step.time.perf_counter", lambda: now[0])
    assert determinism_slowdown(step) == 2.0
    assert torch.are_deterministic_algorithms_enabled()
