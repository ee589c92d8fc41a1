import io

import pytest
from rich.console import Console

from myna.evaluate.compare import Column, blocks, fits, records, table
from myna.generate.many import Text

COLUMNS = [
    Column("runs/a", [Text("Once", 0, " upon a time", 4, "length"), Text("Once", 1, " more", 1, "stop")]),
    Column(
        "runs/[b]", [Text("Once", 0, " there\x1b[2Jwas", 3, "length"), Text("Once", 1, "\nagain", 2, "stop")]
    ),
]


def drawn(columns, width=80, **options):
    console = Console(file=io.StringIO(), width=width, highlight=False, **options)
    console.print(table(columns))
    return console.file.getvalue()


def test_a_row_has_each_models_text_in_its_column():
    head, *rest = (line.rstrip() for line in drawn(COLUMNS).splitlines() if line.strip())
    assert head.split() == ["runs/a", "runs/[b]"]
    middle = head.index("runs/[b]")
    first = next(line for line in rest if "upon" in line)
    assert first[:middle].strip() == "Once upon a time"
    assert first[middle:].strip() == "Once there␛[2Jwas"
    assert next(line for line in rest if "again" in line).strip() == "again"


def test_the_prompt_is_dimmed_and_nothing_else():
    said = drawn(COLUMNS[:1], force_terminal=True, color_system="standard")
    assert "\x1b[2mOnce\x1b[0m upon a time" in said


def test_the_plain_form_sets_texts_and_models_apart():
    assert list(blocks(COLUMNS)) == [
        "--- 1 of 2 ---", "=== runs/a ===", "Once upon a time", "=== runs/[b] ===", "Once there\x1b[2Jwas",
        "--- 2 of 2 ---", "=== runs/a ===", "Once more", "=== runs/[b] ===", "Once\nagain",
    ]  # fmt: skip
    assert list(blocks([Column("a", COLUMNS[0].texts[:1])])) == ["=== a ===", "Once upon a time"]


def test_records_have_the_keys_of_sample():
    first, _ = records(COLUMNS[0], seed=3)
    assert first == {
        "model": "runs/a", "prompt": "Once", "number": 0, "seed": 3, "text": " upon a time", "tokens": 4,
        "finish_reason": "length",
    }  # fmt: skip


@pytest.mark.parametrize(("width", "fit"), [(80, True), (48, True), (47, False)])
def test_columns_too_narrow_to_read_do_not_fit(width, fit):
    assert fits(COLUMNS, width) is fit
