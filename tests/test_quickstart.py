"""`earthworks quickstart` begins nothing that it could not finish, and nothing of a person's is in its way."""

import pytest

from earthworks import quickstart


@pytest.fixture
def unmade(monkeypatch, tmp_path):
    """No stage is run: the command ends where the first would begin."""

    class Curated(Exception):
        pass

    def curate(path, _seed):
        raise Curated(path)

    monkeypatch.setattr(quickstart, "curate", curate)
    monkeypatch.chdir(tmp_path)
    return Curated


def test_two_of_one_second_have_two_folders(unmade):
    places = []
    for _ in range(3):
        with pytest.raises(unmade) as ended:
            quickstart.quickstart()
        places.append(ended.value.args[0].parent)
    assert len(set(places)) == 3
    assert all(place.name.startswith("quickstart-") for place in places)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("report.html", "<h1>my thesis</h1>", "report.html already exists and was not written by Earthworks"),
        ("gopher/config.yaml", "kind: gopher\n", "already contains a run: resume it with --resume"),
        ("wgan/config.yaml", "kind: wgan\n", "already contains a run: resume it with --resume"),
    ],
)
def test_what_is_in_the_way_is_said_before_the_first_minute_is_spent(command, unmade, tmp_path, name, content, said):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert command("quickstart --run mine").refuses(said)
    assert file.read_text() == content
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file]
