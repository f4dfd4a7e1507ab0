import pytest

from septum.training.processes import Processes


@pytest.fixture
def ticks(monkeypatch):
    """What a clock shows that goes on by a twentieth of a second at each look, however fast the machine is."""
    seen = [0.0]

    def look(_):
        seen.append(seen[-1] + 0.05)
        return seen[-1]

    monkeypatch.setattr(Processes, "clock", look)
    return seen
