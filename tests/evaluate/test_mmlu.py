"""MMLU from both layouts, and a question with choices in both styles."""

import csv
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import DataError, ModelError
from myna.evaluate.choices import Choice, choice_sums
from myna.evaluate.hellaswag import Item, as_choice
from myna.evaluate.mmlu import encode_mmlu, mmlu_scores, read_mmlu

TOK = Tokenizer.bytes()


def rows(subject: str, split: str, count: int) -> list[dict]:
    return [
        {
            "question": f' What is {n}, "{split}",\nin {subject}? ',
            "choices": [f"a{n}", "b, c", f"no {n * n}", "d"],
            "answer": (n * 7 + len(subject)) % 4,
            "subject": subject,
        }
        for n in range(count)
    ]


SUBJECTS = {"anatomy": 5, "us_history": 3}


def as_csv(folder: Path) -> Path:
    for subject, count in SUBJECTS.items():
        for split, n in (("dev", 2), ("test", count), ("val", 1)):
            (folder / split).mkdir(parents=True, exist_ok=True)
            with open(folder / split / f"{subject}_{split}.csv", "w", newline="") as file:
                for row in rows(subject, split, n):
                    csv.writer(file).writerow([row["question"], *row["choices"], "ABCD"[row["answer"]]])
    return folder


def as_parquet(folder: Path) -> Path:
    (folder / "all").mkdir(parents=True)
    for split in ("dev", "test", "auxiliary_train"):
        found = [
            row for subject, n in SUBJECTS.items() for row in rows(subject, split, 2 if split == "dev" else n)
        ]
        pq.write_table(pa.Table.from_pylist(found), folder / "all" / f"{split}-00000-of-00001.parquet")
    return folder


def as_jsonl(folder: Path) -> Path:
    """A folder a subject, whose rows don't say which."""
    for subject, count in SUBJECTS.items():
        (folder / subject).mkdir(parents=True)
        for split, n in (("dev", 2), ("test", count)):
            text = "".join(json.dumps(row | {"subject": ""}) + "\n" for row in rows(subject, split, n))
            (folder / subject / f"{split}.jsonl").write_text(text)
    return folder


def test_every_layout_gives_the_same_questions(tmp_path):
    found = [
        read_mmlu(write(tmp_path / write.__name__), 2, "letters") for write in (as_csv, as_parquet, as_jsonl)
    ]
    assert found[0] == found[1] == found[2]
    assert [(subject.name, len(subject.dev), len(subject.test)) for subject in found[0]] == [
        ("anatomy", 2, 5),
        ("us_history", 2, 3),
    ]
    first = rows("anatomy", "test", 1)[0]
    assert found[0][0].test[0] == Choice(first["question"], tuple(first["choices"]), first["answer"])


def test_the_prompt_of_letters():
    """Word for word as the paper's code has it."""
    (subject,) = [s for s in [read_subject()] if s]
    (question, *_) = encode_mmlu([subject], 1, "letters", TOK, 1024)[0]
    texts = [bytes(row[:]).decode() for row in question.rows]
    shown = (
        "The following are multiple choice questions (with answers) about us history.\n\n"
        'What is 0, "dev",\nin us_history?\nA. a0\nB. b, c\nC. no 0\nD. d\nAnswer: C\n\n'
        'What is 0, "test",\nin us_history?\nA. a0\nB. b, c\nC. no 0\nD. d\nAnswer:'
    )
    assert texts == [f"{shown} {letter}" for letter in "ABCD"]
    assert (question.scored, question.label) == ((2, 2, 2, 2), 2)


def test_the_prompt_of_endings():
    subject = read_subject()
    (question, *_) = encode_mmlu([subject], 0, "ending", TOK, 1024)[0]
    shown = (
        "The following are questions (with answers) about us history.\n\n"
        'Question: What is 0, "test",\nin us_history?\nAnswer:'
    )
    assert [bytes(row).decode() for row in question.rows] == [
        f"{shown} {c}" for c in ("a0", "b, c", "no 0", "d")
    ]
    assert question.characters == (2, 4, 4, 1)


def read_subject():
    from myna.evaluate.mmlu import Subject

    def choices(split, n):
        return [Choice(r["question"], tuple(r["choices"]), r["answer"]) for r in rows("us_history", split, n)]

    return Subject("us_history", choices("dev", 2), choices("test", 3))


def test_hellaswags_endings_become_choices():
    item = Item("A man sits. he", (" rows.", "  sinks.", " waves.", " is."), (5, 6, 6, 3), 2)
    assert as_choice(item).context("letters") == (
        "A man sits. he\nA. rows.\nB. sinks.\nC. waves.\nD. is.\nAnswer:"
    )
    assert as_choice(item).label == 2


@pytest.mark.parametrize("style", ["letters", "ending"])
def test_the_scores_are_those_of_one_row_at_a_time(tmp_path, style):
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=512, vocab_size=257)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    subjects = read_mmlu(as_csv(tmp_path / "m"), 2, style)
    questions = encode_mmlu(subjects, 2, style, TOK, 512)
    sums = torch.stack([choice_sums(model, each) for each in questions])
    found = mmlu_scores(sums, subjects, style)
    right = {}
    for subject, asked in zip(subjects, questions, strict=True):
        right[subject.name] = []
        for question, choice in zip(asked, subject.test, strict=True):
            costs = []
            for row, n in zip(question.rows, question.scored, strict=True):
                with torch.no_grad():
                    logits = model(torch.tensor([row[:-1]]))[0]
                nats = torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="none")
                costs.append(float(nats[-n:].double().sum()))
            right[subject.name].append(costs.index(min(costs)) == choice.label)
    every = [one for each in right.values() for one in each]
    assert 0 < sum(every) < len(every)
    assert found["mmlu_acc"] == sum(every) / 8
    assert found["mmlu_acc_stderr"] == pytest.approx(
        math.sqrt(found["mmlu_acc"] * (1 - found["mmlu_acc"]) / 8)
    )
    means = {name: sum(each) / len(each) for name, each in right.items()}
    assert {name: found[f"mmlu_acc/{name}"] for name in means} == means
    assert found["mmlu_acc_macro"] == pytest.approx(sum(means.values()) / 2)
    variances = [means[name] * (1 - means[name]) / n for name, n in SUBJECTS.items()]
    assert found["mmlu_acc_macro_stderr"] == pytest.approx(math.sqrt(sum(variances)) / 2)
    assert (found["mmlu_chance"], found["mmlu_items"], found["mmlu_items/anatomy"]) == (0.25, 8, 5)
    assert ("mmlu_acc_char" in found) == (style == "ending")


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(ModelError, match="mmlu_acc is nan"):
        mmlu_scores(torch.tensor([[float("nan")] * 3 + [4.0]]), [read_subject()], "letters")


GOOD = ["q", "a", "b", "c", "d", "A"]


@pytest.mark.parametrize(
    ("row", "style", "words"),
    [
        (GOOD[:5], "letters", r"x_test.csv, row 2: not 4 choices"),
        (["", *GOOD[1:]], "letters", r"row 2: the question is empty"),
        ([*GOOD[:5], "E"], "letters", r"row 2: the answer is 'E', not a letter"),
        (["q", "", "b", "c", "d", "A"], "ending", r"row 2: choice A is empty"),
        (["only"], "letters", r"row 2: the question is empty or no text"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path, row, style, words):
    (tmp_path / "test").mkdir()
    with open(tmp_path / "test" / "x_test.csv", "w", newline="") as file:
        csv.writer(file).writerows([GOOD, row])
    with pytest.raises(DataError, match=words) as caught:
        read_mmlu(tmp_path, 0, style)
    assert "\n" not in str(caught.value)


def test_an_empty_choice_that_is_only_listed_is_no_fault(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "x_test.csv").write_text("q,,b,c,d,A\n")
    assert read_mmlu(tmp_path, 0, "letters")[0].test[0].choices[0] == ""


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("test.jsonl", b"{", r"test.jsonl cannot be read as jsonl"),
        ("test.jsonl", b"[1]\n", r"test.jsonl, row 1: no object with a question"),
        (
            "test.jsonl",
            b'{"question": "q", "choices": ["a", "b", "c", "\\ud800"], "answer": 0}',
            r"lone surrogate",
        ),
        (
            "test.jsonl",
            b'{"question": "q", "choices": ["a", "b", "c", "d"], "answer": 4}',
            r"the answer is 4",
        ),
        (
            "test.jsonl",
            b'{"question": "q", "choices": ["a", "b", "c", "d"], "answer": 0, "subject": 3}',
            "'subject'",
        ),
        ("test-0.parquet", b"PAR1PAR1", r"test-0.parquet cannot be read as parquet"),
        ("readme.txt", b"", r"has no questions of the split test"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        read_mmlu(tmp_path, 0, "letters")
    assert "\n" not in str(caught.value)


def test_too_few_examples_are_named(tmp_path):
    with pytest.raises(DataError, match="has 2 examples of anatomy in dev, fewer than the 5 to show"):
        read_mmlu(as_csv(tmp_path), 5, "letters")
    with pytest.raises(DataError, match="there is no folder"):
        read_mmlu(tmp_path / "gone", 0, "letters")
