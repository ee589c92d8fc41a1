import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from myna.errors import ModelError, TokenizerError, UsageError
from myna.generate.engine import generate
from myna.generate.sampling import Sampling
from myna.generate.text import StopText, TextEngine, continue_text, stream_text
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.tokenizer import Tokenizer

FIFTY = Sampling(max_tokens=50)


def ended_by(stop: str) -> Sampling:
    return Sampling(max_tokens=50, stop=[stop])


def byte_model(vocab_size: int = 257) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=24, vocab_size=vocab_size)).eval()


class ScriptedModel(GPT):
    """Says a given text, byte by byte, whatever the prompt: one id of the script a step."""

    def __init__(self, script: bytes):
        super().__init__(GPTConfig(n_layer=1, n_head=1, n_embd=384, block_size=512, vocab_size=257))
        self.script, self.said = [*script, 256], 0
        with torch.no_grad():
            self.wte.weight.copy_(torch.eye(384))

    def hidden(self, ids, cache=None):
        if cache is not None:
            cache.advance(ids.shape[1])
        self.said += 1
        one_hot = torch.zeros(ids.shape[0], ids.shape[1], 384)
        one_hot[:, -1, self.script[self.said - 1]] = 100.0
        return one_hot


@given(st.lists(st.text("ab", max_size=4)), st.lists(st.text("ab", min_size=1, max_size=4), max_size=2))
def test_a_stop_is_found_wherever_the_pieces_are_cut(pieces, stops):
    gate, whole = StopText(stops), "".join(pieces)
    shown = "".join([*map(gate.feed, pieces), gate.finish()])
    # The first place at which some stop is complete: text arrives in pieces, but not the answer.
    places = [whole.find(stop) for stop in stops if stop in whole]
    if not places:
        assert (shown, gate.stopped) == (whole, False)
    else:
        assert gate.stopped
        assert not any(stop in shown for stop in stops)
        assert whole.startswith(shown)
        if len(stops) == 1:
            assert shown == whole[: places[0]]


def test_stop_text_spans_tokens():
    said = continue_text(ScriptedModel(b"one END two"), Tokenizer.bytes(), "x", ended_by("END"))
    assert said == ["one "]


def test_what_only_begins_like_a_stop_is_said_after_all():
    said = continue_text(ScriptedModel(b"one EN"), Tokenizer.bytes(), "x", ended_by("END"))
    assert said == ["one EN"]


def test_generation_ends_with_the_stop_and_not_later():
    model = ScriptedModel(b"stop.and much more")
    assert continue_text(model, Tokenizer.bytes(), "x", ended_by(".")) == ["stop"]
    assert model.said == 5


def test_characters_come_whole():
    script = "aé漢🙂b".encode()
    pieces = [
        row[0]
        for row in stream_text(
            ScriptedModel(script), Tokenizer.bytes(), "x", Sampling(max_tokens=len(script))
        )
    ]
    assert "".join(pieces) == "aé漢🙂b"
    assert [piece for piece in pieces if piece] == ["a", "é", "漢", "🙂", "b"]


def test_end_of_text_ends_it_and_is_not_shown():
    assert continue_text(ScriptedModel(b"bye"), Tokenizer.bytes(), "x", FIFTY) == ["bye"]


def test_it_is_the_engine_that_generates():
    model, tok = byte_model(), Tokenizer.bytes()
    ids = generate(model, [tok.encode("Hello")] * 3, max_tokens=30, seed=5, stop_ids=[tok.eot])
    assert continue_text(model, tok, "Hello", Sampling(max_tokens=30, seed=5), count=3) == [
        tok.decode(r) for r in ids
    ]


def test_rows_drawn_apart_are_those_drawn_together():
    model, tok, sampling = byte_model(), Tokenizer.bytes(), Sampling(max_tokens=20, seed=5)
    together = continue_text(model, tok, "Hello", sampling, count=3)
    apart = zip(*stream_text(model, tok, "Hello", sampling, count=2, first_row=1), strict=True)
    assert ["".join(pieces) for pieces in apart] == together[1:]


def test_the_requests_own_stop_ids_count_too():
    model, tok = byte_model(), Tokenizer.bytes()
    (ids,) = generate(model, [tok.encode("Hello")], max_tokens=20, seed=5)
    found = continue_text(model, tok, "Hello", Sampling(max_tokens=20, seed=5, stop_ids=[ids[3]]))
    assert found == [tok.decode(ids[: ids.index(ids[3])])]


def test_an_empty_prompt_is_the_beginning_of_a_document():
    model, tok = byte_model(), Tokenizer.bytes()
    ids = generate(model, [[tok.eot]], max_tokens=10, seed=5, stop_ids=[tok.eot])
    assert continue_text(model, tok, "", Sampling(max_tokens=10, seed=5)) == [tok.decode(ids[0])]


def test_a_special_token_spelled_in_the_prompt_is_text():
    model, tok = byte_model(), Tokenizer.bytes()
    spelled = generate(model, [list(b"<|endoftext|>")], max_tokens=10, seed=5, stop_ids=[tok.eot])
    assert continue_text(model, tok, "<|endoftext|>", Sampling(max_tokens=10, seed=5)) == [
        tok.decode(spelled[0])
    ]


def test_a_model_with_more_ids_than_its_tokenizer_says_none_of_them():
    model = byte_model(vocab_size=300)
    with torch.no_grad():
        model.wte.weight[257:300] *= 100
    bold = Sampling(max_tokens=40, temperature=5.0, seed=0)
    texts = continue_text(model, Tokenizer.bytes(), "x", bold, count=4)
    assert len(texts) == 4  # decoding an id from 257 on would be an error


def test_a_text_says_why_it_ended_and_its_place_is_free():
    model, tok = ScriptedModel(b"one END two"), Tokenizer.bytes()
    engine = TextEngine(model, tok)
    (text,) = engine.add("x", ended_by("END"))
    pieces = [piece for _ in range(7) for piece in engine.step()]
    assert "".join(piece.text for piece in pieces) == "one "
    assert (text.finish_reason, text.n_new, engine.busy) == ("stop", 7, False)
    model.said = 0
    (text,) = engine.add([1, 2], Sampling(max_tokens=3))
    while engine.busy:
        pieces = engine.step()
    assert (text.finish_reason, pieces[-1].new.finish_reason) == ("length", "length")
    (text,) = engine.add("x", Sampling(max_tokens=0))
    assert (text.finish_reason, engine.busy) == ("length", False)


def test_a_text_that_is_taken_out_disturbs_nobody():
    model, tok = byte_model(), Tokenizer.bytes()
    (alone,) = continue_text(model, tok, "Hello", Sampling(max_tokens=12, seed=5))
    engine = TextEngine(model, tok)
    texts = [engine.add("Hello", Sampling(max_tokens=12, seed=5))[0] for _ in range(3)]
    said = dict.fromkeys(texts, "")
    for step in range(12):
        for piece in engine.step():
            said[piece.continuation] += piece.text
        if step == 4:
            engine.remove(texts[0])
            engine.remove(texts[0])  # nothing the second time
    assert not engine.busy
    assert [text.n_new for text in texts] == [5, 12, 12]
    assert said[texts[1]] == said[texts[2]] == alone


def test_a_text_that_is_taken_out_gives_what_was_held_back():
    engine = TextEngine(ScriptedModel("aé".encode()[:2] + b"E"), Tokenizer.bytes())
    (text,) = engine.add("x", ended_by("END"))
    assert [piece.text for _ in range(2) for piece in engine.step()] == ["a", ""]
    assert engine.remove(text) == "\ufffd"
    engine = TextEngine(ScriptedModel(b"aEN"), Tokenizer.bytes())
    (text,) = engine.add("x", ended_by("END"))
    assert [piece.text for _ in range(3) for piece in engine.step()] == ["a", "", ""]
    assert engine.remove(text) == "EN"
    assert engine.remove(text) == ""


def test_a_tokenizer_without_an_end_of_text_is_refused_at_once():
    tokenizer = Tokenizer.from_ranks({bytes([n]): n for n in range(256)}, "gpt2", {})
    with pytest.raises(TokenizerError, match="has no end-of-text token"):
        TextEngine(byte_model(), tokenizer)


def test_no_token_is_no_text():
    assert continue_text(byte_model(), Tokenizer.bytes(), "x", Sampling(max_tokens=0), count=2) == ["", ""]


def test_a_tokenizer_that_is_too_large_is_refused():
    with pytest.raises(ModelError, match="257 ids and the model 100"):
        next(stream_text(byte_model(vocab_size=100), Tokenizer.bytes(), "x", FIFTY))


def test_a_count_of_zero_is_refused():
    with pytest.raises(UsageError, match="count is 0"):
        stream_text(byte_model(), Tokenizer.bytes(), "x", FIFTY, count=0)
