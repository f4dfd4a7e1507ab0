import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from septum.config import TtaConfig, UNetConfig, paper_2015
from septum.core.layout import plan_layout
from septum.core.region import shape_of
from septum.core.tiling import tiles
from septum.core.unet import input_size, multiply_adds
from septum.errors import ConfigError

ONE_PASS = multiply_adds(paper_2015(), [input_size(8192, 4)] * 2)


@pytest.mark.parametrize(("gigabytes", "bound"), [(2, 1.15), (8, 1.06)])
@pytest.mark.parametrize("step", [1, 512])
def test_redundancy_at_paper_width(gigabytes, bound, step):
    """The whole process keeps the budget: 0.5 GB are Python, its libraries and the weights."""
    layout = plan_layout((8192, 8192), paper_2015(), gigabytes * 10**9 - 500 * 10**6, step=step)
    assert layout.multiply_adds <= bound * ONE_PASS
    assert layout.redundancy == layout.multiply_adds / ONE_PASS


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 1500), st.integers(1, 1500)),
    megabytes=st.integers(250, 3000),
    step=st.sampled_from([1, 64]),
    tta=st.sampled_from([None, TtaConfig(kind="dihedral"), TtaConfig()]),
)
def test_the_plan_keeps_its_budget_and_counts_what_the_tiles_cost(shape, megabytes, step, tta):
    config = paper_2015().with_changes({"base_channels": 32})
    layout = plan_layout(shape, config, megabytes * 10**6, step=step, tta=tta)
    assert layout.memory <= megabytes * 10**6
    assert all(part % math.lcm(step, 16) == 0 for part in layout.stride)
    if tta is None:
        sizes = [shape_of(tile.read) for tile in tiles(shape, layout.stride, 4)]
        assert layout.multiply_adds == sum(multiply_adds(config, size) for size in sizes)


def test_a_tile_has_a_limited_size():
    layout = plan_layout((3000, 3000), UNetConfig(base_channels=4), 10**12, tile_pixels=10**6)
    assert math.prod(layout.stride) <= 10**6


def test_too_small_a_budget_says_what_is_needed():
    with pytest.raises(ConfigError, match=r"memory limit of 1 MB .* needs (\d+) MB; allow at least (\d+) MB more"):
        plan_layout((512, 512), paper_2015(), 10**6)
