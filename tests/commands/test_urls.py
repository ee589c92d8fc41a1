"""Commands with URLs in place of paths: each finds what it needs, and names what is wrong in a line."""

import json

import pytest

from myna.cli import main
from myna.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_run):
    """A run of two checkpoints, as a URL's folder."""
    from myna.commands import train

    folder = tmp_path_factory.mktemp("there") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
        call = ["--steps", "2", "--checkpoint-every", "1", "--eval-every", "2", "--sample-every", "2"]
        train.main([*small_run, *call, "--out", str(folder)])
    return folder


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder of another machine."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_sample_and_compare(run, elsewhere, capsys):
    assert main(["sample", f"file://{run}", "--prompt", "1", "--max-tokens", "2"]) == 0
    call = ["compare", f"file://{run}", "--checkpoints", "--prompt", "1", "--max-tokens", "2", "--json"]
    capsys.readouterr()
    assert main(call) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["model"] for record in records] == [
        f"file://{run}/checkpoints/step_00000001",
        f"file://{run}/checkpoints/step_00000002",
    ]


def test_eval_with_the_dataset_of_the_run_or_another(run, small_dataset, elsewhere, capsys):
    assert (
        main(["eval", f"file://{run}", "--task", "val", "--data", f"file://{small_dataset}", "--json"]) == 0
    )
    scores = json.loads(capsys.readouterr().out)
    recorded = [r["val_loss"] for r in Run(run).metrics() if "val_loss" in r]
    assert scores["val_loss"] == pytest.approx(recorded[-1], abs=1e-4)
    assert scores["data"] == f"file://{small_dataset}"
    assert scores["model"] == f"file://{run}/checkpoints/step_00000002"
    assert main(["eval", f"file://{run}", "--task", "val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["val_loss"] == scores["val_loss"]


def test_report_reads_the_small_files_alone(run, elsewhere, capsys, monkeypatch):
    from myna.store.remote import Remote

    fetched, fetch = [], Remote.fetch

    def noting(self, wanted, into):
        fetched.extend(one.name for one in wanted)
        fetch(self, wanted, into)

    monkeypatch.setattr(Remote, "fetch", noting)
    assert main(["report", f"file://{run}"]) == 0
    said = capsys.readouterr().out
    assert f"file://{run}: " in said
    assert (elsewhere / "report.png").exists()
    assert sorted(fetched) == ["environment.json", "metrics.jsonl", "recipe.json", "samples.jsonl"]


def test_inspect_and_export_write_here(run, elsewhere):
    assert main(["inspect", f"file://{run}", "--show", "tensors"]) == 0
    assert (elsewhere / "inspect" / "index.html").exists() or any((elsewhere / "inspect").glob("*.html"))
    assert main(["export", f"file://{run}", "--to", "hugging-face", "--out", "exported"]) == 0
    assert (elsewhere / "exported" / "model.safetensors").exists()


def test_train_takes_data_and_init_from_urls(run, small_dataset, small_run_with, elsewhere, capsys):
    call = ["--data", f"file://{small_dataset}:1", "--out", "new", "--steps", "1"]
    assert main(["train", *small_run_with(*call)]) == 0
    recipe = Run("new").recipe()
    assert recipe["trained_on"][0]["path"] == f"file://{small_dataset}"
    assert main(["eval", "new", "--task", "val"]) == 0
    tuned = ["shakespeare-char", "--init", f"file://{run}", "--data", f"file://{small_dataset}"]
    tuned += ["--steps", "1", "--batch-tokens", "64", "--micro-batch", "2", "--device", "cpu", "--no-compile"]
    assert main(["train", *tuned, "--out", "tuned"]) == 0
    assert "starting from " in capsys.readouterr().out


@pytest.mark.parametrize(
    "call",
    [
        ["sample", "{}", "--prompt", "a"],
        ["chat", "{}"],
        ["serve", "{}", "--port", "0"],
        ["compare", "{}", "{}", "--prompt", "a"],
        ["compare", "{}", "--checkpoints", "--prompt", "a"],
        ["inspect", "{}"],
        ["export", "{}", "--to", "hugging-face", "--out", "new"],
        ["eval", "{}", "--task", "val"],
        ["eval", "gpt2", "--task", "hellaswag", "--data", "{}"],
        ["report", "{}"],
        ["report", "{}", "--watch"],
        ["data", "show", "{}"],
        ["data", "join", "{}"],
        ["train", "shakespeare-char", "--data", "{}"],
        ["train", "shakespeare-char", "--init", "{}"],
    ],
    ids=lambda call: " ".join(call),
)
@pytest.mark.parametrize("url", ["memory://no/such/place", "s4://me:hunter2@bucket/x"])
def test_a_wrong_url_is_a_line(call, url, elsewhere, capsys):
    assert main([word.format(url) for word in call]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"myna {call[0]}: ")
    assert said.count("\n") == 1
    assert "hunter2" not in said
    assert list(elsewhere.iterdir()) == []
