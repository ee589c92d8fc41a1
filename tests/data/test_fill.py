"""Fill in the middle in training: what becomes of a window, that nothing of it changes, and on what it depends."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myna import Tokenizer
from myna.data.batches import TrainStream, micro_batches
from myna.data.fill import FillStream, character_borders
from myna.data.shards import NPY_HEADER_BYTES, npy_header
from myna.data.split import Shard, Split
from myna.text.fim import Frames, with_fim_tokens

BYTES = with_fim_tokens(Tokenizer.bytes())
LEARNED = with_fim_tokens(
    Tokenizer.train(["the cat sat on the mat, naïve 日本語 🙂🙃 " * 20], vocab_size=290)
)
WORDS = ["the ", "cat ", "sat, ", "naïve ", "日本語", "🙂", "\n\n", "  ", "<|fim_middle|>"]


def split_of(folder: Path, ids: list[int], tokenizer: Tokenizer) -> Split:
    path = folder / "train_000000.npy"
    path.write_bytes(npy_header(np.dtype("<u2"), len(ids)) + np.array(ids, dtype="<u2").tobytes())
    return Split("test", [Shard(path, len(ids), NPY_HEADER_BYTES, np.dtype("<u2"))], tokenizer.n_vocab)


def corpus(tokenizer: Tokenizer, documents: int) -> list[int]:
    chance = random.Random(0)
    texts = ["".join(chance.choices(WORDS, k=chance.randrange(30))) for _ in range(documents)]
    return [id for text in texts for id in (tokenizer.eot, *tokenizer.encode(text))]


@pytest.fixture(scope="module", params=[BYTES, LEARNED], ids=["bytes", "learned"])
def tokenizer(request) -> Tokenizer:
    return request.param


@pytest.fixture(scope="module")
def split(tmp_path_factory, tokenizer) -> Split:
    return split_of(tmp_path_factory.mktemp("fill"), corpus(tokenizer, 400), tokenizer)


def parts_of(ids: list[int], eot: int) -> list[list[int]]:
    """A window's documents, the first of which may lack its end-of-text id."""
    borders = [at for at, id in enumerate(ids) if id == eot and at]
    return [ids[start:end] for start, end in zip([0, *borders], [*borders, len(ids)], strict=True)]


def taken_apart(part: list[int], tokenizer: Tokenizer) -> bytes:
    """The text of a document, in the order in which it was written, whichever order it stands in."""
    frames = Frames.of(tokenizer)
    text = part[1:] if part[0] == tokenizer.eot else part
    if not text or text[0] != frames.prefix:
        return tokenizer.decode_bytes(text)
    suffix, middle = text.index(frames.suffix), text.index(frames.middle)
    assert 0 < suffix < middle
    order = [text[1:suffix], text[middle + 1 :], text[suffix + 1 : middle]]
    return b"".join(map(tokenizer.decode_bytes, order))


def test_taken_apart_a_window_is_as_it_was(split, tokenizer):
    """1,000 windows of every length, cut anywhere, inside characters too."""
    in_characters, orders = 0, {"prefix": 0, "suffix": 0}
    frames = Frames.of(tokenizer)
    for length in (1, 2, 3, 10, 61):
        plain = TrainStream(split, length, seed=3)
        stream = FillStream(split, length, seed=3, tokenizer=tokenizer, rate=0.9)
        for sample, filled in enumerate(stream.filled(0, 200)):
            before = split.read(plain.window(sample), length + 1, ring=True).tolist()
            parts, filled_parts = parts_of(before, tokenizer.eot), parts_of(filled.ids, tokenizer.eot)
            assert len(parts) == len(filled_parts)
            for part, new in zip(parts, filled_parts, strict=True):
                assert taken_apart(new, tokenizer) == taken_apart(part, tokenizer)
                assert len(new) >= len(part)  # never a window that would have to be padded
                if frames.prefix in new:
                    at = new.index(frames.prefix)
                    orders["suffix" if new[at + 1] == frames.suffix else "prefix"] += 1
            in_characters += tokenizer.decode_bytes(before[:1])[0] & 0xC0 == 0x80
    assert in_characters > 20
    assert min(orders.values()) > 200


@pytest.mark.parametrize("tokenizer", [BYTES], indirect=True)
def test_both_orders_by_hand(tmp_path, tokenizer):
    """One document of one character, é: each cut is before it or behind it."""
    eot, (prefix, middle, suffix) = 256, (257, 258, 259)
    text = list("é".encode())
    split = split_of(tmp_path, [eot, *text], tokenizer)
    stream = FillStream(split, 2, seed=0, tokenizer=tokenizer, rate=1.0)
    found = set()
    for sample in range(200):
        if stream.window(sample) == 0:  # the other window begins inside é
            found |= {tuple(filled.ids) for filled in stream.filled(sample, 1)}
    assert found == {
        (eot, prefix, *text, suffix, middle),  # all of it is prefix
        (eot, prefix, suffix, *text, middle),  # suffix, in either order
        (eot, prefix, suffix, middle, *text),  # middle, or with the suffix first: prefix
    }


def test_the_frames_and_the_end_that_no_longer_fits(tmp_path):
    split = split_of(tmp_path, [256, *b"abcdef"], BYTES)
    stream = FillStream(split, 6, seed=0, tokenizer=BYTES, rate=1.0)
    inputs, targets = stream.batch(0, 50)
    assert inputs.shape == targets.shape == (50, 6)
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    for row, filled in zip(inputs.tolist(), stream.filled(0, 50), strict=True):
        assert row == filled.ids[:6]
    moved, cut = stream.measured(50)
    assert moved == 1
    assert cut == pytest.approx(1 - 50 * 7 / sum(len(filled.ids) for filled in stream.filled(0, 50)))


def test_documents_that_stay_as_they_are(tmp_path):
    """One without text, and one that holds a special token: as text it would be no token any more."""
    ids = [256, 256, *b"ab", 258, *b"cd", 256]
    stream = FillStream(split_of(tmp_path, ids, BYTES), 7, seed=0, tokenizer=BYTES, rate=1.0)
    plain = TrainStream(stream.split, 7, seed=0)
    at_start = [k for k in range(60) if plain.window(k) == 0]
    assert at_start
    for sample in at_start:
        (filled,) = stream.filled(sample, 1)
        assert filled.ids == ids
        assert (filled.documents, filled.moved) == (1, 0)


def test_none_comes_out_shorter(tmp_path):
    """A part that begins inside a word has ids that its text alone has not: fewer can be enough."""
    tokenizer = with_fim_tokens(Tokenizer.train(["abababab " * 50], vocab_size=260))
    ids = [*b"abababab" * 8]  # never merged
    split = split_of(tmp_path, ids, tokenizer)
    stream = FillStream(split, 63, seed=0, tokenizer=tokenizer, rate=1.0)
    for filled in stream.filled(0, 50):
        assert len(filled.ids) >= 64
    assert sum(filled.moved for filled in stream.filled(0, 50)) < 50


def test_so_many_documents_are_moved(split, tokenizer):
    for rate in (0.0, 0.1, 0.5, 1.0):
        stream = FillStream(split, 40, seed=1, tokenizer=tokenizer, rate=rate)
        found = list(stream.filled(0, 600))
        share = sum(one.moved for one in found) / sum(one.documents for one in found)
        assert abs(share - rate) < 0.05


def test_each_order_has_half_of_the_documents(tmp_path):
    ids = [256, *(b"abcdefghij" * 10)]
    stream = FillStream(split_of(tmp_path, ids, BYTES), 100, seed=1, tokenizer=BYTES, rate=1.0)
    whole = [stream._filled(number, 0).ids for number in range(400)]
    found = [filled[2] == Frames.of(BYTES).suffix for filled in whole]
    assert 0.4 < sum(found) / len(found) < 0.6


def test_a_character_that_the_window_cut_leaves_the_rest_as_it_is(tmp_path):
    """Encoded in one call with it, the whole part would be one pre-token."""
    tokenizer = with_fim_tokens(Tokenizer.train(["56 " * 50], vocab_size=258, pattern="gpt4"))
    stream = FillStream(split_of(tmp_path, [0] * 9, tokenizer), 8, 0, tokenizer=tokenizer, rate=1.0)
    half = "日".encode()[1:]
    assert tokenizer.encode("3456") == [*b"3456"]  # in threes: 345 and 6
    assert stream._encode(half + b"3456") == [*half, *b"3456"]


def test_a_rate_of_0_changes_nothing(split, tokenizer):
    stream = FillStream(split, 40, seed=1, tokenizer=tokenizer, rate=0.0)
    assert np.array_equal(stream.batch(5, 30)[1], TrainStream(split, 40, seed=1).batch(5, 30)[1])


@given(first=st.integers(0, 10**6), world_size=st.sampled_from([1, 2, 4]), micro=st.sampled_from([1, 3]))
@settings(max_examples=20, deadline=None)
def test_a_sample_is_a_function_of_its_number(split, tokenizer, first, world_size, micro):
    """Whatever the ranks, the micro-batch and the process."""
    stream = FillStream(split, 30, seed=7, tokenizer=tokenizer, rate=0.5)
    again = FillStream(split, 30, seed=7, tokenizer=tokenizer, rate=0.5)
    whole = stream.batch(first, 12)[1]
    rows = []
    for rank in range(world_size):
        parts = micro_batches(again, first, 12, micro, rank, world_size)
        rows += [next(parts)[1] for _ in range(12 // world_size // micro)]
    assert np.array_equal(np.concatenate(rows), whole)


def test_other_seeds_and_epochs_cut_elsewhere(split, tokenizer):
    stream = FillStream(split, 30, seed=7, tokenizer=tokenizer, rate=1.0)
    other = FillStream(split, 30, seed=8, tokenizer=tokenizer, rate=1.0)
    start, n = stream.window(0), stream.windows_per_epoch
    same = range(20)  # numbers, at the same windows
    assert [stream._filled(k, start).ids for k in same] != [other._filled(k, start).ids for k in same]
    assert [stream._filled(k, start).ids for k in same] != [stream._filled(n + k, start).ids for k in same]


def test_borders_stand_before_characters():
    text = "a日é🙂"
    borders = character_borders(text.encode())
    assert [text.encode()[:border].decode() for border in borders] == ["", "a", "a日", "a日é", text]
    assert character_borders("日".encode()[1:]) == [0, 2]
