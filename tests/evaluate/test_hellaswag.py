import dataclasses
import json

import pytest
import torch

from myna.errors import DataError, ModelError
from myna.evaluate.choices import choice_sums
from myna.evaluate.continuations import ending_nats
from myna.evaluate.hellaswag import Item, encode_items, hellaswag_scores, read_items
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.tokenizer import Tokenizer

ROW = {
    "activity_label": "Canoeing",
    "ctx_a": "A man sits.",
    "ctx_b": "he",
    "ctx": "A man sits. he",
    "label": 2,
    "endings": ["rows.", "sinks a lot.", "waves.", "is 漢."],
}


def write(path, *rows) -> None:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )


def many_items(count: int) -> list[Item]:
    return [
        Item(
            "context " * (i % 5) + "x",
            tuple(" e" + "nd" * ((i * k) % 7) for k in range(4)),
            (1, 2, 3, 4),
            i % 4,
        )
        for i in range(count)
    ]


def byte_model(block_size: int = 64) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=block_size, vocab_size=257)).eval()


def test_the_lectures_rendering(tmp_path):
    write(tmp_path / "h.jsonl", ROW, "", ROW | {"label": "1"})
    first, second = read_items(tmp_path / "h.jsonl")
    assert first.context == "A man sits. he"
    assert first.completions == (" rows.", " sinks a lot.", " waves.", " is 漢.")
    assert first.characters == (5, 12, 6, 5)  # code points, without the space before
    assert (first.label, second.label) == (2, 1)


def test_the_harness_rendering(tmp_path):
    how_to = {
        "activity_label": "Family Life",
        "ctx_a": "[header] How to rest [title] Find a chair. [step] Any will do.",
        "ctx_b": "",
        "label": 0,
        "endings": ["[substeps] Sit.", "Stand [title] Walk.", "a", "b"],
    }
    write(tmp_path / "h.jsonl", ROW, how_to)
    first, second = read_items(tmp_path / "h.jsonl", "harness")
    assert first.context == "Canoeing: A man sits. He"
    assert second.context == "Family Life: How to rest. Find a chair. Any will do."
    assert second.completions[:2] == ("  Sit.", " Stand. Walk.")
    assert second.characters[:2] == (5, 12)


def test_a_space_at_the_end_of_the_context_goes_to_the_completion(tmp_path):
    write(tmp_path / "h.jsonl", ROW | {"ctx": "A man sits. "})
    assert read_items(tmp_path / "h.jsonl")[0].completions[0] == "  rows."


@pytest.mark.parametrize(
    ("lines", "rendering", "words"),
    [
        (["not json"], "lecture", r"line 1: not a JSON object"),
        ([ROW, "[1, 2]"], "lecture", r"line 2: not a JSON object"),
        ([ROW, {k: v for k, v in ROW.items() if k != "ctx"}], "lecture", r"line 2: no text in field 'ctx'"),
        ([{k: v for k, v in ROW.items() if k != "ctx_b"}], "harness", r"line 1: no text in field 'ctx_b'"),
        ([ROW | {"endings": "a"}], "lecture", r"line 1: field 'endings'"),
        ([ROW | {"endings": ["a", "", "b", "c"]}], "lecture", r"line 1: field 'endings'"),
        ([ROW | {"endings": ["a", "[b]", "b", "c"]}], "harness", r"line 1: an ending has no text left"),
        (
            [ROW, ROW, {k: v for k, v in ROW.items() if k != "label"}],
            "lecture",
            r"line 3: no label \(the test",
        ),
        ([ROW | {"label": ""}], "lecture", r"line 1: no label"),
        ([ROW | {"label": 4}], "lecture", r"line 1: label 4 is not"),
        ([ROW | {"label": -1}], "lecture", r"line 1: label -1 is not"),
        (["", ""], "lecture", r"no items"),
    ],
)
def test_a_bad_line_is_named(tmp_path, lines, rendering, words):
    write(tmp_path / "h.jsonl", *lines)
    with pytest.raises(DataError, match=words) as caught:
        read_items(tmp_path / "h.jsonl", rendering)
    assert str(tmp_path / "h.jsonl") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(b'{"ctx": "caf\xe9"}\n')
    for name, words in (("absent.jsonl", "No such file"), ("latin.jsonl", "not UTF-8"), (".", "directory")):
        with pytest.raises(DataError, match=words):
            read_items(tmp_path / name)


def test_batching_changes_nothing():
    """Neither how many questions are computed at once, nor their order, nor what pads them."""
    model = byte_model()
    questions = encode_items(many_items(40), Tokenizer.bytes(), 64)
    whole = choice_sums(model, questions, batch_positions=100_000)
    assert whole[3] == 40
    for positions in (1, 200):
        assert torch.equal(choice_sums(model, questions, batch_positions=positions), whole)
    together = ending_nats(model, questions)
    alone = torch.cat([ending_nats(model, [question]) for question in questions])
    assert torch.allclose(together, alone, atol=1e-4)


def test_ranks_add_up_to_the_whole():
    model = byte_model()
    questions = encode_items(many_items(40), Tokenizer.bytes(), 64)
    whole = choice_sums(model, questions, batch_positions=200)
    for world_size in (2, 3, 50):
        parts = [
            choice_sums(model, questions, batch_positions=200, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        assert torch.equal(torch.stack(parts).sum(dim=0), whole)


@pytest.mark.parametrize("world_size", [1, 5, 7, 50])
def test_each_rank_is_asked_equally_often_before_a_batch(world_size):
    model, questions = byte_model(), encode_items(many_items(40), Tokenizer.bytes(), 64)
    asked, batches = [0] * world_size, [0] * world_size
    for rank in range(world_size):

        def ask(rank=rank):
            asked[rank] += 1

        def done(_, rank=rank):
            batches[rank] += 1

        choice_sums(
            model,
            questions,
            rank=rank,
            world_size=world_size,
            batch_positions=500,
            on_questions=done,
            before_batch=ask,
        )
    assert asked == [max(batches)] * world_size
    assert world_size == 1 or min(batches) < max(batches)  # or the test shows nothing


def test_the_evaluation_ends_where_it_is_told_to():
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    model = byte_model().train()
    with pytest.raises(KeyboardInterrupt):
        choice_sums(
            model,
            encode_items(many_items(40), Tokenizer.bytes(), 64),
            batch_positions=200,
            on_questions=lambda _: calls.append(1),
            before_batch=stop,
        )
    assert len(calls) == 3  # before, done, before
    assert model.training


def test_the_model_is_put_back_into_training_mode_and_the_generator_left_alone():
    model = byte_model().train()
    before = torch.get_rng_state()
    choice_sums(model, encode_items(many_items(3), Tokenizer.bytes(), 64))
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


def test_an_empty_context_is_the_beginning_of_a_document():
    tok = Tokenizer.bytes()
    (question,) = encode_items([Item("", (" a", " b"), (1, 1), 0)], tok, 64)
    assert question.rows == ((tok.eot, 32, 97), (tok.eot, 32, 98))


def test_what_does_not_fit_keeps_its_last_part():
    tok = Tokenizer.bytes()
    (question,) = encode_items([Item("abcdefgh", (" xy", " 0123456789"), (2, 10), 0)], tok, 8)
    assert question.rows == (tuple(b"cdefgh xy"), tuple(b"123456789"))  # 8 inputs and the last target
    assert question.scored == (3, 8)
    assert question.characters == (2, 8)  # of a cut ending, the characters that are scored
    assert torch.isfinite(ending_nats(byte_model(8), [question])).all()


def test_lower_precision_comes_close():
    model = byte_model()
    (question, *_) = encode_items(many_items(9)[5:], Tokenizer.bytes(), 64)
    exact = ending_nats(model, [question])
    low = ending_nats(model, [question], autocast_dtype=torch.bfloat16)
    assert not torch.equal(exact, low)
    assert torch.allclose(exact, low, rtol=0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"endings": ["a", "b", "c"]}, "line 2: field 'endings' is not a list of 4"),
        ({"endings": ["a", "b", "c", "d", "e"]}, "line 2: field 'endings' is not a list of 4"),
        ({"ctx": " ", "ctx_a": ""}, "line 2: the context is empty"),
        ({"endings": ["a", "b", "c", "\ud800"]}, r"line 2: a lone surrogate \(U\+D800\)"),
    ],
)
@pytest.mark.parametrize("rendering", ["lecture", "harness"])
def test_an_item_that_is_not_of_the_task(tmp_path, rendering, change, words):
    write(tmp_path / "h.jsonl", ROW, ROW | change)
    with pytest.raises(DataError, match=words):
        read_items(tmp_path / "h.jsonl", rendering)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_whose_output_is_not_finite_has_no_accuracy(bad):
    model = byte_model()
    with torch.no_grad():
        model.ln_f.bias[0] = bad
    questions = encode_items(many_items(8), Tokenizer.bytes(), 64)
    with pytest.raises(ModelError, match="hellaswag_acc is nan: the model's output is not finite"):
        hellaswag_scores(choice_sums(model, questions))


def test_one_item_that_is_not_finite_is_enough():
    """The NaN is at a position that only the longest item reaches; its batch is one of several."""
    model = byte_model()
    with torch.no_grad():
        model.wpe.weight[55:] = float("nan")
    long = Item("x" * 60, (" a", " b", " c", " d"), (1, 1, 1, 1), 0)
    questions = encode_items([*many_items(8), long], Tokenizer.bytes(), 64)
    assert choice_sums(model, questions[:-1]).isfinite().all()
    sums = choice_sums(model, questions, batch_positions=300)
    assert sums[:3].isnan().all()
    assert sums[3] == 9


def test_an_id_that_only_pads_the_vocabulary_is_refused():
    item = encode_items(many_items(1), Tokenizer.bytes(), 64)[0]
    with pytest.raises(ModelError, match="id 300 is outside the vocabulary"):
        ending_nats(byte_model(), [dataclasses.replace(item, rows=((300, 1), *item.rows[1:]))])
