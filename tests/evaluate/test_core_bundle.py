"""CORE's bundle as files: what is read from it, and how what is wrong with it is named."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from myna.errors import DataError
from myna.evaluate.core_bundle import CORE_LABELS, Item, is_whole, read_bundle

CHOICES = [{"query": f"Q{n}", "choices": ["yes", "no"], "gold": n % 2} for n in range(6)]
YAML = """
icl_tasks:
-
  label: quiz
  dataset_uri: some/quiz.jsonl
  num_fewshot: [2]
  icl_task_type: multiple_choice
  continuation_delimiter: "\\nAnswer: "
"""
CSV = "Eval Task,Random baseline\nquiz,50\nother,0\n"


def bundle(folder: Path, rows: object = CHOICES, yaml: str = YAML, csv: str = CSV) -> Path:
    (folder / "eval_data" / "some").mkdir(parents=True, exist_ok=True)
    (folder / "core.yaml").write_text(yaml)
    (folder / "eval_meta_data.csv").write_text(csv)
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "eval_data" / "some" / "quiz.jsonl").write_text(text)
    return folder


def test_the_order_and_the_examples_are_the_published_ones(tmp_path):
    (task,) = read_bundle(bundle(tmp_path))
    expected = [row["query"] for row in CHOICES]
    random.Random(1337).shuffle(expected)
    assert [item.contexts[0] for item in task.items] == expected
    assert (task.kind, task.shots, task.chance) == ("multiple_choice", 2, 0.5)
    for number, item in enumerate(task.items):
        others = [i for i in range(6) if i != number]
        shown = [task.items[i] for i in random.Random(1234 + number).sample(others, 2)]
        before = "".join(f"{one.contexts[0]}\nAnswer: {one.endings[one.gold]}\n\n" for one in shown)
        assert task.texts(number) == tuple(f"{before}{item.contexts[0]}\nAnswer: {c}" for c in ("yes", "no"))


def test_each_kind_has_its_sides(tmp_path):
    schema = [{"context_options": ["He", "She"], "continuation": "went.", "gold": 1}] * 3
    (task,) = read_bundle(bundle(tmp_path, schema, YAML.replace("multiple_choice", "schema")))
    assert task.items[0] == Item(("He", "She"), ("went.",), 1)
    assert task.texts(0)[0] == "She\nAnswer: went.\n\n" * 2 + "He\nAnswer: went."
    model = [{"context": " One and \n", "continuation": "two"}] * 3
    (task,) = read_bundle(bundle(tmp_path, model, YAML.replace("multiple_choice", "language_modeling")))
    assert task.texts(0) == ("One and\nAnswer: two\n\n" * 2 + "One and\nAnswer: two",)
    assert task.context(0) == "One and\nAnswer: two\n\n" * 2 + "One and\nAnswer:"


def test_the_delimiter_is_a_space_where_none_is_named(tmp_path):
    yaml = "\n".join(line for line in YAML.splitlines() if "delimiter" not in line)
    (task,) = read_bundle(bundle(tmp_path, yaml=yaml))
    assert task.texts(0)[0].endswith(f"{task.items[0].contexts[0]} yes")


def test_core_has_22_tasks_in_all_its_rooms():
    assert len(CORE_LABELS) == 22
    assert not is_whole([])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": "not json\n"}, r"quiz.jsonl, line 1: Expecting value"),
        ({"rows": [*CHOICES, [1]]}, r"quiz.jsonl, line 7: no text in field 'query'"),
        ({"rows": [*CHOICES, CHOICES[0] | {"gold": 2}]}, r"line 7: gold is 2, .*\(0 to 1\)"),
        ({"rows": [*CHOICES, CHOICES[0] | {"gold": True}]}, r"line 7: gold is True"),
        ({"rows": [*CHOICES, CHOICES[0] | {"choices": ["one"]}]}, r"line 7: field 'choices'"),
        ({"rows": [CHOICES[0] | {"choices": ["yes", " "]}]}, r"line 1: field 'choices' has an empty text"),
        ({"rows": [CHOICES[0] | {"query": "\ud800"}]}, r"line 1: field 'query' has a lone surrogate"),
        ({"rows": CHOICES[:2]}, r"quiz.jsonl has 2 items, too few for 2 examples before each \(quiz\)"),
        ({"yaml": "icl_tasks: ["}, r"core.yaml is not YAML"),
        ({"yaml": "tasks: 3"}, r"core.yaml has no list icl_tasks"),
        ({"yaml": "icl_tasks: [3]"}, r"core.yaml, task 1 is no mapping"),
        ({"yaml": YAML + YAML.split("icl_tasks:")[1]}, r"core.yaml has two tasks 'quiz'"),
        (
            {"yaml": YAML.replace("multiple_choice", "essay")},
            r"task 1 \(quiz\): there is no icl_task_type 'essay'",
        ),
        ({"yaml": YAML.replace("[2]", "many")}, r"num_fewshot is 'many'"),
        ({"yaml": YAML.replace("label: quiz", "label: puzzle")}, r"has no baseline of puzzle"),
        (
            {"yaml": YAML.replace("some/quiz", "some/gone")},
            r"eval_data/some/gone.jsonl, of the task quiz, is not there",
        ),
        ({"csv": "Eval Task\nquiz\n"}, r"eval_meta_data.csv has no baseline"),
        (
            {"csv": CSV.replace("50", "100")},
            r"eval_meta_data.csv has no baseline .*the baseline of quiz is 100",
        ),
    ],
)
def test_what_is_wrong_is_named_in_a_line(tmp_path, change, words):
    with pytest.raises(DataError, match=words) as caught:
        read_bundle(bundle(tmp_path, **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["core.yaml", "eval_meta_data.csv"])
def test_a_missing_file_is_named(tmp_path, name):
    (bundle(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=f"{name}: No such file"):
        read_bundle(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        read_bundle(tmp_path)


def test_reading_a_bundle_takes_no_torch():
    script = "import sys, myna.evaluate.core_bundle; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
