"""The same weights three ways: scored by us, by lm-evaluation-harness on transformers, and by it on our class."""

import json
from pathlib import Path

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.evaluate.continuations import question_scores
from myna.evaluate.hellaswag import encode_items, read_items

pytest.importorskip("transformers")
pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")  # which the harness's own class for transformers imports

from myna.evaluate.harness import run_tasks
from myna.evaluate.harness_model import MynaLM

# The fields of the harness's own tasks/hellaswag/hellaswag.yaml, with a file in the place of the hub's dataset.
TASK = """
task: local_hellaswag
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {items}}}, cache_dir: {cache}}}
output_type: multiple_choice
validation_split: validation
process_docs: !function rendering.process_docs
doc_to_text: "{{{{query}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "choices"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
CONTINUE = """
task: local_continue
dataset_path: json
dataset_kwargs: {{data_files: {{test: {few}}}, cache_dir: {cache}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{ctx}}}}"
doc_to_target: "{{{{endings[0]}}}}"
generation_kwargs: {{until: ["e", " th"], max_gen_toks: 12, do_sample: false, temperature: 0.0}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
WHOLE = """
task: local_whole
dataset_path: json
dataset_kwargs: {{data_files: {{test: {items}}}, cache_dir: {cache}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_target: "{{{{ctx}}}}"
doc_to_text: ""
metric_list:
  - {{metric: bits_per_byte}}
"""


def task_folder(folder: Path, items: Path) -> Path:
    few = folder / "few.jsonl"
    few.write_text("".join(items.read_text("utf-8").splitlines(keepends=True)[:6]), "utf-8")
    for name, text in (("hellaswag", TASK), ("continue", CONTINUE), ("whole", WHOLE)):
        (folder / f"{name}.yaml").write_text(text.format(items=items, few=few, cache=folder / "cache"))
    (folder / "rendering.py").write_text("from lm_eval.tasks.hellaswag.utils import process_docs\n")
    return folder


def small_network(tokenizer: Tokenizer, block_size: int, text: str, steps: int) -> GPT:
    """Random weights, or the same after a few steps on some text."""
    torch.manual_seed(1)
    model = GPT(
        GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=block_size, vocab_size=tokenizer.n_vocab)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    ids = torch.tensor(tokenizer.encode(text))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        starts = torch.randint(len(ids) - 65, (8,))
        rows = torch.stack([ids[start : start + 65] for start in starts])
        torch.nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def ours(model: GPT, tokenizer: Tokenizer, path: Path) -> list[tuple[float, float, list[float]]]:
    """Of each item whether it is right by sum and by characters, and the log-probabilities."""
    questions = encode_items(read_items(path, "harness"), tokenizer, model.config.block_size)
    found = {}
    for batch in question_scores(model, questions):
        for number, scores in batch.items():
            asked, nats = questions[number], [score.nats for score in scores]
            by_char = [n / c for n, c in zip(nats, asked.characters, strict=True)]
            right = [float(costs.index(min(costs)) == asked.label) for costs in (nats, by_char)]
            found[number] = (*right, [-n for n in nats])
    return [found[number] for number in range(len(questions))]


def hf_lm(model: GPT, tokenizer: Tokenizer, folder: Path):
    from lm_eval.models.huggingface import HFLM

    model.save_pretrained(folder, tokenizer)
    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1)


def compare(model: GPT, tokenizer: Tokenizer, folder: Path, items: Path) -> set[str]:
    task_folder(folder, items)
    expected = ours(model, tokenizer, items)
    assert {right for right, *_ in expected} == {0.0, 1.0}  # or the comparison shows little
    names = ["local_hellaswag", "local_whole", "local_continue"]
    runs = [
        run_tasks(lm, names, folder=folder)["samples"]
        for lm in (hf_lm(model, tokenizer, folder / "model"), MynaLM(model, tokenizer))
    ]
    for samples in runs:
        choices = samples["local_hellaswag"]
        assert [(s["acc"], s["acc_norm"]) for s in choices] == [(a, n) for a, n, _ in expected]
        for sample, (*_, logprobs) in zip(choices, expected, strict=True):
            got = [response[0][0] for response in sample["resps"]]
            assert got == pytest.approx(logprobs, abs=2e-3, rel=1e-5)
    greedy, rolled, written = (
        [[[response[0] for response in s["resps"]] for s in samples[name]] for samples in runs]
        for name in names
    )
    assert [[r[1] for r in one] for one in greedy[0]] == [[r[1] for r in one] for one in greedy[1]]
    for his, mine in zip(*rolled, strict=True):
        assert mine == pytest.approx(his, abs=2e-3, rel=1e-5)
    assert written[0] == written[1]
    return {text for (text,) in written[0]}


@pytest.mark.parametrize("steps", [0, 60])
def test_the_harness_agrees_item_by_item(tmp_path, shared_data, steps):
    lines = shared_data("hellaswag_val_first500.jsonl").read_text("utf-8").splitlines()[:24]
    items = tmp_path / "items.jsonl"
    items.write_text("\n".join(lines) + "\n", "utf-8")
    text = "\n".join(json.loads(line)["ctx"] for line in lines)
    tokenizer = Tokenizer.train([text], vocab_size=400, pattern="gpt2")
    model = small_network(tokenizer, 96, text, steps)  # too short a window for some
    assert len(compare(model, tokenizer, tmp_path, items)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 60])
def test_the_harness_agrees_on_all_500_items(tmp_path, shared_data, steps):
    items = shared_data("hellaswag_val_first500.jsonl")
    text = "\n".join(json.loads(line)["ctx"] for line in items.read_text("utf-8").splitlines())
    compare(small_network(Tokenizer.gpt2(), 256, text, steps), Tokenizer.gpt2(), tmp_path, items)
