"""Main text of a web page: trafilatura in an isolated process, with options chosen by measurement.

Rae et al. 2021, A.1.1 keep the coherent blocks of a page with their line breaks, indentation and bullets. Of
trafilatura's settings, `fast` with `favor_recall` and without comments was best or tied by every measure of
benchmarks/results/extraction.md, at about half the time of the others. Its text is not changed here.

It runs in a separate process, which handles one page after another. A page that takes more than 60 CPU-seconds or 4 GiB
(200,000 attributes in one tag take libxml2 minutes), or that crashes the parser, ends only that process.
"""

import atexit
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from earthworks.corpus.readers.streams import Unreadable
from earthworks.runs import EarthworksError
from earthworks.runs.errors import missing_extra

LARGEST_PAGE = 10_000_000  # bytes: the largest of 380 real pages has 1.5 MB, and Common Crawl cuts at 5 MiB
DEEPEST = 250  # nested elements: the most in those pages is 51; libxml2 silently stops at 256
SECONDS = 60  # of CPU: 10 MB of ordinary HTML take 25
MEMORY = 4 << 30  # bytes of address space
OPTIONS: dict[str, Any] = {"fast": True, "favor_recall": True, "include_comments": False}
TRIAL_SENTENCE = "This is the page that tests the process before any other is processed."
TRIAL = "<html><body><article>" + f"<p>{TRIAL_SENTENCE}</p>" * 3 + "</article></body></html>"
META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_.:-]{2,40})", re.IGNORECASE)
BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
NOT_SEEN_IN_ASCII = ("iso-2022", "iso2022", "utf-16", "utf16", "hz")  # encodings whose bytes may also be valid UTF-8
LATIN = ("iso-8859-1", "iso8859-1", "latin-1", "latin1", "us-ascii", "ascii")  # names that browsers read as cp1252


def extract(page: bytes | str, url: str | None = None, charset: str | None = None) -> str | None:
    """The main text of an HTML page: one line per paragraph, heading, list item ("- ") and table row, preformatted text
    with its indentation; NFC. None if there is none.

    `charset`: that of the HTTP header, for `page` in bytes. The encoding is decided by a byte-order mark, else by whether
    the page is valid UTF-8, else `charset`, the page's own `<meta>`, and its bytes (charset_normalizer), in this order.
    Raises Unreadable for a page of more than 10 MB, nested more than 250 deep, or that takes more than 60 CPU-seconds or
    4 GiB; EarthworksError without the extra `extract`. At most 5 CPU-seconds per MB on benign pages.
    """
    if len(page) > LARGEST_PAGE:
        raise Unreadable(f"HTML of {len(page):,} bytes, more than {LARGEST_PAGE:,}")
    text = page if isinstance(page, str) else decoded(page, charset)
    answer = extractor().ask({"html": text, "url": url})
    if "fault" in answer:
        raise Unreadable(answer["fault"])
    return answer["text"]


def need_trafilatura(purpose: str) -> None:
    if importlib.util.find_spec("trafilatura") is None:
        raise missing_extra("trafilatura", "extract", purpose)


def decoded(page: bytes, charset: str | None = None) -> str:
    """The page as text; bytes invalid in its encoding become U+FFFD."""
    for mark, name in BYTE_ORDER_MARKS:
        if page.startswith(mark):
            return page[len(mark) :].decode(name, "replace")
    declared = META_CHARSET.search(page[:4096])
    names = [name.strip(" \"'").lower() for name in (charset, declared and declared[1].decode()) if name]
    if not any(name.startswith(NOT_SEEN_IN_ASCII) for name in names):
        try:
            return page.decode()
        except UnicodeDecodeError:
            pass
    for name in names:
        try:
            text = page.decode("cp1252" if name in LATIN else name, "replace")
        except (LookupError, ValueError, RuntimeError):  # unknown, or not a text encoding
            continue
        if 20 * text.count("\ufffd") <= sum(byte > 127 for byte in page):
            return text  # otherwise the declared name is wrong
    from trafilatura.utils import detect_encoding

    for name in detect_encoding(page):
        try:
            return page.decode(name)
        except (LookupError, ValueError):
            continue
    return page.decode(errors="replace")


# The process


class Extractor:
    """The extraction process. Questions and answers are numbered JSON, each preceded by its length in 8 bytes."""

    def __init__(self) -> None:
        need_trafilatura("extracting the text of web pages")
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.number = 0  # of the last question
        self.start()

    def start(self) -> None:
        """Start the process. Raises EarthworksError if it cannot extract a page under the resource limits in force."""
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", "from earthworks.corpus.readers.html_text import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except (OSError, MemoryError) as error:
            raise not_started(str(error)) from None
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.questions, self.answers, self.errors = process, process.stdin, process.stdout, process.stderr
        ready = receive(self.answers)
        if ready is None:
            complaint = self.errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            code = self.process.wait()
            self.close()
            raise not_started(complaint or f"exit code {code}")
        self.seconds = ready["seconds"]

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question. Anything that interrupts the wait (Ctrl-C) also ends the process, whose next answer
        would otherwise be to this question."""
        with self.lock:
            try:
                if self.questions.closed:
                    self.start()
                return self.answer_or_fault(question)
            except BaseException:
                self.process.kill()
                self.close()
                raise

    def answer_or_fault(self, question: dict[str, Any]) -> dict[str, Any]:
        answer = self.answer(question)
        if answer is None and self.process.wait() == 0:  # it exited before its CPU time ran out: see `serve`
            self.close()
            self.start()
            answer = self.answer(question)
        if answer is not None:
            return answer
        code = self.process.wait()
        self.close()
        self.start()
        if code == -signal.SIGXCPU:
            return {"fault": f"HTML that takes more than {self.seconds} seconds"}
        return {"fault": f"HTML that crashes the process of trafilatura (exit code {code})"}

    def answer(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of the process; None if it ended instead."""
        self.number += 1
        try:
            send(self.questions, {**question, "number": self.number})
            answer = receive(self.answers)
        except BrokenPipeError:
            return None
        if answer is not None and answer.pop("number") != self.number:
            raise RuntimeError("the process that extracts the text of web pages answered another question")
        return answer

    def close(self) -> None:
        for stream in (self.questions, self.answers, self.errors):
            with suppress(BrokenPipeError):
                stream.close()
        self.process.wait()


def not_started(complaint: str) -> EarthworksError:
    return EarthworksError(
        f"the process that extracts the text of web pages cannot be started ({complaint}): raise the resource "
        "limits (ulimit -v, -t, -u), or remove the pages from the input",
        exit_code=1,
    )


running: Extractor | None = None


def extractor() -> Extractor:
    """The extractor of this process; a fork gets its own."""
    global running
    if running is None or running.owner != os.getpid():
        running = Extractor()
        atexit.register(stop)
    return running


def stop() -> None:
    global running
    if running is not None and running.owner == os.getpid():
        running.close()
    running = None


def send(stream: IO[bytes], message: dict[str, Any]) -> None:
    content = json.dumps(message).encode()
    stream.write(len(content).to_bytes(8, "big") + content)
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message; None at the end."""
    header = stream.read(8)
    size = int.from_bytes(header, "big")
    content = stream.read(size) if len(header) == 8 else b""
    return json.loads(content) if content and len(content) == size else None


def serve(seconds: int = SECONDS) -> None:
    """Main function of the extraction process.

    Lower limits already in force are kept, and hard ones never raised. If the CPU time of the process is limited, a page
    gets at most half of it; the process exits before a page could run out of time within its share, and is restarted."""
    import logging
    import resource

    import trafilatura

    logging.disable(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # stray output must not corrupt the answers
    lower(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        lower(resource.RLIMIT_AS, MEMORY)
    found = answer(TRIAL, None).get("text") or ""
    if TRIAL_SENTENCE not in found:
        raise SystemExit("a page of one sentence cannot be extracted")
    limits = resource.getrlimit(resource.RLIMIT_CPU)
    given = min((each for each in limits if each >= 0), default=None)  # infinity is -1
    if given is not None:
        seconds = min(seconds, int(given - cpu_seconds() - 2) // 2)
        if seconds < 1:
            raise SystemExit(f"a CPU limit of {given} seconds is too low")
    send(answers, {"ready": trafilatura.__version__, "seconds": seconds})
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads it
    while (question := receive(sys.stdin.buffer)) is not None:
        end = int(cpu_seconds()) + 1 + seconds
        if given is not None and end >= given:
            return
        resource.setrlimit(resource.RLIMIT_CPU, (end, limits[1]))
        number = question.pop("number")
        send(answers, {**answer(**question), "number": number})


def cpu_seconds() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def lower(limit: int, soft: int) -> None:
    """Set a soft limit of this process, unless it is already lower."""
    import resource

    old, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (min([soft, *(each for each in (old, hard) if each >= 0)]), hard))


def memory() -> int:
    """Bytes of address space that this process may have."""
    import resource

    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return MEMORY if soft == resource.RLIM_INFINITY else soft


def answer(html: str, url: str | None) -> dict[str, Any]:
    import trafilatura
    from trafilatura.utils import load_html

    try:
        tree = load_html(html)
        if tree is None:
            return {"text": None}
        if tree.xpath(f"boolean(descendant::*[count(ancestor::*) > {DEEPEST}])"):
            return {"fault": f"HTML nested deeper than {DEEPEST} elements"}
        return {"text": trafilatura.extract(tree, url=url, **OPTIONS)}
    except MemoryError:
        return {"fault": f"HTML that takes more than {memory() / (1 << 30):.3g} GiB"}
    except Exception as error:  # RecursionError among them
        return {"fault": f"HTML that trafilatura fails on ({type(error).__name__}: {error})"}
