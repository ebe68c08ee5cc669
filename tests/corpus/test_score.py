import json


def test_a_document_is_scored_with_what_passes(command, tmp_path):
    (tmp_path / "a.txt").write_text("the be of " * 40)
    outcome = command("corpus score", tmp_path / "a.txt")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0].startswith("a.txt: dropped by mean_word_length, top_2, top_3, top_4, dup_5")
    assert "words                  120  50 to 100,000" in outcome.out
    assert "mean_word_length" in lines[4]
    assert lines[4].endswith("drops it")


def test_json_holds_every_value(command, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "x", "text": "the be"}\n{"id": "y", "text": "of of of"}\n')
    found = json.loads(command("corpus score --json", tmp_path / "a.jsonl", document=2).out)
    assert found["id"] == "y"
    assert not found["kept"]
    assert found["failed"] == ["words", "mean_word_length", "stop_words", "top_2"]
    assert found["values"]["top_2"] == 1
    assert len(found["values"]) == 21


def test_what_is_not_there_is_said(command, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert command("corpus score", tmp_path / "a.txt", document=2).refuses("has fewer than 2 documents")
    assert command("corpus score", tmp_path / "a.txt", document=0).refuses("counted from 1")
    assert command("corpus score", tmp_path / "a.txt", profile="mine").refuses("--profile is 'mine'; it must be one of")


def test_other_profiles_have_other_rules(command, tmp_path):
    (tmp_path / "a.txt").write_text("the be of " * 40)
    outcome = command("corpus score", tmp_path / "a.txt", profile="dolma")
    assert outcome.code == 0
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["median_word_length", "2", "3", "to", "10", "drops", "it"] in lines
    assert ["stop_words", "120", "at", "least", "2"] in lines
    assert not any(line[:1] == ["dup_para"] for line in lines)
    found = json.loads(command("corpus score --json", tmp_path / "a.txt", profile="redpajama").out)
    assert "stop_words" not in found["values"]
    assert found["values"]["dup_10"] == 1
