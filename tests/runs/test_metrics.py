import errno
import itertools
import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.runs import EarthworksError, Metrics, read_metrics
from earthworks.runs.metrics import missing_steps, rising


def log(path, steps, start=0):
    metrics = Metrics(path, start)
    for step in steps:
        metrics.append(step=step, loss=1 / step)
    metrics.close()


def steps(path):
    return [record["step"] for record in read_metrics(path)]


def test_records_come_back_in_order_and_to_the_bit(tmp_path):
    log(tmp_path / "m", range(1, 8))
    assert read_metrics(tmp_path / "m") == [{"step": step, "loss": 1 / step} for step in range(1, 8)]


def test_resuming_at_a_step_cuts_later_lines_away_and_continues(tmp_path):
    path = tmp_path / "m"
    log(path, range(1, 11))
    whole = path.read_bytes()
    log(path, range(7, 11), start=6)
    assert path.read_bytes() == whole  # no step twice, none missing, earlier lines untouched


def test_a_fresh_start_forgets_a_log_without_a_checkpoint(tmp_path):
    log(tmp_path / "m", range(1, 5))
    log(tmp_path / "m", range(1, 3), start=0)
    assert steps(tmp_path / "m") == [1, 2]


@given(cut=st.integers(0, 200))
def test_a_log_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "m"
    log(path, range(1, 8))
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n")
    assert steps(path) == list(range(1, whole + 1))
    log(path, range(whole + 1, 8), start=7)
    assert steps(path) == list(range(1, 8))  # a half line would have swallowed the one written after it


def test_what_a_power_cut_filled_with_zeros_is_cut_away_on_resuming(tmp_path):
    path = tmp_path / "m"
    log(path, range(1, 4))
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 40 + b"\n" + b'{"step": 5}\n')
    assert missing_steps(path, 3) is None
    log(path, [], start=3)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "harm", [b'{"step": 4, "lo', b"\0" * 20 + b"\n", b"[" * 99999 + b"\n", b"[4]\n", b'{"step": "4"}\n', b"9\n"]
)
def test_a_damaged_line_costs_itself_alone_and_is_said(tmp_path, harm):
    path = tmp_path / "m"
    log(path, range(1, 21))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = harm
    if not harm.endswith(b"\n"):  # the line end itself was hit: it swallows the next one
        lines[4] = b"?" + lines[4]
    path.write_bytes(b"".join(lines))
    lost = {4} if harm.endswith(b"\n") else {4, 5}
    assert set(steps(path)) == set(range(1, 21)) - lost
    assert str(path) in missing_steps(path, 20)
    log(path, [16], start=15)  # resuming cuts at the end alone
    assert set(steps(path)) == set(range(1, 17)) - lost


def flipped_digits(whole):
    """(step, the log) for every other digit in every place of every step."""
    lines = whole.splitlines(keepends=True)
    for step, line in enumerate(lines, 1):
        for place in range(9, 9 + len(str(step))):  # after `{"step": `
            for digit in set(b"0123456789") - {line[place]}:
                altered = line[:place] + bytes([digit]) + line[place + 1 :]
                yield step, b"".join([*lines[: step - 1], altered, *lines[step:]])


def test_a_flipped_step_number_costs_one_line(tmp_path):
    path = tmp_path / "m"
    log(path, range(1, 21))
    records = read_metrics(path)
    for step, data in flipped_digits(path.read_bytes()):
        path.write_bytes(data)
        kept = [record for record in read_metrics(path) if record in records]
        assert kept == [record for record in records if record["step"] != step]
        assert missing_steps(path, 20).split(" for ")[1].startswith(f"step {step}:")


@pytest.mark.parametrize("known", [False, True])
def test_resuming_after_a_flipped_step_number_cuts_what_came_after_the_checkpoint_alone(tmp_path, known):
    path = tmp_path / "m"
    metrics = Metrics(path)
    for step in range(1, 20):
        metrics.append(step=step, loss=1 / step)
        if step == 14:
            written = metrics.state()
    metrics.close()
    whole = path.read_bytes()
    for step, data in flipped_digits(whole):
        path.write_bytes(data)
        Metrics(path, 14, written if known else None).close()
        end = written["bytes"]
        if step == 14 and not known:  # nothing tells that the line was written before the checkpoint
            assert path.read_bytes() in (data[:end], data[: data.rindex(b"\n", 0, end - 1) + 1])
        else:
            assert path.read_bytes() == data[:end]
        log(path, [], start=14)
        assert set(steps(path)) >= set(range(1, 14)) - {step}


def test_the_place_in_a_checkpoint_saves_a_damaged_last_line_and_nothing_of_a_later_step(tmp_path):
    path = tmp_path / "m"
    log(path, range(1, 5))
    whole = path.read_bytes()
    damaged = whole[:-3] + b"?}\n"
    path.write_bytes(damaged + b'{"step": 5}\n')
    Metrics(path, 4, {"bytes": len(whole)}).close()
    assert path.read_bytes() == damaged
    for place in (len(whole) - 1, 10 * len(whole), -1, 0, 1 << 80, True, "7", None):
        path.write_bytes(whole + whole)
        Metrics(path, 4, {"bytes": place}).close()
        assert path.read_bytes().startswith(whole)
    log(path, range(1, 5))
    Metrics(path, 2, {"bytes": len(whole)}).close()  # of another log than this one
    assert steps(path) == [1, 2]


@given(st.lists(st.integers(1, 9), max_size=7))
def test_of_steps_that_do_not_rise_as_many_as_can_be_are_kept(found):
    kept = rising(found, list(range(1, len(found) + 1)))
    assert kept == sorted(kept)
    assert all(found[a] < found[b] for a, b in itertools.pairwise(kept))
    lengths = (
        n
        for n in range(len(found), -1, -1)
        for each in itertools.combinations(found, n)
        if list(each) == sorted(set(each))
    )
    assert len(kept) == next(lengths)


def test_what_is_missing_is_counted_from_its_first_step_to_its_last(tmp_path):
    path = tmp_path / "m"
    log(path, [1, 2, 5, 6, 9])
    assert missing_steps(path, 9).split(" for ")[1].startswith("4 steps from 3 to 8")
    assert missing_steps(path, 7).split(" for ")[1].startswith("3 steps from 3 to 7")
    assert missing_steps(path, 3).split(" for ")[1].startswith("step 3:")
    assert missing_steps(path, 2) is None
    assert "is missing: the measurements of 4 steps are lost" in missing_steps(tmp_path / "gone", 4)
    assert missing_steps(tmp_path / "gone", 0) is None
    assert "steps from 3 to" in missing_steps(path, 1 << 50)  # whatever a stranger's checkpoint says


def test_a_line_is_visible_to_readers_at_once(tmp_path):
    metrics = Metrics(tmp_path / "m")
    metrics.append(step=1, text="line\nend")
    assert (tmp_path / "m").read_bytes() == b'{"step": 1, "text": "line\\nend"}\n'
    metrics.close()


def test_a_write_that_the_system_takes_in_parts_is_finished(tmp_path, monkeypatch):
    metrics = Metrics(tmp_path / "m")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, block: write(descriptor, block[:3]))
    metrics.append(step=1, loss=2.5)
    metrics.close()
    assert json.loads((tmp_path / "m").read_bytes()) == {"step": 1, "loss": 2.5}


@pytest.mark.parametrize(("call", "deed"), [("write", lambda m: m.append(step=1)), ("fsync", Metrics.sync)])
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, call, deed):
    metrics = Metrics(tmp_path / "m")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(EarthworksError, match="the disk is full") as error:
        deed(metrics)
    assert error.value.exit_code == 1
    metrics.close()


def test_a_last_line_whose_step_was_raised_is_not_cut_where_a_checkpoint_knows_it(tmp_path):
    path = tmp_path / "m"
    metrics = Metrics(path)
    for step in range(1, 21):
        metrics.append(step=step, loss=1 / step)
    written = metrics.state()
    metrics.close()
    path.write_bytes(altered := path.read_bytes().replace(b'"step": 20', b'"step": 90'))
    metrics = Metrics(path, 20, written)
    assert path.read_bytes() == altered
    metrics.append(step=21, loss=0.1)
    metrics.append(step=22, loss=0.1)
    metrics.close()
    assert steps(path) == [*range(1, 20), 21, 22]
    assert " for step 20:" in missing_steps(path, 22)


def test_a_missing_log_says_where_it_was_sought(tmp_path):
    with pytest.raises(EarthworksError, match=r"m does not exist; is .* a run folder\?"):
        read_metrics(tmp_path / "m")


def test_numbers_that_are_not_finite_are_null_at_every_depth(tmp_path):
    """The reverse KL of a generator without one good sample is infinite, which JSON has no word for."""
    log = Metrics(tmp_path / "m")
    log.append(step=1, validation={"reverse_kl": math.inf, "shown": [math.nan, {"modes": 0}]})
    log.close()
    text = (tmp_path / "m").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "step": 1,
        "validation": {"reverse_kl": None, "shown": [None, {"modes": 0}]},
    }
