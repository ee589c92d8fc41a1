"""A stream of ids never shows half a character, and loses none."""

from hypothesis import given
from hypothesis import strategies as st

from myna import Tokenizer
from myna.text.stream import ContextStreamDecoder

BYTES = Tokenizer.bytes()


@given(st.lists(st.integers(0, 256), max_size=40))
def test_pieces_join_to_the_decoded_text(ids: list[int]) -> None:
    stream = BYTES.stream_decoder()
    pieces = [stream.feed([i]) for i in ids]
    assert "".join(pieces) + stream.finish() == BYTES.decode(ids)


@given(st.text(max_size=30))
def test_valid_text_never_shows_a_replacement(text: str) -> None:
    tok = Tokenizer.gpt2()
    stream = tok.stream_decoder()
    pieces = [stream.feed([i]) for i in tok.encode(text)] + [stream.finish()]
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_an_emoji_comes_whole() -> None:
    stream = BYTES.stream_decoder()
    assert [stream.feed([byte]) for byte in "👍🏽".encode()] == ["", "", "", "👍", "", "", "", "🏽"]
    assert stream.finish() == ""


def test_finish_shows_what_is_left_and_starts_afresh() -> None:
    stream = BYTES.stream_decoder()
    assert stream.feed(b"a\xe4\xb8") == "a"
    assert stream.finish() == "\ufffd"
    assert stream.feed(b"b") == "b"


def test_context_decoder_keeps_what_depends_on_neighbours() -> None:
    words = ["Hello", "world", "again"]

    def decode(ids: object) -> str:  # a space between words, none before the first
        return " ".join(words[i] for i in ids)  # type: ignore[attr-defined]

    stream = ContextStreamDecoder(decode)
    assert [stream.feed([i]) for i in (0, 1, 2, 0)] == ["Hello", " world", " again", " Hello"]


def test_context_decoder_holds_back_half_characters() -> None:
    stream = ContextStreamDecoder(lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    data = "é中😀a".encode()
    assert [stream.feed([byte]) for byte in data] == ["", "é", "", "", "中", "", "", "", "😀", "a"]
    assert stream.feed(b"\xf0\x9f") == ""
    assert stream.finish() == "\ufffd"
