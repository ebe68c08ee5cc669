"""Points from .csv and .npy files: names and an index are skipped, and sizes in headers are checked."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest

from earthworks.runs import EarthworksError
from earthworks.transport.command import read_cloud
from earthworks.transport.readers import arrays
from earthworks.transport.readers.arrays import read_npy, read_npz
from earthworks.transport.readers.tables import read_csv

POINTS = [[0.5, -1.25], [2.5, 3.0], [-0.75, 4.5], [1.5, 0.25]]
ROWS = [f"{x},{y}" for x, y in POINTS]


@pytest.fixture
def read(tmp_path, capsys):
    """`read(text)` gives the points of a .csv and what was said about it."""

    def read(text):
        (tmp_path / "a.csv").write_bytes(text.encode() if isinstance(text, str) else text)
        points = read_cloud(str(tmp_path / "a.csv")).tolist()
        return points, capsys.readouterr().err

    return read


def refused(read, text, *words):
    with pytest.raises(EarthworksError) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    for word in ("a.csv", *words):
        assert word in str(caught.value)


def test_numbered_column_names_are_no_point(read):
    points, said = read("\n".join(["0,1", *ROWS]))
    assert points == POINTS
    assert said.count("\n") == 1
    assert "took its first line, '0,1', as column names" in said


@pytest.mark.parametrize("names", [",u,v", '"","u","v"', "Unnamed: 0,u,v", ",0,1"])
@pytest.mark.parametrize("start", [0, 1])
def test_a_column_without_a_name_that_counts_is_an_index(read, names, start):
    points, said = read("\n".join([names, *(f"{k + start},{row}" for k, row in enumerate(ROWS))]))
    assert points == POINTS
    assert "took its first column, which counts the rows, as an index" in said


def test_words_for_names_and_plain_numbers_need_no_notice(read):
    for text in ("\n".join(["u,v", *ROWS]), "\n".join(ROWS), "time,x\n0,1.5\n1,2.5\n2,3.5"):
        assert read(text)[1] == ""
    assert read("time,x\n0,1.5\n1,2.5\n2,3.5")[0] == [[0, 1.5], [1, 2.5], [2, 3.5]]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("0,1\n1,1\n0,0\n1,0", "may be column names or a point"),
        ("0\n3\n5", "may be column names or a point"),
        (",u,v\n5,1,2\n2,3,4", "has no name and does not count the rows"),
        ("0,1.5\n1,2.5\n2,3.5", "may be an index"),
        ("id,x\n1,1.5\n2,2.5\n3,3.5", "may be an index"),
        ("1.5,NA\n2,3", "neither all numbers nor all names"),
        ("u,v\n1,2\n3,", "column v is missing"),
        ("u,v\n1,2\nfox,4", "column u is 'fox'"),
        ("u,v\n1,2\n1_0,4", "column u is '1_0'"),
        ("u,v\n1,2\nnan,4", "NaN or infinity in 1 of 2 points"),
        ("u,v\n1,2,3\n", "line 2"),
        ("u;v\n1.234,5;2\n", "thousands separators"),
        ("1,234\t2,500\n0\t3\n", "line 1 of"),
        (
            "u\tv\n1\t2\n-1,234\t2.5\n",
            "'-1,234', whose comma may separate thousands: remove thousands separators",
        ),
        (",\n0,\n", "name"),
        ("\n\n", "no row of numbers"),
    ],
)
def test_what_may_be_one_thing_or_another_is_a_sentence(read, text, word):
    refused(read, text, word)


def test_semicolons_and_tabs_come_with_decimal_commas(read):
    expected = [[0.5, -1.25], [2.5, 3.0]]
    for text in (
        "0,5;-1,25\n2,5;3",
        "\ufeffu;v\r\n0,5;-1,25\r\n2,5;3,0\r\n",
        "0.5\t-1.25\n2.5\t3",
        "0,5\t-1,25\n2,5\t3",
    ):
        assert read(text) == (expected, "")


def test_one_comma_that_cannot_separate_thousands_makes_those_between_tabs_decimal(read):
    for text in ("1,234\t2,5\n2,500\t3", "1,234\t0,250\n", "1,234;2,500\n"):
        assert read(text)[0][0][0] == 1.234


def test_a_pipe_is_not_waited_for_and_a_device_not_read(tmp_path):
    for suffix in (".csv", ".npy"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
        for name in ("pipe", "device"):
            with pytest.raises(EarthworksError, match="not a regular file"):
                read_cloud(str(tmp_path / f"{name}{suffix}"))


def header(shape: str, dtype: str = "<f8") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        header("(1000000000000000,)"),
        header("(4611686018427387904, 4611686018427387904)"),
        header("(-1, -1)") + bytes(8),
        header("(3, 2)") + bytes(40),
        header("(3, 2)", "|O") + bytes(80),
        header("(" * 5000),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUMPY\x09\x00" + bytes(200),
        b"\x93NUMPY",
    ],
    ids=[
        "a quadrillion",
        "more than a machine word",
        "negative",
        "cut",
        "objects",
        "nested",
        "long",
        "version",
        "short",
    ],
)
def test_a_header_is_compared_with_the_file_before_any_memory_is_taken(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(EarthworksError, match=r"a\.npy"):
        read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(tmp_path, order):
    array = np.asarray(np.arange(24, dtype=">i2").reshape(2, 3, 4), order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "plain.npz", other=array, x=array + 1)
    np.savez_compressed(tmp_path / "packed.npz", x=array + 1)
    assert (read_npy(tmp_path / "a.npy") == array).all()
    for name in ("plain", "packed"):
        images, labels = read_npz(tmp_path / f"{name}.npz", [("images", "x"), ("labels",)])
        assert (images == array + 1).all()
        assert labels is None


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "ANY_SIZE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as to:
        to.write(header(f"({1 << 24},)", "|u1"))
        for _ in range(16):
            to.write(bytes(1 << 20))
    with pytest.raises(EarthworksError, match="more than 200 times its size"):
        read_npz(tmp_path / "bomb.npz", [("x",)])


def test_an_archive_whose_table_promises_less_than_its_array_is_refused(tmp_path):
    content = io.BytesIO()
    np.savez(content, x=np.zeros(100))
    harmed = content.getvalue()
    (tmp_path / "cut.npz").write_bytes(harmed[:-30])
    (tmp_path / "flipped.npz").write_bytes(harmed[:400] + bytes([harmed[400] ^ 1]) + harmed[401:])
    for name in ("cut", "flipped"):
        with pytest.raises(EarthworksError, match=r"not .* readable .np"):
            read_npz(tmp_path / f"{name}.npz", [("x",)])


def test_a_figure_is_never_drawn_over_a_file_that_is_there(command, tmp_path):
    (tmp_path / "mine.png").write_text("mine")
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    outcome = command("transport measure", tmp_path / "a.npy", tmp_path / "missing.npy", figure=tmp_path / "mine.png")
    assert outcome.refuses("mine.png already exists")
    assert (tmp_path / "mine.png").read_text() == "mine"


def test_infinity_written_as_a_word_is_refused(read):
    refused(read, "u,v\n1,inf\n", "NaN or infinity")


def test_a_table_that_memory_cannot_hold_is_refused_before_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("1.0,2.0\n" * 100)
    assert read_csv(tmp_path / "a.csv").shape == (100, 2)
    monkeypatch.setattr("earthworks.runs.memory.machine_memory", lambda: 10_000)
    with pytest.raises(EarthworksError, match=r"the table .*a\.csv .*memory, and this machine has"):
        read_csv(tmp_path / "a.csv")
