import pytest

from earthworks.corpus import Source, sources
from earthworks.runs import EarthworksError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "web/x.txt", "web/a.txt", "one,two=3.txt", "q=0.5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    return tmp_path


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a.txt", [Source("a.txt", "a.txt", None)]),
        ("web/", [Source("web", "web/", None)]),
        ("a.txt,b.txt", [Source("a.txt", "a.txt", None), Source("b.txt", "b.txt", None)]),
        ("a.txt=0.7, web/=3", [Source("a.txt", "a.txt", 0.7), Source("web", "web/", 3.0)]),
        ("a.txt,web/a.txt", [Source("a.txt", "a.txt", None), Source("web/a.txt", "web/a.txt", None)]),
        ("one,two=3.txt", [Source("one,two=3.txt", "one,two=3.txt", None)]),
        ("q=0.5", [Source("q=0.5", "q=0.5", None)]),
        ("q=0.5=2,a.txt=1", [Source("q=0.5", "q=0.5", 2.0), Source("a.txt", "a.txt", 1.0)]),
        ("hf:owner/name:config:test=2", [Source("name:config:test", "hf:owner/name:config:test", 2.0)]),
        ("-", [Source("-", "-", None)]),
    ],
)
def test_data_names_sources_and_weights(here, data, expected):
    assert sources(data) == expected


def test_python_docs_are_two_weighted_subsets(here):
    assert sources("python-docs") == [
        Source("python-docs/prose", "python-docs/prose", 0.7),
        Source("python-docs/code", "python-docs/code", 0.3),
    ]
    assert [source.weight for source in sources("python-docs=2,a.txt=1")] == pytest.approx([1.4, 0.6, 1])
    assert [source.weight for source in sources("python-docs,a.txt")] == [None, None, None]
    assert sources("python-docs/code") == [Source("python-docs/code", "python-docs/code", None)]


def test_a_folder_of_that_name_comes_before_python_docs(here):
    (here / "python-docs").mkdir()
    assert sources("python-docs") == [Source("python-docs", "python-docs", None)]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("nothing.txt", "^nothing.txt does not exist; expected a file, a folder, hf:NAME, a URL, - or python-docs$"),
        ("a.txt,nothing.txt", "^nothing.txt does not exist"),
        ("a.txt=1,nothing.txt=1", "^nothing.txt does not exist"),
        ("a.txt=0.5,b.txt", "weight to some sources and none to b.txt"),
        ("a.txt=0,b.txt=1", "a weight is a positive number"),
        ("a.txt=-1", "a weight is a positive number"),
        ("a.txt=nan", "a weight is a positive number"),
        ("a.txt=inf", "a weight is a positive number"),
        ("a.txt,a.txt", "names a.txt twice"),
        ("a.txt,,b.txt", "has an empty part"),
        ("", "has an empty part"),
        ("python-docs/poetry", "python-docs has the subsets prose and code"),
        ("memory://nowhere/at/all", "does not exist"),
        ("nosuchprotocol://x", "cannot be opened"),
        ("hf:", "expected hf:NAME"),
        ("x" * 5000, "does not exist"),
    ],
)
def test_a_mistake_in_data_is_one_sentence(here, data, sentence):
    with pytest.raises(EarthworksError, match=sentence):
        sources(data)
