"""--where: the grammar, missing values, and one answer from rows of JSONL and of parquet."""

import json
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myna.cli import main
from myna.data.prepare import prepare
from myna.data.shards import open_dataset
from myna.data.sources import formats, parquet
from myna.data.sources.reading import BadDocumentError, Skips
from myna.data.sources.row_filter import KindError
from myna.data.sources.row_filter_syntax import parse_filter
from myna.data.sources.source import ReadOptions, Source
from myna.errors import DataError, OutputError, UsageError
from myna.text.tokenizer import Tokenizer

ROW = {
    "score": 3,
    "part": 2.5,
    "language": "en",
    "spam": False,
    "gone": None,
    "meta": {"url": "a"},
    "nan": math.nan,
}


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("score >= 3 and language == 'en'", True),
        ("2 < score <= 3.0", True),
        ("3 < score", False),
        ("1 < part < score", True),
        ("part == 2.5 or score == 9", True),
        ("language in ('de', 'en')", True),
        ("language not in ['de']", True),
        ("meta.url == 'a' and not spam", True),
        ("score == -3", False),
        ("spam == True", False),
        ("spam != True", True),
        # a missing value: null, NaN, no such field
        ("gone > 1", False),
        ("not gone > 1", False),
        ("gone != 1", False),
        ("gone not in (1, 2)", False),
        ("nan < 1 or nan >= 1", False),
        ("never == 1 or score == 3", True),
        ("gone is None and never is None and nan is None and meta.never is None", True),
        ("score is not None and score != None and not score == None", True),
        ("not gone", False),
    ],
)
def test_what_an_expression_means(text: str, stays: bool) -> None:
    assert parse_filter(text).keeps(ROW) is stays


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("score >=", "at its end: invalid syntax"),
        ("score >= 3 and and x", "at character 16, 'and x': invalid syntax"),
        ("score = 3", "at character 7, '= 3': invalid syntax"),
        ("naïve > 1 and len(text) > 3", "at character 15, 'len(text)': a call can't be used"),
        (
            "__import__('os').system('x') == 0",
            "at character 1, \"__import__('os').system('x')\": a call can't",
        ),
        ("score + 1 > 2", "'score + 1': arithmetic can't be used"),
        ("x[0] == 1", "'x[0]': an index can't be used"),
        ("language in ('de', None)", "None can't be in the list"),
        ("language in ('de', en)", "'en': the list holds a column"),
        ("'en' in languages", "'languages': `in` needs some constants"),
        ("language in ()", "`in` needs some constants"),
        ("1 < 2", "two constants are compared"),
        ("spam < True", "True and False have no order"),
        ("score < None", "None has no order"),
        ("score is 3", "`is` asks for None only"),
        ("score and 'en'", "at character 11, \"'en'\": a constant is no condition"),
        ("score > 99999999999999999999", "at most 64 bits"),
        (r"language == '\ud800'", "a lone surrogate is no character"),
        ("language == '\udc80'", "not UTF-8"),
        ("not " * 200 + "spam", "nested too deeply"),
        ("(" * 2000 + "spam" + ")" * 2000, "too many nested parentheses"),
        ("x\0", "null bytes"),
    ],
)
def test_what_is_refused_and_where(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        parse_filter(text)
    assert "\n" not in str(caught.value)


def test_one_spelling_of_a_filter() -> None:
    assert parse_filter('(score>=3)and(language=="en")').text == "score >= 3 and language == 'en'"
    assert [str(column) for column in parse_filter("a.b > a or c is None or a.b < 3").columns] == [
        "a.b",
        "a",
        "c",
    ]


@pytest.mark.parametrize(
    "text", ["language > 3", "score == 'en'", "spam == 1", "spam", "meta == 1", "score == language"]
)
def test_values_of_two_kinds_are_an_error_in_both(tmp_path: Path, text: str) -> None:
    row: dict[str, Any] = {"text": "t", "score": 3, "language": "en", "spam": "no", "meta": {"url": "a"}}
    with pytest.raises(KindError, match="--where compares it with"):
        parse_filter(text).keeps(row)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: .* --where compares it with .*; change --where"):
        texts_of(tmp_path / "a.parquet", text)
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BadDocumentError, match=r"a\.jsonl, line 1: .* --where compares it with"):
        texts_of(tmp_path / "a.jsonl", text)


def texts_of(path: Path, where: str) -> tuple[list[str], int]:
    """The documents of a file that a filter keeps, and how many rows it leaves out."""
    skips = Skips()
    kind = {".jsonl": "jsonl", ".parquet": "parquet"}[path.suffix]
    source = Source(path.name, str(path), kind, n_bytes=path.stat().st_size)
    texts = list(formats.read_texts(source, ReadOptions(where=parse_filter(where)), skips))
    return texts, skips.filtered


NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53 + 1, -(2**63), 2**63 - 1]),
    st.sampled_from([-2.5, 0.5, 1.5, 1e30]),
)
WORDS = st.sampled_from(["", "a", "b", "é", "🙂"])
COLUMNS: dict[str, tuple[Any, Any]] = {
    "whole": (pa.int64(), st.integers(-3, 3) | st.sampled_from([2**53 + 1, 2**63 - 1])),
    "small": (pa.int8(), st.integers(-3, 3)),
    "natural": (pa.uint64(), st.integers(0, 3)),
    "real": (pa.float64(), st.sampled_from([-2.5, -1.0, 0.5, 1.0, 2.0, math.nan])),
    "half": (pa.float32(), st.sampled_from([-2.5, -1.0, 0.5, 1.0, 2.0, math.nan])),
    "word": (pa.string(), WORDS),
    "long": (pa.large_string(), WORDS),
    "coded": (pa.dictionary(pa.int32(), pa.string()), WORDS),
    "flag": (pa.bool_(), st.booleans()),
    "never": (pa.null(), st.none()),
    "inside.real": (pa.float64(), st.sampled_from([-1.0, 0.5, 2.0])),
}
OF_KIND = {
    "number": (["whole", "small", "natural", "real", "half", "inside.real", "never"], NUMBERS),
    "text": (["word", "long", "coded", "never"], WORDS),
}
SIGNS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    names, constants = OF_KIND[draw(st.sampled_from(["number", "text"]))]
    column = draw(st.sampled_from(names))
    form = draw(st.integers(0, 5))
    if form == 0:
        return f"{column} is {draw(st.sampled_from(['None', 'not None']))}"
    if form == 1:
        values = draw(st.lists(constants, min_size=1, max_size=3))
        return f"{column} {draw(st.sampled_from(['in', 'not in']))} {values!r}"
    if form == 2:
        return draw(st.sampled_from(["flag", "flag == True", "flag != False", "flag is None"]))
    if form == 3:
        return f"{column} {draw(SIGNS)} {draw(st.sampled_from(names))}"
    if form == 4:
        return f"{draw(constants)!r} {draw(SIGNS)} {column} {draw(SIGNS)} {draw(constants)!r}"
    return f"{column} {draw(SIGNS)} {draw(constants)!r}"


EXPRESSIONS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda found: "({}) {} ({})".format(*found)
        ),
    ),
    max_leaves=4,
)
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in COLUMNS.items()}),
    min_size=1,
    max_size=9,
)


def tree(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row as a file has it."""
    inside = row["inside.real"]
    outer = {name: value for name, value in row.items() if "." not in name}
    return {
        "text": str(number),
        **outer,
        "inside": {"real": inside} if number % 2 or inside is not None else None,
    }


SCHEMA = pa.schema(
    [("text", pa.string())]
    + [(name, type) for name, (type, _) in COLUMNS.items() if "." not in name]
    + [("inside", pa.struct([("real", pa.float64())]))]
)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, ROWS, st.integers(1, 4))
def test_jsonl_and_parquet_give_the_same_documents(
    place: Path, where: str, rows: list[dict[str, Any]], size: int
) -> None:
    trees = [tree(row, number) for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(trees, SCHEMA), place / "a.parquet", row_group_size=size)
    # the last row has all fields, as the check for misspelt names wants; no filter keeps an empty text
    names = {"text": "", **dict.fromkeys(COLUMNS), "inside": {"real": None}}
    lines = [json.dumps(row) for row in (*trees, names)]
    (place / "a.jsonl").write_text("".join(line + "\n" for line in lines))
    texts, filtered = texts_of(place / "a.parquet", where)
    of_lines, _ = texts_of(place / "a.jsonl", where)
    assert texts == [text for text in of_lines if text]
    assert len(texts) + filtered == len(rows)
    # Where nothing is missing, it means what Python means by it.
    values = {name: value for name, value in COLUMNS.items() if name not in ("never", "inside.real")}
    for number, row in enumerate(rows):
        known = {name: row[name] for name in values}
        whole = all(value is not None and value == value for value in known.values())
        if whole and "never" not in where and "inside" not in where:
            assert (str(number) in texts) == bool(eval(where, {}, known))


def test_row_groups_that_cannot_match_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": [str(n) for n in range(100)], "score": list(range(100))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    read: list[int] = []
    keeps = parquet.ArrowFilter.keeps
    monkeypatch.setattr(
        parquet.ArrowFilter, "keeps", lambda self, batch: (read.append(len(batch)), keeps(self, batch))[1]
    )
    assert texts_of(tmp_path / "a.parquet", "score >= 75 or score == 3") == (
        ["3", *map(str, range(75, 100))],
        74,
    )
    assert sum(read) == 40


def test_a_row_of_a_bad_document_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(
        pa.string(), 4, [*pa.array(["aa", "bb", "cc", "dd"]).buffers()[:2], pa.py_buffer(b"aabb\xff\xffdd")]
    )
    pq.write_table(pa.table({"text": texts, "n": [0, 1, 2, 3]}), tmp_path / "a.parquet", row_group_size=2)
    assert texts_of(tmp_path / "a.parquet", "n != 2") == (["aa", "bb", "dd"], 1)
    with pytest.raises(BadDocumentError, match="row 2: not UTF-8"):
        texts_of(tmp_path / "a.parquet", "n == 2")


def write_rows(path: Path) -> list[dict[str, Any]]:
    rows = [
        {"text": f"Document {n}\n", "score": n % 5, "language": "en" if n % 2 else "de"} for n in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_a_filter_is_part_of_the_dataset(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "a.jsonl")
    kept = [row for row in rows if row["score"] >= 3 and row["language"] == "en"]

    def make(where: str | None) -> Any:
        return prepare([str(tmp_path / "a.jsonl")], tmp_path / "data", Tokenizer.bytes(), where=where)

    made = make("score >= 3 and language == 'en'")
    assert made.train.n_documents + made.val.n_documents == len(kept)
    source = made.info["source"]
    assert (source["where"], source["filtered_documents"]) == (
        "score >= 3 and language == 'en'",
        60 - len(kept),
    )
    make('score>=3 and (language=="en")')  # the same filter: nothing is done
    for other in ("score >= 2 and language == 'en'", None):
        with pytest.raises(OutputError, match=r"another call \(different: where\)"):
            make(other)
    with pytest.raises(DataError, match=r"no text in it .*60 left out by --where"):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "none", Tokenizer.bytes(), where="score > 9")
    assert not (tmp_path / "none").exists()


def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "a.jsonl")
    (tmp_path / "b.txt").write_text("text\n")
    pq.write_table(pa.table({"text": ["a"], "score": [1], "meta": [{"url": "x"}]}), tmp_path / "c.parquet")
    before = sorted(tmp_path.iterdir())
    for corpus, where, said in (
        (
            "a.jsonl",
            "scores >= 3",
            "a.jsonl has no column scores, which --where names; it has text, score, language",
        ),
        ("a.jsonl", "score.x >= 3", "has no column score.x"),
        (
            "c.parquet",
            "lang == 'en'",
            "c.parquet has no column lang, which --where names; it has text, score, meta.url",
        ),
        (
            "c.parquet",
            "score == 'en'",
            "score is a number, and --where compares it with text; change --where",
        ),
        ("b.txt", "score >= 3", "b.txt is text without columns"),
        ("pydoc", "score >= 3", "is text without columns"),
        ("a.jsonl", "score >= ", "at its end: invalid syntax"),
    ):
        path = corpus if corpus == "pydoc" else str(tmp_path / corpus)
        args = [path, "--out", str(tmp_path / "data"), "--tokenizer", "bytes", "--where", where]
        assert main(["prepare", *args]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
        assert sorted(tmp_path.iterdir()) == before


def test_what_was_left_out_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "a.jsonl")
    args = [str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "data"), "--tokenizer", "bytes"]
    assert main(["prepare", *args, "--where", "language == 'en'"]) == 0
    assert "left out 30 rows by --where" in capsys.readouterr().out
    assert open_dataset(tmp_path / "data").info["source"]["filtered_documents"] == 30
    assert main(["data", "show", str(tmp_path / "data")]) == 0
    assert "rows: language == 'en'\n" in capsys.readouterr().out
