import gzip
import io
import os
import random
import time
import zlib
from pathlib import Path

import pytest
import zstandard
from pages import article, page

from earthworks.corpus import Reading, read
from earthworks.runs import EarthworksError

pytest.importorskip("trafilatura")
warcio = pytest.importorskip("warcio")
HTML = "text/html; charset=utf-8"


def http(body: bytes, kind: str = HTML, status: str = "200 OK", **headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def record(
    content: bytes, length: int | str | None = None, kind: str = "response", url: str = "http://x.org/"
) -> bytes:
    """Written by hand, so that it can be wrong."""
    length = len(content) if length is None else length
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:{len(content)}>\r\nWARC-Target-URI: {url}\r\n"
    head += f"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: application/http\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + content + b"\r\n\r\n"


def response(marker: str, **arguments) -> bytes:
    return record(http(article(marker).encode()), **arguments)


def tolerant(path: Path, content: bytes) -> tuple[list[str], Reading]:
    """The first words of the documents, and what was counted."""
    path.write_bytes(content)
    reading = Reading(tolerant=True)
    try:
        return [each.text.split()[0] for each in read(str(path), reading)], reading
    except EarthworksError as error:
        assert "contains no text" in str(error)  # noqa: PT017
        return [], reading


def members(*records: bytes) -> bytes:
    return b"".join(map(gzip.compress, records))


@pytest.mark.parametrize("ending", [".warc", ".warc.gz", ".warc.zst", ".WARC.xz"])
def test_the_pages_are_those_that_warcio_wrote(tmp_path, ending):
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    sink = io.BytesIO()
    writer = WARCWriter(sink, gzip=ending == ".warc.gz")
    writer.write_record(writer.create_warcinfo_record("x", {"software": "y"}))
    wanted = []
    for number in range(20):
        html = number % 3 > 0
        headers = StatusAndHeaders(
            "404 Gone" if number == 4 else "200 OK",
            [("Content-Type", HTML if html else "image/png")],
            protocol="HTTP/1.1",
        )
        url = f"http://x.org/{number}"
        body = article(f"Page{number}").encode()
        made = writer.create_warc_record(url, "response", payload=io.BytesIO(body), http_headers=headers)
        writer.write_record(made)
        writer.write_record(writer.create_warc_record(url, "metadata", payload=io.BytesIO(b"a: b")))
        if html and number != 4:
            found = {"url": url, "date": made.rec_headers["WARC-Date"]}
            wanted.append((made.rec_headers["WARC-Record-ID"], f"Page{number}", found))
    content = sink.getvalue()
    if ending == ".warc.zst":
        content = zstandard.compress(content)
    elif ending == ".WARC.xz":
        import lzma

        content = lzma.compress(content)
    (tmp_path / f"a{ending}").write_bytes(content)
    reading = Reading()
    documents = list(read(str(tmp_path), reading))
    assert [(each.id, each.text.split()[0], each.metadata) for each in documents] == wanted
    assert {each.source for each in documents} == {f"a{ending}"}
    assert reading.other_records == 1 + 20 + 20 - len(wanted)


def test_real_files_give_what_warcio_gives():
    if "EARTHWORKS_DATA" not in os.environ:
        pytest.skip("EARTHWORKS_DATA is not set")
    from warcio.archiveiterator import ArchiveIterator

    files = sorted((Path(os.environ["EARTHWORKS_DATA"]) / "web" / "warc").iterdir())
    reading, theirs, total = Reading(), [], 0
    for file in files:
        with open(file, "rb") as stream:
            for each in ArchiveIterator(stream):
                total += 1
                kind = each.http_headers and each.http_headers.get_header("Content-Type")
                if each.rec_type == "response" and kind == "text/html":
                    theirs.append((each.rec_headers["WARC-Record-ID"], each.rec_headers["WARC-Target-URI"]))
    documents = list(read(str(files[0].parent), reading))
    assert len(files) == 4
    assert [(each.id, each.metadata["url"]) for each in documents] == theirs
    assert reading.documents + reading.other_records == total
    assert all("established to be used" in each.text for each in documents)


@pytest.mark.parametrize("wrong", [-200, -1, 7, 15, 100, 100_000, 10**15, "x", "-5", ""])
@pytest.mark.parametrize("ending", [".warc", ".warc.gz", ".warc.zst"])
def test_a_lying_length_is_one_fault_and_the_next_record_is_read(tmp_path, ending, wrong):
    size = len(http(article("Liar").encode()))
    liar = response("Liar", length=size + wrong if isinstance(wrong, int) else wrong)
    parts = [response("First"), liar, response("Second"), response("Third")]
    content = members(*parts) if ending == ".warc.gz" else b"".join(parts)
    found, reading = tolerant(
        tmp_path / f"a{ending}", zstandard.compress(content) if ending == ".warc.zst" else content
    )
    assert found == ["First", "Second", "Third"]
    assert reading.num_faults == 1
    assert reading.faults[0].where.endswith(f"a{ending}, record 2")
    with pytest.raises(EarthworksError, match="record 2 of"):
        list(read(str(tmp_path)))


def test_a_length_that_counts_the_line_ends_after_the_record_does_no_harm(tmp_path):
    size = len(http(article("Second").encode()))
    for more in (1, 2, 3, 4):
        parts = [response("First"), response("Second", length=size + more), response("Third")]
        found, reading = tolerant(tmp_path / "a.warc", b"".join(parts))
        assert (found, reading.num_faults) == (["First", "Second", "Third"], 0)


def test_a_lying_length_in_one_gzip_member_for_all(tmp_path):
    parts = [response("First"), response("Liar", length=10**6), response("Second")]
    found, reading = tolerant(tmp_path / "a.warc.gz", gzip.compress(b"".join(parts)))
    assert (found, reading.num_faults) == (["First", "Second"], 1)


def test_members_need_not_be_records(tmp_path):
    content = b"".join(response(f"Page{number}") for number in range(6))
    pieces = [content[at : at + 700] for at in range(0, len(content), 700)]
    found, reading = tolerant(tmp_path / "a.warc.gz", members(*pieces))
    assert (found, reading.num_faults) == ([f"Page{number}" for number in range(6)], 0)


def test_a_damaged_member_is_one_fault_and_the_next_is_read(tmp_path):
    random.seed(0)
    noise = "".join(random.choices("abcdefghijklmnop ", k=20_000))
    middle = gzip.compress(record(http(page(f"<p>{noise}</p>").encode())))
    ends = [gzip.compress(response(marker)) for marker in ("First", "Second", "Third")]
    for damaged in (
        middle[:-3000],
        middle[:12],
        middle[:-8] + b"\0" * 8,
        middle[:5000] + b"\xff" * 500 + middle[5500:],
    ):
        found, reading = tolerant(tmp_path / "a.warc.gz", ends[0] + damaged + ends[1] + ends[2])
        assert found == ["First", "Second", "Third"]
        assert reading.num_faults == 1, reading.faults


def test_a_file_cut_short_gives_what_came_before(tmp_path):
    noise = random.Random(0).randbytes(3000).hex().encode()
    parts = [response("First"), record(http(noise))]
    for name, content in (
        ("a.warc", b"".join(parts)[:-300]),
        ("a.warc.gz", members(*parts)[:-100]),
        ("b.warc.gz", gzip.compress(b"".join(parts))[:-60]),
        ("a.warc.zst", zstandard.compress(parts[0]) + zstandard.compress(parts[1])[:-3]),
    ):
        found, reading = tolerant(tmp_path / name, content)
        assert found == ["First"], name
        assert reading.num_faults == 1, (name, reading.faults)


def test_what_is_no_warc_is_one_fault(tmp_path):
    files = {"a.warc": b"hello\n" * 1000, "a.warc.gz": gzip.compress(b"hello"), "b.warc.gz": b"plain text"}
    for name, content in files.items():
        assert tolerant(tmp_path / name, content)[1].num_faults == 1, name
    found, reading = tolerant(tmp_path / "c.warc", b"junk\r\n" + response("First"))
    assert (found, reading.num_faults) == (["First"], 1)
    assert tolerant(tmp_path / "d.warc", b"WARC/1.0\r\nWARC-Type: response\r\n")[1].num_faults == 1
    assert tolerant(tmp_path / "e.warc", b"WARC/1.0\r\n" + b"A: b\r\n" * 100_000)[1].num_faults == 1
    assert tolerant(tmp_path / "f.warc", b"")[1].num_faults == 0


def chunked(body: bytes, size: int = 100) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;q=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


BODY = article("Coded").encode()
CODINGS = {
    "chunked": http(chunked(BODY), Transfer_Encoding="chunked"),
    "chunked and gzip": http(chunked(gzip.compress(BODY)), Transfer_Encoding="chunked", Content_Encoding="gzip"),
    "chunked in name": http(BODY, Transfer_Encoding="chunked"),
    "gzip": http(gzip.compress(BODY), Content_Encoding="gzip"),
    "gzip in name": http(BODY, Content_Encoding="x-gzip"),
    "deflate": http(zlib.compress(BODY), Content_Encoding="deflate"),
    "bare deflate": http(raw_deflate(BODY), Content_Encoding="Deflate"),
    "deflate in name": http(BODY, Content_Encoding="deflate"),
    "zstd": http(zstandard.compress(BODY), Content_Encoding="zstd"),
    "twice": http(gzip.compress(zlib.compress(BODY)), Content_Encoding="deflate, gzip"),
    "xhtml": http(BODY, kind="application/xhtml+xml"),
    "bare line ends": http(BODY).replace(b"\r\n", b"\n"),
}
BAD_CODINGS = {
    "chunk cut short": http(chunked(BODY)[:-200], Transfer_Encoding="chunked"),
    "chunk of wrong size": http(chunked(BODY).replace(b"64;", b"65;"), Transfer_Encoding="chunked"),
    "gzip cut short": http(gzip.compress(BODY)[:-30], Content_Encoding="gzip"),
    "gzip damaged": http(gzip.compress(BODY)[:60] + b"\xff" * 60, Content_Encoding="gzip"),
    "gzip bomb": http(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip"),
    "zstd bomb": http(zstandard.compress(bytes(50_000_000)), Content_Encoding="zstd"),
    "zstd damaged": http(b"\x28\xb5\x2f\xfd" + b"\xff" * 60, Content_Encoding="zstd"),
    "br": http(b"\x8b\x01\x80nothing", Content_Encoding="br"),
    "unknown": http(BODY, Content_Encoding="compress"),
    "no http": b"just text",
}


@pytest.mark.parametrize("coding", CODINGS)
def test_bodies_are_unpacked(tmp_path, coding):
    found, reading = tolerant(tmp_path / "a.warc", record(CODINGS[coding]) + response("Next"))
    assert (found, reading.num_faults) == (["Coded", "Next"], 0)


@pytest.mark.parametrize("coding", BAD_CODINGS)
def test_a_bad_body_is_one_fault(tmp_path, coding):
    found, reading = tolerant(tmp_path / "a.warc", record(BAD_CODINGS[coding]) + response("Next"))
    assert (found, reading.num_faults) == (["Next"], 1)


def test_brotli_is_unpacked(tmp_path):
    brotli = pytest.importorskip("brotli")
    content = record(http(brotli.compress(BODY), Content_Encoding="br"))
    assert tolerant(tmp_path / "a.warc", content)[0] == ["Coded"]


def test_other_records_are_counted_and_no_faults(tmp_path):
    others = [
        record(b"\0\1", kind="response", url="dns:x.org"),
        record(b"GET / HTTP/1.1\r\n\r\n", kind="request"),
        record(http(b"\x89PNG", kind="image/png")),
        record(http(BODY, status="404 Not Found")),
        record(b"", kind="warcinfo"),
        record(http(b"")[:-4]),
    ]
    found, reading = tolerant(tmp_path / "a.warc", b"".join(others) + response("Last"))
    assert (found, reading.other_records, reading.num_faults) == (["Last"], 6, 0)


def test_the_charset_of_the_header_is_used(tmp_path):
    html = article("Straße").encode("cp1252")
    found, _ = tolerant(tmp_path / "a.warc", record(http(html, kind="text/html; charset=ISO-8859-1")))
    assert found == ["Straße"]


def test_a_page_in_a_warc_that_is_a_bomb_is_one_fault(tmp_path):
    bomb = record(http(page("<div>" * 1000 + "text").encode()))
    found, reading = tolerant(tmp_path / "a.warc", bomb + response("Next"))
    assert (found, reading.num_faults) == (["Next"], 1)
    assert "record 1 of" in reading.faults[0].what
    assert "nested deeper" in reading.faults[0].what


def test_random_damage_never_stops_the_reader(tmp_path):
    """Bytes changed, cut out or doubled: pages are lost, but it ends, and says so a few times at most."""
    chance, seen = random.Random(0), 0
    good = [response(f"Page{number}") for number in range(4)]
    for trial in range(60):
        data = bytearray(members(*good) if trial % 2 else b"".join(good))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[at : at + 8] = chance.randbytes(8)
                case 1:
                    del data[at : at + chance.randint(1, 300)]
                case _:
                    data[at:at] = data[at : at + chance.randint(1, 300)]
        found, reading = tolerant(tmp_path / ("a.warc.gz" if trial % 2 else "a.warc"), bytes(data))
        assert reading.num_faults <= 12
        seen += len(found)
    assert seen >= 60


HEAD = b"WARC/1.0\nWARC-Type: response\nWARC-Target-URI: http://x/\nContent-Length: "
GZIP_HEADER = b"\x1f\x8b\x08\x00abcd\x00\x03"
# What made the reader look through the same bytes again and again, or could have
HOSTILE = {
    "first lines": (".warc", b"WARC/1.0\n"),
    "first lines, CRLF": (".warc", b"WARC/1.0\r\n"),
    "headers without end": (".warc", b"WARC/1.0\n" + b"a: b\n" * 3000),
    "each claims the rest": (".warc", HEAD + b"60000000\n\nabc\n\n"),
    "each claims more than is held": (".warc", HEAD + b"1000000000\n\nabc\n\n"),
    "each claims a little less": (".warc", HEAD + b"1\n\nabc\n\n"),
    "beginnings": (".warc", b"\n\nWARC/1.0\nWARC-"),
    "digits": (".warc", b"\n\nWARC/1." + b"0" * 500),
    "spaces": (".warc", b"WARC/1.0" + b" " * 500),
    "line ends": (".warc", b"\n"),
    "gzip magic": (".warc.gz", b"\x1f\x8b\x08"),
    "gzip headers": (".warc.gz", GZIP_HEADER),
    "gzip headers with data": (".warc.gz", GZIP_HEADER + b"\x4b\x4c\x4a\x4e"),
    "gzip headers with names": (".warc.gz", b"\x1f\x8b\x08\x08abcd\x00\x03"),
    "empty members": (".warc.gz", gzip.compress(b"")),
    "members of a first line": (".warc.gz", gzip.compress(b"WARC/1.0\n")),
    "members cut short": (".warc.gz", gzip.compress(b"WARC/1.0\nContent-Length: 9\n\n")[:-8]),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_the_time_grows_with_the_size_whatever_is_in_the_file(tmp_path, shape):
    ending, piece = HOSTILE[shape]
    seconds = []
    for size in (100_000, 800_000):
        started = time.process_time()
        assert tolerant(tmp_path / f"a{ending}", piece * (size // len(piece)))[0] == []
        seconds.append(time.process_time() - started)
    assert seconds[1] < 3 * 8 * max(seconds[0], 0.02)  # eight times the size; by the square sixty-four times


def test_small_records_after_one_that_claims_them_all_are_found_in_linear_time(tmp_path):
    seconds = []
    for size in (100_000, 800_000):
        small = b"WARC/1.0\nX: y\nContent-Length: 5\n\nabc\n"
        content = HEAD + b"%d\n\n" % (size // 2) + b"\n\n" + small * (size // len(small))
        started = time.process_time()
        assert tolerant(tmp_path / "a.warc", content)[0] == []
        seconds.append(time.process_time() - started)
    assert seconds[1] < 3 * 8 * max(seconds[0], 0.02)


def test_a_line_that_begins_a_record_ends_the_headers_of_the_last(tmp_path):
    content = b"WARC/1.0\r\nWARC-Type: response\r\n" + response("First") + b"WARC/1.0\r\n" * 3 + response("Second")
    found, reading = tolerant(tmp_path / "a.warc", content)
    assert found == ["First", "Second"]
    assert [each.where.rpartition(", ")[2] for each in reading.faults] == [f"record {n}" for n in (1, 3, 4, 5)]
    assert "header lines that do not end" in reading.faults[0].what


def test_line_ends_after_a_record_are_not_held(tmp_path):
    found, reading = tolerant(tmp_path / "a.warc", response("First") + b"\n" * 3_000_000 + response("Second"))
    assert (found, reading.num_faults) == (["First", "Second"], 0)


def test_a_hundred_encodings_within_one_another_are_one_fault(tmp_path):
    found, reading = tolerant(
        tmp_path / "a.warc", record(http(BODY, Content_Encoding=", ".join(["gzip"] * 100))) + response("Next")
    )
    assert (found, reading.num_faults) == (["Next"], 1)
    assert "has 100 encodings" in reading.faults[0].what
