"""Files as people have them: each kind is read right, or refused with what decides."""

import gzip
import os
import subprocess
import sys

import awkward as ak
import h5py
import numpy as np
import pandas as pd
import pytest
import uproot

from genamp_lib._project import GenampError
from genamp_lib.cli import main
from genamp_lib.files.columns import (
    Reading,
    load_column,
    load_events,
    load_features,
    load_table,
    n_rows,
    read_column,
)
from genamp_lib.files.outputs import check_outputs

X = np.array([1523.25, 823.5, -1204.75, 2016.0, 1999.125])
Y = X / 8


def comma(value):
    return f"{value}".replace(".", ",")


# Kind -> (suffix, text, column, what decides, the values or what is said).
TEXTS = {
    "thousands in quotes": (".csv", ["m", *(f'"{x:,.3f}"' for x in X)], None, {}, X),
    "bare thousands": (".csv", ["m", *(f"{x:,.3f}" for x in X)], None, {}, X),
    "thousands that may be two columns": (
        ".csv",
        ["m", "1,523.25", "2,823.5"],
        None,
        {},
        "`2,823.5` can be read in two ways; give --separator ',' or ';'",
    ),
    "thousands or thousandths": (
        ".csv",
        ["m", '"1,523"', '"2,823"'],
        None,
        {},
        "can be read in two ways; give --decimal '.' or ','",
    ),
    "thousands by option": (
        ".csv",
        ["m", '"1,523"', '"2,823"'],
        None,
        {"decimal": "."},
        np.array([1523.0, 2823]),
    ),
    "thousandths by option": (
        ".csv",
        ["m", '"1,523"', '"2,823"'],
        None,
        {"decimal": ","},
        np.array([1.523, 2.823]),
    ),
    "decimal commas": (
        ".csv",
        ["m;pt", *(f"{comma(x)};{comma(y)}" for x, y in zip(X, Y, strict=True))],
        "pt",
        {},
        Y,
    ),
    "decimal commas in one column": (".csv", ["m", *map(comma, X)], "m", {}, X),
    "decimal commas and points for thousands": (
        ".csv",
        ["m;n", "1.523,25;1", "2.823,5;2"],
        "m",
        {},
        np.array([1523.25, 2823.5]),
    ),
    "names of rows": (
        ".csv",
        ["m,pt", *(f"{k},{x},{y}" for k, (x, y) in enumerate(zip(X, Y, strict=True)))],
        "m",
        {},
        X,
    ),
    "names of rows in words": (".csv", ["m,pt", "a,1.5,2", "b,2.5,3"], "m", {}, [1.5, 2.5]),
    "a name is missing": (
        ".csv",
        ["m,pt", "7.5,1.5,2", "6.5,2.5,3"],
        "m",
        {},
        "must have one name per column, got 2 over rows of 3",
    ),
    "a name twice": (
        ".csv",
        ["pt,m,m", "1,2,3", "4,5,6"],
        "m",
        {},
        "`m` must be one column, got 2 of that name; give the index, 1 or 2",
    ),
    "a name twice, by index": (".csv", ["pt,m,m", "1,2,3", "4,5,6"], "2", {}, np.array([3.0, 6])),
    "a year for a name": (
        ".csv",
        ["2016", *(f"{x:.2f}" for x in Y)],
        None,
        {},
        "the first line, `2016`, may be names or an event; give --header or --no-header",
    ),
    "a year for a name, said": (
        ".csv",
        ["2016", *(f"{x:.3f}" for x in X)],
        None,
        {"header": True},
        X,
    ),
    "a year for an event, said": (
        ".csv",
        ["2016", "1.5"],
        None,
        {"header": False},
        np.array([2016, 1.5]),
    ),
    "commas in a name": (".csv", ['"m, in GeV",pt', "1,2", "3,4"], "m, in GeV", {}, [1.0, 3]),
    "an index that pandas saved": (".csv", [",m,pt", "0,1.5,2", "1,2.5,3"], "0", {}, [1.5, 2.5]),
    "white space": (".txt", ["  1.5   2", " 2.5  3"], "1", {}, [2.0, 3]),
    "white space with names": (".dat", ["pt  m", "1.5   2", "2.5\t3"], "m", {}, [2.0, 3]),
    "tabs": (".tsv", ["pt\tm", "1.5\t2", "2.5\t3"], "m", {}, [2.0, 3]),
    "Excel says the separator": (".csv", ["sep=|", "pt|m", "1,5|2", "2,5|3"], "pt", {}, [1.5, 2.5]),
    "a separator at the end": (".csv", ["pt,m,", "1.5,2,", "2.5,3,"], "m", {}, [2.0, 3]),
    "a separator at the end of rows": (".csv", ["pt,m", "1.5,2,", "2.5,3,"], "m", {}, [2.0, 3]),
    "a comment with provenance": (
        ".csv",
        ["# made by our chain, version 3", "1.5,2", "2.5,3"],
        "made by our chain",
        {},
        "no column `made by our chain`; there is `0`, `1`",
    ),
    "a comment with names": (".csv", ["# v3", "# pt [GeV],m", "1.5,2", "2,3"], "m", {}, [2.0, 3]),
    "a column of words beside": (".csv", ["kind,m", "tt,1.5", "tt,2.5"], "m", {}, [1.5, 2.5]),
    "words": (".csv", ["kind,m", "tt,1.5", "tt,2.5"], "kind", {}, "columns must hold numbers ("),
    "rows of other lengths": (
        ".csv",
        ["pt,m", "1,2", "1,2,3"],
        "m",
        {},
        "rows must have equally many columns, got 2 to 3 between `,`",
    ),
    "a longer row far below": (
        ".csv",
        ["m", *["823.5"] * 300, "1,523.25"],
        None,
        {},
        "rows must have 1 columns between `,`, got others (Expected 1 fields in line 302, saw 2)",
    ),
    "a decimal comma far below": (
        ".csv",
        ["m;pt", *["823;1"] * 300, "1,5;1"],
        "m",
        {},
        "could not convert string to float: '1,5'",
    ),
    "names of bins": (".csv", ["10,20,30", "1,5,2", "3,2,1"], "1", {}, "may be names or an event"),
    "two years": (".csv", ["2015,2018", "1,5", "3,2"], "1", {}, "may be names or an event"),
    "apostrophes for thousands": (
        ".csv",
        ["m", "1'817.25", "817.5"],
        "m",
        {},
        "must hold numbers, got `1'817`; remove the marks `'` that group digits",
    ),
    "spaces for thousands": (
        ".csv",
        ["m;pt", "1 817.25;2", "1 234.5;3"],
        "m",
        {},
        "'1 817.25'); remove the marks ` ` that group digits",
    ),
    "spaces for thousands and between columns": (
        ".txt",
        ["m pt", "1 817.25 2", "1 234.5 3"],
        "m",
        {},
        "must have one name per column, got 2 over rows of 3",
    ),
    "Fortran's exponents": (
        ".txt",
        ["m", "1.8D+03", "2.5d-02"],
        "m",
        {},
        "got `2.5d-02`; write exponents with E in the place of Fortran's D",
    ),
    "a line of units": (
        ".csv",
        ["m,pt", "GeV,GeV", "1.5,2", "2.5,3"],
        "m",
        {},
        "must hold numbers below the names, got `GeV,GeV`; remove that line, units or names",
    ),
    "names twice, of files put together": (
        ".csv",
        ["m,pt", "1.5,2", "2.5,3", "m,pt", "1.5,2"],
        "m",
        {},
        "must hold numbers below the names, got `m,pt`; remove that line",
    ),
    "a minus sign that is no hyphen": (
        ".csv",
        ["m,pt", "1.5,2", "\N{MINUS SIGN}2.5,3"],
        "m",
        {},
        "write minus signs as -",
    ),
    "an index of words": (".csv", [",m,pt", "a,1.5,2", "b,2.5,3"], "m", {}, [1.5, 2.5]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
def test_text(tmp_path, kind):
    suffix, lines, column, said, expected = TEXTS[kind]
    path = tmp_path / f"events{suffix}"
    path.write_text("\n".join(lines) + "\n")
    if not isinstance(expected, str):
        np.testing.assert_array_equal(load_column(path, Reading(column, **said)), expected)
        return
    with pytest.raises(GenampError) as caught:
        load_column(path, Reading(column, **said))
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"decimal": "x"}, "--decimal must be '.' or ',', got 'x'"),
        ({"separator": ";;"}, "--separator must be one character, got ';;'"),
        ({"separator": ",", "decimal": ","}, "--separator must not be the decimal mark, got ','"),
    ],
)
def test_what_decides_must_be_possible(said, message):
    with pytest.raises(GenampError) as caught:
        Reading(**said)
    assert str(caught.value) == message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_encodings_of_texts(tmp_path, encoding):
    path = tmp_path / "x.csv"
    path.write_bytes("m,é\n1.5,2\n2.5,3\n".encode(encoding))
    if encoding == "utf-16":  # the file says so
        assert load_column(path, "é").tolist() == [2, 3]
        return
    with pytest.raises(GenampError, match=r"must be text in UTF-8 .* save it so"):
        load_column(path, "m")


def test_a_header_of_years_over_counts_is_asked_for(tmp_path):
    path = tmp_path / "counts.csv"
    counts = pd.DataFrame(np.arange(12).reshape(4, 3) * 1000 + 17, columns=[2016, 2017, 2018])
    counts.to_csv(path, index=False)
    with pytest.raises(GenampError, match="`2016,2017,2018`, may be names or an event"):
        load_table(path)
    assert load_table(path, Reading(header=True)).tolist() == counts.to_numpy().tolist()
    assert len(load_table(path, Reading(header=False))) == 5
    counts.to_csv(path)  # with its index, which tells that the first line holds names
    assert load_table(path).tolist() == counts.to_numpy().tolist()
    pd.DataFrame(np.stack([X, Y], axis=1)).to_csv(path, index=False)  # names 0 and 1
    np.testing.assert_array_equal(load_table(path), np.stack([X, Y], axis=1))


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.bz2", ".csv.xz"])
def test_compressed_text(tmp_path, ending):
    pd.DataFrame({"m": X, "pt": Y}).to_csv(tmp_path / f"events{ending}", index=False)
    np.testing.assert_array_equal(load_column(tmp_path / f"events{ending}", "pt"), Y)
    blocks = list(read_column(tmp_path / f"events{ending}", "m", start=1, stop=4, block_events=2))
    np.testing.assert_array_equal(np.concatenate(blocks), X[1:4])


def test_a_broken_archive_of_text_is_refused(tmp_path):
    path = tmp_path / "events.csv.gz"
    path.write_bytes(gzip.compress(b"m\n" + b"1.5\n" * 9999)[:-9])
    with pytest.raises(GenampError, match=r"not a whole \.gz file"):
        load_column(path)


def hdf5(path):
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["m"] = X
    with h5py.File(path, "w") as file:
        file["events/m"] = X
        file["soft"] = h5py.SoftLink("/events/m")
        file["hard"] = file["events/m"]
        file["outside"] = h5py.ExternalLink("other.h5", "/m")
        file["broken"] = h5py.SoftLink("/events/gone")
        file["gone"] = h5py.ExternalLink("gone.h5", "/m")
        file["table"] = np.rec.fromarrays([Y, X], names="pt,m")
        file["pairs"] = np.array([((y, x),) for x, y in zip(X, Y, strict=True)], [("v", "f8", 2)])
    return path


@pytest.mark.parametrize(
    "column", ["soft", "hard", "/hard", "outside", "table:m", "pairs:v:1", "events/m"]
)
def test_hdf5_links_and_fields(tmp_path, column):
    path = hdf5(tmp_path / "events.h5")
    np.testing.assert_array_equal(load_column(path, column), X)
    assert n_rows(path, column) == len(X)
    (block,) = read_column(path, column, start=1, stop=3)
    np.testing.assert_array_equal(block, X[1:3])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("broken", "`broken` is a link to `/events/gone`, which is not there"),
        ("gone", "`gone` is a link to `/m` of gone.h5, which is not there"),
        ("events", "`events` is a group; name one of its datasets, m"),
        ("table", "a field must be named, one of `pt`, `m`"),
        ("table:eta", "no field `eta`; there is `pt`, `m`"),
    ],
)
def test_hdf5_paths_that_lead_nowhere(tmp_path, column, message):
    with pytest.raises(GenampError) as caught:
        load_column(hdf5(tmp_path / "events.h5"), column)
    assert message in str(caught.value)


def virtual(folder, sources, n=10):
    for name, length in (("one.h5", 5), ("two.h5", 5), ("short.h5", 3)):
        with h5py.File(folder / name, "w") as file:
            file["m"] = np.arange(float(length))
    layout = h5py.VirtualLayout((n,), "f8")
    for k, name in enumerate(sources):
        layout[5 * k : 5 * k + 5] = h5py.VirtualSource(name, "m", (5,))
    with h5py.File(folder / "virtual.h5", "w") as file:
        file.create_virtual_dataset("m", layout)
    return folder / "virtual.h5"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["one.h5", "moved.h5"], "a part of the virtual dataset `/m` is missing, moved.h5"),
        (["one.h5", "short.h5"], "a part of the virtual dataset `/m` is missing, `m` of"),
        (["one.h5"], "must have all of its 10 numbers, got 5"),
        (["one.h5", "two.h5"], None),
    ],
)
def test_hdf5_virtual_datasets_are_whole(tmp_path, sources, message):
    path = virtual(tmp_path, sources)
    if message is None:
        np.testing.assert_array_equal(load_column(path), np.tile(np.arange(5.0), 2))
        return
    with pytest.raises(GenampError) as caught:
        load_column(path)
    assert message in str(caught.value)


def test_hdf5_that_another_process_writes(tmp_path):
    path = hdf5(tmp_path / "events.h5")
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        writer.stdout.readline()
        with pytest.raises(GenampError, match=r"another process has it open for writing; wait"):
            load_column(path, "hard")
        writer.communicate(b"\n")
    np.testing.assert_array_equal(load_column(path, "hard"), X)


def test_hdf5_filters_of_the_plugin(tmp_path):
    import hdf5plugin

    with h5py.File(tmp_path / "events.h5", "w") as file:
        file.create_dataset("m", data=np.tile(X, 99), **hdf5plugin.Blosc())
    code = (
        "import sys; {}\nfrom genamp_lib.files.columns import load_column\n"
        "print(len(load_column(sys.argv[1])))"
    )
    for before, said in (("", "495"), ("sys.modules['hdf5plugin'] = None", "pip install hdf5plu")):
        command = [sys.executable, "-c", code.format(before), str(tmp_path / "events.h5")]
        run = subprocess.run(command, capture_output=True, text=True)
        assert said in run.stdout + run.stderr


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_a_column_of_wide_rows_takes_little_memory(tmp_path, suffix):
    """4,000 rows of 6,480 numbers, 207 MB; a column must not need a third of that."""
    import tracemalloc

    path, wide = tmp_path / f"wide{suffix}", np.zeros((4_000, 6_480))
    wide[:, 17] = np.arange(4_000)
    if suffix == ".npy":
        np.save(path, wide)
    elif suffix == ".npz":
        np.savez_compressed(path, x=wide)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=wide, chunks=(500, 405), compression="lzf")
    del wide
    tracemalloc.start()
    blocks = [block.copy() for block in read_column(path, "17" if suffix == ".npy" else "x:17")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(np.concatenate(blocks), np.arange(4_000))
    assert peak < 150e6


def test_too_large_is_not_called_damaged(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)

    def frombuffer(*arguments):
        raise MemoryError

    monkeypatch.setattr(np, "frombuffer", frombuffer)
    with pytest.raises(GenampError, match="too large for the memory of this machine"):
        load_column(tmp_path / "x.npy")


RECORDS = np.rec.fromarrays([Y.astype(">f4"), X.astype(">f8")], names="pt,m")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_numpy_fields_big_endian_and_by_columns(tmp_path, suffix):
    key, path = ("", tmp_path / "x.npy") if suffix == ".npy" else ("x:", tmp_path / "x.npz")
    by_columns = np.asfortranarray(np.stack([Y, X], axis=1))
    for array, column in ((RECORDS, "m"), (by_columns, "1"), (by_columns.astype(">f8"), "1")):
        np.save(path, array) if suffix == ".npy" else np.savez(path, x=array)
        loaded = load_column(path, key + column)
        assert loaded.dtype == np.float64
        assert loaded.dtype.isnative
        np.testing.assert_array_equal(loaded, X)
        (block,) = read_column(path, key + column, start=2, stop=4)
        np.testing.assert_array_equal(block, X[2:4])


def test_records_are_features(tmp_path):
    np.save(tmp_path / "x.npy", RECORDS)
    names, features, _ = load_features(tmp_path / "x.npy")
    assert names == ["pt", "m"]
    np.testing.assert_array_equal(features, np.stack([Y, X], axis=1))


def test_records_with_words_and_rows_are_features_where_chosen(tmp_path):
    records = np.empty(5, [("kind", "S2"), ("v", "f4", 2), ("m", "f8")])
    records["kind"], records["v"], records["m"] = b"tt", np.stack([Y, X], axis=1), X
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["events"] = records
    names, features, _ = load_features(tmp_path / "x.h5", Reading(drop=("kind",)))
    assert names == ["v:0", "v:1", "m"]
    np.testing.assert_array_equal(features, np.stack([Y, X, X], axis=1))
    with pytest.raises(GenampError, match="must hold real numbers, got"):
        load_features(tmp_path / "x.h5")
    with h5py.File(tmp_path / "several.h5", "w") as file:
        file["m"], file["kind"] = X, ["tt"] * 5
    with pytest.raises(GenampError, match="`kind`: must hold real numbers, got object"):
        load_features(tmp_path / "several.h5")


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    frame = pd.DataFrame({"m": X, "pt": Y})
    (tmp_path / "events").mkdir()
    frame[:3].to_parquet(tmp_path / "events/part-0.parquet")
    frame[3:].to_parquet(tmp_path / "events/part-1.parquet")
    np.testing.assert_array_equal(load_column(tmp_path / "events", "pt"), Y)
    assert n_rows(tmp_path / "events", "m") == 5
    blocks = list(read_column(tmp_path / "events", "m", start=2, stop=4))
    np.testing.assert_array_equal(np.concatenate(blocks), X[2:4])
    frame[["pt"]].to_parquet(tmp_path / "events/part-2.parquet")
    with pytest.raises(GenampError, match=r"part-2\.parquet: must have the columns of .*`m`, `pt`"):
        load_column(tmp_path / "events", "pt")


def test_parquet_columns_that_are_no_numbers_are_named(tmp_path):
    frame = pd.DataFrame({"m": X, "kind": ["tt"] * 5, "jets": [[1.0], [], [2.0, 3.0], [], []]})
    frame["n"] = pd.array([1, 2, None, 4, 8], dtype="Int64")
    frame.to_parquet(tmp_path / "x.parquet")
    for name, found in (("kind", "large_string|string"), ("jets", "list")):
        with pytest.raises(GenampError, match=f"`{name}` must hold real numbers, got ({found})"):
            load_column(tmp_path / "x.parquet", name)
    names, features, _ = load_features(tmp_path / "x.parquet", Reading(drop=("kind", "jets")))
    assert names == ["m", "n"]
    np.testing.assert_array_equal(features[:, 1], [1, 2, np.nan, 4, 8])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_index_that_pandas_saved_is_no_feature(tmp_path, suffix):
    frame = pd.DataFrame({"m": X, "pt": Y})
    for index in (frame.index, frame.index[::-1], frame.index * 3 + 7):
        saved = frame.set_index(index)
        getattr(saved, f"to_{suffix[1:]}")(tmp_path / f"x{suffix}")
        names, features, _ = load_features(tmp_path / f"x{suffix}")
        assert names == ["m", "pt"]
        np.testing.assert_array_equal(features, frame.to_numpy())


def test_a_column_that_counts_the_events_is_no_feature(tmp_path):
    frame = pd.DataFrame({"m": X, "event": np.arange(5) + 100})
    frame.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(GenampError, match="column `event` counts the events; leave it out with --"):
        load_features(tmp_path / "x.csv")
    assert load_features(tmp_path / "x.csv", Reading(drop=("event",)))[0] == ["m"]
    assert load_features(tmp_path / "x.csv", Reading(features=("event", "m")))[0] == ["event", "m"]


@pytest.mark.parametrize(
    "name", ["weight", "Weights", "event_weight", "mc.weight", "genWeight", "w", "wgt", "weight_1"]
)
def test_a_column_called_a_weight_is_no_feature(tmp_path, name):
    pd.DataFrame({"m": X, name: Y}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(
        GenampError, match=f"column `{name}` may be a weight of the events; give --weights"
    ):
        load_features(tmp_path / "x.csv")
    assert load_features(tmp_path / "x.csv", Reading(drop=(name,)))[0] == ["m"]
    assert load_features(tmp_path / "x.csv", Reading(features=("m", name)))[0] == ["m", name]
    for other in ("m_W", "width", "pt_w1_jet", "view"):
        pd.DataFrame({"m": X, other: Y}).to_csv(tmp_path / "x.csv", index=False)
        assert load_features(tmp_path / "x.csv")[0] == ["m", other]


def test_chosen_features(tmp_path):
    pd.DataFrame({"m": X, "pt": Y, "eta": X + Y}).to_csv(tmp_path / "x.csv", index=False)
    np.save(tmp_path / "x.npy", np.stack([X, Y, X + Y], axis=1))
    for path, names in ((tmp_path / "x.csv", ["m", "pt", "eta"]), (tmp_path / "x.npy", "012")):
        found, features, _ = load_features(path, Reading(features=(names[2], names[0])))
        assert found == [names[2], names[0]]
        np.testing.assert_array_equal(features, np.stack([X + Y, X], axis=1))
        found, features, _ = load_features(path, Reading(drop=(names[1],)))
        assert found == [names[0], names[2]]
        with pytest.raises(GenampError, match="no column `phi`; there is"):
            load_features(path, Reading(drop=("phi",)))
        with pytest.raises(GenampError, match="a feature must be left, got none"):
            load_features(path, Reading(drop=tuple(names)))


def test_names_of_features_must_differ(tmp_path):
    (tmp_path / "x.csv").write_text("m,m,pt\n1,2,3\n4,5,7\n")
    with pytest.raises(GenampError, match="must differ, got `m` twice; rename one, or leave both"):
        load_features(tmp_path / "x.csv")
    assert load_features(tmp_path / "x.csv", Reading(drop=("m",)))[1].tolist() == [[3], [7]]


@pytest.mark.parametrize(
    ("dtype", "mark"), [(np.float32, -999.9), (np.float64, -999.9), (np.int64, -999)]
)
def test_missing_values_are_masked(tmp_path, dtype, mark):
    values = np.array([[1, mark], [2, 3], [-1, 4]]).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    _, features, _ = load_features(tmp_path / "x.npy", Reading(missing=(mark, -1, 4.5)))
    missing = np.isnan(features)
    assert missing.tolist() == [[False, True], [False, False], [True, False]]
    np.testing.assert_array_equal(features[~missing], values[~missing])


def test_root_trees(tmp_path):
    with uproot.recreate(tmp_path / "one.root") as file:
        lists = ak.Array([[1.0, 2.0], [], [3.0], [4.0], [5.0]])
        file["events"] = {"m": X, "pt": Y.astype(np.float32), "jets": lists}
    np.testing.assert_array_equal(load_column(tmp_path / "one.root", "m"), X)
    np.testing.assert_array_equal(load_column(tmp_path / "one.root", "events:pt"), Y)
    assert n_rows(tmp_path / "one.root", "pt") == 5
    (block,) = read_column(tmp_path / "one.root", "m", start=1, stop=3)
    np.testing.assert_array_equal(block, X[1:3])
    with pytest.raises(GenampError, match="`jets` must hold one number per event, got lists; writ"):
        load_column(tmp_path / "one.root", "jets")
    names, features, _ = load_features(tmp_path / "one.root", Reading(features=("m", "pt")))
    assert names == ["m", "pt"]
    np.testing.assert_array_equal(features, np.stack([X, Y], axis=1))
    with uproot.recreate(tmp_path / "two.root") as file:
        file["truth"], file["other"] = {"m": X, "v": np.stack([X, Y], axis=1)}, {"m": Y}
    np.testing.assert_array_equal(load_column(tmp_path / "two.root", "other:m"), Y)
    np.testing.assert_array_equal(load_column(tmp_path / "two.root", "truth:v:1"), Y)
    with pytest.raises(GenampError, match="a column must be named, one of `truth:m`"):
        load_column(tmp_path / "two.root")
    (tmp_path / "cut.root").write_bytes((tmp_path / "one.root").read_bytes()[:300])
    with pytest.raises(GenampError, match=r"not a whole \.root file"):
        load_column(tmp_path / "cut.root", "m")


@pytest.mark.parametrize(("module", "suffix"), [("pyarrow.parquet", "parquet"), ("uproot", "root")])
def test_without_its_library_a_format_says_what_to_install(tmp_path, monkeypatch, module, suffix):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / f"x.{suffix}").write_bytes(b"x")
    with pytest.raises(GenampError, match=rf"run `pip install '{module.partition('.')[0]}>="):
        load_column(tmp_path / f"x.{suffix}")


def test_outputs_are_refused_before_the_work(tmp_path):
    data = tmp_path / "member_0.npy"
    np.save(data, X)
    (tmp_path / "link.json").symlink_to(data)
    os.link(data, tmp_path / "hard.json")
    for path, message in (
        (data, "--json must not end in .npy, as data do"),
        (tmp_path / "new.csv", "--json must not end in .csv, as data do"),
        (tmp_path / "link.json", "--json must not be an input"),
        (tmp_path / "hard.json", "--json must not be an input"),
        (tmp_path, "it is a folder"),
        (tmp_path / "no/out.json", "is no folder; make it"),
        (tmp_path / "../../../../dev/null", "is no folder|is a device"),
    ):
        with pytest.raises(GenampError, match=message):
            check_outputs({"--json": path}, [data, None])
    device = type(tmp_path)(os.devnull)
    with pytest.raises(GenampError, match="it is a device; give a file to --json"):
        check_outputs({"--json": device})
    new = tmp_path / "new.json"
    with pytest.raises(GenampError, match="--json and --plot must be different files"):
        check_outputs({"--json": new, "--plot": tmp_path / "." / "new.json"}, [data])
    check_outputs({"--json": new, "--plot": None}, [data])


def test_json_before_a_pattern_of_members_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for k in range(3):
        np.save(f"member_{k}.npy", X + k)
    before = (tmp_path / "member_0.npy").read_bytes()
    with pytest.raises(SystemExit) as caught:
        main(["estimate", "averaging", "--json", *(f"member_{k}.npy" for k in range(3))])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: member_0.npy: --json must not end in .npy, as data do\n"
    )
    assert (tmp_path / "member_0.npy").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["weight", "weights", "w", "event_weight", "genWeight", "mcweight"]
)
def test_a_column_like_a_weight_is_never_silently_a_feature(tmp_path, name):
    """In a table by columns, and in one array of records."""
    table = pd.DataFrame({"m": X, "pt": Y, name: [1.0, -1, 1, 2, 1]})
    table.to_csv(tmp_path / "x.csv", index=False)
    np.save(tmp_path / "x.npy", table.to_records(index=False))
    for path in (tmp_path / "x.csv", tmp_path / "x.npy"):
        with pytest.raises(GenampError, match=f"give --weights {name}, or .* --drop {name}"):
            load_features(path)
        names, features, weights = load_features(path, Reading(weights=name))
        assert (names, weights.tolist()) == (["m", "pt"], [1.0, -1, 1, 2, 1])
        np.testing.assert_array_equal(features, np.column_stack([X, Y]))
        assert load_features(path, Reading(drop=(name,)))[2] is None
        assert load_features(path, Reading(drop=(name,), weights="none"))[2] is None
        with pytest.raises(GenampError, match=f"--weights {name} must not be one of --features"):
            load_features(path, Reading(weights=name, features=("m", name)))


def test_weights_beside_an_array_of_features(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["events"], file["w"] = np.column_stack([X, Y]), np.arange(5.0)
        file["few"] = np.arange(4.0)
    reading = Reading("events", weights="w")
    names, _, weights = load_features(tmp_path / "x.h5", reading)
    assert (names, weights.tolist()) == (["0", "1"], [0.0, 1, 2, 3, 4])
    with pytest.raises(GenampError, match="`few` must have one weight per event, got 4 for 5"):
        load_features(tmp_path / "x.h5", Reading("events", weights="few"))
    with pytest.raises(GenampError, match="`few` must have one weight per event"):
        load_events(tmp_path / "x.h5", Reading("events:0", weights="few"))
    values, weights, n_missing = load_events(
        tmp_path / "x.h5", Reading("events:1", weights="w", missing=(Y[1],))
    )
    assert (values.tolist(), weights.tolist(), n_missing) == ([*Y[:1], *Y[2:]], [0, 2, 3, 4], 1)
