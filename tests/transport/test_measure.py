import json
import math

import numpy as np
import pytest
import torch
from known import normal

from earthworks.transport import wasserstein, wasserstein_1d
from earthworks.transport.command import read_cloud

FEW = {"num_permutations": 19, "num_directions": 20, "points": 30}
FIELDS = {"name", "value", "kind", "null", "interval", "p_value", "n", "m", "d", "solver"}


@pytest.fixture
def files(tmp_path):
    """`files(name, array)` writes a cloud as .npy or .csv, or text as it is, and gives its path."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, str | bytes):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        elif path.suffix == ".npy":
            np.save(path, content)
        else:
            np.savetxt(path, content, delimiter=",")
        return path

    return write


def test_every_distance_comes_with_its_kind_null_and_interval(command, files):
    x, y = normal(25, 2), normal(25, 2, 1) + 1
    outcome = command("transport measure --json", files("a.npy", x.numpy()), files("b.csv", y.numpy()), **FEW)
    records = {each["name"]: each for each in json.loads(outcome.out)}
    assert list(records) == [
        "wasserstein_1", "wasserstein_2", "sliced_wasserstein_1", "sliced_wasserstein_2", "max_sliced_wasserstein_2",
        "sinkhorn_divergence", "gaussian_wasserstein",
    ]  # fmt: skip
    for each in records.values():
        assert each.keys() >= FIELDS
        assert (each["n"], each["m"], each["d"]) == (25, 25, 2)
        assert 0 <= each["null"] < each["value"]
        assert each["interval"][0] <= each["value"] <= each["interval"][1]
    assert records["wasserstein_1"]["value"] == pytest.approx(float(wasserstein(x, y)), rel=1e-9)
    assert records["max_sliced_wasserstein_2"]["kind"] == "lower bound"
    assert records["wasserstein_2"]["p_value"] == 0.05


def test_large_clouds_are_solved_exactly_on_a_stated_part(command, files):
    a, b = files("a.npy", normal(70, 2).numpy()), files("b.npy", normal(50, 2, 1).numpy())
    outcome = command("transport measure --json", a, b, **FEW)
    sizes = {each["name"]: (each["n"], each["m"]) for each in json.loads(outcome.out)}
    assert sizes["wasserstein_1"] == sizes["sinkhorn_divergence"] == (30, 30)
    assert sizes["sliced_wasserstein_1"] == sizes["gaussian_wasserstein"] == (70, 50)
    assert command("transport measure --json", a, b, **FEW).out == outcome.out
    assert command("transport measure --json --seed 1", a, b, **FEW).out != outcome.out


def test_numbers_on_a_line_are_compared_by_sorting(command, files):
    x, y = normal(40, 1)[:, 0], normal(60, 1, 1)[:, 0]
    outcome = command("transport measure --json", files("a.npy", x.numpy()), files("b.csv", y.numpy()), **FEW)
    records = {each["name"]: each for each in json.loads(outcome.out)}
    assert "sliced_wasserstein_1" not in records
    assert records["wasserstein_1"]["value"] == pytest.approx(float(wasserstein_1d(x, y)), rel=1e-9)
    assert records["wasserstein_1"]["m"] == 60


def test_the_table_names_every_distance_and_the_figure_is_drawn(command, files, tmp_path):
    a, b = files("a.npy", normal(20, 2).numpy()), files("b.npy", normal(20, 2, 1).numpy())
    outcome = command("transport measure", a, b, figure=tmp_path / "out.png", **FEW)
    assert outcome.code == 0
    for word in ("wasserstein_1", "sinkhorn_divergence", "lower bound", "null", "95 % interval", "20 points"):
        assert word in outcome.out
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "measuring" in outcome.err


def test_the_critics_estimate_is_added_on_request(command, files, monkeypatch):
    from earthworks.transport import command as commands
    from earthworks.transport import critic_estimate

    monkeypatch.setattr(commands, "critic_estimate", lambda x, y, seed: critic_estimate(x, y, steps=5, seed=seed))
    a, b = files("a.npy", normal(20, 2).numpy()), files("b.npy", normal(20, 2, 1).numpy())
    last = json.loads(command("transport measure --json --critic", a, b, **FEW).out)[-1]
    assert (last["name"], last["n"]) == ("critic_estimate", 5)
    assert last["kind"] in ("estimate", "lower bound")


@pytest.mark.parametrize("kind", ["float32", "float16", "int64", "uint16", "bool", ">f8"])
def test_numbers_of_any_kind_are_read(files, kind):
    values = np.array([[0, 1], [1, 1], [1, 0]]).astype(kind)
    assert read_cloud(str(files("a.npy", values))).tolist() == [[0, 1], [1, 1], [1, 0]]


def test_images_are_flattened(files):
    assert read_cloud(str(files("a.npy", np.zeros((5, 3, 4, 4), np.uint8)))).shape == (5, 48)


def test_a_first_row_of_names_blank_lines_and_a_byte_order_mark_are_no_points(files):
    text = "\ufeffheight, weight\n1,2\n\n3.5,4e0\n"
    assert torch.equal(read_cloud(str(files("a.csv", text))), torch.tensor([[1, 2], [3.5, 4]], dtype=torch.float64))


def test_every_unusable_file_is_named_in_one_sentence(command, files, tmp_path):
    good = files("good.npy", normal(5, 2).numpy())
    cases = {
        tmp_path / "missing.npy": "does not exist",
        files("a.txt", "1,2"): "expected .npy or .csv",
        files("ragged.csv", "1,2\n3,4\n5\n"): "line 3",
        files("words.csv", "x,y\n1,2\n3,four\n"): "line 3",
        files("names.csv", "x,y\n"): "no row of numbers",
        files("empty.csv", ""): "no row of numbers",
        files("binary.csv", b"\xff\xfe\x00\x01"): "not a text file of numbers",
        files("nan.csv", "1,2\nnan,4\n"): "NaN or infinity in 1 of 2 points",
        files("infinite.npy", np.array([[math.inf, 0.0]])): "NaN or infinity",
        files("three.npy", np.zeros((4, 3))): "dimension 3",
        files("empty.npy", np.zeros((0, 2))): "empty",
        files("cube.npy", np.zeros((2, 2, 2))): "has shape (2, 2, 2)",
        files("scalar.npy", np.zeros(())): "has shape ()",
        files("objects.npy", np.array([{"a": 1}], dtype=object)): "not an array of numbers",
        files("text.npy", np.array(["a"])): "expected numbers",
        files("broken.npy", b"\x93NUMPY\x01"): "not an array of numbers",
        files("longer.npy", good.read_bytes() + b"more"): "holds 4 bytes after the array declared in its header",
        files("nothing.npy", b""): "not an array of numbers",
    }
    for path, complaint in cases.items():
        assert command("transport measure", good, path).refuses(path.name, complaint)
        assert command("transport measure", path, good).refuses(path.name, complaint)


def test_settings_that_make_no_sense_are_refused_before_any_work(command, files):
    good = files("good.npy", normal(5, 2).numpy())
    for option, complaint in (
        ("--points 0", "--points 0"),
        ("--num_permutations 0", "--num_permutations 0"),
        ("--num_directions -1", "--num_directions -1"),
        ("--num_directions 1000000000000", "--num_directions 1,000,000,000,000 takes about 44,703.5 GiB of memory"),
        ("--num_permutations 1000000000000", "--num_permutations 1,000,000,000,000 takes about"),
        ("--figure plan.jpg", "ending in .png"),
    ):
        assert command("transport measure", good, good, *option.split()).refuses(complaint)
