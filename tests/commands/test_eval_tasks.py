"""`myna eval` with tasks of choices: the letters, MMLU, CORE, and the harness."""

import json
from pathlib import Path

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import main
from myna.commands.eval_tasks.core import shown
from myna.evaluate.core_bundle import CORE_LABELS


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=128, vocab_size=257))
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder, Tokenizer.bytes())
    return folder


@pytest.fixture
def mmlu(tmp_path: Path) -> Path:
    for split in ("dev", "test"):
        (tmp_path / split).mkdir()
        for subject in ("anatomy", "world_religions"):
            lines = [f"What is {n}?,one,two,three,four,{'ABCD'[n % 4]}\n" for n in range(6)]
            (tmp_path / split / f"{subject}_{split}.csv").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    entries = "".join(
        f"- {{label: {label}, dataset_uri: x.jsonl, num_fewshot: [1], icl_task_type: multiple_choice}}\n"
        for label in sorted(CORE_LABELS)
    )
    (tmp_path / "core.yaml").write_text("icl_tasks:\n" + entries)
    (tmp_path / "eval_meta_data.csv").write_text(
        "Eval Task,Random baseline\n" + "".join(f"{label},50\n" for label in CORE_LABELS)
    )
    (tmp_path / "eval_data").mkdir()
    rows = [{"query": f"Is it {n}?", "choices": ["yes", "no"], "gold": n % 2} for n in range(4)]
    (tmp_path / "eval_data" / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def hellaswag_file(tmp_path: Path) -> Path:
    rows = [
        {"ctx": "A man sits. he", "endings": ["rows.", "sinks.", "waves.", "is."], "label": n % 4}
        for n in range(8)
    ]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "h.jsonl"


@pytest.fixture
def evaluate(model_folder, capsys):
    """Calls `myna eval`: the exit code, and what was printed: JSON as an object, else lines."""

    def call(*args: object, model: object = model_folder):
        capsys.readouterr()
        code = main(["eval", str(model), *map(str, args), "--device", "cpu", "--precision", "fp32"])
        said = capsys.readouterr()
        if code:
            assert said.out == ""
            return code, said.err
        return code, json.loads(said.out) if "--json" in args else said.out

    return call


def test_mmlu_by_letters_and_by_endings(evaluate, mmlu):
    code, found = evaluate("--task", "mmlu", "--data", mmlu, "--json")
    assert code == 0
    # Every prompt is longer than 128 positions: five examples.
    assert (found["style"], found["mmlu_shots"], found["mmlu_items"], found["mmlu_cut"]) == (
        "letters",
        5,
        12,
        12,
    )
    assert found["mmlu_acc"] == pytest.approx(
        (found["mmlu_acc/anatomy"] + found["mmlu_acc/world_religions"]) / 2
    )
    assert found["mmlu_acc_macro"] == pytest.approx(found["mmlu_acc"])
    assert found["mmlu_acc_stderr/anatomy"] > 0
    assert "mmlu_acc_char" not in found
    code, found = evaluate("--task", "mmlu", "--data", mmlu, "--style", "ending", "--shots", "0", "--json")
    assert (found["style"], found["mmlu_shots"], found["mmlu_cut"]) == ("ending", 0, 0)
    assert 0 <= found["mmlu_acc_char"] <= 1
    code, text = evaluate("--task", "mmlu", "--data", mmlu)
    (line,) = [line for line in text.splitlines() if line.startswith("mmlu_acc ")]
    assert "± 0.1" in line
    assert line.endswith("(chance 0.2500)")
    (line,) = [line for line in text.splitlines() if line.startswith("mmlu_acc/world_religions")]
    assert line.endswith("(chance 0.2500)")


def test_hellaswag_by_letters(evaluate, hellaswag_file):
    code, found = evaluate("--task", "hellaswag", "--data", hellaswag_file, "--style", "letters", "--json")
    assert code == 0
    assert (found["hellaswag_letters_acc"], found["hellaswag_items"]) == (
        0.25,
        8,
    )  # the same prompt, four labels
    assert found["hellaswag_letters_acc_stderr"] == pytest.approx((0.25 * 0.75 / 8) ** 0.5)
    assert found["hellaswag_chance"] == 0.25
    assert "hellaswag_acc" not in found
    code, found = evaluate("--task", "hellaswag", "--data", hellaswag_file, "--style", "ending", "--json")
    assert "hellaswag_letters_acc" not in found
    assert 0 <= found["hellaswag_acc_char"] <= 1


def test_core_is_shown_beside_gpt2(evaluate, bundle):
    code, found = evaluate("--task", "core", "--data", bundle, "--json")
    assert code == 0
    assert found["core"] == pytest.approx(2 * found["core_acc/piqa"] - 1)
    assert found["core_stderr"] == pytest.approx(0.5 / 2 / 0.5 / 22**0.5)
    code, text = evaluate("--task", "core", "--data", bundle, "--weights", "fp32")
    *tasks, last = text.splitlines()
    assert (
        last.split()
        == (
            f"CORE {found['core']:.4f} ± {found['core_stderr']:.4f} "
            "(chance 0; GPT-2: 124M 0.1139, 350M 0.1849, 774M 0.2146, 1558M 0.2565)"
        ).split()
    )
    (line,) = [line for line in tasks if line.startswith("lambada_openai ")]
    assert "0.5000 ± 0.2500 (chance 0.5000), centred +0.0000 ± 0.5000; 1-shot, 4 items, 0 cut" in line


def test_a_part_of_the_bundle_has_no_core(evaluate, bundle):
    path = bundle / "core.yaml"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    code, found = evaluate("--task", "core", "--data", bundle, "--json")
    assert code == 0
    assert "core" not in found
    code, text = evaluate("--task", "core", "--data", bundle)
    assert "CORE                 not given: it is the mean of 22 tasks, and these are 2" in text


def test_what_other_weights_cost_is_shown():
    scores = {"core": 0.25, "core_stderr": 0.01, "core_cost": -0.0125}
    assert shown(scores)["core_cost"] == "-0.0125"


def test_the_harness_by_name(evaluate, tmp_path):
    pytest.importorskip("lm_eval")
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"question": f"Is it {n}?", "answer": n % 2}) + "\n" for n in range(6))
    )
    (tmp_path / "quiz.yaml").write_text(
        f"task: yes_or_no\ndataset_path: json\ntest_split: test\noutput_type: multiple_choice\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}, cache_dir: {tmp_path / 'cache'}}}\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: ["yes", "no"]\ndoc_to_target: answer\n'
        "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
    )
    code, found = evaluate("--task", "harness:yes_or_no", "--data", tmp_path, "--json")
    assert code == 0
    assert (found["harness_chance/yes_or_no"], found["harness_items/yes_or_no"]) == (0.5, 6)
    code, text = evaluate("--task", "harness:yes_or_no", "--data", tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("harness_acc/yes_or_no")]
    error = found["harness_acc_stderr/yes_or_no"]
    assert line.endswith(f" {found['harness_acc/yes_or_no']:.4f} ± {error:.4f} (chance 0.5000)")


def test_what_is_wrong_is_a_line(evaluate, mmlu, bundle, hellaswag_file, tmp_path, model_folder, monkeypatch):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((model_folder / name).read_bytes())
    cases = [
        (("--task", "mmlu"), "--task mmlu needs --data FOLDER"),
        (("--task", "mmlu", "--data", tmp_path / "gone"), "there is no folder"),
        (("--task", "mmlu", "--data", mmlu, "--shots", "-1"), "--shots is -1"),
        (
            ("--task", "mmlu", "--data", mmlu, "--shots", "7"),
            "has 6 examples of anatomy in dev, fewer than the 7",
        ),
        (("--task", "core"), "--task core needs --data FOLDER"),
        (("--task", "core", "--data", mmlu / "dev"), "core.yaml: No such file"),
        (
            ("--task", "core", "--data", bundle, "--shots", "3"),
            "--shots is a flag of --task mmlu and harness",
        ),
        (
            ("--task", "val", "--data", mmlu, "--style", "letters"),
            "--style is a flag of --task hellaswag and mmlu",
        ),
        (("--task", "harness"), "give --task harness:NAME[,NAME]"),
        (("--task", "harness:x", "--shots", "-1"), "--shots is -1"),
        (("--task", "harness:,"), "--task harness:, names no task"),
    ]
    for args, words in cases:
        code, said = evaluate(*args)
        assert code == 2, words
        assert words in said
        assert said.count("\n") == 1, said
    for task, data in (("mmlu", mmlu), ("core", bundle), ("hellaswag", hellaswag_file)):
        code, said = evaluate("--task", task, "--data", data, model=bare)
        assert code == 2
        assert "has no tokenizer beside the weights; name one with --tokenizer" in said
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, said = evaluate("--task", "harness:x")
    assert (code, said) == (
        2,
        "myna eval: lm-evaluation-harness is not installed; install it: pip install 'myna[eval]'\n",
    )
