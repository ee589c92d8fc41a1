"""The rows of a sweep, its parts, its file and its table."""

import json
from pathlib import Path

import pytest

from myna.errors import DataError, UsageError
from myna.run import Run
from myna.sweep import (
    LECTURE,
    Sweep,
    Variation,
    combinations,
    markdown,
    read_fields,
    result_of,
    write_outcome,
)


def sweep(seeds: tuple[int, ...] = (1, 2)) -> Sweep:
    fixed, rows = combinations({"learning_rate": ["1e-3", "2e-3"], "steps": ["5"]})
    return Sweep("pydoc", fixed, rows, seeds, {"micro_batch": 4})


def test_every_combination_is_a_row_and_one_value_is_for_all():
    fixed, rows = combinations(read_fields(["a=1,2", "b=x", "network.c=p,q"]))
    assert fixed == {"b": "x"}
    assert [dict(row.settings) for row in rows] == [
        {"a": a, "network.c": c} for a in ("1", "2") for c in ("p", "q")
    ]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (["learning-rate"], "names no values"),
        (["=1,2"], "names no values"),
        (["a=1,"], "names no values"),
        (["a=1,1"], "a value twice"),
        (["a-b=1,2", "a_b=3"], "given twice"),
    ],
)
def test_fields_that_say_nothing_are_refused(fields, says):
    with pytest.raises(UsageError, match=says):
        read_fields(fields)


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_parts_are_all_runs_each_once(of):
    all_of_them = sweep((1, 2, 3)).trials()
    parts = [sweep((1, 2, 3)).part(n, of) for n in range(1, of + 1)]
    assert sorted(trial.name for part in parts for trial in part) == sorted(t.name for t in all_of_them)


def test_names_of_folders_differ_and_are_plain():
    names = [trial.name for trial in LECTURE.trials()]
    assert len(set(names)) == len(LECTURE.variations) * len(LECTURE.seeds)
    assert all("/" not in name and " " not in name for name in names)


def test_its_file_comes_back(tmp_path):
    path = tmp_path / "sweep.json"
    for one in (sweep(), LECTURE):
        one.write(path)
        assert Sweep.read(path) == one


@pytest.mark.parametrize("damage", [{"format": "other"}, {"seeds": 3}, {"variations": [{"nme": "x"}]}])
def test_another_file_is_refused(tmp_path, damage):
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(sweep().to_json() | damage))
    with pytest.raises(DataError, match="is no sweep's file"):
        Sweep.read(path)


def recorded(folder: Path, losses: list[float], seconds: float = 2.0) -> None:
    folder.mkdir()
    for step, loss in enumerate(losses, 1):
        Run(folder).append_metrics(
            {"step": step, "tokens": 10 * step, "train_loss": loss + 1, "seconds": seconds}
        )
        Run(folder).append_metrics({"step": step, "tokens": 10 * step, "val_loss": loss})


def test_the_table_says_means_deviations_and_what_went_wrong(tmp_path):
    it = sweep()
    (a1, b1, a2, b2) = it.trials()
    for trial, losses in ((a1, [3.0, 2.0]), (a2, [3.0, 2.2]), (b1, [5.0])):
        recorded(tmp_path / trial.name, losses)
        write_outcome(tmp_path / trial.name, "finished" if trial is not b1 else "diverged", "step 2: nan")
    results = [result_of(tmp_path / trial.name, trial) for trial in it.trials()]
    assert markdown(it, results).splitlines()[2:] == [
        "| learning_rate=1e-3 | 2.1000 | 0.1414 |  | 2 of 2 | 20 | 4 |  |",
        "| learning_rate=2e-3 |  |  |  | 0 of 2 | 10 | 2 | diverged at step 2 (seed 1); not run yet (seed 2) |",
    ]
    recorded(tmp_path / b2.name, [2.5])
    write_outcome(tmp_path / b2.name, "failed", "no space left")
    table = markdown(it, [result_of(tmp_path / trial.name, trial) for trial in it.trials()])
    assert "failed: no space left (seed 2)" in table


def test_the_difference_is_to_the_first_row(tmp_path):
    it = Sweep("pydoc", {}, (Variation("base", {}), Variation("other", {"clip_norm": "0"})), (1,))
    for trial, loss in zip(it.trials(), (2.0, 1.75), strict=True):
        recorded(tmp_path / trial.name, [loss])
        write_outcome(tmp_path / trial.name, "finished")
    results = [result_of(tmp_path / trial.name, trial) for trial in it.trials()]
    assert "| other | 1.7500 |  | -0.2500 |" in markdown(it, results)


def test_a_damaged_outcome_is_named(tmp_path):
    trial = sweep().trials()[0]
    (tmp_path / trial.name).mkdir()
    (tmp_path / trial.name / "outcome.json").write_text('{"outcome": "won"}')
    with pytest.raises(DataError, match="names no outcome"):
        result_of(tmp_path / trial.name, trial)
