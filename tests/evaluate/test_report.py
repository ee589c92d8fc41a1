import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from myna.errors import DataError, OutputError
from myna.evaluate import report as module
from myna.evaluate.report import COLOURS, final_values, read_curves, report, smoothed
from myna.run import Run


def make_run(path: Path, steps: int = 60, hellaswag: bool = False, **recipe: object) -> Path:
    path.mkdir()
    run = Run(path)
    run.write_recipe(
        {"name": path.name, "corpus": ["pydoc"], "tokenizer": "train:2048", "n_layer": 4} | recipe
    )
    for step in range(steps):
        run.append_metrics({"step": step + 1, "tokens": 1000 * (step + 1), "train_loss": 3 + 5 / (step + 1)})
        if step % 20 == 19:
            record = {"step": step + 1, "tokens": 1000 * (step + 1), "val_loss": 3.5 + 5 / (step + 1)}
            run.append_metrics(record | {"val_bits_per_byte": 1.25})
            if hellaswag:
                scores = {"hellaswag_acc": 0.2, "hellaswag_acc_token": 0.26, "hellaswag_items": 500}
                run.append_metrics({"step": step + 1, "tokens": 1000 * (step + 1)} | scores)
    return path


@pytest.fixture
def texts(monkeypatch):
    """All words of the last figure drawn."""
    found: list[str] = []
    save = Figure.savefig

    def spy(figure: Figure, *args, **kwargs) -> None:
        figure.canvas.draw()
        found[:] = [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_text()]
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return found


def test_a_picture_is_written(tmp_path, texts):
    out = report([make_run(tmp_path / "one")], tmp_path / "new" / "one.png")
    pixels = imread(out)
    assert pixels.shape[0] > 500
    assert pixels.shape[1] > 1000
    for colour in COLOURS[:2]:  # the curve of training, the curve of validation
        assert (np.abs(pixels[..., :3] - to_rgb(colour)) < 0.02).all(axis=-1).sum() > 50
    assert "one" in texts
    assert any("validation loss 3.5833" in text and "1.250 bits per byte" in text for text in texts)
    assert not any("GPT-2" in text or "HellaSwag" in text for text in texts)


def test_gpt2s_loss_is_drawn_where_it_applies_and_only_there(tmp_path, texts):
    where = {
        "same": {"corpus": ["fineweb-edu"], "tokenizer": "gpt2"},
        "other_text": {"corpus": ["fineweb"], "tokenizer": "gpt2"},
        "mixed_text": {"corpus": ["fineweb-edu", "wikipedia"], "tokenizer": "gpt2"},
        "other_tokens": {"corpus": ["fineweb-edu"], "tokenizer": "bytes"},
    }
    for name, recipe in where.items():
        report([make_run(tmp_path / name, **recipe)], tmp_path / "out.png")
        assert any("3.2924" in text for text in texts) == (name == "same"), name


def test_hellaswag_has_its_panel_with_the_references_of_the_models_size(tmp_path, texts):
    report([make_run(tmp_path / "small", hellaswag=True)], tmp_path / "out.png")
    assert any("mean per token  ·  500 items" in text for text in texts)
    assert {"GPT-2 124M: 0.2945", "GPT-3 124M: 0.337", "chance: 0.25"} <= set(texts)
    report([make_run(tmp_path / "large", hellaswag=True, n_layer=36)], tmp_path / "out.png")
    assert {"GPT-2 774M: 0.432", "GPT-3 774M: 0.51"} <= set(texts)
    assert "GPT-2 124M: 0.2945" not in texts


def test_several_runs_share_a_picture(tmp_path, texts):
    runs = [make_run(tmp_path / "first"), make_run(tmp_path / "second", steps=80, hellaswag=True)]
    report(runs, tmp_path / "out.png")
    assert {"2 runs", "first: 3.5833", "second: 3.5625", "second: 0.2600"} <= set(texts)


def test_any_folder_name_can_be_drawn(tmp_path, texts):
    runs = [make_run(tmp_path / "_of$5 and$"), make_run(tmp_path / "plain")]
    report(runs, tmp_path / "out.png")
    assert r"of\$5 and\$: 3.5833" in texts


def test_losses_of_different_tokenizers_are_not_set_side_by_side(tmp_path, texts):
    runs = [make_run(tmp_path / "first"), make_run(tmp_path / "second", tokenizer="bytes")]
    report(runs, tmp_path / "out.png")
    assert {"first: 1.250 bits per byte", "second: 1.250 bits per byte"} <= set(texts)


def test_records_that_hold_no_number_are_passed_over(tmp_path):
    path = make_run(tmp_path / "one")
    with open(path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 61, "tokens": 61_000, "train_loss": float("nan")}) + "\n")
        file.write('{"step": 62, "tok')
    assert len(read_curves(path).train[0]) == 60
    report([path], tmp_path / "out.png")


def test_a_single_point_is_enough(tmp_path):
    report([make_run(tmp_path / "one", steps=1)], tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 0


def test_the_line_of_final_values(tmp_path):
    line = final_values(read_curves(make_run(tmp_path / "one", hellaswag=True)))
    assert line.startswith(
        "after 60K tokens  ·  validation loss 3.5833  ·  1.250 bits per byte  ·  train loss 3.08"
    )
    assert line.endswith("HellaSwag 0.2600")


def test_the_running_mean_keeps_a_straight_line():
    line = np.arange(1000, dtype=np.float64)
    assert np.allclose(smoothed(line)[10:-10], line[10:-10])
    assert smoothed(np.array([5.0])).tolist() == [5.0]


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(DataError, match="no run to draw"):
        report([], tmp_path / "out.png")
    with pytest.raises(DataError, match="not a run"):
        report([tmp_path], tmp_path / "out.png")
    empty = make_run(tmp_path / "empty", steps=0)
    with pytest.raises(DataError, match="no losses yet"):
        report([empty], tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        report([make_run(tmp_path / "one")], tmp_path / "file" / "out.png")


def test_the_references_are_those_of_the_design():
    assert module.GPT2_FINEWEB_EDU_LOSS == 3.2924
    assert [row[1:] for row in module.HELLASWAG.values()] == [
        (0.2945, 0.337),
        (0.3752, 0.436),
        (0.4320, 0.510),
        (0.4889, 0.547),
    ]
