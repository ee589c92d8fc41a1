import pytest

from myna.errors import DataError, OutputError
from myna.evaluate import report as module
from myna.evaluate.report import report, watch
from myna.run import Run


def test_a_picture_and_a_page_are_written_beside_each_other(make_run, tmp_path):
    drawn = report([make_run(tmp_path / "one")], tmp_path / "new" / "one.png")
    assert [curves.name for curves in drawn] == ["one"]
    assert (tmp_path / "new" / "one.png").read_bytes().startswith(b"\x89PNG")
    assert "<title>one</title>" in (tmp_path / "new" / "one.html").read_text("utf-8")


def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(make_run, tmp_path):
    with pytest.raises(DataError, match="no run to draw"):
        report([], tmp_path / "out.png")
    with pytest.raises(DataError, match="not a run"):
        report([tmp_path], tmp_path / "out.png")
    empty = make_run(tmp_path / "empty", steps=0)
    with pytest.raises(DataError, match="no losses yet"):
        report([make_run(tmp_path / "one"), empty], tmp_path / "out.png")
    assert not list(tmp_path.glob("out.*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        report([tmp_path / "one"], tmp_path / "file" / "out.png")


@pytest.fixture
def looks(monkeypatch):
    """What happens between two looks: a list of functions, the last of which ends the run."""
    left = []

    def is_written(run):
        return bool(left), "lock"

    monkeypatch.setattr(Run, "is_written", is_written)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: left.pop(0)())
    return left


def test_a_run_is_drawn_again_when_it_has_recorded_more(make_run, tmp_path, looks):
    path = make_run(tmp_path / "run", steps=0)
    run, seen = Run(path), []
    step = {"step": 1, "tokens": 100, "train_loss": 5.0}
    looks += [
        lambda: run.append_metrics(step),
        lambda: None,
        lambda: run.append_sample({"step": 1, "prompt": "a", "text": "b"}),
        lambda: run.append_metrics(step | {"step": 2, "tokens": 200}),
        lambda: None,
    ]
    watch([path], tmp_path / "out.png", lambda drawn: seen.append(drawn[0].last_step))
    assert seen == [1, 1, 2]  # nothing before the first loss, and once for each change
    assert 'data-reload="5"' in (tmp_path / "out.html").read_text("utf-8")
    report([path], tmp_path / "out.png")
    assert "data-reload=" not in (tmp_path / "out.html").read_text("utf-8")


def test_what_is_no_run_is_not_waited_for(tmp_path, looks):
    looks.append(lambda: None)
    with pytest.raises(DataError, match="not a run"):
        watch([tmp_path], tmp_path / "out.png", lambda drawn: None)
