import json
import lzma
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pages import SENTENCE, article, page

from earthworks.corpus import Reading, read
from earthworks.corpus.readers import html_text as extraction
from earthworks.corpus.readers.html_text import LARGEST_PAGE, decoded, extract, extractor
from earthworks.corpus.readers.streams import Unreadable
from earthworks.runs import EarthworksError

pytest.importorskip("trafilatura")
PARAGRAPH = f"<p>{SENTENCE}</p>\n"


def fault(html: str | bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        extract(html)
    return str(caught.value)


def test_the_article_is_kept_and_the_menu_is_not():
    text = extract(article("Zanzibar"))
    assert text.count("Zanzibar") == 4
    assert SENTENCE.strip() in text
    assert "Home menu" not in text
    assert "Copyright" not in text


def test_lines_bullets_and_indentation_survive():
    lists = "<ul><li>one thing<ul><li>inner thing</li></ul></li><li>another thing</li></ul>"
    code = "<pre><code>def f(x):\n    return x</code></pre>"
    text = extract(page(f"<article><h1>The heading</h1>{PARAGRAPH}{lists}{code}<p>a line<br>its second</p></article>"))
    lines = text.split("\n")
    assert lines[:2] == ["The heading", SENTENCE.strip()]
    assert lines[2:] == [
        *("- one thing", "  - inner thing", "- another thing", "def f(x):", "    return x", "a line", "its second")
    ]


def test_what_is_no_page_has_no_text():
    assert extract("") is None
    assert extract("only words") is None
    assert extract(b"\x00\x01\x02" * 100) is None
    assert extract(page("")) is None


@pytest.mark.parametrize(
    "open_tag", ["<div>", "<b>", "<table><tr><td>", "<ul><li>", "<span>", "<blockquote>", "<div class='a'><section>"]
)
def test_deep_nesting_is_a_fault(open_tag):
    assert fault(page(open_tag * 100_000 + PARAGRAPH)) == "HTML nested deeper than 250 elements"
    assert SENTENCE.strip() in extract(page("<div>" * 200 + PARAGRAPH * 5 + "</div>" * 200))


def test_unclosed_paragraphs_are_not_nested():
    assert extract(page(("<p>" + SENTENCE) * 3000)).count("gopher") == 3000


def test_a_large_page_is_a_fault_and_costs_nothing():
    started = time.process_time()
    assert fault(b"<html>" * 9_000_000) == f"HTML of 54,000,000 bytes, more than {LARGEST_PAGE:,}"
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "bomb",
    [
        "<" * 200_000,
        "<!DOCTYPE html [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;'>]>"
        + page("&b;" * 1000 + PARAGRAPH),
        page("&amp;" * 100_000 + "&#xD800;&#0;&#x110000;&nosuch;" * 100),
        page("<!--" * 50_000),
        page("<script>" * 50_000),
        page("</div>" * 50_000 + PARAGRAPH),
        page(PARAGRAPH + "\x00\ufffe\x0b" * 1000),
        "<html/>" * 20_000,
        "<!DOCTYPE " + "/" * 100_000 + ">" + page(PARAGRAPH),
    ],
)
def test_odd_pages_end_with_a_text_or_none(bomb):
    text = extract(bomb)
    assert text is None or len(text) <= len(bomb)
    assert SENTENCE.strip() in extract(page(PARAGRAPH * 5))  # the next page is none the worse


def test_a_page_that_takes_too_long_is_a_fault(monkeypatch):
    attributes = page("<div " + " ".join(f"a{number}=1" for number in range(200_000)) + ">" + PARAGRAPH)
    extraction.stop()
    original = extraction.subprocess.Popen

    def hasty(command, **arguments):
        return original([*command[:-1], command[-1].replace("serve()", "serve(seconds=1)")], **arguments)

    monkeypatch.setattr(extraction.subprocess, "Popen", hasty)
    assert fault(attributes) == "HTML that takes more than 1 seconds"
    assert SENTENCE.strip() in extract(page(PARAGRAPH * 5))
    extraction.stop()


def under(limits: str, program: str) -> subprocess.CompletedProcess:
    """The program in a shell with these limits, as batch systems set them."""
    command = f"ulimit {limits} && exec {sys.executable} -c '{program}'"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True)


READS = """
from earthworks.corpus.readers.html_text import extract
from earthworks.runs import EarthworksError
page = "<html><body>" + "<p>A gopher digs a tunnel below the garden and the field.</p>" * 20 + "</body></html>"
try:
    print([extract(page).count("gopher") for _ in range(PAGES)])
except EarthworksError as error:
    print(type(error).__name__, error.exit_code, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize("limits", ["-t 600", "-S -t 600", "-v 3000000", "-S -v 3000000", "-c 0 -v 3900000 -t 30"])
def test_pages_are_read_under_the_limits_of_a_batch_system(limits):
    done = under(limits, READS.replace("PAGES", "3"))
    assert done.stdout == "[20, 20, 20]\n", done


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_where_no_page_can_be_extracted_the_work_stops_and_no_page_is_at_fault():
    low = "resource.setrlimit(resource.RLIMIT_AS, (60_000_000,) * 2)"
    program = f"""
from earthworks.corpus.readers import html_text as extraction
from earthworks.runs import EarthworksError
original = extraction.subprocess.Popen
extraction.subprocess.Popen = lambda command, **options: original(
    [*command[:-1], "import resource; {low}; " + command[-1]], **options)
try:
    extraction.extract("<p>page</p>")
except EarthworksError as error:
    print(type(error).__name__, error.exit_code, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("EarthworksError 1 the process that extracts the text of web pages cannot be started")
    assert done.stdout.count("\n") == 1


def test_a_process_that_cannot_be_made_stops_the_work(monkeypatch):
    def refuse(*arguments, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    extraction.stop()
    monkeypatch.setattr(extraction.subprocess, "Popen", refuse)
    with pytest.raises(EarthworksError, match=r"cannot be started .*Resource temporarily unavailable") as caught:
        extract(page(PARAGRAPH))
    assert not isinstance(caught.value, Unreadable)
    assert caught.value.exit_code == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_process_whose_cpu_time_runs_out_is_followed_by_another_and_no_page_is_lost(monkeypatch):
    """Of 40 seconds the trial takes 2 and each page 3 more, so a page may take 18: the seventh goes to a new process."""
    extraction.stop()
    original = extraction.subprocess.Popen
    setting = (
        "import itertools, resource; resource.setrlimit(resource.RLIMIT_CPU, (40, 40)); "
        "from earthworks.corpus.readers import html_text as extraction; clock = itertools.count(2, 3); "
        "extraction.cpu_seconds = lambda: next(clock); extraction.serve()"
    )
    monkeypatch.setattr(
        extraction.subprocess, "Popen", lambda command, **options: original([*command[:-1], setting], **options)
    )
    processes = []
    for _ in range(8):
        assert SENTENCE.strip() in extract(page(PARAGRAPH * 5))
        processes.append(extractor().process.pid)
    assert [processes.count(each) for each in dict.fromkeys(processes)] == [6, 2]
    assert extractor().seconds == 18
    extraction.stop()


def test_a_crash_is_a_fault_and_the_next_page_is_read():
    extract(page(PARAGRAPH))
    os.kill(extractor().process.pid, signal.SIGSEGV)
    assert "crashes the process of trafilatura (exit code -11)" in fault(page(PARAGRAPH * 5))
    assert SENTENCE.strip() in extract(page(PARAGRAPH * 5))


def test_after_ctrl_c_within_a_page_the_next_page_gets_its_own_text(monkeypatch):
    extract(article("Before"))
    interrupted = extractor().process
    with monkeypatch.context() as patch:

        def ctrl_c(stream):
            raise KeyboardInterrupt

        patch.setattr(extraction, "receive", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            extract(article("Interrupted"))
    assert interrupted.returncode == -signal.SIGKILL
    for word in ("First", "Second"):
        assert word in extract(article(word))


def test_threads_get_their_own_answers():
    found = {}

    def ask(number):
        found[number] = extract(article(f"Number{number}x"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all(f"Number{number}x" in text for number, text in found.items())
    assert len(found) == 8


def test_a_fork_has_its_own_process():
    extract(page(PARAGRAPH))
    pid = extractor().process.pid
    program = f"import os; assert os.path.exists('/proc/{pid}')"
    subprocess.run([sys.executable, "-c", program], check=sys.platform == "linux")
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        text = extract(article("Forked"))
        os.write(write_end, f"{extractor().process.pid != pid and 'Forked' in text}".encode())
        extraction.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read_end, 10) == b"True"
    assert extractor().process.pid == pid
    assert "Again" in extract(article("Again"))


def test_without_the_extra_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction.importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "a.html"
    path.write_text(page(PARAGRAPH))
    with pytest.raises(EarthworksError, match=r"needs the package trafilatura: pip install 'earthworks\[extract\]'"):
        list(read(str(path), Reading(tolerant=True)))  # not a fault of the file


GREEK, CYRILLIC, JAPANESE = "Η γάτα κοιμάται", "Кошка спит на ковре", "猫はマットの上で眠っています"


@pytest.mark.parametrize(
    ("content", "header", "expected"),
    [
        (GREEK.encode(), None, GREEK),
        (GREEK.encode(), "iso-8859-1", GREEK),  # UTF-8 is hardly ever that by accident
        (b"\xef\xbb\xbf" + GREEK.encode(), "iso-8859-7", GREEK),
        (b"\xff\xfe" + GREEK.encode("utf-16-le"), "utf-8", GREEK),
        (GREEK.encode("utf-16-le"), "utf-16-le", GREEK),
        (GREEK.encode("iso-8859-7"), "ISO-8859-7", GREEK),
        (b'<meta charset="windows-1251">' + CYRILLIC.encode("cp1251"), None, CYRILLIC),
        (
            b"<META http-equiv=Content-Type content='text/html; charset=koi8-r'>" + CYRILLIC.encode("koi8-r"),
            None,
            CYRILLIC,
        ),
        (b"<meta charset=shift_jis>" + JAPANESE.encode("shift_jis"), "nosuch", JAPANESE),
        (JAPANESE.encode("iso-2022-jp"), "iso-2022-jp", JAPANESE),
        ("“café”".encode("cp1252"), "iso-8859-1", "“café”"),  # as browsers read it
        (("ä" * 50).encode() + b"\xe9", "utf-8", "ä" * 50 + "\ufffd"),
        (b"plain", "base64", "plain"),
    ],
)
def test_the_encoding_is_found(content, header, expected):
    assert decoded(content, header).endswith(expected)


def test_bytes_of_no_encoding_are_text_too():
    assert isinstance(decoded(bytes(range(256)) * 50), str)


def test_html_files_and_records_are_read(tmp_path):
    import gzip

    (tmp_path / "a.html").write_text(article("Alpha"))
    (tmp_path / "b.htm.gz").write_bytes(gzip.compress(article("Beta").encode()))
    records = [{"html": article("Gamma"), "url": "http://x.org/", "id": "g"}, {"html": None}, {"html": page("")}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, [*records, {"html": article("D"), "text": "own"}])))
    (tmp_path / "d.html").write_text(page("<div>" * 300 + PARAGRAPH))
    reading = Reading(tolerant=True)
    documents = list(read(str(tmp_path), reading))
    assert [(each.id, each.source) for each in documents] == [
        ("a.html", "a.html"),
        ("b.htm.gz", "b.htm.gz"),
        ("g", "c.jsonl"),
        ("c.jsonl:4", "c.jsonl"),
    ]
    assert [word in each.text for word, each in zip(("Alpha", "Beta", "Gamma", "own"), documents)] == [True] * 4
    assert documents[2].metadata == {"url": "http://x.org/"}
    assert reading.empty_documents == 2
    assert [each.where for each in reading.faults] == [str(tmp_path / "d.html")]
    with pytest.raises(EarthworksError, match=r"d.html cannot be extracted: HTML nested deeper"):
        list(read(str(tmp_path)))


@pytest.mark.slow
def test_real_pages_keep_their_article():
    if "EARTHWORKS_DATA" not in os.environ:
        pytest.skip("EARTHWORKS_DATA is not set")
    file = Path(os.environ["EARTHWORKS_DATA"]) / "web" / "article_extraction.jsonl.xz"
    gold = [json.loads(line)["article"] for line in lzma.decompress(file.read_bytes()).splitlines()]
    texts = [each.text for each in read(str(file))]
    words = [(set(theirs.split()), set(text.split())) for theirs, text in zip(gold, texts, strict=True)]
    assert statistics.mean(len(theirs & ours) / len(theirs) for theirs, ours in words) > 0.95
