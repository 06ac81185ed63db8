"""Reading one number per event: every format, in blocks, and one line for every mishap."""

from __future__ import annotations

import h5py
import numpy as np
import pyarrow.parquet
import pytest

from genamp_lib._project import GenampError
from genamp_lib.files.columns import load_column, load_table, n_rows, read_column

VALUES = np.linspace(-1, 1, 1000).astype(np.float32)
TABLE = np.stack([VALUES, VALUES**2, np.arange(1000)], axis=1)


def npy(path):
    np.save(path, VALUES)
    return path, None


def npy_column(path):
    np.save(path, TABLE)
    return path, "0"


def npy_by_columns(path):
    np.save(path, np.asfortranarray(TABLE))
    return path, "0"


def npz(path):
    np.savez_compressed(path, mass=VALUES, pt=VALUES + 1)
    return path, "mass"


def npz_single(path):
    np.savez(path, anything=VALUES[:, np.newaxis])
    return path, None


def hdf5(path):
    with h5py.File(path, "w") as file:
        file["jets/mass"] = VALUES
        file["jets/features"] = TABLE
    return path, "/jets/mass"


def hdf5_column(path):
    hdf5(path)
    return path, "jets/features:0"


def csv(path):
    np.savetxt(path, TABLE, delimiter=",", header="mass,square,index", comments="", fmt="%.9g")
    return path, "mass"


def csv_commented(path):
    np.savetxt(path, TABLE, delimiter=",", header="made by a test\nmass, square,index", fmt="%.9g")
    return path, "mass"


def csv_index(path):
    np.savetxt(path, TABLE[:, ::-1], delimiter=",", fmt="%.9g")
    return path, "2"


def csv_single(path):
    np.savetxt(path, VALUES, fmt="%.9g")
    return path, None


def parquet(path):
    table = pyarrow.table({"mass": VALUES, "other": VALUES})
    pyarrow.parquet.write_table(table, path, row_group_size=170, compression="none")
    return path, "mass"


FORMATS = {
    npy: ".npy",
    npy_column: ".npy",
    npy_by_columns: ".npy",
    npz: ".npz",
    npz_single: ".npz",
    hdf5: ".h5",
    hdf5_column: ".hdf5",
    csv: ".csv",
    csv_commented: ".csv",
    csv_index: ".csv",
    csv_single: ".txt",
    parquet: ".parquet",
}


@pytest.mark.parametrize(
    ("write", "suffix"), FORMATS.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_every_format_gives_the_same_events_in_blocks(tmp_path, write, suffix):
    path, column = write(tmp_path / f"events{suffix}")
    blocks = list(read_column(path, column, block_events=300))
    assert [len(block) for block in blocks] == [300, 300, 300, 100]
    np.testing.assert_array_equal(np.concatenate(blocks).astype(np.float32), VALUES)
    np.testing.assert_array_equal(load_column(str(path), column).astype(np.float32), VALUES)


@pytest.mark.parametrize(
    ("write", "suffix"), FORMATS.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_every_format_gives_parts(tmp_path, write, suffix):
    path, column = write(tmp_path / f"events{suffix}")
    for start, stop in [(0, 1), (0, 340), (340, 341), (169, 511), (511, None), (999, 2000)]:
        blocks = list(read_column(path, column, start=start, stop=stop, block_events=100))
        assert max(len(block) for block in blocks) <= 100
        np.testing.assert_array_equal(
            np.concatenate(blocks).astype(np.float32), VALUES[start:stop], f"{start} to {stop}"
        )
    for start, stop in [(0, 0), (500, 500), (1000, None), (3000, 4000)]:
        assert not list(read_column(path, column, start=start, stop=stop))
    is_indexed = suffix in (".npy", ".h5", ".hdf5", ".parquet")
    assert n_rows(path, column) == (1000 if is_indexed else None)


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (5, 4)])
def test_bad_parts_are_refused(tmp_path, start, stop):
    path, _ = npy(tmp_path / "events.npy")
    with pytest.raises(ValueError, match="`start` must be from 0 to `stop`, got"):
        list(read_column(path, start=start, stop=stop))


def test_parts_of_long_files_are_read_without_the_rest(tmp_path):
    """Files of a billion events, all holes: to read them would take minutes."""
    n = 10**9
    with (tmp_path / "long.npy").open("wb") as handle:
        header = {"shape": (n,), "fortran_order": False, "descr": "<f8"}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.truncate(handle.tell() + 8 * n)
        handle.seek(-24, 2)
        handle.write(np.arange(3.0).tobytes())
    with h5py.File(tmp_path / "long.h5", "w") as file:
        data = file.create_dataset("mass", shape=(n,), dtype="f8", chunks=(1 << 16,))
        data[-3:] = np.arange(3.0)
    for name in ("long.npy", "long.h5"):
        assert n_rows(tmp_path / name) == n
        (block,) = read_column(tmp_path / name, start=n - 4, stop=n + 5)
        np.testing.assert_array_equal(block, [0, 0, 1, 2])


def test_other_row_groups_of_parquet_are_not_read(tmp_path):
    path, column = parquet(tmp_path / "events.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(60) + content[64:])  # the head of the first group
    with pytest.raises(GenampError, match="not a whole"):
        load_column(path, column)
    (block,) = read_column(path, column, start=200, stop=210)
    np.testing.assert_array_equal(block, VALUES[200:210])


def test_a_truncated_array_has_no_number_of_rows(tmp_path):
    path = truncated(tmp_path / "events.npy")
    with pytest.raises(GenampError, match="truncated, the header promises 1000 rows"):
        n_rows(path)
    with pytest.raises(GenampError, match="not found; give a file"):
        n_rows(tmp_path / "missing.h5")
    with pytest.raises(GenampError, match="must be one of"):
        n_rows(tmp_path / "events.pdf")


def test_tables(tmp_path):
    counts = np.arange(12).reshape(4, 3)
    np.save(tmp_path / "counts.npy", counts)
    np.savetxt(tmp_path / "counts.csv", counts, delimiter=",", header="a,b,c", fmt="%d")
    np.savez(tmp_path / "counts.npz", counts=counts, other=counts)
    np.testing.assert_array_equal(load_table(tmp_path / "counts.npy"), counts)
    np.testing.assert_array_equal(load_table(tmp_path / "counts.csv"), counts)
    np.testing.assert_array_equal(load_table(tmp_path / "counts.npz", "counts"), counts)


def test_empty_files_hold_no_events(tmp_path):
    np.save(tmp_path / "empty.npy", np.empty(0))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("mass\n")
    for name in ("empty.npy", "empty.csv", "header.csv"):
        assert load_column(tmp_path / name).size == 0


def missing(path):
    return path


def folder(path):
    path.mkdir()
    return path


def other_suffix(path):
    path = path.with_suffix(".pdf")
    path.write_bytes(b"pages")
    return path


def truncated(path):
    np.save(path, VALUES)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def no_npy(path):
    path.write_text("this is text")
    return path


def objects(path):
    np.save(path, np.array([1.0, None]), allow_pickle=True)
    return path


def words(path):
    np.save(path, np.array(["a", "b"]))
    return path


def by_columns_truncated(path):
    np.save(path, np.asfortranarray(TABLE))
    path.write_bytes(path.read_bytes()[:-100])
    return path


def two_dimensional(path):
    np.save(path, TABLE)
    return path


def scalar(path):
    np.save(path, np.float64(3))
    return path


def npz_ambiguous(path):
    return npz(path.with_suffix(".npz"))[0]


def npz_truncated(path):
    path = npz(path.with_suffix(".npz"))[0]
    path.write_bytes(path.read_bytes()[:-200])
    return path


def hdf5_truncated(path):
    path = hdf5(path.with_suffix(".h5"))[0]
    path.write_bytes(path.read_bytes()[:2000])
    return path


def hdf5_nothing(path):
    h5py.File(path.with_suffix(".h5"), "w").close()
    return path.with_suffix(".h5")


def csv_ambiguous(path):
    return csv(path.with_suffix(".csv"))[0]


def csv_words(path):
    path = path.with_suffix(".csv")
    path.write_text("mass\n1.0\nhello\n")
    return path


def csv_binary(path):
    path = path.with_suffix(".csv")
    path.write_bytes(bytes(range(128, 256)) * 10)
    return path


@pytest.mark.parametrize(
    ("make", "column", "message"),
    [
        (missing, None, "not found; give a file"),
        (folder, None, "is a folder; give a file"),
        (other_suffix, None, "must be one of .npy, .npz, .h5"),
        (truncated, None, "truncated, the header promises 1000 rows"),
        (no_npy, None, "not a whole .npy file"),
        (objects, None, "must hold real numbers, got Python objects"),
        (words, None, "must hold real numbers, got <U1"),
        (by_columns_truncated, "0", "truncated, the header promises 1000 rows"),
        (two_dimensional, None, "must hold one number per event, got rows of shape (3,)"),
        (two_dimensional, "3", "a column index must be between 0 and 2, got `3`"),
        (two_dimensional, "mass", "a column index must be between 0 and 2, got `mass`"),
        (scalar, None, "must hold an array, got a single number"),
        (npz_ambiguous, None, "a column must be named, one of `mass`, `pt`"),
        (npz_ambiguous, "eta", "no column `eta`; there is `mass`, `pt`"),
        (npz_ambiguous, "mass:0", "no column `0` in an array of 1 dimension"),
        (npz_truncated, "mass", "not a whole .npz file"),
        (hdf5_truncated, "mass", "not a whole .h5 file"),
        (hdf5_nothing, None, "must hold an array, got none"),
        (csv_ambiguous, None, "a column must be named, one of `mass`, `square`, `index`"),
        (csv_ambiguous, "eta", "no column `eta`; there is `mass`, `square`, `index`"),
        (csv_ambiguous, "3", "a column index must be between 0 and 2, got `3`"),
        (csv_words, None, "must hold numbers below the names, got `hello`"),
        (csv_binary, None, "must be text in UTF-8"),
    ],
)
def test_mishaps_are_one_line_that_names_the_file(tmp_path, make, column, message):
    path = make(tmp_path / "events.npy")
    with pytest.raises(GenampError) as caught:
        load_column(path, column)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text
