"""A corpus on disk: one command writes it, it is used as it was written or not at all, and a stranger's costs a sentence."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_build import ids, prose, run, tree, write_lines

from earthworks.corpus import build, read, sealing, sources
from earthworks.corpus.pipeline import command as building
from earthworks.corpus.sealing import json_bytes, parsed, sealed
from earthworks.corpus.store import Store
from earthworks.runs import EarthworksError, lock


@pytest.fixture
def raw(tmp_path) -> Path:
    """Three files, with a copy across two of them and pages that the filters drop."""
    for name, first in (("a", 0), ("b", 10), ("c", 20)):
        texts = {f"{name}-{k}": prose(first + k) for k in range(6)} | {f"{name}-short": prose(90 + first, 20)}
        write_lines(tmp_path / "raw" / f"{name}.jsonl", texts)
    write_lines(tmp_path / "raw" / "d.jsonl", {"copy": prose(0)})
    return tmp_path / "raw"


@pytest.fixture
def small_shards(monkeypatch):
    """Every file a shard by itself."""
    monkeypatch.setattr("earthworks.corpus.pipeline.shards.SHARD_BYTES", 1)


@pytest.fixture
def corpus(raw, tmp_path, small_shards) -> Path:
    run(raw, tmp_path / "corpus", tests=[str(write_test(tmp_path))])
    return tmp_path / "corpus"


def write_test(tmp_path: Path) -> Path:
    write_lines(tmp_path / "tests" / "items.jsonl", {"question": prose(3, 40)})
    return tmp_path / "tests"


def flip(path: Path, place: int, *, keep_time: bool = False) -> None:
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    if keep_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


# What is used is what was written

EVERY = ["documents", "rejected", "removed", "values", "contamination", "duplicates.parquet"]


def file_of(corpus: Path, kind: str) -> Path:
    """The first file of a kind; `removed` has one for shards with a copy alone."""
    return corpus / kind if "." in kind else min((corpus / kind).rglob("0*"))


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "replaced"])
def test_a_damaged_corpus_is_not_built_before(raw, tmp_path, corpus, kind, damage):
    file = file_of(corpus, kind)
    if damage == "flipped":
        flip(file, file.stat().st_size // 2, keep_time=True)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(EarthworksError, match=f"{file}.*restore the file, or choose another --output"):
        run(raw, corpus, tests=[str(tmp_path / "tests")])


def test_a_byte_flipped_anywhere_in_a_record_of_the_build_is_noticed(raw, tmp_path, corpus):
    for name in ("manifest.json", "plan.json"):
        data = (corpus / name).read_bytes()
        for place in range(0, len(data), max(1, len(data) // 40)):
            flip(corpus / name, place)
            changed = (corpus / name).read_bytes()
            if loose(changed) != loose(data):  # and not only white space
                with pytest.raises(EarthworksError, match=name.replace(".", r"\.")):
                    run(raw, corpus, tests=[str(tmp_path / "tests")])
            (corpus / name).write_bytes(data)
    data = (corpus / "times.json").read_bytes()
    for place in range(0, len(data), len(data) // 10):  # harmless: digests are compared in full then
        flip(corpus / "times.json", place)
        run(raw, corpus, tests=[str(tmp_path / "tests")])
        (corpus / "times.json").write_bytes(data)


def loose(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return data


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "a pipe", "a folder"])
def test_a_corpus_with_a_damaged_shard_is_not_trained_on(tmp_path, corpus, flea, damage, command):
    file = corpus / "documents/all/00001.jsonl.zst"
    if damage == "flipped":
        flip(file, file.stat().st_size // 2, keep_time=True)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    if damage == "a pipe":
        os.mkfifo(file)
    elif damage == "a folder":
        file.mkdir()
    outcome = command("gopher train --tokenizer bytes --size flea --max_steps 2", data=corpus, run=tmp_path / "run")
    assert outcome.refuses("00001.jsonl.zst")
    assert not (tmp_path / "run" / "data").exists()


def test_a_file_that_the_manifest_does_not_name_is_not_read_and_is_said(corpus, capsys):
    before = ids(corpus / "documents")
    write_lines(corpus / "documents/all/stranger.jsonl", {"stranger": prose(77)})
    (source,) = sources(str(corpus))
    for place in (source.location, corpus / "documents", corpus, f"{corpus}/documents/all/"):
        assert {document.id for document in read(str(place))} == before
    assert "stranger.jsonl is not in the manifest" in capsys.readouterr().err


def test_a_corpus_is_read_by_whatever_path_names_it(corpus, monkeypatch, tmp_path):
    before = ids(corpus / "documents")
    monkeypatch.chdir(tmp_path)
    for place in ("corpus", "./corpus/", f"file://{corpus}", f"file://{corpus}/documents", "corpus/documents/all"):
        assert {document.id for document in read(place)} == before, place
    monkeypatch.chdir(corpus / "documents")
    assert {document.id for document in read("all")} == before
    assert [source.name for source in sources(f"file://{corpus}")] == ["all"]


def test_an_unfinished_corpus_is_not_trained_on(raw, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(building.BY_SHARD, "select", stop)
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "corpus")
    with pytest.raises(EarthworksError, match="is an unfinished build"):
        sources(str(tmp_path / "corpus"))


def test_a_corpus_of_the_first_format_is_read_with_what_it_records(raw, tmp_path, corpus):
    manifest = json.loads((corpus / "manifest.json").read_text())
    for name in ("files", "sha256"):
        del manifest[name]
    (corpus / "manifest.json").write_text(json.dumps({**manifest, "format": "earthworks corpus 1"}))
    plan = json.loads((corpus / "plan.json").read_text())
    del plan["sha256"]
    (corpus / "plan.json").write_text(json.dumps(plan))
    (corpus / "times.json").unlink()
    assert "is already built" in str(build(str(corpus), input=str(raw), tests=[str(tmp_path / "tests")], workers=1))
    assert len(ids(corpus / "documents")) > 10
    flip(corpus / "documents/all/00001.jsonl.zst", 99)
    with pytest.raises(EarthworksError, match=r"00001\.jsonl\.zst"):
        run(raw, corpus, tests=[str(tmp_path / "tests")])
    with pytest.raises(EarthworksError, match=r"00001\.jsonl\.zst"):
        ids(corpus)


def test_a_build_whose_plan_notes_no_test_sets_is_read_when_finished_and_refused_by_name_when_not(
    raw, tmp_path, corpus
):
    for name in ("plan.json", "manifest.json"):
        old = json.loads((corpus / name).read_text())
        del old["tests"], old["sha256"]
        (corpus / name).write_bytes(sealed(old))
    tests = [str(tmp_path / "tests")]
    assert "is already built" in str(build(str(corpus), input=str(raw), tests=tests, workers=1))
    (corpus / "manifest.json").unlink()
    with pytest.raises(EarthworksError, match=r"did not record the content of the test sets: choose another --output"):
        run(raw, corpus, tests=tests)


def test_a_flipped_number_of_the_format_does_not_turn_off_the_seal(corpus):
    manifest = (corpus / "manifest.json").read_text()
    (corpus / "manifest.json").write_text(manifest.replace('"earthworks corpus 2"', '"earthworks corpus 1"'))
    with pytest.raises(EarthworksError, match=r"manifest\.json does not match the SHA-256 at its end"):
        sources(str(corpus))


def test_a_corpus_of_a_later_format_is_refused_by_name(corpus):
    manifest = json.loads((corpus / "manifest.json").read_text())
    (corpus / "manifest.json").write_text(json.dumps({**manifest, "format": "earthworks corpus 3"}))
    with pytest.raises(EarthworksError, match=r"'earthworks corpus 3'.*install a later earthworks"):
        sources(str(corpus))


@pytest.mark.parametrize("kind", EVERY[:-1])
def test_inspect_reads_what_was_written(corpus, kind, command):
    flip(file_of(corpus, kind), file_of(corpus, kind).stat().st_size // 2)
    outcome = command("corpus inspect", corpus, bounds=json.dumps({"words": [10, 1000]}))
    assert outcome.refuses(str(file_of(corpus, kind)))


# Damage within a build


@pytest.mark.parametrize("stage", building.STAGES)
def test_what_is_damaged_between_two_commands_is_done_again(raw, tmp_path, small_shards, monkeypatch, stage, capsys):
    run(raw, tmp_path / "whole")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building, "conclude", stop)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path / "broken")
    record = next(
        (tmp_path / "broken/work").glob(f"{stage}/all/00000.json" if stage in building.BY_SHARD else f"{stage}.json")
    )
    for number, name in enumerate(
        [*json.loads(record.read_text())["written"], record.relative_to(tmp_path / "broken")]
    ):
        file = tmp_path / "broken" / name
        if file.stat().st_size == 0:
            file.write_bytes(b"more")
        elif number % 2 and file != record:
            file.unlink()
        else:
            flip(file, file.stat().st_size // 2)
        with monkeypatch.context() as patch:
            patch.setattr(building, "conclude", stop)
            with pytest.raises(KeyboardInterrupt):
                run(raw, tmp_path / "broken")
        assert f"redoing the stage {stage}" in capsys.readouterr().err, name
    run(raw, tmp_path / "broken")
    assert tree(tmp_path / "broken") == tree(tmp_path / "whole")


@pytest.mark.parametrize("change", ["grows", "vanishes", "is rewritten"])
def test_a_file_that_changes_while_it_is_read_stops_the_build(raw, tmp_path, small_shards, monkeypatch, change):
    from earthworks.corpus.pipeline import shards

    through = shards.read_input

    def changing(file, reading):
        yield from through(file, reading)
        if file.name == "b.jsonl":
            path = Path(file.path)
            if change == "grows":
                path.write_text(path.read_text() + '{"text": "more"}\n')
            elif change == "vanishes":
                path.unlink()
            else:
                path.write_text(path.read_text().replace("the", "teh"))
                os.utime(path, (1, 1))

    monkeypatch.setattr(shards, "read_input", changing)
    with pytest.raises(EarthworksError, match=r"b\.jsonl (changed|vanished) while the corpus was built") as refusal:
        run(raw, tmp_path / "corpus")
    assert refusal.value.exit_code == 1
    assert not list((tmp_path / "corpus").rglob("00001*"))
    assert not list((tmp_path / "corpus").rglob(".tmp-*"))


# One writer


def test_a_second_build_in_the_folder_is_told_who_builds(raw, tmp_path, command):
    (tmp_path / "corpus").mkdir()
    script = "import sys; from earthworks.runs import lock\n"
    script += "with lock(sys.argv[1], 'building'): print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "corpus")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        for more in ([], ["--rank=1", "--world_size=2"]):
            outcome = command("corpus build --workers 1", *more, input=raw, output=tmp_path / "corpus")
            assert outcome.refuses("is being trained or built by another command", f"process {holder.pid}")
    finally:
        holder.kill()
        holder.communicate()
    assert command("corpus build --workers 1", input=raw, output=tmp_path / "corpus").code == 0
    assert not list((tmp_path / "corpus").glob(".earthworks-lock*"))


def test_ranks_write_in_parallel_and_nobody_else_does(raw, tmp_path, small_shards):
    (tmp_path / "corpus").mkdir()
    with lock(tmp_path / "corpus", "building-rank-1"):
        assert run_rank(raw, tmp_path / "corpus", 0) is None
        with pytest.raises(EarthworksError, match="being"):
            run_rank(raw, tmp_path / "corpus", 1)
        with pytest.raises(EarthworksError, match="being"):
            run(raw, tmp_path / "corpus")
    assert run_rank(raw, tmp_path / "corpus", 1) is None
    run(raw, tmp_path / "corpus")
    run(raw, tmp_path / "whole")
    assert tree(tmp_path / "corpus") == tree(tmp_path / "whole")


def run_rank(raw: Path, output: Path, rank: int) -> object:
    return build(str(output), input=str(raw), workers=1, rank=rank, world_size=2).manifest


def test_a_refused_build_leaves_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EarthworksError, match="contains no readable files"):
        run(tmp_path / "empty", tmp_path / "new" / "corpus")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_finished_corpus_is_built_before_also_where_nothing_can_be_written(raw, tmp_path, corpus, monkeypatch):
    def refused(*_):
        raise AssertionError("a file was written or removed")

    monkeypatch.setattr("earthworks.corpus.pipeline.planning.lock", refused)
    monkeypatch.setattr("earthworks.corpus.store.Store.writing", refused)
    assert "is already built" in str(build(str(corpus), input=str(raw), tests=[str(tmp_path / "tests")], workers=1))


# Signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=["TERM", "USR1", "INT"]
)
def test_a_signal_ends_the_workers_leaves_nothing_half_written_and_the_same_command_continues(
    raw, tmp_path, small_shards, number, code
):
    """The signal goes to the whole group, as a terminal sends Ctrl-C; each worker is in the middle of a file."""
    run(raw, tmp_path / "whole")
    script = (
        "import sys, time; from pathlib import Path; from earthworks.corpus.pipeline import shards, filter_stage\n"
        "shards.SHARD_BYTES = 1; through = filter_stage.judged\n"
        "def judged(*given):\n"
        "    Path(sys.argv[-1], str(time.time_ns())).touch(); time.sleep(60 if 'slow' in sys.argv[-1] else 0)\n"
        "    return through(*given)\n"
        "filter_stage.judged = judged\n"
        "from earthworks.cli import main; main(sys.argv[1:-1])"
    )
    (tmp_path / "slow").mkdir()
    arguments = ["corpus", "build", "--input", str(raw), "--output", str(tmp_path / "corpus"), "--workers", "2"]
    command = [sys.executable, "-c", script, *arguments]
    process = subprocess.Popen(
        [*command, str(tmp_path / "slow")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list((tmp_path / "slow").iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    started = time.monotonic()
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - started < 20
    assert process.returncode == code
    assert "finished work is kept" in said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody of the group is left
    left = [path.name for path in (tmp_path / "corpus").rglob("*") if path.is_file()]
    assert left == ["plan.json"]
    run(raw, tmp_path / "corpus")
    assert tree(tmp_path / "corpus") == tree(tmp_path / "whole")


# Places


def test_an_output_by_a_file_url_is_a_folder_like_others(raw, tmp_path, small_shards):
    run(raw, tmp_path / "whole")
    build(f"file://{tmp_path}/new/folder", input=str(raw), workers=1)
    assert tree(tmp_path / "new" / "folder") == tree(tmp_path / "whole")
    assert (tmp_path / "new" / "folder" / "times.json").exists()


def test_file_names_that_are_not_utf8_are_read_and_do_not_become_one(tmp_path, command):
    (tmp_path / "raw").mkdir()
    for number, name in enumerate((b"caf\xe9.txt", b"caf\xe8.txt", "café.txt".encode())):
        Path(os.fsdecode(os.fsencode(tmp_path / "raw") + b"/" + name)).write_text(prose(number))
    outcome = command("corpus build --workers 1", input=tmp_path / "raw", output=tmp_path / "corpus")
    assert outcome.code == 0
    assert ids(tmp_path / "corpus") == {"caf\ufffd.txt", "caf\ufffd.txt (2)", "café.txt"}
    assert command("corpus build --workers 1", input=tmp_path / "raw", output=tmp_path / "corpus").code == 0


@pytest.mark.parametrize("name", ["manifest.json", "plan.json"])
def test_a_pipe_in_place_of_a_file_of_the_build_hangs_nothing(raw, tmp_path, corpus, name):
    (corpus / name).unlink()
    os.mkfifo(corpus / name)
    with pytest.raises(EarthworksError):
        run(raw, corpus, tests=[str(tmp_path / "tests")])


def refusal(raw: Path, output: Path) -> EarthworksError | None:
    try:
        run(raw, output)
    except EarthworksError as error:
        return error
    return None


def test_a_full_disk_is_one_sentence_in_every_stage_and_the_same_command_continues(
    raw, tmp_path, small_shards, monkeypatch
):
    """The disk is full after ever more writes, so that each stage is met."""
    run(raw, tmp_path / "whole")
    fsync, calls, budget = os.fsync, [0], [0]

    def full(descriptor):
        calls[0] += 1
        if calls[0] > budget[0]:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for tries in range(100):
        calls[0], budget[0] = 0, 1 + 2 * tries
        if (error := refusal(raw, tmp_path / "corpus")) is None:
            break
        assert error.exit_code == 1
        assert "the disk is full" in str(error)
        assert not list((tmp_path / "corpus").rglob(".tmp-*"))
    monkeypatch.setattr(os, "fsync", fsync)
    assert tries > 3
    assert tree(tmp_path / "corpus") == tree(tmp_path / "whole")


def test_a_read_that_fails_while_a_file_is_written_is_said_as_that(tmp_path):
    store = Store(str(tmp_path))
    for error, sentence in (
        (OSError(5, "Input/output error", "/raw/a.txt"), "could not read /raw/a.txt: Input/output error"),
        (OSError(5, "Input/output error"), "could not read the input of .*/documents/a: Input/output error"),
    ):
        with pytest.raises(EarthworksError, match=sentence), store.writing("documents/a"):
            raise error
    with pytest.raises(EarthworksError, match=r"could not write .*/a: the disk is full"):
        write_to_a_full_disk(store)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def write_to_a_full_disk(store: Store) -> None:
    def full(_):
        raise OSError(28, "No space left on device")

    with store.writing("a") as stream:
        stream.stream = argparse.Namespace(write=full)
        stream.write(b"x")


# Strangers

OTHER = [None, [], {}, "x", -1, 1.5, {"a": [1]}, [[["deep"]]], True]


def test_a_strangers_manifest_is_one_sentence_or_what_it_says(corpus, command, monkeypatch):
    from earthworks.report.page import Table

    for picture in ("flow", "histograms"):  # which take a second to draw
        monkeypatch.setattr(f"earthworks.corpus.pipeline.inspection_figures.{picture}", lambda *_: Table("", (), ()))
    manifest = json.loads((corpus / "manifest.json").read_text())
    del manifest["sha256"]
    for number, name in enumerate(manifest):
        for value in OTHER[number % 2 :: 2]:
            (corpus / "manifest.json").write_bytes(sealed({**manifest, name: value}))
            outcome = command("corpus inspect", corpus)
            assert outcome.code in (0, 2), (name, value, outcome.err)


@pytest.mark.parametrize("shard", ["../../etc/passwd", "/etc/passwd", "all/../../x", "other/00000", "all", ""])
def test_a_manifest_that_names_shards_elsewhere_is_refused(corpus, shard, command):
    manifest = json.loads((corpus / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["inputs"][shard] = []
    (corpus / "manifest.json").write_bytes(sealed(manifest))
    assert command("corpus inspect", corpus).refuses("names the shard")


def test_a_manifest_that_names_files_outside_reads_none_of_them(corpus, tmp_path):
    write_lines(tmp_path / "secret.jsonl", {"secret": prose(5)})
    manifest = json.loads((corpus / "manifest.json").read_text())
    del manifest["sha256"]
    for name in ("documents/../../secret.jsonl", "documents/all/../../../secret.jsonl"):
        manifest["files"][name] = {"bytes": (tmp_path / "secret.jsonl").stat().st_size, "sha256": "0" * 64}
        (corpus / "manifest.json").write_bytes(sealed(manifest))
        with pytest.raises(EarthworksError, match="outside it"):
            sources(str(corpus))


def test_a_link_out_of_the_corpus_is_not_followed(corpus, tmp_path):
    shard = corpus / "documents/all/00001.jsonl.zst"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EarthworksError, match="outside it"):
        sources(str(corpus))


def test_a_plan_that_was_altered_to_name_other_inputs_is_not_gone_by(raw, tmp_path, small_shards, monkeypatch):
    write_lines(tmp_path / "secret.jsonl", {"secret": prose(5)})

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(building.BY_SHARD, "filter", stop)
        with pytest.raises(KeyboardInterrupt):
            run(raw, tmp_path / "corpus")
    plan = json.loads((tmp_path / "corpus/plan.json").read_text())
    del plan["sha256"]
    for shard in plan["shards"]:
        for file in shard["files"]:
            file["path"] = str(tmp_path / "secret.jsonl")
    (tmp_path / "corpus/plan.json").write_bytes(sealed(plan))
    run(raw, tmp_path / "corpus")
    assert "secret" not in ids(tmp_path / "corpus")
    (tmp_path / "corpus/manifest.json").unlink()
    for name in ("recipe", "shards", "faults", "skipped_files"):
        for value in OTHER:
            if type(value) is not type(plan[name]):
                (tmp_path / "corpus/plan.json").write_bytes(sealed({**plan, name: value}))
                with pytest.raises(EarthworksError, match=r"plan\.json"):
                    run(raw, tmp_path / "corpus")


def test_deep_json_in_a_corpus_is_one_sentence(corpus, command):
    (corpus / "manifest.json").write_bytes(b'{"format": ' + b"[" * 100_000)
    assert command("corpus inspect", corpus).refuses("manifest.json is not readable JSON")


def test_the_plan_of_a_million_files_can_be_read():
    assert len(parsed(b'{"values": [' + b"0," * 6_000_000 + b"0]}", "plan.json")["values"]) == 6_000_001


@pytest.mark.parametrize(("name", "most"), [("MOST_VALUES", 20), ("LARGEST", 500)])
def test_what_could_not_be_read_back_is_refused_before_any_work(raw, tmp_path, monkeypatch, name, most):
    monkeypatch.setattr(sealing, name, most)
    with pytest.raises(EarthworksError, match="more files than one build can list"):
        run(raw, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_a_build_of_more_shards_than_a_manifest_can_name_is_refused_before_any_work(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("earthworks.corpus.pipeline.planning.OF_A_SHARD", sealing.LARGEST)
    with pytest.raises(EarthworksError, match="more files than one build can list"):
        run(raw, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_file_names_come_back_from_json_as_they_were():
    name = os.fsdecode(b"caf\xe9")
    assert json.loads(json_bytes({"name": name})) == {"name": name}
