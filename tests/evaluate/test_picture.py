import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from myna.evaluate.curves import read_all
from myna.evaluate.panels import GREY, panels
from myna.evaluate.picture import COLOURS, picture
from myna.evaluate.report import report
from myna.run import Run


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


def draw(*runs) -> np.ndarray:
    return imread(io.BytesIO(picture(read_all(runs))))


def test_a_picture_is_drawn(make_run, tmp_path, texts):
    pixels = draw(make_run(tmp_path / "one"))
    assert pixels.shape[0] > 500
    assert pixels.shape[1] > 1000
    for colour in COLOURS[:2]:  # the curve of training, the curve of validation
        assert (np.abs(pixels[..., :3] - to_rgb(colour)) < 0.02).all(axis=-1).sum() > 50
    assert "one" in texts
    assert any("validation loss 3.5833" in text and "1.250 bits per byte" in text for text in texts)
    assert not any("GPT-2" in text or "HellaSwag" in text for text in texts)


def test_gpt2s_loss_is_drawn_where_it_applies_to_every_run(make_run, dataset, tmp_path, texts):
    fineweb_edu = [dataset(["fineweb-edu"], "gpt2")]
    same = make_run(tmp_path / "same", trained_on=fineweb_edu)
    again = make_run(tmp_path / "again", trained_on=fineweb_edu)
    draw(same, again)
    assert "GPT-2 124M on FineWeb-Edu, validation: 3.2924" in texts
    draw(same, make_run(tmp_path / "other", trained_on=[dataset(["pydoc"], "gpt2")]))
    assert not any("3.2924" in text for text in texts)
    draw(same, make_run(tmp_path / "fineweb", trained_on=[dataset(["fineweb"], "gpt2")]))
    assert not any("GPT-2" in text for text in texts)


def test_llmcs_curve_is_drawn_where_it_applies_to_every_run(make_run, make_gpt2_run, tmp_path, texts):
    run = make_gpt2_run(tmp_path / "gpt2", steps=1000)
    words = {"GPT-2 124M on FineWeb, validation: 3.4250", "llm.c's GPT-2 124M on FineWeb, validation"}
    draw(run)
    assert words <= set(texts)
    draw(run, make_run(tmp_path / "other"))
    assert not words & set(texts)


GPT2 = {"tokenizer": "gpt2", "n_layer": 12, "n_embd": 768}


@pytest.mark.parametrize(
    ("items", "recipe", "references"),
    [
        pytest.param(10_042, GPT2, {"GPT-2 124M: 0.2945", "GPT-3 124M: 0.337"}, id="124M"),
        pytest.param(500, GPT2, set(), id="a part of the items"),
    ],
)
def test_hellaswags_references_are_drawn_where_they_apply(
    make_run, tmp_path, texts, items, recipe, references
):
    draw(make_run(tmp_path / "run", hellaswag=items, **recipe))
    assert any(f"mean per token  ·  {items:,} items" in text for text in texts)
    assert "chance: 0.25" in texts
    assert {text for text in texts if text.startswith("GPT-")} == references


def test_a_score_at_chance_can_be_drawn(make_run, tmp_path, texts):
    run = make_run(tmp_path / "run")
    Run(run).append_metrics({"step": 61, "tokens": 61_000, "hellaswag_acc_token": 0.25})
    draw(run)
    assert "chance: 0.25" in texts


def test_several_runs_share_a_picture(make_run, tmp_path, texts):
    draw(make_run(tmp_path / "first"), make_run(tmp_path / "second", steps=80, hellaswag=500))
    assert {"2 runs", "first: 3.5833", "second: 3.5625", "second: 0.2600"} <= set(texts)


def test_any_folder_name_can_be_drawn(make_run, tmp_path, texts):
    draw(make_run(tmp_path / "_of$5 and$"), make_run(tmp_path / "plain\udcff", name="plain"))
    assert {r"of\$5 and\$: 3.5833", "plain?: 3.5833"} <= set(texts)


def test_losses_of_different_tokenizers_are_not_set_side_by_side(make_run, dataset, tmp_path, texts):
    draw(make_run(tmp_path / "first"), make_run(tmp_path / "second", tokenizer="bytes"))
    assert {"first: 1.250 bits per byte", "second: 1.250 bits per byte"} <= set(texts)
    hashes = [[dataset(["x"], name)] for name in ("one", "another")]
    runs = [
        make_run(tmp_path / f"from {n}", tokenizer="from-data", trained_on=one)
        for n, one in enumerate(hashes)
    ]
    draw(*runs)
    assert {"from 0: 1.250 bits per byte", "from 1: 1.250 bits per byte"} <= set(texts)


def test_the_datasets_of_a_mixture_are_named(make_run, tmp_path, texts):
    run = make_run(tmp_path / "run")
    for step in (20, 40):
        Run(run).append_metrics(
            {"step": step, "tokens": 1000 * step, "val_loss/web": 3.5, "val_loss/of$": 9.0}
        )
    draw(run)
    assert {"validation, web", r"validation, of\$"} <= set(texts)


def test_a_single_point_is_enough(make_run, tmp_path):
    assert draw(make_run(tmp_path / "one", steps=1)).size > 0


def test_more_runs_than_colours_get_a_panel_for_each_row(make_run, tmp_path, texts):
    paths = [make_run(tmp_path / f"run{number}") for number in range(len(COLOURS) + 2)]
    report(paths, tmp_path / "each.png")
    assert {path.name for path in paths} <= set(texts)
    report(paths, tmp_path / "rows.png", rows={"base": paths[:2], "other": paths[2:]})
    assert {f"{len(paths)} runs", "base", "other", "3.583", "+0.000"} <= set(texts)
    assert not {path.name for path in paths} & set(texts)
    pixels = imread(tmp_path / "rows.png")
    for colour in (GREY, COLOURS[0]):
        assert (np.abs(pixels[..., :3] - to_rgb(colour)) < 0.02).all(axis=-1).sum() > 50


def test_a_row_without_a_validation_loss_has_no_difference(make_run, tmp_path, texts):
    empty = Run(make_run(tmp_path / "empty", steps=0))
    empty.metrics_path.write_text('{"step": 1, "tokens": 10, "train_loss": 2.5}\n')
    png = panels({"base": read_all([make_run(tmp_path / "one")]), "other": read_all([empty.path])})
    assert png.startswith(b"\x89PNG")
    assert "3.583" in texts
    assert not any(text.startswith(("+", "-")) for text in texts)
