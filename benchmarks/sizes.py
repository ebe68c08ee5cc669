"""Memory and time of every reader and stage against the size of its input, on 20 shapes of text, and on bombs.

    OMP_NUM_THREADS=1 python benchmarks/sizes.py [--largest 1000]

Each row is a process of its own: CPU-seconds and peak resident memory are the operating system's, of the process and
of those that it started, so that other processes on the machine change little. Sizes are of the input before compression.
"""

import argparse
import gzip
import json
import lzma
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harness import header, write_result

MB = 1_000_000
SIZES = (1, 10, 100, 1000)
SLOW = {
    "pages in a .warc": 100,
    "`.txt`, tokenizer learned, packed": 100,
    "`corpus build`, all filters and near copies": 100,
    "`.csv` of points": 100,
}
BOMB = 2000  # MB that a bomb expands to
WORDS = ["".join(random.Random(k).choices("abcdefghijklmnopqrstuvwxyz", k=3 + k % 7)) for k in range(3000)]


def prose(size: int, seed: int = 0) -> str:
    """Random words in lines, with "the", "of" and "and" in every one."""
    chance, lines, length = random.Random(seed), [], 0
    while length < size:
        line = " ".join(chance.choices(WORDS, k=12)) + " of the and so on.\n"
        lines.append(line)
        length += len(line)
    return "".join(lines)[:size]


def letters(alphabet: str) -> Callable[[int], str]:
    return lambda size: "".join(random.Random(0).choices(alphabet, k=size // len(alphabet[0].encode())))


def again(piece: str) -> Callable[[int], str]:
    return lambda size: piece * (size // len(piece.encode()) + 1)


def numbered(size: int) -> str:
    return "\n".join(f"line {k} is like line {k - 1} and unlike {k * k}" for k in range(size // 40))


SHAPES: dict[str, Callable[[int], str]] = {
    "prose": prose,
    "one letter": again("a"),
    "spaces": again(" "),
    "line feeds": again("\n"),
    "a line, then an empty one": again("line\n\n"),
    "ACGT without spaces": letters("ACGT"),
    "random letters without spaces": letters("abcdefghijklmnopqrstuvwxyz"),
    "random digits": letters("0123456789"),
    "punctuation": letters("!?.,;:-()'\"/"),
    "NUL": again("\0"),
    "one sentence again and again": again("The gopher digs a burrow of many chambers. "),
    "one paragraph again and again": again(prose(2000) + "\n\n"),
    "lines that hardly differ": numbered,
    "a word a line": lambda size: prose(size).replace(" ", "\n"),
    "base64 in one line": letters("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"),
    "Chinese without spaces": letters("".join(chr(0x4E00 + k) for k in range(2000))),
    "emoji": letters("😀😁😂🤣😃🌍🧑🚀"),
    "a letter under many accents": again("e" + "\u0301\u0323" * 50),
    "a sign that NFKC makes 18 of": again("\ufdfa"),
    "right to left": letters("אבגדהוזחטיכלמנסעפצקרשת"),
}


# What is written


def lines_of(text: str, length: int = 4000) -> Iterator[bytes]:
    for at in range(0, len(text), length):
        yield json.dumps({"text": text[at : at + length]}, ensure_ascii=False).encode() + b"\n"


def pieces(size: int) -> Iterator[str]:
    """`size` MB of prose, one at a time, all different."""
    for k in range(size):
        yield prose(MB, k)


def plain(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        stream.writelines(piece.encode() for piece in pieces(size))


def json_lines(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        for piece in pieces(size):
            stream.writelines(lines_of(piece))


def packed(path: Path, write: Callable[[Path, int], None], size: int) -> None:
    """What `write` writes, compressed as the name says."""
    import zstandard

    bare = path.with_suffix("")
    write(bare, size)
    openers = {
        ".gz": partial(gzip.open, mode="wb", compresslevel=1),
        ".xz": partial(lzma.open, mode="wb", preset=0),
        ".zst": partial(zstandard.open, mode="wb"),
    }
    with bare.open("rb") as source, openers[path.suffix](path) as target:
        shutil.copyfileobj(source, target, MB)
    bare.unlink()


def parquet(path: Path, size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for piece in pieces(size):
            writer.write_table(pa.table({"text": [piece[at : at + 4000] for at in range(0, MB, 4000)]}))


def warc(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        for piece in pieces(size):
            for at in range(0, MB, 20_000):
                paragraphs = "".join(f"<p>{piece[k : k + 1000]}</p>" for k in range(at, at + 20_000, 1000))
                page = (
                    f"<html><head><title>t</title></head><body><article>{paragraphs}</article></body></html>".encode()
                )
                body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page
                head = (
                    "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\n"
                    f"WARC-Record-ID: <urn:uuid:{at}>\r\nContent-Type: application/http; msgtype=response\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                )
                stream.write(head.encode() + body + b"\r\n\r\n")


def points(path: Path, size: int) -> None:
    """Numbers in two columns; of .npy as many bytes."""
    import numpy as np

    chance = np.random.default_rng(0)
    if path.suffix == ".npy":
        np.save(path, chance.normal(size=(size * MB // 16, 2)))
        return
    with path.open("w") as stream:
        for _ in range(size):
            stream.writelines(f"{x:.8f},{y:.8f}\n" for x, y in chance.normal(size=(MB // 23, 2)))


# What is measured: each is done in a process of its own


def read(path: Path) -> None:
    from earthworks import corpus

    for _ in corpus.read(str(path)):
        pass


def pack(path: Path) -> None:
    from earthworks import corpus

    corpus.pack(corpus.sources(str(path)), corpus.Tokenizer.bytes(), path.parent / "packed")


def learn(path: Path) -> None:
    """A tokenizer from the sample that `gopher train` takes, then every token."""
    from earthworks import corpus

    sources = corpus.sources(str(path))
    tokenizer = corpus.Tokenizer.train(corpus.sample_text(sources, seed=0), 4096)
    corpus.pack(sources, tokenizer, path.parent / "packed")


def build(path: Path, **settings: Any) -> None:
    from earthworks import corpus

    corpus.build(str(path.parent / "built"), input=str(path), workers=1, **settings)


def build_everything(path: Path) -> None:
    build(path, stages=["language", "quality", "repetition"])


def build_nothing(path: Path) -> None:
    build(path, stages=[], near=None)


def cloud(path: Path) -> None:
    from earthworks.transport.command import read_cloud

    read_cloud(str(path))


# name: (file, how it is written, what is done with it)
READERS: dict[str, tuple[str, Callable[[Path, int], None], Callable[[Path], None]]] = {
    "`.txt`, packed as bytes": ("a.txt", plain, pack),
    "`.txt`, tokenizer learned, packed": ("a.txt", plain, learn),
    "`.txt.gz`, packed as bytes": ("a.txt.gz", lambda p, n: packed(p, plain, n), pack),
    "`.jsonl`": ("a.jsonl", json_lines, read),
    "`.jsonl.gz`": ("a.jsonl.gz", lambda p, n: packed(p, json_lines, n), read),
    "`.jsonl.xz`": ("a.jsonl.xz", lambda p, n: packed(p, json_lines, n), read),
    "`.jsonl.zst`": ("a.jsonl.zst", lambda p, n: packed(p, json_lines, n), read),
    "`.parquet`": ("a.parquet", parquet, read),
    "pages in a .warc": ("a.warc", warc, read),
    "`corpus build`, exact copies": ("a.jsonl", json_lines, build_nothing),
    "`corpus build`, all filters and near copies": ("a.jsonl", json_lines, build_everything),
    "`.csv` of points": ("a.csv", points, cloud),
    "`.npy` of points": ("a.npy", points, cloud),
}
STAGES = {"packed as bytes": pack, "tokenizer learned, packed": learn, "`corpus build`": build_everything}


def one(action: Callable[[Path], None], path: Path) -> tuple[float, float, str]:
    """(CPU-seconds, peak MB, last line of standard error when it failed) of a process that does it."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
        pid = os.fork()
        if pid == 0:
            os.dup2(told.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os.execv(sys.executable, [sys.executable, __file__, "--do", action.__name__, str(path)])
        _, status, used = os.wait4(pid, 0)
        said.seek(0)
        told.seek(0)
        last = (said.read().decode(errors="replace").strip().splitlines() or [""])[-1]
        peak = float((told.read().split() or [b"nan"])[-1])  # that of wait4 counts what this process held as well
    return used.ru_utime + used.ru_stime, peak, last if os.waitstatus_to_exitcode(status) else ""


def peak() -> float:
    """Peak resident MB of this process since it began, or of the largest that it started."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return max(int(line.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024 / MB


def table(title: str, columns: list[str], rows: Iterator[list[str]]) -> str:
    head = [f"| {' | '.join([title, *columns])} |", f"| {' | '.join(['---'] * (len(columns) + 1))} |"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def by_size(largest: int) -> Iterator[list[str]]:
    for name, (file, write, action) in READERS.items():
        cells = []
        for size in SIZES:
            if size > min(largest, SLOW.get(name, largest)):
                cells.append("")
                continue
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / file, size)
                seconds, peak, complaint = one(action, Path(folder) / file)
            cells.append(complaint or f"{seconds:.1f} s, {peak:.0f} MB")
        yield [name, *cells]
        print(name, cells, file=sys.stderr, flush=True)


def by_shape() -> Iterator[list[str]]:
    for name, shape in SHAPES.items():
        cells = []
        for action in STAGES.values():
            found = []
            for size in (MB, 10 * MB):
                text = shape(size)
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / ("a.jsonl" if action is build_everything else "a.txt")
                    content = b"".join(lines_of(text, size // 4)) if path.suffix == ".jsonl" else text.encode()
                    path.write_bytes(content)
                    found.append(one(action, path))
            (small, _, _), (large, peak, complaint) = found
            said = f"; {Path(complaint).name}" if complaint else ""
            cells.append(f"{small:.1f}, {large:.1f} s; {peak:.0f} MB{said}")
        yield [name, *cells]
        print(name, cells, file=sys.stderr, flush=True)


def bombs() -> Iterator[list[str]]:
    for file in ("a.txt.gz", "a.txt.xz", "a.txt.zst", "a.jsonl.gz", "a.jsonl.xz", "a.jsonl.zst"):
        cells = []
        for byte in (b"a", b"\n"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / file
                packed(path, lambda bare, size, byte=byte: zeros(bare, size, byte), BOMB)
                size = path.stat().st_size
                seconds, peak, complaint = one(pack, path)
            said = complaint.replace(str(path.parent), "").replace("|", "/")[:120]
            cells.append(f"{size / MB:.2f} MB: {seconds:.0f} s, {peak:.0f} MB; {said or 'packed'}")
        yield [f"`{file[1:]}`", *cells]
        print(file, cells, file=sys.stderr, flush=True)


def zeros(path: Path, size: int, byte: bytes) -> None:
    with path.open("wb") as stream:
        for _ in range(size):
            stream.write(byte * MB)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=1000, help="MB")
    parser.add_argument("--do", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        from earthworks.runs import EarthworksError

        try:
            globals()[given.do[0]](Path(given.do[1]))
        except EarthworksError as error:
            sys.exit(f"{type(error).__name__}: {error}")
        finally:
            print(peak())
        return
    parts = [
        "# Memory and time against size\n",
        header(timed=False) + "\n",
        "CPU-seconds and peak memory of a process that does this to so much prose, its start included.\n",
        table("input", [f"{size} MB" for size in SIZES if size <= given.largest], by_size(given.largest)),
        "\n## Shapes of text\n\nCPU-seconds at 1 and at 10 MB, and peak memory at 10.\n",
        table("text", list(STAGES), by_shape()),
        f"\n## Bombs\n\nSmall files that hold {BOMB / 1000:g} GB of one byte, packed as bytes.\n",
        table("file", ["a", "line feeds"], bombs()),
    ]
    write_result("sizes", "\n".join(parts))


if __name__ == "__main__":
    main()
