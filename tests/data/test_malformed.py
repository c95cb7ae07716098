"""What people hand in by mistake: each is refused in one line with place, expectation and remedy, none with a traceback.

A case is a good dataset of one kind with some of its files or keys replaced. Its message is given in pieces, with … for
what stands between them.
"""

# ruff: noqa: E501 - a case is a line of a table

from __future__ import annotations

import datetime
import gzip
import http.server
import io
import lzma
import os
import pickle
import random
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from pipeline.config import Paths, load_study
from pipeline.data import read_manifest
from stages import prepare
from tests.core.slowly import mostly
from tests.test_architecture import ROOT

Content = str | bytes | Mapping[str, np.ndarray] | Callable[[Path], object] | None
"""Of a file: text, bytes, the arrays of an NPZ archive, a function that makes it, or None: it is not there."""
N = 30
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
ONE, EIN = ("one", "two", "three", "four", "five", "six"), ("eins", "zwei", "drei", "vier", "fünf", "sechs")


def rows(row: Callable[[int], str], num: int = N) -> str:
    return "".join(f"{row(i)}\n" for i in range(num))


def column(*values: object) -> str:
    return "x\n" + "".join(f"{value}\n" for value in values)


SERIES = "day,who,x,y\n" + rows(lambda i: f"2020-01-{i + 1:02d},{'abcde'[i // 6]},{i * i % 7},{i}")
LABELLED = "text,label,who\n" + rows(lambda i: f"the {ONE[i % 6]} {ONE[i // 6]},{'no' if i % 2 else 'yes'},{i // 6}")
TEXT = rows(lambda i: f"line number {i} of a text", 60)
PAIRS = rows(lambda i: f"{ONE[i % 6]} and {ONE[i // 6]}\t{EIN[i % 6]} und {EIN[i // 6]}")
SOURCES = rows(lambda i: f"{ONE[i % 6]} and {ONE[i // 6]}")
TAGGED = rows(lambda i: f"{ONE[i % 6]} A\n{ONE[i // 6]} B\n")
CAPTIONS = "file,caption\n" + rows(lambda i: f"{'cat' if i % 2 else 'dog'}/{i}.png,a {ONE[i % 6]} {ONE[i // 6]}")
RNG = np.random.default_rng(0)
X, Y, PIXELS = RNG.normal(size=(N, 5, 2)), np.arange(N) % 2, RNG.integers(0, 256, (N, 4, 4), dtype=np.uint8)


def numbers(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": X, "y": Y, "n": np.full(N, 4)} | arrays


def pictures(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": PIXELS, "labels": Y} | arrays


def png(width: int = 4, height: int = 4, seed: int = 0, frames: int = 1) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        image = pytest.importorskip("PIL.Image")
        rng = np.random.default_rng(seed)
        some = [image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)) for _ in range(frames)]
        some[0].save(path, save_all=frames > 1, append_images=some[1:])

    return make


def folder(*classes: str, num: int = N) -> dict[str, Content]:
    return {f"pics/{classes[i % len(classes)]}/{i}.png": png(seed=i) for i in range(num)}


def parquet(**columns: Any) -> Callable[[Path], None]:
    return lambda path: pytest.importorskip("polars").DataFrame(columns).write_parquet(path)


def zipped(name: str = "a.csv", content: str = SERIES) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def directory(path: Path) -> None:
    path.mkdir()


def circle(path: Path) -> None:
    """Make a link to itself: nobody can read it, the administrator included."""
    path.symlink_to(path)


GOOD: dict[str, tuple[dict[str, Content], dict[str, Any]]] = {
    "series": ({"a.csv": SERIES}, {"lengths": [3], "data_file": "a.csv", "inputs": ["x"], "targets": ["x"]}),
    "labelled": (
        {"a.csv": LABELLED},
        {"data_file": "a.csv", "inputs": "text", "targets": "label", "unit": "word", "max_length": 9},
    ),
    "numbers": ({"a.npz": numbers()}, {"data_file": "a.npz", "inputs": "x", "targets": "y"}),
    "text": ({"a.txt": TEXT}, {"data_file": "a.txt", "lengths": [5], "unit": "character"}),
    "pairs": ({"a.tsv": PAIRS}, {"data_file": "a.tsv", "max_length": 9}),
    "tagged": ({"a.conll": TAGGED}, {"data_file": "a.conll", "max_length": 9}),
    "images": ({"a.npz": pictures()}, {"data_file": "a.npz"}),
    "folder": (folder("cat", "dog"), {"image_folder": "pics"}),
    "captions": (
        folder("dog", "cat") | {"c.csv": CAPTIONS},
        {"image_folder": "pics", "captions_file": "c.csv", "read_as": "caption", "unit": "word", "max_length": 9},
    ),
}
GENERATOR = {"numbers": "labelled", "folder": "images", "captions": "images"}
"""Of the kinds above that are not named after theirs."""


class Case(NamedTuple):
    """A dataset, what is wrong with it, and what is said."""

    kind: str
    what: str
    message: str
    files: dict[str, Content]
    keys: dict[str, Any]


CASES: list[Case] = []


def bad(kind: str, what: str, message: str, files: Content | dict[str, Content] = None, /, **keys: Any) -> None:
    """Add a case; content that is not in a dictionary is that of the data file, a key that is `...` is left out."""
    if not (isinstance(files, dict) and all("." in name for name in files)):
        files = {str(keys.get("data_file") or GOOD[kind][1]["data_file"]): files} if files is not None else {}
    CASES.append(Case(kind, what, message, files, keys))


def changed(line: int, text: str, whole: str = SERIES) -> str:
    """The file with another line."""
    lines = whole.splitlines()
    return "\n".join([*lines[: line - 1], text, *lines[line:]]) + "\n"


def given(train: str, validation: str, test: str) -> dict[str, Any]:
    files = {"train_file": train, "validation_file": validation, "test_file": test}
    return files | {"data_file": ..., "shares": ...}


YAML = "configs/datasets/mine.yaml"

# fmt: off

# What is no table of numbers

bad("series", "no such file", "a.csv: no such file; unknown file 'a.csv'; did you mean 'aa.csv'?", {"a.csv": None, "aa.csv": SERIES})
bad("series", "no such folder", "b/a.csv: no such file, for there is no folder b", data_file="b/a.csv")
bad("series", "an empty file", "a.csv: expected text, got an empty file", "")
bad("series", "blank lines alone", "a.csv: expected text, got an empty file", "\n \n\n")
bad("series", "a byte order mark alone", "a.csv: expected text, got an empty file", "\ufeff")
bad("series", "a blank first line", "a.csv, line 1: expected the names of the columns, got an empty line above 'day,who", "\n" + SERIES)
bad("series", "names alone", "a.csv: expected at least one row, got none below the names", "day,who,x,y\n")
bad("series", "no names", "a.csv, line 1: unknown column 'x'; known: 1, 2 (line 1 has the names of the columns)", "1,2\n3,4\n")
bad("series", "a misspelt column", "a.csv, line 1: unknown column 'xx'; did you mean 'x'? known: day, who, x, y", inputs=["xx"])
bad("series", "a column in capitals", "a.csv, line 1: unknown column 'DAY'; did you mean 'day'?", time="DAY")
bad("series", "many columns", "unknown column 'x'; known: c0, c1, …and 10 more", ",".join(f"c{i}" for i in range(N)) + "\n")
bad("series", "a remark on top", "a.csv, line 1: unknown column 'x'; known: # made by me", "# made by me\n" + SERIES)
bad("series", "words", "a.csv, line 7, column 'x': expected a number, got 'many'; a missing one is empty or NA", changed(7, "6,a,many,5"))
bad("series", "a question mark", "a.csv, line 7, column 'x': expected a number, got '?'; a missing one is empty or NA", changed(7, "6,a,?,5"))
bad("series", "NaN", "a.csv, line 7, column 'x': a number is missing; missing: fill takes the last one", changed(7, "6,a,NaN,5"))
bad("series", "an empty field", "a.csv, line 7, column 'x': a number is missing; missing: fill takes", changed(7, "6,a,,5"))
bad("series", "inf", "a.csv, line 7, column 'x': expected a finite number, got infinity", changed(7, "6,a,-inf,5"))
bad("series", "an overflow", "a.csv, line 7, column 'x': expected a finite number, got infinity", changed(7, "6,a,1e999,5"))
bad("series", "an overflow in float32", "a.csv, line 7, column 'x': expected a finite number, got 1e+300, more than 3.4e+38", changed(7, "6,a,1e300,5"))
for got in ("1'234", "1_000", "5 °C", "5%", "\u22123", "0x1f"):
    bad("series", f"a number written {got}", f"a.csv, line 7, column 'x': expected a number, got {got!r}; write a decimal point, and nothing else", changed(7, f"6,a,{got},5"))
bad("series", "a decimal comma in quotes", "a.csv, line 7, column 'x': expected a number, got '3,14'; write a decimal point", changed(7, '6,a,"3,14",5'))
bad("series", "decimal commas", "a.csv, line 2, column 'x': expected a number, got '0,5'; write a decimal point", SERIES.replace(",", ";").replace(";0;", ";0,5;"))
bad("series", "a bare decimal comma", "a.csv, line 7: expected 4 fields as in line 1, got 5: '6,a,3,14,5'; …numbers have a decimal point", changed(7, "6,a,3,14,5"))
bad("series", "a short row", "a.csv, line 7: expected 4 fields as in line 1, got 3: '6,a,5'; fill it up", changed(7, "6,a,5"))
bad("series", "a long row", "a.csv, line 7: expected 4 fields as in line 1, got 5: '6,a,5,5,5'; quotation marks stand round", changed(7, "6,a,5,5,5"))
bad("series", "an empty line", "a.csv, line 7: expected 4 fields as in line 1, got an empty line; leave it out", changed(7, ""))
bad("series", "an empty line at the end", "a.csv, line 32: expected 4 fields …got an empty line; leave it out", SERIES + "\n")
bad("series", "blanks at the end", "a.csv, line 32: expected 4 fields …got an empty line; leave it out", SERIES + "  \n")
bad("series", "an open quotation mark", "a.csv, line 7: not CSV (unexpected end of data); is a quotation mark missing?", changed(7, '6,"a,5,5'))
bad("series", "an open one in line 1", "a.csv, line 1: a quotation mark is open at its end", SERIES.replace("day", '"day', 1))
bad("series", "lines counted through quotes", "a.csv, line 9, column 'x': expected a number, got 'one'", SERIES.replace("05,a,2", '05,"a\nb",2').replace("07,b,1", "07,b,one"))
bad("series", "a name twice", "a.csv, line 1: column 'x' appears twice; name every column once", changed(1, "day,x,x,y"))
bad("series", "UTF-16", "a.csv, line 1: expected text in UTF-8, got UTF-16; `iconv -t UTF-8 -f UTF-16` mends a copy", SERIES.encode("utf-16"))
bad("series", "UTF-16 without a mark", "a.csv, line 1: expected text in UTF-8, got a byte 0; `iconv -t UTF-8 -f UTF-16LE`", SERIES.encode("utf-16-le"))
bad("series", "UTF-32", "a.csv, line 1: expected text in UTF-8, got UTF-32; `iconv", SERIES.encode("utf-32"))
bad("series", "Latin-1", "a.csv, line 7: not UTF-8 text (invalid continuation byte at byte 99); `iconv -t UTF-8 -f <its", changed(7, "6,é,5,5").encode("latin-1"))
bad("series", "a byte 0", "a.csv, line 7: expected text in UTF-8, got a byte 0; …else this is no text file", changed(7, "6,\0,5,5"))
bad("series", "carriage returns alone", r"a.csv, line 1: expected lines that end with a line feed, got stray carriage returns; …`tr '\r' '\n'`", SERIES.replace("\n", "\r"))
bad("series", "a folder", "a.csv: expected a file, got a folder", directory)
bad("series", "a pipe", "a.csv: expected a file, got a device", os.mkfifo)
bad("series", "a circle of links", "a.csv: cannot be read: Too many levels of symbolic links", circle)
bad("series", "gzip", "a.csv, line 1: expected text in UTF-8, got gzip; unpack it, and name what is in it", gzip.compress(SERIES.encode()))
bad("series", "xz", "a.csv, line 1: expected text in UTF-8, got xz; unpack it", lzma.compress(SERIES.encode()))
bad("series", "ZIP", "a.csv, line 1: expected text in UTF-8, got a ZIP archive, or a file of Excel…; unpack it", zipped())
bad("series", "a pickle", "a.csv, line 1: expected text in UTF-8, got a pickle, which is never loaded; save it as text", pickle.dumps({"x": [1]}))
bad("series", "Parquet by another name", "a.csv, line 1: expected text in UTF-8, got Parquet; let its name end in .parquet", parquet(x=[1.0]))
bad("series", "a pointer of Git LFS", "a.csv, line 1: …got a pointer of Git LFS; `git lfs pull` brings the file", "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")
bad("series", "a web page", "a.csv, line 1: unknown column 'x'; known: <!DOCTYPE html>", "<!DOCTYPE html>\n<p>404</p>\n")
bad("series", "Excel", "a.xlsx: unknown kind of table '.xlsx'; known: .csv, .npz, .parquet, .tsv, .txt; save it as one", zipped(), data_file="a.xlsx")
bad("series", "columns between blanks", "a.csv, line 1: unknown column 'x'; known: day who x y", SERIES.replace(",", " "))
bad("series", "Parquet without the column", "a.parquet: unknown column 'x'; did you mean 'xs'? known: xs", parquet(xs=[1.0]), data_file="a.parquet")
bad("series", "Parquet with a null", "a.parquet, row 2, column 'x': a number is missing; missing: fill", parquet(x=[1.0, None]), data_file="a.parquet")
bad("series", "Parquet of words", "a.parquet, row 1, column 'x': expected a number, got 'a'", parquet(x=["a"]), data_file="a.parquet")
bad("series", "Parquet of lists", "a.parquet, column 'x': expected numbers, texts or times, got List(Float64)", parquet(x=[[1.0]]), data_file="a.parquet")
bad("series", "Parquet of dates", "a.parquet, row 1, column 'x': expected a number, got '2020-01-01'", parquet(x=[datetime.date(2020, 1, 1)]), data_file="a.parquet")
bad("series", "Parquet that is CSV", "a.parquet: not a Parquet file (", SERIES, data_file="a.parquet")
bad("series", "an empty Parquet file", "a.parquet: not a Parquet file (", b"", data_file="a.parquet")
bad("series", "Parquet without rows", "a.parquet: expected at least one row, got none", parquet(x=np.zeros(0)), data_file="a.parquet")
bad("series", "NPZ without the array", "a.npz: unknown array 'x'; did you mean 'xs'? known: xs", {"xs": X}, data_file="a.npz")
bad("series", "NPZ of several axes", "a.npz, array 'x': expected one number a row, got shape (5, 2); save every column under a name", {"x": X}, data_file="a.npz")
bad("series", "NPZ of complex numbers", "a.npz, array 'x': expected numbers or texts, got the type complex128; save numbers", {"x": np.zeros(N, complex)}, data_file="a.npz")
bad("series", "NPZ of times", "a.npz, array 't': expected numbers or texts, got the type datetime64[D]; …as .astype(float) and .astype(str)", {"x": np.arange(9.0), "t": np.arange("2020-01-01", "2020-01-10", dtype="datetime64[D]")}, data_file="a.npz", time="t")
bad("series", "NPZ of a single value", "a.npz, array 'x': expected a row per example, got a single value", {"x": np.array(3.0)}, data_file="a.npz")
bad("series", "NPZ without rows", "a.npz: expected at least one row, got none", {"x": np.zeros(0)}, data_file="a.npz")
bad("series", "NPZ of different lengths", "a.npz: array 'x' has 30 rows, array 'y' has 29; expected as many in both", {"x": np.arange(30.0), "y": np.arange(29.0)}, data_file="a.npz", targets=["y"])
bad("series", "NPZ of objects", "a.npz, array 'x': expected numbers or texts, got Python objects, which are never unpickled", {"x": np.array([1, "a"], dtype=object)}, data_file="a.npz")
bad("series", "a pickled NPZ", "a.npz: not an NPZ archive, or a damaged one (File is not a zip file); numpy.savez writes one", pickle.dumps({"x": [1]}), data_file="a.npz")
bad("series", "NPY by the name of NPZ", "a.npz: not an NPZ archive", npy(np.arange(9.0)), data_file="a.npz")
bad("series", "NPY", "a.npy: unknown kind of table '.npy'; did you mean '.npz'?", npy(np.arange(9.0)), data_file="a.npy")
bad("series", "a broken-off NPZ", "a.npz: not an NPZ archive, or a damaged one", npz(x=np.arange(900.0))[:900], data_file="a.npz")
bad("series", "NPZ with a bit wrong", "a.npz: not an NPZ archive, or a damaged one (Bad CRC-32 for file 'x.npy')", npz(x=np.zeros(900)).replace(bytes(9), b"\1" + bytes(8), 1), data_file="a.npz")

# Series that make no sense

bad("series", "a constant column", "a.csv: column 'x' is 0.1 in every training row, so there is no scale; leave it out, or write scaling: none", column(*[0.1] * N))
bad("series", "a column that is constant in training", "a.csv: column 'x' is 3 in every training row", column(*[3] * 20, *range(9)), scaling="range")
bad("series", "a scale that later numbers burst", "a.csv: column 'x' varies too little in training for what follows", column(*[0, 1e-30] * 9, *[1e30] * 12))
bad("series", "a window longer than a split", "dataset 'mine': length 50 is impossible; a window and the value 1 after it …: from 1 to 5", lengths=[50])
bad("series", "a window of nothing", "dataset 'mine': length 0 is impossible; …from 1 to 5", lengths=[0])
bad("series", "a horizon beyond the rows", "a.csv: expected a piece of more rows than the horizon, 99, in every split, the longest of train has 18; lower horizon", horizon=99)
bad("series", "a single row", "a.csv: expected a piece of more rows than the horizon, 1, …the longest of train has 0", column(1))
bad("series", "an unknown column of times", "a.csv, line 1: unknown column 'date'; known: day, who, x, y", time="date")
bad("series", "a time that is none", "a.csv, line 7, column 'day': expected a number or a date in ISO 8601 (2020-01-31, …got 'soon'", changed(7, "soon,a,5,5"), time="day")
bad("series", "American dates", "a.csv, line 2, column 'day': expected a number or a date in ISO 8601 …got '01/1/2020'", "day,x\n" + rows(lambda i: f"01/{i + 1}/2020,{i}"), time="day")
bad("series", "German dates", "a.csv, line 2, column 'day': expected a number or a date in ISO 8601 …got '1.1.20'", "day,x\n" + rows(lambda i: f"{i + 1}.1.20,{i}"), time="day")
bad("series", "31 February", "a.csv, line 7, column 'day': expected a number or a date in ISO 8601 …got '2020-02-31'", changed(7, "2020-02-31,a,5,5"), time="day")
bad("series", "times with and without a zone", "a.csv, line 7, column 'day': expected …of one kind in the column, got '2020-01-06T00:00Z'", changed(7, "2020-01-06T00:00Z,a,5,5"), time="day")
bad("series", "no time", "a.csv, line 7, column 'day': expected a time, got nothing; leave such rows out", changed(7, ",a,5,5"), time="day")
bad("series", "times that descend", "a.csv, line 3, column 'day': expected a time after '99', got '98'; sort the rows, or name the column `group`", "day,x\n" + rows(lambda i: f"{99 - i},{i}"), time="day")
bad("series", "a time twice", "a.csv, line 7, column 'day': expected a time after '2020-01-05', got '2020-01-05'; sort", changed(7, "2020-01-05,a,5,5"), time="day")
bad("series", "a gap of time", "a.csv, line 7, column 'day': '2020-01-07' comes 172800 after '2020-01-05', expected 86400 as elsewhere (in seconds…; write gaps: divide", SERIES.replace("2020-01-06,a,4,5\n", ""), time="day")
bad("series", "dates that are numbers", "a.csv, line 33, column 'day': '20200201' comes 70 after '20200131', expected 1 …; write gaps: …or dates as 2020-01-31", "day,x\n" + rows(lambda i: f"{20200101 + i if i < 31 else 20200170 + i},{i}", 50), time="day")
bad("series", "a split that begins twice", "a.csv: test_from: expected a time after validation_from, got '2020-01-20' after '2020-01-25'", time="day", validation_from="2020-01-25", test_from="2020-01-20", shares=...)
bad("series", "a test split after the end", "a.csv: expected a piece of more rows …the longest of test has 0; lower horizon, or divide otherwise", time="day", validation_from="2020-01-20", test_from="2021-01-20", shares=...)
bad("series", "a beginning of another kind", "a.csv: validation_from: expected a number or a date …got 20; the column begins with '2020-01-01'", time="day", validation_from=20, test_from=25, shares=...)
bad("series", "one group", "a.csv, column 'who': 1 groups, too few for a share of 0.2; validation needs at least one", "who,x\n" + rows(lambda i: f"a,{i}"), group="who", split_by="group")
bad("series", "a row without a group", "a.csv, line 7, column 'who': expected a name of a group, got nothing; leave such rows out", changed(7, "6,,5,5"), group="who", split_by="group")
bad("series", "nothing to fill from", "a.csv, line 2, column 'x': a number is missing, and there is none before it to fill it with", column("NA", *range(N)), missing="fill")
bad("series", "the same file twice", f"{YAML}.validation_file: expected another file than train_file, …got 'a.csv'", **given("a.csv", "a.csv", "b.csv"))
bad("series", "a later file without the column", "b.csv, line 1: unknown column 'x'; known: z", {"b.csv": "z\n1\n", "c.csv": SERIES}, **given("a.csv", "b.csv", "c.csv"))
bad("series", "an empty test file", "c.csv: expected at least one row, got none below the names", {"b.csv": SERIES, "c.csv": "x\n"}, **given("a.csv", "b.csv", "c.csv"))
bad("series", "a short test file", "c.csv: expected a piece of more rows than the horizon, 1, …the longest of test has 1; lower horizon", {"b.csv": SERIES, "c.csv": column(1)}, **given("a.csv", "b.csv", "c.csv"))

# Configurations

bad("series", "a misspelt key", f"{YAML}: unknown key 'horizn'; did you mean 'horizon'? known: data_file, gaps", horizn=1)
bad("series", "a key in capitals", f"{YAML}: unknown key 'Horizon'; did you mean 'horizon'?", Horizon=1)
bad("series", "a missing key", f"{YAML}: missing key 'inputs'", inputs=...)
bad("series", "a horizon of 0", f"{YAML}.horizon: expected an integer of at least 1, got 0", horizon=0)
bad("series", "a fraction", f"{YAML}.horizon: expected an integer, got 1.5", horizon=1.5)
bad("series", "true", f"{YAML}.horizon: expected an integer, got True", horizon=True)
bad("series", "a number in quotes", f"{YAML}.stride: expected an integer, got '1'", stride="1")
bad("series", "text in place of a list", f"{YAML}.inputs: expected a list, got 'x'", inputs="x")
bad("series", "no columns", f"{YAML}.inputs: expected at least one column, each once, got []", inputs=[])
bad("series", "a column twice", f"{YAML}.inputs: expected at least one column, each once, got ['x', 'x']", inputs=["x", "x"])
bad("series", "a number in place of a name", f"{YAML}.inputs[0]: expected text, got 1", inputs=[1])
bad("series", "no lengths", "dataset 'mine': no length to prepare; list one under `lengths` in its file or a study", lengths=[])
bad("series", "one length", f"{YAML}.lengths: expected a list, got 3", lengths=3)
bad("series", "a length twice", f"{YAML}.lengths: expected each length once, got [3, 3]", lengths=[3, 3])
bad("series", "a misspelt choice", f"{YAML}.scaling: unknown value 'standart'; did you mean 'standard'? known: none, range", scaling="standart")
bad("series", "shares above 1", f"{YAML}.shares.test: expected train, validation and test to sum to 1, got 1.2", shares={"train": 0.8, "validation": 0.2, "test": 0.2})
bad("series", "shares below 1", f"{YAML}.shares.test: expected train, validation and test to sum to 1, got 0.875", shares={"train": 0.5, "validation": 0.25, "test": 0.125})
bad("series", "shares in per cent", f"{YAML}.shares.train: expected a share between 0 and 1, got 80.0", shares={"train": 80, "validation": 10, "test": 10})
bad("series", "no share for test", f"{YAML}.shares.test: expected a share between 0 and 1, got 0.0", shares={"train": 0.8, "validation": 0.2, "test": 0})
bad("series", "two shares", f"{YAML}.shares: missing key 'test' (a number)", shares={"train": 0.8, "validation": 0.2})
bad("series", "a misspelt share", f"{YAML}.shares: unknown key 'valid'; did you mean 'validation'?", shares={"train": 0.8, "valid": 0.1, "test": 0.1})
bad("series", "a list of shares", f"{YAML}.shares: expected a mapping with keys ['train', 'validation', 'test'], got [0.8, 0.1", shares=[0.8, 0.1, 0.1])
bad("series", "no shares", f"{YAML}.shares: expected train, validation and test, which sum to 1, got None", shares=...)
bad("series", "shares of given splits", f"{YAML}.shares: expected null, as every split has its own file", **given("a.csv", "b.csv", "c.csv") | {"shares": SHARES})
bad("series", "two files of three", f"{YAML}.test_file: expected a file, as the other splits have one, got None", **given("a.csv", "b.csv", "c.csv") | {"test_file": ...})
bad("series", "a whole and its parts", f"{YAML}.data_file: expected either data_file alone, or train_file, validation_file and test_file", **given("a.csv", "b.csv", "c.csv") | {"data_file": "a.csv"})
bad("series", "gaps without times", f"{YAML}.gaps: expected refuse, without a column `time`, got 'divide'", gaps="divide")
bad("series", "half a division", f"{YAML}.test_from: expected a time with validation_from", validation_from="2020-01-20", shares=...)
bad("series", "a division without times", f"{YAML}.time: expected the column of times", validation_from=3, test_from=4, shares=...)
bad("series", "groups without a column", f"{YAML}.group: expected the column of groups, as split_by says", split_by="group")
bad("series", "no file", f"{YAML}.data_file: expected either data_file alone, or train_file, validation_file and test_file, got None", data_file=...)
bad("series", "another key for it", f"{YAML}: unknown key 'file'; did you mean 'test_file'?", data_file=..., file="a.csv")
bad("series", "a list of files", f"{YAML}.data_file: expected the path of a file, got ['a.csv', 'b.csv']", data_file=["a.csv", "b.csv"])
bad("series", "an address", f"{YAML}.data_file: expected the path of a file on this machine; download it first", data_file="https://a.org/a.csv")
bad("series", "a tilde", f"{YAML}.data_file: expected the path of a file, …without ~", data_file="~/a.csv")
bad("series", "a byte 0 in a path", f"{YAML}.data_file: expected the path of a file, …without ~ and a byte 0, got 'a\\x00.csv'", data_file="a\0.csv")
bad("series", "nothing to train on", f"{YAML}.max_train: expected an integer of at least 1, or null, got 0", max_train=0)
bad("series", "a negative seed", f"{YAML}.seed: expected an integer of at least 0, got -1", seed=-1)
bad("series", "an empty configuration", f"{YAML}: expected a mapping with a generator, one of adding, …; got None", {YAML: ""})
bad("series", "a list for a configuration", f"{YAML}: expected a mapping with a generator, …; got ['series']", {YAML: "- series\n"})
bad("series", "no kind", f"{YAML}: expected a mapping with a generator, …; got {{'kind': 'series'}}", {YAML: "kind: series\n"})
bad("series", "an unknown kind", f"{YAML}.generator: unknown generator 'serie'; did you mean 'series'?", {YAML: "generator: serie\n"})
bad("series", "a key twice", f"{YAML}: not valid YAML: key 'seed' appears twice, first in line 2 (line 3)", {YAML: "generator: series\nseed: 0\nseed: 1\n"})
bad("series", "a tabulator", f"{YAML}: not valid YAML: found character '\\t' that cannot start any token (line 2)", {YAML: "generator: series\n\tseed: 0\n"})
bad("series", "an open bracket", f"{YAML}: not valid YAML: …(line 3)", {YAML: "generator: series\ninputs: [x\ntargets: [x]\n"})

# Labelled sequences

bad("labelled", "a misspelt column", "a.csv, line 1: unknown column 'lable'; did you mean 'label'? known: label, text, who", targets="lable")
bad("labelled", "a text that is its label", f"{YAML}.targets: expected another column than that of the inputs, got 'text'", targets="text")
bad("labelled", "no text", "a.csv, line 5, column 'text': expected a text, got nothing; leave such rows out", changed(5, ",yes,0", LABELLED))
bad("labelled", "no label", "a.csv, line 5, column 'label': expected a label, got nothing; leave such rows out", changed(5, "the one,,0", LABELLED))
bad("labelled", "a comma in a text", "a.csv, line 5: expected 3 fields …got 4: 'one, two,yes,0'; quotation marks stand round", changed(5, "one, two,yes,0", LABELLED))
bad("labelled", "one class", "a.csv, column 'label': expected at least two classes, got 'no' alone", LABELLED.replace(",yes", ",no"))
bad("labelled", "a class a row", "a.csv, column 'label': expected classes that repeat, got 30 different ones of 30; kind: value is for numbers", "text,label\n" + rows(lambda i: f"{ONE[i % 6]} {ONE[i // 6]},{i}"))
bad("labelled", "words for values", "a.csv, line 2, column 'label': expected a number, got 'yes'", kind="value")
bad("labelled", "a missing value", "a.csv, line 5, column 'label': a number is missing", changed(5, "the one,NA,0", LABELLED.replace("yes", "1").replace("no", "0")), kind="value")
bad("labelled", "values all alike", "a.csv: the labels is 0.1 in the whole training split", LABELLED.replace("yes", "0.1").replace("no", "0.1"), kind="value")
bad("labelled", "a long text", "a.csv, line 2: column 'text' has 3 words, more than max_length 2; raise it, or write too_long: leave_out", max_length=2)
bad("labelled", "long texts alone", "a.csv: every text is longer than max_length 2; raise it", max_length=2, too_long="leave_out")
bad("labelled", "texts longer than any", f"{YAML}.max_length: expected an integer from 1 to 100000, got 10000000", max_length=10_000_000)
bad("labelled", "no unit", f"{YAML}.unit: expected character or word, got None", unit=...)
bad("labelled", "an unknown unit", f"{YAML}.unit: unknown value 'words'; did you mean 'word'? known: character, word", unit="words")
bad("labelled", "a word of the network's", "a.csv, line 5: column 'text' has the word '<pad>', which the network reads as something else", changed(5, "the <pad>,yes,0", LABELLED))
bad("labelled", "a class of unknown ones", "a.csv, line 5, column 'label': a class cannot be called '<unk>'", changed(5, "the one,<unk>,0", LABELLED))
bad("labelled", "three rows", "a.csv: 3 different sequences, too few for a share of 0.2; test needs at least one", "text,label\na,x\nb,y\nc,x\n")
bad("labelled", "one group", "a.csv: 1 different sequences, too few for a share of 0.2; validation needs", re.sub(r",\d\n", ",0\n", LABELLED), group="who")
bad("labelled", "words all too rare", "a.csv: texts of the training split: expected a token that occurs min_count 99 times, …; lower min_count", min_count=99)
bad("labelled", "a word that training lacks", "c.csv, line 32: in the test split, with a token that the training split lacks: 'new'; leave it out, or set min_count", {"b.csv": LABELLED, "c.csv": LABELLED + "new,no,1\n"}, min_count=0, **given("a.csv", "b.csv", "c.csv"))
bad("labelled", "a class that training lacks", "c.csv, line 2: in the test split, the class 'perhaps', which no training sequence has; leave it out", {"b.csv": LABELLED, "c.csv": LABELLED.replace("yes", "perhaps")}, **given("a.csv", "b.csv", "c.csv"))
bad("labelled", "a class that max_train cuts off", "a.csv, line …: in the validation split, the class '…', which no training sequence has; leave it out, or give more of it, or raise max_train 1", max_train=1)
bad("labelled", "a column without a name", "a.csv, line 1: unknown column ''; known: label, text, who", inputs="")
bad("labelled", "lengths of texts", f"{YAML}.lengths: expected null, as texts have their own, got 'n'", lengths="n")
bad("labelled", "a scale of nothing", f"{YAML}.scaling: expected 'standard', or nothing, as there are no numbers, got 'none'", scaling="none")
bad("numbers", "an unknown array", "a.npz: unknown array 'xs'; did you mean 'x'? known: n, x, y", inputs="xs")
bad("numbers", "one axis", "a.npz, array 'x': expected (N, T) or (N, T, D), got shape (30,)", numbers(x=np.arange(30.0)))
bad("numbers", "no timesteps", "a.npz, array 'x': expected numbers, got shape (30, 0, 2)", numbers(x=np.zeros((N, 0, 2))))
bad("numbers", "words", "a.npz, array 'x': expected numbers, got texts", numbers(x=np.full((N, 5), "a")))
bad("numbers", "lists of different lengths", "a.npz, array 'x': expected numbers or texts, got Python objects", numbers(x=np.array([np.zeros(3), np.zeros(2)] * 15, dtype=object)))
bad("numbers", "NaN", "a.npz, row 3, column 'x': timestep 2 of 5 is missing (NaN)", numbers(x=np.where(np.arange(N * 10).reshape(N, 5, 2) == 23, np.nan, X)))
bad("numbers", "inf", "a.npz, row 3, column 'x': expected a finite number, got infinity", numbers(x=np.where(np.arange(N * 10).reshape(N, 5, 2) == 23, np.inf, X)))
bad("numbers", "numbers all alike", "a.npz: number 2 of a timestep is 1 in the whole training split, so there is no scale", numbers(x=np.concatenate([X[..., :1], np.ones((N, 5, 1))], axis=2)))
bad("numbers", "labels of two axes", "a.npz, column 'y': expected a label a row, got 2 axes", numbers(y=np.eye(2)[Y]))
bad("numbers", "fewer labels", "a.npz: array 'x' has 30 rows, array 'y' has 29; expected as many in both", numbers(y=Y[:29]))
bad("numbers", "a label that is NaN", "a.npz, row 29, column 'y': expected a label, got nothing", numbers(y=np.where(np.arange(N) == 28, np.nan, Y)))
bad("numbers", "labels in bytes", "a.npz, array 'y': expected numbers or texts, got the type |S1; …as .astype(float) and .astype(str)", numbers(y=np.array([b"a", b"b"] * 15)))
bad("numbers", "measurements for classes", "a.npz, column 'y': expected classes that repeat, got 30 different ones of 30; kind: value", numbers(y=X[:, 0, 0]))
for wrong in (6, 0, -1, 2.5):
    bad("numbers", f"a length of {wrong}", f"a.npz, row 1, column 'n': expected a whole number from 1 to 5, the timesteps of 'x', got {wrong}", numbers(n=np.full(N, wrong)), lengths="n")
bad("numbers", "fewer lengths", "a.npz: array 'x' has 30 rows, array 'n' has 29; expected as many in both", numbers(n=np.ones(29)), lengths="n")
bad("numbers", "a unit of numbers", f"{YAML}.unit: expected null, as an NPZ archive holds numbers, got 'word'", unit="word")
bad("numbers", "capitals of numbers", f"{YAML}.lower_case: expected False, or nothing, as an NPZ archive holds numbers, got True", lower_case=True)
bad("numbers", "another size in a later file", "c.npz, row 1: expected as many numbers a timestep in every file, got 3, those of training have 2", {"b.npz": numbers(), "c.npz": numbers(x=np.ones((N, 5, 3)))}, **given("a.npz", "b.npz", "c.npz"))

# Texts

bad("text", "a file with another ending", "a.txt: no such file; unknown file 'a.txt'; did you mean 'a.text'?", {"a.txt": None, "a.text": TEXT})
bad("text", "three letters", "a.txt: expected at least 2 characters in every split, got a text of 3 characters, of which validation has 0", "abc")
bad("text", "Windows-1251", "a.txt, line 1: not UTF-8 text (invalid continuation byte at byte 0); `iconv", "привет мир\n".encode("cp1251"))
bad("text", "PDF", "a.txt, line 1: expected text in UTF-8, got PDF; save it as text", b"%PDF-1.4\n%\xe2\xe3\n")
bad("text", "a stray carriage return", "a.txt, line 9: expected lines that end with a line feed, got stray carriage returns", TEXT.replace("number 8", "number\r8"))
bad("text", "a window longer than a split", "dataset 'mine': length 5000 is impossible; a window lies within the part of its split: from 1 to 297", lengths=[5000])
bad("text", "an unknown unit", f"{YAML}.unit: unknown value 'char'; did you mean 'character'?", unit="char")
bad("text", "a letter that training lacks", "a.txt, line 61: in the test split, a token that the training split lacks: 'ж'; leave it out, or set min_count", TEXT + "ж", min_count=0)
bad("text", "words all too rare", "a.txt: the training split: expected a token that occurs min_count 999 times, got <unk> alone; the most frequent one occurs 36 times; lower", unit="word", min_count=999)
bad("text", "the end of a line in words", "a.txt, line 9: the text has the word '<eos>', which stands for the end of a line; …end_of_line: false", TEXT.replace("number 8", "<eos>"), unit="word")
bad("text", "ends of lines of letters", f"{YAML}.end_of_line: expected true, or nothing, as it is a character like others, got False", end_of_line=False)
bad("text", "an empty test file", "c.txt: expected text, got an empty file", {"b.txt": TEXT, "c.txt": ""}, **given("a.txt", "b.txt", "c.txt"))
bad("text", "a misspelt split", f"{YAML}: unknown key 'valid_file'; did you mean 'validation_file'?", valid_file="a.txt")
bad("text", "an address of another kind", f"{YAML}.url: expected an address with http:// or https://, got 'ftp://a.org/b'", data_file=..., url="ftp://a.org/b", sha256="0" * 64)
bad("text", "an address without a checksum", f"{YAML}.sha256: expected 64 hexadecimal digits …as sha256sum prints them, got None", data_file=..., url="https://a.org/b")
bad("text", "a file and an address", f"{YAML}.data_file: expected either data_file or url alone, or train_file", url="https://a.org/b", sha256="0" * 64)
bad("text", "a wrong checksum", "/a.txt: expected a file with sha256 " + "0" * 64 + ", got one with ", data_file=..., url="{server}/a.txt", sha256="0" * 64)
bad("text", "no such page", "/b.txt: the server answers 404 File not found", data_file=..., url="{server}/b.txt", sha256="0" * 64)
bad("text", "nobody there", "http://127.0.0.1:9/b: cannot be downloaded (…Connection refused); or put the file at ", data_file=..., url="http://127.0.0.1:9/b", sha256="0" * 64)

# Pairs

bad("pairs", "one column", "a.tsv, line 8: expected two columns, source and target with a tab between, got 1: 'two and two zwei und zwei'", PAIRS.replace("two and two\t", "two and two "))
bad("pairs", "three columns", "a.tsv, line 1: expected two columns, …got 3: …; `columns` says which of several, [1, 2]", PAIRS.replace("\n", "\tCC-BY\n"))
bad("pairs", "commas", "a.tsv, line 1: expected two columns, source and target with a tab between, got 1: 'one and one,eins und eins'", PAIRS.replace("\t", ","))
bad("pairs", "a column too far", "a.tsv, line 1: expected 3 columns with tabs between, got 2: 'one and one", columns=[1, 3])
bad("pairs", "one column named", f"{YAML}.columns: expected two different columns, from 1: [1, 2], got [1]", columns=[1])
bad("pairs", "columns from 0", f"{YAML}.columns: expected two different columns, from 1: [1, 2], got [0, 1]", columns=[0, 1])
bad("pairs", "names of columns", f"{YAML}.columns[0]: expected an integer, got 'source'", columns=["source", "target"])
bad("pairs", "an empty line", "a.tsv, line 31: expected two columns, …got an empty line; leave it out", PAIRS + "\n")
bad("pairs", "no source", "a.tsv, line 8: the source is empty; expected at least one word", PAIRS.replace("two and two\t", "\t"))
bad("pairs", "no target", "a.tsv, line 8: the target is empty; expected at least one word", PAIRS.replace("zwei und zwei\n", "\n"))
bad("pairs", "a long source", "a.tsv, line 8: the source has 10 words, more than max_length 9; raise it, or write too_long", PAIRS.replace("two and two", "two" + " and" * 9))
bad("pairs", "no length", f"{YAML}.max_length: expected an integer from 1 to 100000, got None", max_length=...)
bad("pairs", "files of different lengths", "a.tsv has 30 lines, b.tsv has 29; expected as many in both", {"a.tsv": SOURCES, "b.tsv": SOURCES[: SOURCES.rindex("six") - 0].rsplit("\n", 1)[0] + "\n"}, data_file=["a.tsv", "b.tsv"])
bad("pairs", "a file that is not there", "b.tsv: no such file; unknown file 'b.tsv'; did you mean 'a.tsv'?", data_file=["a.tsv", "b.tsv"])
bad("pairs", "Latin-1 in one of two", "b.tsv, line 5: not UTF-8 text", {"b.tsv": "\n".join(EIN * 5).encode("latin-1")}, data_file=["a.tsv", "b.tsv"])
bad("pairs", "columns of two files", f"{YAML}.columns: expected null, as there are two files, got [1, 2]", columns=[1, 2], data_file=["a.tsv", "b.tsv"])
bad("pairs", "three files", f"{YAML}.data_file: expected the path of a file, or a list of 2, got ['a', 'b', 'c']", data_file=["a", "b", "c"])
bad("pairs", "one source", "a.tsv: 1 different sources, too few for a share of 0.2; validation needs at least one", rows(lambda i: f"a\tb{i}"))
bad("pairs", "a word of the network's", "a.tsv, line 8: the target has the word '<eos>', which the network reads as something else", PAIRS.replace("zwei und zwei", "zwei <eos>"))
bad("pairs", "lengths", f"{YAML}: unknown key 'lengths'; did you mean 'max_length'?", lengths=[9])

# Tagged words

bad("tagged", "no empty lines", "a.conll, line 1: the sentence, up to an empty line, has 60 words, more than max_length 9; raise it", TAGGED.replace("\n\n", "\n"))
bad("tagged", "no empty lines, though long ones may be", "a.conll: expected an empty line behind each sentence, got a single sentence", TAGGED.replace("\n\n", "\n"), max_length=99)
bad("tagged", "one column", "a.conll, line 1: expected a word and a tag, got one column: 'one'", TAGGED.replace(" A", "").replace(" B", ""))
bad("tagged", "a word without a tag", "a.conll, line 7: expected 2 columns as in the first line, got 1: 'three'", TAGGED.replace("three A", "three", 1))
bad("tagged", "an empty tag", "a.conll, line 7: expected a word without white space and a tag, got 'three' and ''", TAGGED.replace(" ", "\t").replace("three\tA", "three\t", 1))
bad("tagged", "a column too far", "a.conll, line 1: expected a column 4 (tag_column), got 2", tag_column=4)
bad("tagged", "a word that is its tag", f"{YAML}.tag_column: expected another column than the word's, got 1", tag_column=1)
bad("tagged", "one tag", "a.conll: expected at least two tags, got 'A' alone; see tag_column", TAGGED.replace(" B", " A"))
bad("tagged", "a remark", "a.conll, line 2: expected 4 columns as in the first line, got 2: 'one A'; comments: true leaves lines out", "# sent_id = 1\n" + TAGGED)
bad("tagged", "a tag of the network's", "a.conll, line 7: a tag cannot be called '<pad>'; name it otherwise", TAGGED.replace("three A", "three <pad>", 1))
bad("tagged", "a tag that training lacks", "c.conll, line 1: in the test split, the tag 'C', which no training sequence has; leave it out", {"b.conll": TAGGED, "c.conll": TAGGED.replace("A", "C", 1)}, **given("a.conll", "b.conll", "c.conll"))
bad("tagged", "a tag that max_train cuts off", "a.conll, line …: in the validation split, the tag '…', which no training sequence has; …raise max_train 1", TAGGED.replace("two A", "two C"), max_train=1)
bad("tagged", "starts of documents alone", "a.conll: expected at least one sentence of at most 9 words, …got none", "-DOCSTART- -X-\n\n")
bad("tagged", "letters", f"{YAML}.unit: expected word, got 'character'", unit="character")

# Images

bad("images", "an unknown array", "a.npz: unknown array 'image'; did you mean 'images'? known: images, labels", images="image")
bad("images", "colours", "a.npz, array 'images': expected (N, height, width) …got (30, 4, 4, 3); images.mean(axis=-1) is a copy in shades of grey", pictures(images=np.zeros((N, 4, 4, 3), np.uint8)))
bad("images", "pixels in one row", "a.npz, array 'images': expected (N, height, width) with sides up to 1024, got (30, 16)", pictures(images=PIXELS.reshape(N, 16)))
bad("images", "fractions up to 255", "a.npz, array 'images', image 0: expected brightness from 0 to 1, got …; divide by 255, or save whole numbers", pictures(images=PIXELS.astype(float)))
bad("images", "negative whole numbers", "a.npz, array 'images', image 0: expected whole numbers from 0 to 255, got -1 to -1", pictures(images=np.full((N, 4, 4), -1)))
bad("images", "NaN", "a.npz, array 'images', image 0: expected brightness from 0 to 1, got nan", pictures(images=np.full((N, 4, 4), np.nan)))
bad("images", "fewer labels", "a.npz, array 'labels': expected a label an image, got (29,) labels for 30 images", pictures(labels=Y[:29]))
bad("images", "a label that is NaN", "a.npz, array 'labels', image 28: a class cannot be called 'nan'", pictures(labels=np.where(np.arange(N) == 28, np.nan, Y)))
bad("images", "one class", "a.npz: expected at least two classes, got '0' alone", pictures(labels=np.zeros(N, int)))
bad("images", "a class that max_train cuts off", "a.npz, array 'images', image …: in the validation split, the class '…', which no training sequence has; …raise max_train 1", max_train=1)
bad("images", "a class an image", "a.npz: expected classes that repeat, got 30 different ones of 30", pictures(labels=np.arange(N)))
bad("images", "images all alike", "a.npz: 1 different images, too few for a share of 0.2", pictures(images=np.zeros((N, 4, 4))))
bad("images", "another size in a later file", "a.npz: expected images of one size, got 4 x 4 in b.npz, …5 x 4 in c.npz, …; scale a copy of them", {"b.npz": pictures(), "c.npz": pictures(images=np.tile(PIXELS, (1, 2, 1))[:, :5])}, **given("a.npz", "b.npz", "c.npz"))
bad("images", "a misspelt choice", f"{YAML}.read_as: unknown value 'pixel'; did you mean 'pixels'?", read_as="pixel")
bad("images", "captions without a table", f"{YAML}.captions_file: expected a table with columns file and caption, got None", read_as="caption", unit="word", max_length=3)
bad("images", "a table without captions", f"{YAML}.captions_file: expected null, without read_as: caption, got 'c.csv'", captions_file="c.csv")
bad("images", "rare words without captions", f"{YAML}.min_count: expected 1, or nothing, without read_as: caption, got 7", min_count=7)
bad("folder", "no such folder", "picks: no such folder; unknown folder 'picks'; did you mean 'pics'?", image_folder="picks")
bad("folder", "a file", "a.csv: expected a folder of images, got a file", {"a.csv": SERIES}, image_folder="a.csv")
bad("folder", "no images", "none.d: expected images (.png, .jpg, …) in folders of classes, got none", {"none.d": directory}, image_folder="none.d")
bad("folder", "an image outside classes", "pics/1.png: expected a folder for each class, with its images in it; or captions", {"pics/1.png": png()})
bad("folder", "a corrupt image", "pics/cat/0.png: not an image, or a damaged one (cannot identify image file", {"pics/cat/0.png": b"\x89PNG\r\n\x1a\nxx"})
bad("folder", "an empty image", "pics/cat/0.png: not an image, or a damaged one", {"pics/cat/0.png": b""})
bad("folder", "another size", "pics: expected images of one size, got …4 x 5 in pics/cat/0.png; scale a copy of them", {"pics/cat/0.png": png(5, 4)})
bad("folder", "a large image", "pics/cat/0.png: expected sides of at most 1024 pixels, got 2000 x 4", {"pics/cat/0.png": png(2000, 4)})
bad("folder", "a film", "pics/cat/0.gif: expected one picture, got 2; save them as files of their own", {"pics/cat/0.gif": png(frames=2)})
bad("folder", "a folder called an image", "pics/cat/x.png: not an image, or a damaged one (…Is a directory", {"pics/cat/x.png": directory})
bad("folder", "an array of a folder", f"{YAML}.images: expected nothing, as there is no NPZ archive, got 'x'", images="x")
bad("captions", "no such image", "c.csv, line 9, column 'file': no such image in pics; unknown image 'cat/70.png'; did you mean 'cat/7.png'? known: cat/1.png, …and 10 more", {"c.csv": CAPTIONS.replace("cat/7.png", "cat/70.png")})
bad("captions", "an image elsewhere", "c.csv, line 9, column 'file': no such image in pics; unknown image '../b.png'", {"b.png": png(), "c.csv": CAPTIONS.replace("cat/7.png", "../b.png")})
bad("captions", "a misspelt column", "c.csv, line 1: unknown column 'file'; did you mean 'files'? known: caption, files", {"c.csv": CAPTIONS.replace("file,", "files,")})
bad("captions", "no caption", "c.csv, line 9, column 'caption': expected a caption, got nothing; leave such rows out", {"c.csv": changed(9, "cat/7.png,", CAPTIONS)})
bad("captions", "a comma in a caption", "c.csv, line 9: expected 2 fields …got 3: 'cat/7.png,a, b'; quotation marks stand round", {"c.csv": changed(9, "cat/7.png,a, b", CAPTIONS)})
bad("captions", "long captions", "c.csv, line 2, column 'caption': the caption has 3 words, more than max_length 2; raise it", max_length=2)
bad("captions", "no such table", "d.csv: no such file; unknown file 'd.csv'; did you mean 'c.csv'?", captions_file="d.csv")
bad("captions", "a corrupt image", "pics/cat/7.png: not an image, or a damaged one", {"pics/cat/7.png": "hello"})
bad("captions", "classes of captions", f"{YAML}.labels: expected nothing, as there is no NPZ archive, got 'y'", labels="y")

# fmt: on


# The tests


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project without datasets, with one small study."""
    root = tmp_path_factory.mktemp("project")
    (root / "configs" / "studies").mkdir(parents=True)
    for name in ("base.yaml", "claims.yaml", "scales"):
        (root / "configs" / name).symlink_to(ROOT / "configs" / name)
    (root / "configs" / "studies" / "q.yaml").symlink_to(ROOT / "configs" / "studies" / "length.yaml")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params |= {"scale": "smoke", "datasets": ["adding", "mine"], "studies": ["q"]}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    study = load_study(Paths.at(root), "q")  # once: it is the same in all cases
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "load_study", lambda *_: study)
        yield root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on loopback that has a.txt."""
    served = tmp_path_factory.mktemp("served")
    (served / "a.txt").write_text(TEXT)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, directory=str(served), **named)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def put(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    elif isinstance(content, Mapping):
        np.savez(path, **content)
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def written(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a project with a dataset `mine` of some kind, with other files and keys."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def write(kind: str, files: Mapping[str, Content], keys: Mapping[str, Any]) -> Path:
        root = tmp_path / "mine"
        (root / "configs" / "datasets").mkdir(parents=True)
        for name in ("params.yaml", *(f"configs/{part}" for part in ("base.yaml", "claims.yaml", "scales", "studies"))):
            (root / name).symlink_to(project / name)
        (root / "configs" / "datasets" / "adding.yaml").symlink_to(ROOT / "configs" / "datasets" / "adding.yaml")
        good, fields = GOOD[kind]
        config = {"generator": GENERATOR.get(kind, kind), "shares": SHARES} | fields | keys
        config = {key: value for key, value in config.items() if value is not ...}
        for name, content in ({YAML: yaml.safe_dump(config)} | good | files).items():
            put(root / name, content)
        return root

    return write


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}: {case.what}" for case in CASES])
def test_a_mistake_has_one_line_with_place_expectation_and_remedy(
    case: Case, written: Callable[..., Path], server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {key: value.format(server=server) if key == "url" else value for key, value in case.keys.items()}
    root = written(case.kind, case.files, keys)
    assert prepare.main(["mine", "--project", str(root)]) == 2
    printed = capsys.readouterr()
    said = printed.err.replace(f"{root}/", "").removesuffix("\n")
    assert re.search(".*".join(map(re.escape, case.message.split("…"))), said), said
    assert "\n" not in said
    assert len(said) < 600
    assert printed.out == ""
    assert not (root / "data" / "mine").exists()


def test_there_are_many_of_every_kind() -> None:
    assert len(CASES) > 200
    assert len({case[:2] for case in CASES}) == len(CASES)
    for kind in GOOD:
        assert sum(case.kind == kind for case in CASES) >= 9


@pytest.mark.parametrize("kind", mostly(GOOD, "pairs", "series"))
def test_what_is_damaged_at_random_is_refused_in_one_line_or_read(
    kind: str, written: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(sum(map(ord, kind)))
    root, ended = written(kind, {}, {}), []
    files = [root / name for name in GOOD[kind][0]]
    for _ in range(25):
        path = rng.choice(files)
        good = path.read_bytes()
        at, length = rng.randrange(len(good)), rng.choice([1, 1, 2, 16])
        put = rng.choice([b"", rng.randbytes(length), rng.choice([b"\n", b",", b"\t", b'"', b" ", b"nan", b"<unk>"])])
        path.write_bytes(good[:at] + put + good[at + rng.choice([0, length, len(good)]) :])
        ended.append(prepare.main(["mine", "--project", str(root)]))
        said = capsys.readouterr().err
        assert said.count("\n") == (ended[-1] == 2)
        assert len(said) < 800
        path.write_bytes(good)
    assert {*ended} <= {0, 2}
    assert 2 in ended


SAME: list[tuple[str, dict[str, Content]]] = [
    ("series", {"a.csv": "\ufeff" + SERIES.replace("\n", "\r\n")}),
    ("series", {"a.csv": SERIES.replace(",", ";")}),
    ("series", {"a.csv": SERIES.replace(",", "\t")}),
    ("series", {"a.csv": SERIES.replace("day,who,x,y", '"day", who , x,y')}),
    ("series", {"a.csv": SERIES.replace(",a,", ',"a\n\n,",')}),
    ("labelled", {"a.csv": LABELLED.replace("the one one", '"the\none\n\none"')}),
    ("text", {"a.txt": "\ufeff" + TEXT.replace("\n", "\r\n")}),
    ("pairs", {"a.tsv": PAIRS.replace("\n", "\r\n").replace("fünf", "fu\u0308nf")}),
    ("tagged", {"a.conll": TAGGED.replace(" ", "\t").replace("\n", "\r\n")}),
    ("tagged", {"a.conll": "\n\n" + TAGGED.replace("\n\n", "\n \n\n")}),
    ("folder", {"pics/cat/notes.txt": "not an image"}),
]


@pytest.mark.parametrize(("kind", "files"), SAME)
def test_what_differs_in_form_alone_is_read_the_same(
    kind: str, files: dict[str, Content], written: Callable[..., Path], tmp_path: Path
) -> None:
    digests = []
    for some in ({}, files):
        root = written(kind, some, {})
        assert prepare.main(["mine", "--project", str(root)]) == 0
        manifest = read_manifest(root / "data" / "mine")
        digests.append([variant.digest for variant in manifest.variants.values()])
        root.rename(tmp_path / f"done-{len(digests)}")
    assert digests[0] == digests[1]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a broken-off NPZ", "Latin-1", "a corrupt image"])
def test_the_command_ends_with_the_line_and_status_2(what: str, written: Callable[..., Path]) -> None:
    case = next(case for case in CASES if case.what == what)
    root = written(case.kind, case.files, case.keys)
    command = [sys.executable, str(ROOT / "stages" / "prepare.py"), "mine", "--project", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Traceback" not in done.stderr
