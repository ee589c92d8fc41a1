"""Web archives that warcio writes come back document by document, and a damaged record costs that record alone."""

import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from myna.cli import main
from myna.data.prepare import prepare
from myna.data.shards import open_dataset
from myna.data.sources import formats
from myna.data.sources.documents import documents
from myna.data.sources.reading import BadDocumentError, Skips
from myna.data.sources.row_filter_syntax import parse_filter
from myna.data.sources.source import ReadOptions, Source, kind_of
from myna.errors import DataError
from myna.text.tokenizer import Tokenizer

pytest.importorskip("resiliparse")
warcwriter = pytest.importorskip("warcio.warcwriter")
from warcio.statusandheaders import StatusAndHeaders  # noqa: E402

# warcio does not close its temporary files.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <function SpooledTemporaryFile")
COUNT = 12
SENTENCE = "The {} document says that a record in a web archive is one page, with naïve 日本語 text in it."
TEXTS = [SENTENCE.format(number) + " It goes on for a while." * (number % 3) for number in range(COUNT)]


def page(text: str) -> str:
    menu = "<nav><a href='/'>Home</a> <a href='/about'>About us</a></nav>"
    body = (
        f"<main><article><h1>A title</h1><p>{text}</p></article></main><footer>All rights reserved</footer>"
    )
    return f"<!doctype html><html><head><title>T</title></head><body>{menu}{body}</body></html>"


def write_wet(path: Path, texts: list[str] = TEXTS) -> list[int]:
    """A WET file; returns where each record of text begins."""
    with open(path, "wb") as file:
        writer = warcwriter.WARCWriter(file, gzip=path.suffix == ".gz")
        writer.write_record(writer.create_warcinfo_record("x.warc.wet", {"software": "a test"}))
        starts = []
        for number, text in enumerate(texts):
            starts.append(file.tell())
            headers = {"WARC-Identified-Content-Language": "eng" if number % 2 else "deu"}
            writer.write_record(
                writer.create_warc_record(
                    f"http://example.org/{number}",
                    "conversion",
                    payload=io.BytesIO(text.encode()),
                    warc_content_type="text/plain",
                    warc_headers_dict=headers,
                )
            )
    return starts


def write_warc(path: Path) -> None:
    """A WARC file as a crawler leaves it: requests, pages in several encodings, and answers that are no pages."""
    with open(path, "wb") as file:
        writer = warcwriter.WARCWriter(file, gzip=path.suffix == ".gz")

        def add(kind: str, data: bytes, status: str = "200 OK", **headers: str) -> None:
            names = [(name.replace("_", "-"), value) for name, value in headers.items()]
            if kind == "request":
                status = "GET / HTTP/1.1"
            http = StatusAndHeaders(status, names, protocol="" if kind == "request" else "HTTP/1.1")
            payload = io.BytesIO(data)
            writer.write_record(
                writer.create_warc_record("http://example.org/", kind, payload=payload, http_headers=http)
            )

        for number, text in enumerate(TEXTS):
            data = page(text).encode()
            add("request", b"", Host="example.org")
            if number % 4 == 0:
                add("response", data, Content_Type="text/html; charset=utf-8")
            elif number % 4 == 1:
                coded = page(text).replace("<head>", '<head><meta charset="shift_jis">')
                coded = coded.replace("naïve", "na&iuml;ve")
                add("response", coded.encode("shift_jis"), Content_Type="text/html")
            elif number % 4 == 2:
                zipped = gzip.compress(data)
                add("response", zipped, Content_Type="text/html; charset=UTF-8", Content_Encoding="gzip")
            else:
                chunks = (
                    b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (data[:50], data[50:]))
                    + b"0\r\n\r\n"
                )
                add("response", chunks, Content_Type="text/html; charset=utf-8", Transfer_Encoding="chunked")
            add("response", b"\xff\xd8\xff", Content_Type="image/jpeg")
            add(
                "response",
                page("Not found").encode(),
                "404 Not Found",
                Content_Type="text/html; charset=utf-8",
            )


def read(path: Path, where: str | None = None) -> tuple[list[str], Skips]:
    """The documents of a file, and what was left out."""
    skips = Skips()
    kind, compression = kind_of(path.name) or ("", "")
    source = Source(path.name, str(path), kind, compression, n_bytes=path.stat().st_size)
    options = ReadOptions(where=parse_filter(where) if where else None)
    return list(formats.read_texts(source, options, skips)), skips


@pytest.mark.parametrize("name", ["a.warc.wet.gz", "a.warc.wet", "a.wet"])
def test_text_comes_back_document_by_document(tmp_path: Path, name: str) -> None:
    write_wet(tmp_path / name)
    texts, skips = read(tmp_path / name)
    assert (texts, skips.damaged) == (TEXTS, 0)


@pytest.mark.parametrize("name", ["a.warc.gz", "a.warc"])
def test_pages_become_text(tmp_path: Path, name: str) -> None:
    write_warc(tmp_path / name)
    texts, skips = read(tmp_path / name)
    assert [text.removeprefix("A title").strip() for text in texts] == TEXTS
    assert skips.damaged == 0


def test_one_gzip_member_may_hold_all_records(tmp_path: Path) -> None:
    write_wet(tmp_path / "a.wet")
    (tmp_path / "b.wet.gz").write_bytes(gzip.compress((tmp_path / "a.wet").read_bytes()))
    assert read(tmp_path / "b.wet.gz")[0] == TEXTS


def flip(data: bytearray, start: int, at: int) -> None:
    data[at] ^= 0xFF


def blank_start(data: bytearray, start: int, at: int) -> None:
    data[start : start + 8] = bytes(8)


def cut_out(data: bytearray, start: int, at: int) -> None:
    del data[at : at + 9]


def put_in(data: bytearray, start: int, at: int) -> None:
    data[at:at] = b"\x1f\x8b\x08 noise"


@pytest.mark.parametrize("damage", [flip, blank_start, cut_out, put_in])
@pytest.mark.parametrize("name", ["a.warc.wet.gz", "a.warc.wet"])
@pytest.mark.parametrize("number", [0, 5, COUNT - 1])
def test_a_damaged_record_is_counted_and_the_others_come(
    tmp_path: Path, name: str, damage: Callable[[bytearray, int, int], None], number: int
) -> None:
    starts = write_wet(tmp_path / name)
    data = bytearray((tmp_path / name).read_bytes())
    starts.append(len(data))
    end = starts[number + 1]
    # within the text; a header has no checksum of its own
    damage(data, starts[number], (starts[number] + end) // 2 if name.endswith(".gz") else end - 30)
    (tmp_path / name).write_bytes(data)
    texts, skips = read(tmp_path / name)
    assert texts == TEXTS[:number] + TEXTS[number + 1 :]
    assert (skips.damaged, skips.first_damaged) == (1, f"{name}, byte {starts[number]:,}")


@pytest.mark.parametrize("name", ["a.warc.wet.gz", "a.warc.wet"])
def test_a_file_that_was_cut_short_is_seen(tmp_path: Path, name: str) -> None:
    starts = write_wet(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for end in (starts[-1] + 40, len(data) - 1):
        (tmp_path / name).write_bytes(data[:end])
        texts, skips = read(tmp_path / name)
        assert (texts, skips.damaged) == (TEXTS[:-1], 1)


@pytest.mark.parametrize("name", ["a.warc.wet.gz", "a.warc.wet"])
def test_whatever_is_damaged_no_wrong_text_comes(tmp_path: Path, name: str) -> None:
    write_wet(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data) - 20)
            if rng.random() < 0.5:
                data[at] ^= rng.randint(1, 255)
            else:
                data[at : at + rng.randint(1, 20)] = rng.randbytes(rng.randint(0, 20))
        (tmp_path / name).write_bytes(data)
        texts, skips = read(tmp_path / name)
        assert set(texts) <= set(TEXTS)
        assert len(texts) >= COUNT - 3
        # A header has no checksum but gzip's: without it, a damaged type leaves a record out unseen.
        assert skips.damaged >= 1 or texts == TEXTS or not name.endswith(".gz")


def test_the_report_counts_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.warc.wet.gz"
    starts = write_wet(path)
    data = bytearray(path.read_bytes())
    flip(data, starts[4], (starts[4] + starts[5]) // 2)
    path.write_bytes(data)
    args = [
        "prepare",
        str(path),
        "--out",
        str(tmp_path / "data"),
        "--tokenizer",
        "bytes",
        "--val-fraction",
        "0",
    ]
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert f"skipped 1 damaged records, the first: {path.as_posix()}, byte {starts[4]:,}" in printed
    dataset = open_dataset(tmp_path / "data")
    assert dataset.train.n_documents == COUNT - 1
    source = dataset.info["source"]
    assert (source["damaged_records"], source["bad_documents"]) == (1, 0)
    assert len(list(documents([str(path)]))) == COUNT - 1


def test_records_are_filtered_by_their_headers(tmp_path: Path) -> None:
    write_wet(tmp_path / "a.wet.gz")
    texts, skips = read(tmp_path / "a.wet.gz", "language == 'eng' and url != 'http://example.org/3'")
    assert texts == [text for number, text in enumerate(TEXTS) if number % 2 and number != 3]
    assert skips.filtered == COUNT - len(texts)
    for where, said in (
        ("score > 3", "has no column score"),
        ("url > 3", "url is text, and --where compares"),
    ):
        with pytest.raises(DataError, match=said):
            prepare([str(tmp_path / "a.wet.gz")], tmp_path / "data", Tokenizer.bytes(), where=where)
    assert not (tmp_path / "data").exists()


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(b"<html>Please log in</html>"))
    with pytest.raises(DataError, match=r"a\.warc\.gz holds no sound WARC record"):
        read(tmp_path / "a.warc.gz")
    (tmp_path / "b.warc").write_bytes(b"")
    assert read(tmp_path / "b.warc")[0] == []
    (tmp_path / "c.warc.zst").write_bytes(b"x")
    with pytest.raises(DataError, match="decompress it"):
        read(tmp_path / "c.warc.zst")


def test_text_that_is_not_utf8_is_a_bad_document(tmp_path: Path) -> None:
    write_wet(tmp_path / "a.wet")
    data = (tmp_path / "a.wet").read_bytes().replace(b"WARC-Block-Digest", b"X-No-Digest------")
    (tmp_path / "a.wet").write_bytes(data.replace("naïve".encode(), b"na\xff\xffve", 1))
    with pytest.raises(BadDocumentError, match=r"a\.wet, record at byte [0-9,]+: not UTF-8"):
        read(tmp_path / "a.wet")
