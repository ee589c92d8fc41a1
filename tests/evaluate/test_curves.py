import numpy as np
import pytest

from myna.errors import DataError
from myna.evaluate.curves import NothingRecordedError, final_values, read_all, read_curves, smoothed


def test_lines_and_values_that_hold_no_number_are_passed_over(make_run, tmp_path):
    path = make_run(tmp_path / "one")
    with open(path / "metrics.jsonl", "a", encoding="utf-8") as file:
        for value in ('"low"', "true", "1" + "0" * 400, "null", "NaN"):
            file.write(f'{{"step": 61, "tokens": 61000, "train_loss": {value}}}\n')
        file.write('{"step": 61, "train_loss": 3.0}\n[1, 2]\n{"step": 62, "tok')
    curves = read_curves(path)
    assert len(curves.train) == 60
    assert curves.not_finite == [61]
    assert (curves.last_step, curves.last_tokens) == (60, 60_000)


def test_absurd_numbers_are_passed_over(make_run, tmp_path):
    path = make_run(tmp_path / "one", hellaswag=500)
    with open(path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 61, "tokens": 61000, "val_loss": 1e308, "hellaswag_acc_token": 1.5}\n')
        file.write('{"step": 62, "tokens": 1e308, "val_loss": 3.0}\n')
    curves = read_curves(path)
    assert (len(curves.val), len(curves.hellaswag), curves.not_finite) == (3, 3, [61])


def test_a_step_that_ran_twice_counts_once_and_a_curve_never_goes_back(make_run, write_records, tmp_path):
    path = make_run(tmp_path / "one", steps=1)
    tokens = {1: 100, 2: 200, 3: 150, 4: 400}
    records = [{"step": step, "tokens": t, "train_loss": 1.0} for step, t in tokens.items()]
    again = {"step": 2, "tokens": 200, "train_loss": 2.0, "skipped": 0}
    write_records(path, [*records, again])
    train = read_curves(path).train
    assert train.steps.tolist() == [1, 2, 4]
    assert train.values.tolist() == [1.0, 2.0, 1.0]


def test_names_tell_runs_apart_and_a_run_given_twice_is_read_once(make_run, tmp_path):
    paths = [make_run(tmp_path / name) for name in ("a/run", "b/run", "other")]
    found = read_all([*paths, paths[0] / ".." / "run"])
    assert [curves.name for curves in found] == ["a/run", "b/run", "other"]


def test_the_line_of_final_values(make_run, tmp_path):
    line = final_values(read_curves(make_run(tmp_path / "one", hellaswag=500)))
    assert line.startswith(
        "after 60K tokens  ·  validation loss 3.5833  ·  1.250 bits per byte  ·  train loss 3.08"
    )
    assert line.endswith("HellaSwag 0.2600 ± 0.0196 (chance: 0.25)")


def test_the_running_mean_keeps_a_straight_line():
    line = np.arange(1000, dtype=np.float64)
    assert np.allclose(smoothed(line)[10:-10], line[10:-10])
    assert smoothed(np.array([5.0])).tolist() == [5.0]


def test_what_holds_no_curve_is_refused(make_run, tmp_path):
    with pytest.raises(DataError, match="not a run"):
        read_curves(tmp_path)
    with pytest.raises(NothingRecordedError, match=r"metrics\.jsonl has no losses yet"):
        read_curves(make_run(tmp_path / "empty", steps=0))
