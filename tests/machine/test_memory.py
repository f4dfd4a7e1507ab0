import subprocess
import sys

import numpy as np
import psutil
import pytest

from septum.machine import memory
from septum.machine.memory import available, cgroup_rooms, default_limit, measured_peak, resident


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the peak start again")
def test_the_peak_is_that_of_the_action():
    before = measured_peak(lambda: None)
    large = measured_peak(lambda: np.ones(25 * 10**6))
    assert 190e6 < large - before < 210e6
    assert abs(measured_peak(lambda: None) - before) < 20e6


def test_the_memory_of_this_process_grows_by_an_array():
    before = resident()
    array = np.ones(25 * 10**6)
    assert 190e6 < resident() - before < 210e6
    del array


def write_group(folder, files, **values):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(files, values.values(), strict=True):
        (folder / name).write_text(f"{value}\n")


def version_1(folder, limit, usage, cache=0):
    files = ["memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"]
    write_group(folder, files, limit=limit, usage=usage, stat=f"inactive_file 5\ntotal_inactive_file {cache}")


def version_2(folder, limit, usage, cache=0):
    files = ["memory.max", "memory.current", "memory.stat"]
    write_group(folder, files, limit=limit, usage=usage, stat=f"anon 7\ninactive_file {cache}")


@pytest.fixture
def membership(tmp_path):
    def write(*lines):
        (tmp_path / "membership").write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / "membership"

    return write


def test_a_group_of_version_2_and_the_groups_above_it_limit_memory(tmp_path, membership):
    groups = tmp_path / "cgroup"
    version_2(groups / "slurm" / "job", 1000, 400)
    version_2(groups / "slurm", 800, 700, cache=250)  # of a file that was read: free when it is needed
    version_2(groups / "other", 10, 10)
    assert cgroup_rooms(groups, membership("0::/slurm/job")) == [600, 350]


def test_a_group_of_version_2_without_a_limit_counts_for_nothing(tmp_path, membership):
    version_2(tmp_path / "cgroup" / "job", "max", 400)
    assert cgroup_rooms(tmp_path / "cgroup", membership("0::/job")) == []


def test_the_memory_group_of_version_1_limits_memory(tmp_path, membership):
    groups = tmp_path / "cgroup"
    version_1(groups / "memory" / "docker" / "a", 1000, 950, cache=100)
    version_1(groups / "memory", 2**63 - 4096, 5000)
    version_1(groups / "memory" / "docker" / "b", 10, 10)
    lines = membership("5:cpu,cpuacct:/docker/b", "4:memory:/docker/a", "0::/")
    assert cgroup_rooms(groups, lines) == [150, 2**63 - 4096 - 5000]


def test_inside_a_container_the_group_is_the_root_of_what_is_mounted(tmp_path, membership):
    """There /proc may name the group as the machine sees it, which is not visible."""
    version_1(tmp_path / "cgroup" / "memory", 1000, 300)
    assert cgroup_rooms(tmp_path / "cgroup", membership("4:memory:/docker/a")) == [700]


def test_a_group_over_its_limit_has_nothing_left(tmp_path, membership):
    version_2(tmp_path / "cgroup", 1000, 1100)
    assert cgroup_rooms(tmp_path / "cgroup", membership("0::/")) == [0]


def test_without_control_groups_the_machine_alone_limits_memory(tmp_path):
    assert cgroup_rooms(tmp_path, tmp_path / "missing") == []


def test_the_smallest_of_machine_and_groups_is_free(monkeypatch):
    machine = psutil.virtual_memory().total
    monkeypatch.setattr(memory, "cgroup_rooms", lambda: [5 * 10**6, 3 * 10**6])
    assert available() == 3 * 10**6
    assert default_limit() - resident() == pytest.approx(0.9 * 3 * 10**6, abs=2e6)
    monkeypatch.setattr(memory, "cgroup_rooms", lambda: [10 * machine])
    assert 0 < available() < machine


def test_memory_is_known_without_loading_torch():
    program = (
        "import sys; from septum.machine.memory import default_limit; default_limit(); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these thresholds")
def test_arrays_return_to_the_system_at_once_only_while_the_cache_is_limited(monkeypatch):
    """In a fresh process: how much memory stays with it when arrays of 4 MB are freed, within and after."""
    code = """
import os
import numpy as np
from septum.machine.memory import limited_allocator_cache, resident
def kept():
    arrays = [np.ones(2**19) for _ in range(10)]
    before = resident()
    del arrays
    return before - resident() < 20 * 10**6
with limited_allocator_cache():
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "100"
    within = kept()
print([within, kept()], "ONEDNN_PRIMITIVE_CACHE_CAPACITY" in os.environ)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, True] False"
