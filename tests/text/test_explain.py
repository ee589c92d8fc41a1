"""What is shown of a tokenizer's work is what it did."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from myna import Tokenizer
from myna.text import explain, render

GPT2 = Tokenizer.gpt2()


@given(st.text(max_size=40))
def test_spans_tile_the_text(text: str) -> None:
    spans = list(explain.spans(GPT2, text))
    assert [span.id for span in spans] == GPT2.encode(text)
    data = text.encode()
    at = 0
    for span in spans:
        assert (span.start, span.data) == (at, data[span.start : span.end])
        at = span.end
        is_whole = "\ufffd" not in span.data.decode(errors="replace").replace("\ufffd", "")
        assert is_whole
        if span.of:
            assert span.of in text
        else:
            span.data.decode()  # whole characters
    assert at == len(data)


def test_halves_of_a_character_are_named() -> None:
    assert [(span.data, span.of) for span in explain.spans(Tokenizer.bytes(), "aé")] == [
        (b"a", ""),
        (b"\xc3", "é"),
        (b"\xa9", "é"),
    ]


@given(st.text(min_size=1, max_size=20))
def test_the_trace_ends_in_the_tokens(text: str) -> None:
    for word in explain.words(GPT2, text):
        steps = explain.why(GPT2, word)
        assert [GPT2.vocabulary.ranks[token] for token in steps[-1].tokens] == GPT2.encode(word)
        assert steps[0].tokens == tuple(bytes([byte]) for byte in word.encode())
        ranks = [step.ranks[step.chosen] for step in steps if step.chosen is not None]
        assert ranks == sorted(ranks)  # type: ignore[type-var]


def test_the_trace_shows_what_could_have_merged() -> None:
    first = explain.why(GPT2, " low")[0]
    ranks = GPT2.vocabulary.ranks
    assert first.ranks == (ranks[b" l"], ranks[b"lo"], ranks[b"ow"])
    assert first.chosen is not None
    assert first.ranks[first.chosen] == min(ranks[b" l"], ranks[b"lo"], ranks[b"ow"])


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b" a\tb\r\n", "·a⇥b␍⏎"),
        ("中文é".encode(), "中文é"),
        ("👍🏽".encode(), "👍🏽"),
        (b"\xf0\x9f", "<F0.9F>"),
        (b"\x8f", "<8F>"),
        (b" \xe4\xb8", "·<E4.B8>"),
        ("\u0301".encode(), "◌\u0301"),
        ("\u200d".encode(), "<ZWJ>"),
        (b"\0\x1b", "<U+0000><U+001B>"),
        ("\u3000".encode(), "<U+3000>"),
        (b"", ""),
    ],
)
def test_everything_is_legible(data: bytes, shown: str) -> None:
    assert render.legible(data) == shown


@given(st.binary(max_size=12))
def test_nothing_that_moves_a_cursor_is_printed(data: bytes) -> None:
    assert not any(ord(character) < 32 or ord(character) == 127 for character in render.legible(data))


@given(st.binary(max_size=12))
def test_what_is_exact_can_be_read_back_and_stays_on_its_line(data: bytes) -> None:
    shown = render.exact(data)
    assert shown.isprintable()
    assert (json.loads(shown).encode() if shown.startswith('"') else bytes.fromhex(shown)) == data


def test_colour_tells_neighbours_apart_and_quotes_do_without() -> None:
    spans = list(explain.spans(GPT2, "Hello  world"))
    assert render.flow(spans, coloured=False).plain == '"Hello" " " " world"'
    coloured = render.flow(spans, coloured=True)
    assert coloured.plain == "Hello··world"
    assert [span.style for span in coloured.spans] == list(render.COLOURS[:3])


def test_tables_print_whole() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    spans = list(explain.spans(GPT2, "naïve 👍"))
    render.show(console, render.token_table(spans), render.merges(" low", explain.why(GPT2, " low")))
    text = console.export_text()
    console.file.close()
    for span in spans:
        assert str(span.id) in text
    assert "part of 👍 U+1F44D" in text
    assert "·l + ow = ·low" in text or "·lo + w = ·low" in text
