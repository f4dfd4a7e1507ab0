import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from septum.data.keep import ArrayField, InFiles, in_memory, is_mapped, temporary_keep
from septum.errors import OutputError
from septum.machine.memory import measured_peak


@dataclass(frozen=True, eq=False)
class Pair:
    name: str
    first: ArrayField[np.ndarray] = ArrayField()
    second: ArrayField[np.ndarray | None] = ArrayField()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64, bool])
def test_arrays_kept_in_files_are_unchanged(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(dtype)
    keep = InFiles(tmp_path / "new" / "folder")
    for given in (array, array[:, ::2], np.asfortranarray(array), array[0, :, 3]):
        kept = keep(given)
        assert is_mapped(kept)
        assert kept.dtype == given.dtype
        np.testing.assert_array_equal(Pair("a", kept, None).first, given)
    assert in_memory(array) is array
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def test_an_array_in_memory_is_the_field_itself_and_a_file_is_mapped_anew(tmp_path):
    array = np.arange(6)
    pair = Pair("a", array, InFiles(tmp_path)(array))
    assert pair.first is array
    assert pair.second is not pair.second
    assert replace(pair, name="b").second.filename == pair.second.filename
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        Pair("a")


def test_only_whole_files_that_cannot_change_are_mapped_anew(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    whole = np.load(tmp_path / "a.npy", mmap_mode="r")
    part, copy_on_write = whole[1:], np.load(tmp_path / "a.npy", mmap_mode="c")
    copy_on_write[0, 0] = 7
    for array in (part, whole[::-1], copy_on_write, np.array(whole)):
        pair = Pair("a", array, None)
        assert pair.first is array


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_looking_at_many_files_one_by_one_takes_the_memory_of_one(tmp_path):
    keep = InFiles(tmp_path)
    pairs = [Pair(str(n), keep(np.full(5 * 10**6, n)), None) for n in range(4)]  # 40 MB each
    nothing = measured_peak(lambda: None)
    assert measured_peak(lambda: [pair.first.sum() for pair in pairs]) - nothing < 60e6
    arrays = [pair.first for pair in pairs]
    assert measured_peak(lambda: [array.sum() for array in arrays]) - nothing > 150e6


def test_temporary_files_are_removed_at_the_end(tmp_path):
    keep = InFiles(tmp_path)
    stays, given = keep(np.arange(3)), np.arange(6)
    with temporary_keep(keep) as keep_here:
        kept = keep_here(given)
        assert is_mapped(kept)
        np.testing.assert_array_equal(kept, given)
        assert len([*tmp_path.rglob("*.npy")]) == 2
        del kept
    assert [*tmp_path.rglob("*")] == [stays.filename]
    with temporary_keep(in_memory) as keep_here:
        assert keep_here(given) is given


def test_a_full_disk_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OutputError, match=r"cannot write .*0\.npy, 8 MB of data that do not fit in memory \(.*\); free disk"
    ):
        InFiles(tmp_path / "file")(np.zeros(10**6))
