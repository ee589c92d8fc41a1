import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from myna.errors import DataError, OutputError
from myna.evaluate.report import COLOURS, final_values, read_curves, report, smoothed
from myna.run import Run
from myna.text.tokenizer import Tokenizer


def dataset(corpus: list[str] | None, tokenizer: str | None) -> dict[str, object]:
    """What recipe.json says of one dataset; the tokenizer by its name."""
    named = {"gpt2": Tokenizer.gpt2, "bytes": Tokenizer.bytes}
    sha256 = tokenizer and (named[tokenizer]().sha256 if tokenizer in named else tokenizer)
    return {"path": "data/x", "corpus": corpus, "tokenizer": sha256, "identity": "0f"}


def make_run(path: Path, steps: int = 60, hellaswag: int = 0, **recipe: object) -> Path:
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
                scores = {"hellaswag_acc": 0.2, "hellaswag_acc_token": 0.26, "hellaswag_items": hellaswag}
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


SAME = dataset(["fineweb-edu"], "gpt2")


@pytest.mark.parametrize(
    ("drawn", "trained_on"),
    [
        pytest.param(True, [SAME], id="same text and tokens"),
        pytest.param(False, [dataset(["my-notes"], "gpt2")], id="other text under the recipe's name"),
        pytest.param(False, [dataset(["fineweb-edu", "wikipedia"], "gpt2")], id="mixed text"),
        pytest.param(False, [SAME, SAME], id="two datasets"),
        pytest.param(False, [dataset(["fineweb-edu"], "bytes")], id="other tokens"),
        pytest.param(False, [dataset(["fineweb-edu"], None)], id="nobody knows the tokens"),
        pytest.param(False, [dataset(None, "gpt2")], id="a foreign format"),
        pytest.param(False, [], id="no dataset"),
        pytest.param(False, [SAME, "x"], id="damaged"),
        pytest.param(False, None, id="a run of an earlier version"),
    ],
)
def test_gpt2s_loss_is_drawn_where_the_datasets_say_so(tmp_path, texts, drawn, trained_on):
    recipe = {"corpus": ["fineweb-edu"], "tokenizer": "gpt2"}
    if trained_on is not None:
        recipe["trained_on"] = trained_on
    report([make_run(tmp_path / "run", **recipe)], tmp_path / "out.png")
    assert any("3.2924" in text for text in texts) == drawn


def test_gpt2s_loss_is_not_drawn_across_a_run_on_other_text(tmp_path, texts):
    same = make_run(tmp_path / "same", trained_on=[SAME])
    other = make_run(tmp_path / "other", trained_on=[dataset(["pydoc"], "gpt2")])
    report([same, other], tmp_path / "out.png")
    assert not any("3.2924" in text for text in texts)
    again = make_run(tmp_path / "again", trained_on=[SAME])
    report([same, again], tmp_path / "out.png")
    assert any("3.2924" in text for text in texts)


GPT2 = {"tokenizer": "gpt2", "n_layer": 12, "n_embd": 768}


@pytest.mark.parametrize(
    ("items", "recipe", "references"),
    [
        pytest.param(10_042, GPT2, {"GPT-2 124M: 0.2945", "GPT-3 124M: 0.337"}, id="124M"),
        pytest.param(
            10_042,
            GPT2 | {"n_layer": 36, "n_embd": 1280},
            {"GPT-2 774M: 0.432", "GPT-3 774M: 0.51"},
            id="774M",
        ),
        pytest.param(
            10_042,
            GPT2 | {"tokenizer": "from-data", "trained_on": [dataset(None, "gpt2")]},
            {"GPT-2 124M: 0.2945", "GPT-3 124M: 0.337"},
            id="the tokenizer as the data names it",
        ),
        pytest.param(10_042, GPT2 | {"n_layer": 4, "n_embd": 128}, set(), id="another size"),
        pytest.param(10_042, GPT2 | {"n_embd": 384}, set(), id="another width"),
        pytest.param(10_042, GPT2 | {"tokenizer": "bytes"}, set(), id="other tokens"),
        pytest.param(500, GPT2, set(), id="a part of the items"),
    ],
)
def test_hellaswags_references_are_drawn_where_they_apply(tmp_path, texts, items, recipe, references):
    report([make_run(tmp_path / "run", hellaswag=items, **recipe)], tmp_path / "out.png")
    assert any(f"mean per token  ·  {items:,} items" in text for text in texts)
    assert "chance: 0.25" in texts
    assert {text for text in texts if text.startswith("GPT-")} == references


def test_a_score_at_chance_can_be_drawn(tmp_path, texts):
    run = make_run(tmp_path / "run")
    Run(run).append_metrics({"step": 61, "tokens": 61_000, "hellaswag_acc_token": 0.25})
    report([run], tmp_path / "out.png")
    assert "chance: 0.25" in texts


def test_several_runs_share_a_picture(tmp_path, texts):
    runs = [make_run(tmp_path / "first"), make_run(tmp_path / "second", steps=80, hellaswag=500)]
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


def test_equal_names_of_different_tokenizers_are_told_apart(tmp_path, texts):
    runs = [
        make_run(tmp_path / name, tokenizer="from-data", trained_on=[dataset(["x"], name)])
        for name in ("first", "second")
    ]
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
    line = final_values(read_curves(make_run(tmp_path / "one", hellaswag=500)))
    assert line.startswith(
        "after 60K tokens  ·  validation loss 3.5833  ·  1.250 bits per byte  ·  train loss 3.08"
    )
    assert line.endswith("HellaSwag 0.2600 ± 0.0196 (chance: 0.25)")


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
