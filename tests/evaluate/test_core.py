"""CORE against a plain reading of its rules: one item at a time, one whole row at a time, through the network alone."""

import json
import math
import random
from pathlib import Path

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import DataError, ModelError
from myna.evaluate.core import core_scores, core_sums, encode_items
from myna.evaluate.core_bundle import CORE_LABELS, is_whole, read_bundle

TOK = Tokenizer.bytes()
WORDS = ["the", "a", "cat", "sat", "ran", "on", "mat", "fast", "home", "then", "water", "he", "jumps", "it"]
# label: kind, dataset, examples, delimiter (None: the file says none), chance in percent
TASKS = {
    "few": ("multiple_choice", "a/choices.jsonl", 3, "\nAnswer: ", 25),
    "none": ("multiple_choice", "a/choices.jsonl", 0, None, 25),
    "schemas": ("schema", "b/schema.jsonl", 1, None, 50),
    "models": ("language_modeling", "b/models.jsonl", 0, "", 0),
    "asked": ("language_modeling", "b/asked.jsonl", 2, "\nAnswer: ", 0),
}


def rows_of(kind: str, name: str) -> list[dict]:
    draw = random.Random(name)

    def text(most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))

    if kind == "multiple_choice":
        rows = [
            {"query": text(9), "choices": [text(4) for _ in range(4)], "gold": draw.randrange(4)}
            for _ in range(12)
        ]
        rows[3]["choices"] = [
            "cat",
            "cat sat",
            "ran",
            "a",
        ]  # nothing of "cat" is left: " ran" and " a" begin alike
        rows[4] |= {"choices": ["cat", "cat sat", "cat sat on", "cat ran"], "gold": 0}
        rows[5] |= {"choices": ["cat sat", "cat", "cat sat on", "cat ran"], "gold": 1}
        rows[6] |= {"choices": ["the same", "the same", "the same", "the same"], "gold": 0}
        rows[7]["choices"] = [7, 2.5, "8", "9"]  # numbers are text
    elif kind == "schema":
        rows = [
            {"context_options": [text(5), text(5)], "continuation": text(4), "gold": draw.randrange(2)}
            for _ in range(12)
        ]
    else:
        endings = ["a", "aa", "b", "a" * 3] if name.endswith("models.jsonl") else ["42", "a"]
        rows = [{"context": f" {text(9)} ", "continuation": draw.choice(endings)} for _ in range(16)]
    return rows


def write_bundle(folder: Path, tasks: dict = TASKS) -> Path:
    lines = ["icl_tasks:"]
    for label, (kind, uri, shots, delimiter, _) in tasks.items():
        lines += ["-", f"  label: {label}", f"  dataset_uri: {uri}", f"  num_fewshot: [{shots}]"]
        lines += [f"  icl_task_type: {kind}"]
        lines += [] if delimiter is None else [f"  continuation_delimiter: {json.dumps(delimiter)}"]
        path = folder / "eval_data" / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(kind, uri)))
    (folder / "core.yaml").write_text("\n".join(lines) + "\n")
    table = ["Eval Task,Task Category,Random baseline,Description", 'unused,x,20,"A, with a comma"']
    table += [f"{label},x,{chance},text" for label, (*_, chance) in tasks.items()]
    (folder / "eval_meta_data.csv").write_text("\n".join(table) + "\n")
    return folder


def byte_model(block_size: int = 256) -> GPT:
    """Random weights that like the letter a."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=block_size, vocab_size=257)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        liked = model.wte.weight[ord("a")]
        model.ln_f.bias += 10 * liked / liked.norm()
    return model


# The plain reading. -----------------------------------------------------------------------------------------------


def render(row: dict, kind: str, delimiter: str) -> list[str]:
    if kind == "multiple_choice":
        return [f"{row['query']}{delimiter}{choice}" for choice in row["choices"]]
    if kind == "schema":
        return [f"{context}{delimiter}{row['continuation']}" for context in row["context_options"]]
    return [f"{row['context'].strip()}{delimiter}{row['continuation']}"]


def same_start(rows: list[list[int]]) -> int:
    n = 0
    while all(len(row) > n for row in rows) and len({row[n] for row in rows}) == 1:
        n += 1
    return n


@torch.no_grad()
def plain_right(model: GPT, rows: list[dict], number: int, kind: str, shots: int, delimiter: str) -> bool:
    row, block_size = rows[number], model.config.block_size
    others = [i for i in range(len(rows)) if i != number]
    shown = ""
    for other in random.Random(1234 + number).sample(others, shots):
        gold = rows[other].get("gold", 0)
        shown += render(rows[other], kind, delimiter)[gold] + "\n\n"
    ids = [[TOK.eot, *(shown + text).encode()] for text in render(row, kind, delimiter)]
    if kind == "multiple_choice":
        starts = [same_start(ids)] * len(ids)
    elif kind == "schema":
        starts = [len(one) - same_start([each[::-1] for each in ids]) for one in ids]
    else:
        without = [TOK.eot, *(shown + row["context"].strip() + delimiter).strip().encode()]
        assert ids[0][: len(without)] == without
        starts = [len(without)]
    means = []
    for one, start in zip(ids, starts, strict=True):
        gone = max(0, len(one) - block_size)
        one, start = one[gone:], start - gone
        logits = model(torch.tensor([one]))[0]
        if kind == "language_modeling":
            return logits[start - 1 : -1].argmax(dim=-1).tolist() == one[start:]
        nats = torch.nn.functional.cross_entropy(
            logits[start - 1 : len(one) - 1].double(),
            torch.tensor(one[start:], dtype=torch.int64),
            reduction="none",
        )
        means.append(float(nats.mean()))  # NaN over nothing
    return means.index(min(means)) == row["gold"]  # of NaNs, min keeps the first if it stands first


def plain_sums(model: GPT) -> list[list[float]]:
    sums = []
    for kind, uri, shots, delimiter, _ in TASKS.values():
        rows = rows_of(kind, uri)
        random.Random(1337).shuffle(rows)
        delimiter = " " if delimiter is None else delimiter
        right = [plain_right(model, rows, number, kind, shots, delimiter) for number in range(len(rows))]
        sums.append([float(sum(right)), float(len(rows))])
    return sums


@pytest.mark.parametrize("block_size", [512, 96])
def test_the_scores_are_those_of_a_plain_reading(tmp_path, block_size):
    model, tasks = byte_model(block_size), read_bundle(write_bundle(tmp_path))
    assert [task.label for task in tasks] == list(TASKS)
    done = []
    sums = core_sums(model, tasks, TOK, on_items=done.append)
    assert sums[:, :2].tolist() == plain_sums(model)
    # Or the comparison shows little. (Of "asked" none is right: the space that ends its delimiter is scored.)
    assert all(0 < right < items for right, items, _ in sums[:4].tolist()), sums
    assert sum(done) == sums[:, 1].sum()
    cut = dict(zip(TASKS, sums[:, 2].tolist(), strict=True))
    assert (cut["few"] > 0) == (block_size == 96)
    assert cut["models"] == 0


def test_of_a_long_text_the_last_ids_are_kept(tmp_path):
    """As many as the model has positions: the published scorer cuts the row before it takes the last id away."""
    (task, *_) = read_bundle(write_bundle(tmp_path))
    for number, item in enumerate(encode_items(task, range(12), TOK, 96)):
        if item.question:
            whole = [(TOK.eot, *task.texts(number)[row].encode()) for row in item.rows]
            assert item.question.rows == tuple(ids[-96:] for ids in whole)
            assert item.question.cut == max(0, max(map(len, whole)) - 96)


def test_batches_and_ranks_change_nothing(tmp_path):
    model, tasks = byte_model(), read_bundle(write_bundle(tmp_path))
    whole = core_sums(model, tasks, TOK)
    for options in (
        {"batch_questions": 1},
        {"batch_questions": 3},
        {"batch_questions": 64},
        {"batch_positions": 700},
    ):
        assert torch.equal(core_sums(model, tasks, TOK, **options), whole), options
    for world_size in (2, 5):
        parts = [core_sums(model, tasks, TOK, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert torch.equal(torch.stack(parts).sum(dim=0), whole)


def test_the_scores_are_measured_from_chance(tmp_path):
    tasks = read_bundle(write_bundle(tmp_path))
    sums = torch.tensor([[6.0, 12, 1], [3, 12, 0], [12, 12, 0], [0, 16, 0], [4, 16, 0]], dtype=torch.float64)
    found = core_scores(sums, tasks)
    assert found["core_acc/few"] == 0.5
    assert found["core_centred/few"] == pytest.approx((0.5 - 0.25) / 0.75)
    assert found["core_centred/none"] == 0.0
    assert found["core_centred/schemas"] == 1.0
    assert found["core_centred/models"] == 0.0
    assert found["core_acc_stderr/few"] == pytest.approx(math.sqrt(0.25 / 12))
    assert found["core_centred_stderr/few"] == pytest.approx(math.sqrt(0.25 / 12) / 0.75)
    assert (found["core_cut/few"], found["core_shots/few"], found["core_items/asked"]) == (1, 3, 16)
    assert "core" not in found  # it is a mean over 22 tasks


def test_core_is_the_mean_of_all_22(tmp_path):
    def as_task(n):
        return ("multiple_choice", "a/choices.jsonl", 0, None, 25 if n % 2 else 50)

    tasks = read_bundle(
        write_bundle(tmp_path, {label: as_task(n) for n, label in enumerate(sorted(CORE_LABELS))})
    )
    assert len(tasks) == 22
    assert is_whole(tasks)
    sums = torch.tensor([[float(n % 13), 12, 0] for n in range(22)], dtype=torch.float64)
    found = core_scores(sums, tasks)
    centred = [(n % 13 / 12 - c) / (1 - c) for n in range(22) for c in [0.25 if n % 2 else 0.5]]
    assert found["core"] == pytest.approx(sum(centred) / 22)
    errors = [
        math.sqrt(p * (1 - p) / 12) / (1 - c)
        for n in range(22)
        for p, c in [(n % 13 / 12, 0.25 if n % 2 else 0.5)]
    ]
    assert found["core_stderr"] == pytest.approx(math.sqrt(sum(e * e for e in errors)) / 22)
    assert found["core_chance"] == 0
    assert "core" not in core_scores(sums[1:], tasks[1:])


def test_a_model_whose_output_is_not_finite_has_no_score(tmp_path):
    model, tasks = byte_model(), read_bundle(write_bundle(tmp_path))
    with torch.no_grad():
        model.ln_f.bias[0] = float("nan")
    for n, label in enumerate(TASKS):
        with pytest.raises(ModelError, match=f"core_acc/{label} is nan"):
            core_scores(core_sums(model, tasks[n : n + 1], TOK), tasks[n : n + 1])


def test_a_continuation_without_a_token_names_its_item(tmp_path):
    folder = write_bundle(tmp_path)
    tasks = read_bundle(folder)
    (task,) = [task for task in tasks if task.label == "models"]
    item = task.items[0]
    object.__setattr__(item, "endings", ("",))
    with pytest.raises(DataError, match="models, item 1: its continuation adds no token"):
        core_sums(byte_model(), [task], TOK)
