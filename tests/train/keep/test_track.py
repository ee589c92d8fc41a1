import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from myna.errors import UsageError
from myna.run import Run
from myna.store.address import without_secrets
from myna.train.keep.track import NoTracker, open_tracker


def scalars(folder):
    """Tag -> [(step, value)] of TensorBoard's event files."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the libraries' own
def test_tensorboard_gets_what_the_metrics_get(train, tmp_path):
    pytest.importorskip("tensorboard")
    run = train(tmp_path / "run", 4, "--track", "tensorboard", "--eval-every", 2)
    seen, records = scalars(run.path / "tensorboard"), run.metrics()
    for key in ("train_loss", "val_loss", "grad_norm"):
        expected = [(r["step"], pytest.approx(r[key], rel=1e-6)) for r in records if key in r]
        assert seen[key] == expected
    assert len(seen["train_loss"]) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_gets_them_without_a_network_and_no_secret_is_kept(train, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "s" + "3cret" * 8)
    out = tmp_path / "run"
    monkeypatch.setattr(
        sys, "argv", ["myna", "train", "--copy-to", "s3://user:hunter2@bucket/runs?token=hunter2"]
    )
    train(out, 3, "--track", "wandb")
    identity = (out / "wandb_id.txt").read_text().strip()
    assert re.fullmatch("[0-9a-f]{8}", identity)
    assert list((out / "wandb").glob(f"offline-run-*-{identity}"))
    for path in out.rglob("*"):
        if path.is_file():
            assert b"3cret3cret" not in path.read_bytes(), path
            assert b"hunter2" not in path.read_bytes(), path


def test_no_secret_of_the_command_line_is_kept(train, tmp_path, monkeypatch):
    secret = ["myna", "train", "--copy-to", "s3://user:hunter2@bucket/runs?token=hunter2"]
    monkeypatch.setattr(sys, "argv", secret)
    train(tmp_path / "run", 1)
    kept = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert kept["command"] == ["train", "--copy-to", "s3://bucket/runs"]
    assert not any(b"hunter2" in p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file())


def test_a_plain_word_is_left_as_it_is():
    assert without_secrets("--prompt=who? me@home") == "--prompt=who? me@home"


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_library_that_is_missing_is_told(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=rf"--track {name} needs its library: pip install 'myna\[track\]'"):
        open_tracker(name, Run(tmp_path), {}, 0)


def test_off_by_default(tmp_path):
    assert isinstance(open_tracker("none", Run(tmp_path), {}, 0), NoTracker)
    assert list(tmp_path.iterdir()) == []


def test_what_wandb_says_is_told_in_a_line_and_leaves_nothing(refused, tmp_path, monkeypatch):
    class Error(Exception):
        pass

    def init(**_):
        raise Error("\n  no API key configured\nand more")

    def init_in_folder(dir, **_):
        (Path(dir) / "wandb" / "logs").mkdir(parents=True)
        init()

    library = SimpleNamespace(
        init=init_in_folder, Settings=lambda **_: None, errors=SimpleNamespace(Error=Error)
    )
    monkeypatch.setitem(sys.modules, "wandb", library)
    with pytest.raises(UsageError) as caught:
        open_tracker("wandb", Run(tmp_path), {}, 0)
    said = "--track wandb: no API key configured; `wandb login` first, or leave --track out"
    assert str(caught.value) == said
    assert list(tmp_path.iterdir()) == []
    assert said in refused("--out", tmp_path / "new" / "run", "--steps", 1, "--track", "wandb")
    assert list(tmp_path.iterdir()) == []
