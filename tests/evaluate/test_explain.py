"""One item in full: its numbers are the evaluation's, and what is shown says what is scored."""

import json

import pytest
import torch

from myna.cli import main
from myna.evaluate.choices import choice_sums
from myna.evaluate.continuations import question_scores
from myna.evaluate.explain import READINGS, explained
from myna.evaluate.hellaswag import encode_items, read_items
from myna.model.config import GPTConfig
from myna.model.gpt2 import GPT
from myna.text.tokenizer import Tokenizer

ENDINGS = ["rows.", "sinks a lot.", "waves to all of his friends.", "is 漢."]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=48, vocab_size=257)).eval()


@pytest.fixture(scope="module")
def items_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("items") / "h.jsonl"
    rows = [
        {"ctx": f"A man {'s' * n}its. he", "endings": ENDINGS[n % 4 :] + ENDINGS[: n % 4], "label": n * 3 % 4}
        for n in range(12)
    ]
    path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))  # items begin in line 2
    return path


@pytest.fixture(scope="module")
def questions(items_file, network):
    return encode_items(read_items(items_file), Tokenizer.bytes(), network.config.block_size)


def test_the_numbers_are_those_of_the_evaluation(network, questions):
    together = {}
    for scores in question_scores(network, questions):
        together |= scores
    right = dict.fromkeys(READINGS, 0)
    for number, question in enumerate(questions):
        found = explained(network, question, Tokenizer.bytes())
        for alone, scores in zip(found.scores, together[number], strict=True):
            assert alone.token_nats == pytest.approx(scores.token_nats, abs=1e-5)
        for name, row in found.chosen().items():
            right[name] += row == question.label
    assert list(right.values()) == choice_sums(network, questions)[:3].tolist()
    assert 0 < sum(right.values()) < 3 * len(questions)


def test_a_rows_losses_are_those_of_its_logits(network, questions):
    found = explained(network, questions[0], Tokenizer.bytes()).to_dict()
    for row in found["rows"]:
        logits = network(torch.tensor([row["ids"][:-1]]))[0].detach().log_softmax(dim=-1)
        nats = [-float(logits[n, id]) for n, id in enumerate(row["ids"][1:])]
        scored = [value for value, mask in zip(nats, row["mask"][1:], strict=True) if mask]
        assert row["token_nats"] == pytest.approx(scored, abs=1e-5)
        assert row["nats"] == pytest.approx(sum(scored), abs=1e-4)
        assert row["nats_per_token"] == pytest.approx(sum(scored) / len(scored), abs=1e-5)
        assert len(row["ids"]) == len(row["tokens"]) == len(row["mask"])


def test_contexts_that_are_cut_apart_are_shown_with_their_rows(items_file):
    torch.manual_seed(0)
    short = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=20, vocab_size=257)).eval()
    (question,) = encode_items(read_items(items_file)[:1], Tokenizer.bytes(), 20)
    lines = explained(short, question, Tokenizer.bytes()).lines()
    assert any("tokens do not fit the model's window" in line for line in lines)
    assert sum(line.startswith("context: ") for line in lines) == 4


@pytest.fixture
def evaluate(network, items_file, tmp_path, capsys):
    network.save_pretrained(tmp_path / "model", Tokenizer.bytes())

    def call(*more):
        capsys.readouterr()
        words = [
            "eval",
            tmp_path / "model",
            "--task",
            "hellaswag",
            "--data",
            items_file,
            "--precision",
            "fp32",
            *more,
        ]
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out if code == 0 else shown.err

    return call


def test_an_item_is_shown_to_people_and_as_json(evaluate, network, questions):
    code, text = evaluate("--explain", 5)
    assert code == 0
    found = explained(network, questions[5], Tokenizer.bytes())
    assert "item                 5 (line 7 of the file)" in text
    assert text.endswith("\n".join(["", *found.lines(), ""]))
    assert "right: ending 3" in text
    assert "ending 3, the right one: " in text
    assert "context: 18 tokens, mask 0: read, and not scored\n  A · m a n · s s s s s i t s . · h e\n" in text
    assert text.splitlines()[-1].startswith("the least is chosen ")
    code, text = evaluate("--explain", 5, "--json")
    shown = json.loads(text)
    assert (shown["item"], shown["line"], shown["right"]) == (5, 7, 3)
    assert shown["chosen_by_acc"] == found.chosen()["acc"]
    assert shown["rows"] == found.to_dict()["rows"]


def test_the_letters_are_explained_too(evaluate):
    code, text = evaluate("--explain", 0, "--style", "letters", "--json")
    assert code == 0
    assert [row["tokens"][-1] for row in json.loads(text)["rows"]] == ["A", "B", "C", "D"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--explain", "12"], "has items 0 to 11; give one of those"),
        (["--explain", "-1"], "has items 0 to 11; give one of those"),
        (["--explain", "1", "--overlap", "x.json"], "--overlap is about all items, and --explain shows one"),
        (["--explain", "1", "--task", "val"], "--explain is a flag of --task hellaswag"),
    ],
)
def test_an_item_that_cannot_be_shown_is_a_line(evaluate, more, says):
    code, text = evaluate(*more)
    assert code == 2
    assert says in text
    assert text.count("\n") == 1
