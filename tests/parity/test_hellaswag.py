"""HellaSwag scores against a plain reading: one row at a time through transformers' network, no cache, no padding."""

import json
import re

import numpy as np
import pytest
import torch

from myna import GPT, GPTConfig
from myna.evaluate.choices import choice_sums
from myna.evaluate.continuations import ending_nats
from myna.evaluate.hellaswag import encode_items, hellaswag_scores, read_items
from myna.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

WORDS = "the a cat sat ran on mat fast [title] home then [step] water, he. jumps it's 漢字 naïve"


def items_file(path, count: int, longest: int, seed: int = 0) -> list[dict]:
    """Made-up items in the official format, of many lengths."""
    draw = np.random.default_rng(seed)

    def text(words: int) -> str:
        return " ".join(draw.choice(WORDS.split(), words))

    rows = []
    for number in range(count):
        a, b = text(int(draw.integers(1, longest))), text(int(draw.integers(0, 3)))
        rows.append(
            {
                "ind": number,
                "activity_label": "Doing things",
                "ctx_a": a,
                "ctx_b": b,
                "ctx": f"{a} {b}".strip(),
                "split": "val",
                "label": int(draw.integers(0, 4)),
                "endings": [f"x {text(int(draw.integers(1, longest)))}" for _ in range(4)],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def network(block_size: int, vocab_size: int, deviation: float = 0.15) -> tuple[GPT, torch.nn.Module]:
    """Random weights, and the same in transformers' network."""
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=block_size, vocab_size=vocab_size)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * deviation)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**model.layout.config_json(model, eot=None))
    )
    arrays = model.layout.to_file(model, model.state_dict())
    theirs.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}, strict=False)
    return model, theirs.eval()


def plain_nats(theirs, tok: Tokenizer, context: str, completion: str, block_size: int) -> tuple[float, int]:
    """The cost of a completion and how many of its tokens were scored: the definition, in a few lines."""
    ending = tok.encode(completion)
    ids = torch.tensor([*tok.encode(context), *ending])[-(block_size + 1) :]
    n = min(len(ending), len(ids) - 1)
    with torch.no_grad():
        log_probabilities = theirs(ids[None, :-1]).logits[0].log_softmax(dim=-1)
    return -float(log_probabilities[torch.arange(len(ids) - 1), ids[1:]][-n:].double().sum()), n


def lecture_text(row: dict) -> tuple[str, list[str]]:
    return row["ctx"], row["endings"]


def harness_text(row: dict) -> tuple[str, list[str]]:
    def clean(text: str) -> str:
        text = text.strip()
        text = text.replace(" [title]", ". ")
        text = re.sub("\\[.*?\\]", "", text)
        return text.replace("  ", " ")

    context = row["activity_label"] + ": " + row["ctx_a"] + " " + row["ctx_b"].capitalize()
    return clean(context), [clean(ending) for ending in row["endings"]]


@pytest.mark.parametrize("rendering", ["lecture", "harness"])
@pytest.mark.parametrize(
    ("tokens", "block_size"), [("gpt2", 256), ("gpt2", 20), ("bytes", 400), ("bytes", 24)]
)
def test_each_ending_costs_what_the_definition_says(tmp_path, rendering, tokens, block_size):
    tok = Tokenizer.open(tokens)
    rows = items_file(tmp_path / "items.jsonl", 24, longest=14)
    model, theirs = network(block_size, tok.n_vocab)
    questions = encode_items(read_items(tmp_path / "items.jsonl", rendering), tok, block_size)
    right = np.zeros(3)
    for row, question in zip(rows, questions, strict=True):
        context, endings = (lecture_text if rendering == "lecture" else harness_text)(row)
        moved = context[len(context.rstrip()) :]  # spaces at the end of a context go to the completion
        plain = [
            plain_nats(theirs, tok, context.rstrip(), f"{moved} {ending}", block_size) for ending in endings
        ]
        nats, scored = np.array(plain).T
        assert list(question.scored) == scored.tolist()
        assert ending_nats(model, [question])[0].tolist() == pytest.approx(nats.tolist(), abs=2e-4)
        characters = [
            len(ending) if n == len(tok.encode(f"{moved} {ending}")) else c
            for ending, n, c in zip(endings, scored, question.characters, strict=True)
        ]
        right += [np.argmin(nats / by) == row["label"] for by in (1, scored, characters)]
    scores = hellaswag_scores(choice_sums(model, questions))
    assert scores == {
        "hellaswag_acc": right[0] / 24,
        "hellaswag_acc_token": right[1] / 24,
        "hellaswag_acc_char": right[2] / 24,
        "hellaswag_items": 24,
    }
    assert len(set(right)) > 1 or block_size < 100  # the three readings are not one and the same here


def test_the_official_items(shared_data):
    path = shared_data("hellaswag_val_first500.jsonl")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    tok = Tokenizer.gpt2()
    model, theirs = network(128, tok.n_vocab)
    items = read_items(path)
    questions = encode_items(items, tok, 128)
    assert len(questions) == 500
    for row, question in list(zip(rows, questions, strict=True))[::25]:
        plain = [plain_nats(theirs, tok, row["ctx"], f" {ending}", 128)[0] for ending in row["endings"]]
        assert ending_nats(model, [question])[0].tolist() == pytest.approx(plain, abs=1e-3)
        assert question.characters == tuple(map(len, row["endings"]))
        joined = [tuple(tok.encode(f"{row['ctx']} {ending}")) for ending in row["endings"]]
        assert list(question.rows) == joined  # apart and together are the same
    some = choice_sums(model, questions[:250])
    assert some[3] == 250
    assert all(35 < right < 90 for right in some[:3].tolist())  # chance is 62.5, with a deviation of 6.8
