"""Tables on disk."""

import numpy as np
import pytest

from jmbrl.data.columns import Columns

KINDS = {"frame": ((2, 3), "uint8"), "reward": ((), "float32")}


def rows(count, first=0):
    frame = np.arange(first * 6, (first + count) * 6, dtype=np.uint8).reshape(count, 2, 3)
    return {"frame": frame, "reward": np.arange(first, first + count, dtype=np.float64)}


def test_rows_come_back_as_they_went_in_also_after_reopening(tmp_path):
    table = Columns(tmp_path / "t", KINDS)
    assert len(table) == 0
    assert table.read("frame").shape == (0, 2, 3)
    table.append(**rows(2))
    table.append(**rows(3, first=2))
    again = Columns(tmp_path / "t", KINDS)
    assert len(again) == 5
    np.testing.assert_array_equal(again.read("frame"), rows(5)["frame"])
    np.testing.assert_array_equal(again.read("reward"), np.float32([0, 1, 2, 3, 4]))
    assert again.read("reward").dtype == np.float32
    assert (tmp_path / "t" / "frame.bin").stat().st_size == 30  # bytes stay bytes


def test_a_row_counts_once_all_its_columns_have_it(tmp_path):
    Columns(tmp_path, KINDS).append(**rows(3))
    with open(tmp_path / "frame.bin", "ab") as file:  # killed here: a frame and a half, and no reward
        file.write(bytes(9))
    table = Columns(tmp_path, KINDS)
    assert len(table) == 3
    table.append(**rows(1, first=3))
    np.testing.assert_array_equal(table.read("frame"), rows(4)["frame"])
    np.testing.assert_array_equal(table.read("reward"), [0, 1, 2, 3])


def test_truncating_keeps_the_first_rows(tmp_path):
    table = Columns(tmp_path, KINDS)
    table.append(**rows(4))
    table.truncate(1)
    table.append(**rows(1, first=9))
    np.testing.assert_array_equal(table.read("reward"), [0, 9])
    with pytest.raises(ValueError, match=r"count must be in \[0, 2\], got 3"):
        table.truncate(3)


def test_reading_maps_the_file_and_loads_nothing(tmp_path):
    table = Columns(tmp_path, KINDS)
    table.append(**rows(1))
    for name, bytes_ in (("frame", 6), ("reward", 4)):
        with open(tmp_path / f"{name}.bin", "ab") as file:
            file.truncate(bytes_ * 50_000_000_000)  # a hole of terabytes takes no room
    column = table.read("frame")
    assert isinstance(column, np.memmap)
    assert column.shape == (50_000_000_000, 2, 3)
    np.testing.assert_array_equal(column[[0, 49_999_999_999]], [rows(1)["frame"][0], np.zeros((2, 3))])


def test_bad_rows_and_other_tables_are_refused(tmp_path):
    table = Columns(tmp_path, KINDS)
    with pytest.raises(ValueError, match=r"columns must be \['frame', 'reward'\], got \['frame'\]"):
        table.append(frame=rows(1)["frame"])
    with pytest.raises(ValueError, match=r"reward must have shape \(2,\), as frame has, got \(1,\)"):
        table.append(frame=rows(2)["frame"], reward=[0.0])
    with pytest.raises(ValueError, match=r"frame must have shape \(1, 2, 3\)"):
        table.append(frame=np.zeros((1, 3, 2)), reward=[0.0])
    assert len(table) == 0
    with pytest.raises(ValueError, match="wanted"):
        Columns(tmp_path, {"frame": ((2, 2), "uint8")})
    with pytest.raises(ValueError, match="at least one column"):
        Columns(tmp_path / "none", {})
