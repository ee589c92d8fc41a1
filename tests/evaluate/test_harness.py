"""lm-evaluation-harness on a model of ours: its three requests, its tasks from files, its command line."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.errors import DataError, ModelError, UsageError
from myna.evaluate import harness
from myna.evaluate.choices import Choice
from myna.evaluate.continuations import ending_nats
from myna.evaluate.mmlu import Subject, encode_mmlu
from myna.generate.sampling import Sampling
from myna.generate.text import continue_text

pytest.importorskip("lm_eval")

import lm_eval.evaluator
import lm_eval.tasks
from lm_eval.api.instance import Instance

from myna.evaluate.harness import harness_scores, main, run_tasks
from myna.evaluate.harness_model import MynaLM

TOK = Tokenizer.bytes()
ROWS = [
    {"question": f"What is {n}?", "choices": [f"a{n}", "b", f"c{n * n}", "d"], "answer": n * 7 % 4}
    for n in range(8)
]
# The fields of the harness's own tasks/mmlu/default, with files in the place of the hub's dataset.
QUIZ = """
task: local_quiz
dataset_path: json
dataset_kwargs: {{data_files: {{dev: {dev}, test: {test}}}, cache_dir: {cache}}}
description: "The following are multiple choice questions (with answers) about us history.\\n\\n"
test_split: test
fewshot_split: dev
fewshot_config: {{sampler: first_n}}
output_type: multiple_choice
doc_to_text: "{{{{question.strip()}}}}\\n\
A. {{{{choices[0]}}}}\\nB. {{{{choices[1]}}}}\\nC. {{{{choices[2]}}}}\\nD. {{{{choices[3]}}}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
num_fewshot: 1
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
WRITE = """
task: local_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {test}}}, cache_dir: {cache}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{max_gen_toks: 3, {option}}}
metric_list:
  - {{metric: exact_match}}
"""


def network(block_size: int = 256) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=block_size, vocab_size=257)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    for name, rows in (("dev", ROWS[:2]), ("test", ROWS[2:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"dev": tmp_path / "dev.jsonl", "test": tmp_path / "test.jsonl", "cache": tmp_path / "cache"}
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "quiz.yaml").write_text(QUIZ.format(**files))
    (folder / "write.yaml").write_text(WRITE.format(**files, option="until: [b]"))
    (folder / "beams.yaml").write_text(
        WRITE.format(**files, option="num_beams: 4").replace("local_write", "local_beams")
    )
    (folder / "gone.yaml").write_text(
        QUIZ.format(**files | {"test": tmp_path / "gone.jsonl"}).replace("local_quiz", "local_gone")
    )
    odd = tmp_path / "odd.jsonl"
    odd.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1] | {"choices": None}) + "\n")
    (folder / "odd.yaml").write_text(QUIZ.format(**files | {"test": odd}).replace("local_quiz", "local_odd"))
    return folder


def asked(kind: str, *arguments: tuple) -> list[Instance]:
    return [
        Instance(kind, {}, args, number, metadata=("task", number, 1))
        for number, args in enumerate(arguments)
    ]


def test_mmlu_is_the_harness_mmlu(tasks):
    """The same prompt and the same answers as the harness's own task gives."""
    model = network(512)
    choices = [Choice(row["question"], tuple(row["choices"]), row["answer"]) for row in ROWS]
    (questions,) = encode_mmlu([Subject("us_history", choices[:2], choices[2:])], 1, "letters", TOK, 512)
    lm = MynaLM(model, TOK)
    results = run_tasks(lm, ["local_quiz"], tasks)
    samples = results["samples"]["local_quiz"]
    texts = [["".join(arguments) for arguments in sample["arguments"]] for sample in samples]
    assert texts == [[bytes(row).decode() for row in question.rows] for question in questions]
    nats = ending_nats(model, questions)
    right = (nats.argmin(dim=1) == torch.tensor([question.label for question in questions])).double()
    assert [sample["acc"] for sample in samples] == right.tolist()
    assert 0 < right.mean() < 1
    found = harness_scores(results, lm.cut)
    assert found["harness_acc/local_quiz"] == pytest.approx(float(right.mean()))
    assert found["harness_acc_stderr/local_quiz"] == pytest.approx(float(right.std() / math.sqrt(6)))
    assert found["harness_chance/local_quiz"] == 0.25
    assert (found["harness_items/local_quiz"], found["harness_shots/local_quiz"], found["harness_cut"]) == (
        6,
        1,
        0,
    )


def test_what_does_not_fit_is_counted(tasks):
    lm = MynaLM(network(64), TOK)
    found = harness_scores(run_tasks(lm, ["local_quiz"], tasks, shots=2), lm.cut)
    assert (found["harness_shots/local_quiz"], found["harness_cut"]) == (2, 24)


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_batches_change_nothing(batch_size):
    model = network(32)
    pairs = [("", "abc"), ("a ", "b"), ("a", " b"), ("x" * 50, "yz"), ("a", " b")]
    lm = MynaLM(model, TOK, batch_size=batch_size)
    found = lm.loglikelihood(asked("loglikelihood", *pairs))
    plain = []
    for context, ending in pairs:
        ids = [
            *(context.rstrip().encode() or [TOK.eot]),
            *(context[len(context.rstrip()) :] + ending).encode(),
        ][-33:]
        n = len(ending) + len(context) - len(context.rstrip())
        with torch.no_grad():
            logprobs = model(torch.tensor([ids[:-1]]))[0].log_softmax(dim=-1)[-n:]
        target = torch.tensor(ids[-n:])
        greedy = bool((logprobs.argmax(dim=-1) == target).all())
        plain.append((float(logprobs.gather(1, target[:, None]).double().sum()), greedy))
    assert [logprob for logprob, _ in found] == pytest.approx([logprob for logprob, _ in plain], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in plain]
    assert lm.cut == 1


def test_a_whole_text_is_charged_once_a_token():
    model = network(16)
    texts = ["", "a", "b" * 16, "the quick brown fox jumps over the lazy dog"]
    found = MynaLM(model, TOK).loglikelihood_rolling(
        asked("loglikelihood_rolling", *((text,) for text in texts))
    )
    plain = []
    for text in texts:
        ids, total = [TOK.eot, *text.encode()], 0.0
        for first in range(1, len(ids), 16):
            end = min(first + 16, len(ids))
            row = ids[max(0, end - 17) : end] if first > 1 else ids[:end]
            with torch.no_grad():
                logprobs = model(torch.tensor([row[:-1]]))[0].log_softmax(dim=-1)
            kept = range(len(row) - 1 - (end - first), len(row) - 1)
            total += sum(float(logprobs[n, row[n + 1]]) for n in kept)
        plain.append(total)
    assert found == pytest.approx(plain, abs=1e-4)


def test_texts_go_on_as_asked():
    model = network()
    options = [
        {"until": ["\n"], "max_gen_toks": 9},
        {"until": [], "max_gen_toks": 5, "do_sample": True, "temperature": 0.7, "top_k": 0, "num_beams": 1},
        {"max_gen_toks": 0},
        {"until": "e", "max_gen_toks": 30, "temperature": 0.9, "top_p": 0.9},
        {"until": [""], "max_gen_toks": 4, "do_sample": False, "temperature": 0.9},
    ]
    prompts = ["the cat", "sat on", "the mat", "", "and then"]
    pairs = list(zip(prompts, options, strict=True))
    found = MynaLM(model, TOK).generate_until(asked("generate_until", *pairs))
    one_by_one = MynaLM(model, TOK, batch_size=1).generate_until(asked("generate_until", *pairs))
    assert found == one_by_one
    greedy = Sampling(max_tokens=9, temperature=0, stop=["\n"])
    assert found[0] == continue_text(model, TOK, "the cat", greedy)[0]
    assert found[2] == ""
    assert found[4] == continue_text(model, TOK, "and then", Sampling(max_tokens=4, temperature=0))[0]
    drawn = {"max_gen_toks": 8, "do_sample": True}
    twice = MynaLM(model, TOK).generate_until(asked("generate_until", ("the", drawn), ("the", drawn)))
    assert twice[0] != twice[1]  # each request has random numbers of its own
    other = MynaLM(model, TOK, seed=1).generate_until(asked("generate_until", *pairs))
    assert (other[0], other[1] == found[1]) == (found[0], False)


def test_a_long_prompt_leaves_room_for_what_is_written():
    model = network(32)
    lm = MynaLM(model, TOK)
    (found,) = lm.generate_until(asked("generate_until", ("x" * 50 + "the cat", {"max_gen_toks": 20})))
    assert found == continue_text(model, TOK, "xxxxxthe cat", Sampling(max_tokens=20, temperature=0))[0]
    assert lm.cut == 1


def test_an_output_that_is_not_finite_is_refused():
    model = network()
    with torch.no_grad():
        model.ln_f.bias[0] = float("nan")
    lm = MynaLM(model, TOK)
    with pytest.raises(ModelError, match="not finite"):
        lm.loglikelihood(asked("loglikelihood", ("a", "b")))
    with pytest.raises(ModelError, match="not finite"):
        lm.generate_until(asked("generate_until", ("a", {"max_gen_toks": 4})))


def test_an_ending_without_a_token_is_named():
    with pytest.raises(DataError, match="the task task, item 0: the ending '' adds no token"):
        MynaLM(network(), TOK).loglikelihood(asked("loglikelihood", ("a", "")))


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (["local_beams"], UsageError, "asks for the generation option num_beams"),
        (["local_gone"], DataError, r"lm-eval cannot load local_gone: .*gone.jsonl"),
        (["local_odd"], DataError, r"lm-eval cannot run local_odd: UndefinedError"),
    ],
)
def test_a_task_that_cannot_run_is_a_line(tasks, names, error, words):
    with pytest.raises(error, match=words) as caught:
        run_tasks(MynaLM(network(), TOK), names, tasks)
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_tasks_of_its_own(monkeypatch):
    """To read all of the harness's own task files takes a minute."""
    original = lm_eval.tasks.TaskManager.__init__

    def init(self, *args, **options):
        original(self, *args, **options | {"include_defaults": False})

    monkeypatch.setattr(lm_eval.tasks.TaskManager, "__init__", init)


def test_an_unknown_task_names_the_nearest(tasks, no_tasks_of_its_own):
    lm = MynaLM(network(), TOK)
    with pytest.raises(UsageError, match="no task 'local_qiz'; did you mean local_quiz"):
        run_tasks(lm, ["local_quiz", "local_qiz"], tasks)
    with pytest.raises(
        UsageError, match=r"no task '@'; `python -m myna.evaluate.harness ls tasks` lists them"
    ):
        run_tasks(lm, ["@"], tasks)
    with pytest.raises(UsageError, match="is no folder"):
        run_tasks(lm, ["local_quiz"], tasks / "gone")


def test_the_harness_own_task_is_found_without_reading_all(no_tasks_of_its_own):
    assert "arc_easy" in harness._manager(["arc_easy"], None).task_index


def test_the_harness_own_command_line(tasks, tmp_path, no_tasks_of_its_own, monkeypatch, capsys):
    monkeypatch.setattr(
        lm_eval.evaluator, "add_env_info", lambda results: None
    )  # it asks pip and the compilers
    monkeypatch.setattr(sys, "argv", ["pytest"])
    network().save_pretrained(tmp_path / "model", TOK)
    call = ["--model", "myna", "--tasks", "local_quiz", "--include_path", str(tasks)]
    assert (
        main([*call, "--model_args", f"pretrained={tmp_path / 'model'},precision=fp32", "--batch_size", "2"])
        == 0
    )
    lm = MynaLM(network(), TOK)
    expected = harness_scores(run_tasks(lm, ["local_quiz"], tasks), 0)["harness_acc/local_quiz"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "local_quiz" in line]
    assert f"{expected:.4f}" in line
    for argument, words in (
        (f"pretrained={tmp_path / 'model'},device=tpu", "--device is tpu; give auto, cpu, cuda, mps"),
        ("pretrained=/gone/from/here", "/gone/from/here is no model"),
        (f"pretrained={tmp_path / 'model'},colour=red", "--model_args has no colour; it takes: pretrained"),
        ("precision=fp32", "--model_args names no model"),
    ):
        assert main([*call, "--model_args", argument]) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_batch_size_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="batch_size is 0"):
        MynaLM.create_from_arg_string("pretrained=gpt2", {"batch_size": 0, "device": "cpu"})


def test_without_the_harness_there_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([]) == 2
    assert capsys.readouterr().err == (
        "myna: lm-evaluation-harness is not installed; install it: pip install 'myna[eval]'\n"
    )
