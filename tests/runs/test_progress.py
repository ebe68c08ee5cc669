import io
import sys

import pytest
from rich.cells import cell_len

from earthworks.runs import Progress, progress
from earthworks.runs.progress import ERASE, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (75, "1 min 15 s"),
        (3599.7, "1 h 00 min"),
        (3700, "1 h 01 min"),
        (86399, "23 h 59 min"),
        (90000, "1 d 1 h"),
        (7 * 86400, "7 d 0 h"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds, text):
    assert duration(seconds) == text


def test_a_file_name_of_two_lines_is_said_in_one(capsys):
    progress.note("notice: a\nearthworks: b.txt\r\nis left out")
    assert capsys.readouterr().err == "notice: a\\u000aearthworks: b.txt\\u000ais left out\n"


def test_a_log_gets_one_line_every_ten_seconds(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("packing", total=200, unit="documents") as bar:
        for _ in range(100):
            clock.now += 0.25
            bar.advance()
    assert sys.stderr.getvalue().splitlines() == [
        "packing 40/200 documents, 40 s left",
        "packing 80/200 documents, 30 s left",
    ]


def test_a_terminal_line_is_rewritten_in_place_and_taken_away(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with Progress("reading", unit="bytes") as bar:
        clock.now += 1
        bar.advance(1500)
        bar.show("too soon")
        bar.show("forced", force=True)
    assert sys.stderr.getvalue() == f"{ERASE}reading 1,500 bytes{ERASE}forced{ERASE}"


def test_a_line_never_wraps_however_wide_its_characters(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    Progress("").show("漢字" * 50, force=True)
    shown = sys.stderr.getvalue().removeprefix(ERASE)
    assert 37 <= cell_len(shown) <= 39


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_sample_cannot_break_the_line_or_command_the_terminal(monkeypatch, clock, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("TERM", "xterm")
    Progress("").show("sample: a\nb\x1b[2Jc\rd\x07\u2028e", force=True)
    assert sys.stderr.getvalue().removeprefix(ERASE).rstrip("\n") == "sample: a b [2Jc d  e"


def test_a_dumb_terminal_is_treated_as_a_log(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    with Progress("") as bar:
        bar.show("line", force=True)
        bar.note("note")
    assert sys.stderr.getvalue() == "line\nnote\n"


def test_a_note_stays_above_the_live_line(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with Progress("") as bar:
        bar.show("live", force=True)
        bar.note("stays")
    assert sys.stderr.getvalue() == f"{ERASE}live{ERASE}stays\n{ERASE}"
