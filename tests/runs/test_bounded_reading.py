"""What a stranger's files can cost: a sentence."""

import errno
import gzip
import json
import math
import os

import pytest
import yaml

from earthworks.runs import (
    EarthworksError,
    inside,
    json_text,
    parse_yaml,
    read_json,
    read_regular,
    read_result,
    read_yaml,
    shown,
    write_json,
    write_result,
)
from earthworks.runs.files import blocks_digest, open_regular, refuse_existing, write_bytes


def test_a_name_leads_to_a_file_inside_its_folder_or_nowhere(tmp_path):
    folder = tmp_path / "run"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "sub" / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    assert inside(folder, "sub/file") == folder / "sub" / "file"
    assert inside(folder, "sub/up/file") == folder / "sub" / "up" / "file"  # a link that stays in
    for name in ("../secret", "sub/../../secret", "/dev/zero", "out", "out/x", "", "a\0b", None, 7, ["x"], "x" * 5000):
        with pytest.raises(EarthworksError):
            inside(folder, name)


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    assert read_regular(tmp_path / "file", 5) == b"12345"
    for name, limit in (("pipe", 9), ("file", 4), (".", 9), ("gone", 9), ("sparse", 1000)):
        with pytest.raises(EarthworksError, match=name if name != "." else "not a regular file"):
            read_regular(tmp_path / name, limit)
    with pytest.raises(EarthworksError, match="zero"):
        read_regular("/dev/zero", 10)


def test_only_the_reading_of_a_file_is_called_that(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(OSError, match="No space left"), open_regular(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")  # of a write elsewhere
    not_packed = pytest.raises(EarthworksError, match="file cannot be read: Not a gzipped file")
    with not_packed, open_regular(tmp_path / "file") as stream, gzip.open(stream) as text:
        text.read()
    with open_regular(tmp_path / "file") as stream:  # a disk that fails: reading a descriptor for writing is refused
        other = os.open(tmp_path / "file", os.O_WRONLY)
        os.dup2(other, stream.fileno())
        os.close(other)
        for read in (stream.read, stream.readline, lambda: stream.read(2)):
            with pytest.raises(
                EarthworksError, match="file cannot be read: Bad file descriptor; check its permissions"
            ):
                read()


def test_json_has_no_nan_in_it_whoever_wrote_it(tmp_path):
    value = {"a": math.nan, "b": [math.inf, 1.5, {"c": -math.inf}], "d": "NaN"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, 1.5, {"c": None}],
        "d": "NaN",
    }
    assert json_text(value, indent=None) == '{"a": null, "b": [null, 1.5, {"c": null}], "d": "NaN"}'
    (tmp_path / "b.json").write_text('{"a": NaN, "b": -Infinity, "c": [1e999, -1e999, 1e308, 5e-324]}')
    assert read_json(tmp_path / "b.json") == {"a": None, "b": None, "c": [None, None, 1e308, 5e-324]}


def test_json_of_more_bytes_than_its_reader_names_is_one_sentence(tmp_path):
    (tmp_path / "a.json").write_bytes(b" " * (1 << 24) + b"{}")
    with pytest.raises(EarthworksError, match=r"a\.json exceeds the limit of 16,777,216 bytes"):
        read_json(tmp_path / "a.json")
    assert read_json(tmp_path / "a.json", limit=1 << 25) == {}
    assert read_result(tmp_path / "a.json") == {}  # results hold a line or two for each item


def test_a_result_that_was_altered_is_not_taken_for_one_that_was_measured(tmp_path):
    path = tmp_path / "evaluation.json"
    result = {"bits_per_byte": 2.7431, "interval": [2.6, math.nan], "naïve": {"b": 1, "a": 1e-300}}
    write_result(path, result)
    assert read_result(path) == {**result, "interval": [2.6, None]}
    content = path.read_bytes()
    path.write_bytes(content.replace(b"2.7431", b"2.7331"))
    with pytest.raises(EarthworksError, match=r"evaluation\.json does not match the SHA-256 in it"):
        read_result(path)
    write_json(path, result)  # as earlier versions wrote it
    assert read_result(path)["bits_per_byte"] == 2.7431
    (tmp_path / "config.yaml").write_text("format: 1\n")
    assert read_result(path)["bits_per_byte"] == 2.7431
    (tmp_path / "config.yaml").write_text("format: 2\n")
    with pytest.raises(EarthworksError, match=r"evaluation\.json has lost its SHA-256"):
        read_result(path)
    write_json(path, [1])
    with pytest.raises(EarthworksError, match="does not hold a result"):
        read_result(path)


@pytest.mark.parametrize(
    "content",
    [
        b"[[]" + b",[]" * 2_000_000 + b"]",
        b"[" * 200_000,
        b"[" * 101 + b"]" * 101,
        b'{"a":' * 5000,
        b"{",
        b"\xff",
        b"9" * 5000,
    ],
)
def test_json_that_is_damaged_or_too_deep_is_one_sentence(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(EarthworksError, match=r"a\.json is not readable JSON") as error:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9))


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        MERGES,
        "&a [*a]",
        "a: &a {b: *a}",
        "[" * 5000,
        "- " * 5000 + "x",
        "!!python/object:os.system x",
        "a: [1, 2",
        "{? [a] : b}: c",
        "\x00",
        "x: !!bool maybe",
        'x: !!int ""',
        "x: !!timestamp foo",
    ],
    ids=[
        "aliases",
        "merges",
        "itself",
        "itself in a mapping",
        "deep",
        "deep by dashes",
        "objects",
        "cut",
        "odd keys",
        "NUL",
        "no truth value",
        "no number",
        "no date",
    ],
)
def test_yaml_that_unfolds_or_is_damaged_is_one_sentence(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(EarthworksError, match=r"a\.yaml") as error:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(error.value)


def test_plain_yaml_is_read_as_it_always_was():
    text = "a: 1\nb: [x, 2.5, null, true]\nc: {d: &e [1, 2], f: *e}\n"
    assert parse_yaml(text, "text") == yaml.safe_load(text)
    assert parse_yaml("", "text") is None


def test_control_characters_are_shown_and_not_sent():
    assert shown("red \x1b[31m, bell \a, C1 \x9b, turned \u202e, tab\t, line\nend\r\n") == (
        "red \\u001b[31m, bell \\u0007, C1 \\u009b, turned \\u202e, tab\t, line\nend\n"
    )
    assert shown("漢字, é, 🌧") == "漢字, é, 🌧"
    assert json.loads(shown(json_text({"a": "\x1b\x9b\u202e"}))) == {"a": "\x1b\x9b\u202e"}


def test_a_block_digest_sees_what_was_replaced_cut_or_moved(tmp_path):
    data = os.urandom(1 << 20)

    def digest(content: bytes) -> str:
        (tmp_path / "file").write_bytes(content)
        return blocks_digest(tmp_path / "file")

    whole = digest(data)
    assert digest(data) == whole
    for other in (
        data[:-1],
        data + b"\0",
        data[::-1],
        os.urandom(1 << 20),
        data[:100] + b"?" + data[101:],
        data[4096:] + data[:4096],
    ):
        assert digest(other) != whole
    assert digest(b"") != digest(b"\0")


def test_a_file_that_is_there_is_nobodys_to_write_over(tmp_path):
    (tmp_path / "mine.png").write_text("mine")
    with pytest.raises(EarthworksError, match="already exists"):
        refuse_existing(tmp_path / "mine.png")
    with pytest.raises(EarthworksError, match="already exists"):
        write_bytes(tmp_path / "mine.png", b"ours", new=True)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("mine.png", "mine")]
    write_bytes(tmp_path / "ours.png", b"ours", new=True)
    assert (tmp_path / "ours.png").read_bytes() == b"ours"
