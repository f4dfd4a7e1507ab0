"""What all tests share: where real data are, and property tests that do not depend on the clock or on chance."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks of the tests are too small to share among cores

import pytest
from hypothesis import settings

settings.register_profile("septum", deadline=None, derandomize=True, print_blob=False, database=None)
settings.load_profile("septum")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real annotated images that SEPTUM_DATA names."""
    folder = os.environ.get("SEPTUM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SEPTUM_DATA does not name a folder of real images")
    return Path(folder)
