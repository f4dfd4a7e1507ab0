"""What all tests share: where real data are, and property tests that do not depend on the clock or on chance."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks of the tests are too small to share among cores

import pytest
from hypothesis import settings

from tests import shapes

shapes.install()
settings.register_profile("septum", deadline=None, derandomize=True, print_blob=False, database=None)
settings.load_profile("septum")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if sys.platform == "win32":
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(pytest.mark.skip(reason="needs signals or limits that Windows does not have"))


@pytest.fixture
def file_size_limit():
    """A context in which files cannot grow beyond a size, which the system reports like a full disk."""
    resource = pytest.importorskip("resource", reason="needs limits that Windows does not have")

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real annotated images that SEPTUM_DATA names."""
    folder = os.environ.get("SEPTUM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SEPTUM_DATA does not name a folder of real images")
    return Path(folder)
