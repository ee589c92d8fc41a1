"""The runs of a folder over HTTP: names that lead out, files that a crash cut, and a run that goes on meanwhile."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from myna.locks import lock_is_held
from myna.references import HELLASWAG_ITEMS, gpt2_sha256
from myna.run import Run
from myna.serve.app import build_app
from myna.serve.limits import Guard, Limits
from myna.serve.measures import Measures
from myna.serve.models import Models
from myna.serve.runs import run_routes

RECIPE = {"name": "tiny", "network": "gpt2", "steps": 40, "n_layer": 12, "n_embd": 768, "tokenizer": "gpt2"}


def make_run(path: Path, steps: int = 20, **recipe: object) -> Run:
    path.mkdir(parents=True)
    run = Run(path)
    run.write_recipe(RECIPE | recipe)
    for step in range(1, steps + 1):
        train(run, step)
        if step % 10 == 0:
            at = {"step": step, "tokens": 100 * step}
            run.append_metrics(at | {"val_loss": 4.0 + 1 / step, "val_bits_per_byte": 1.5})
            run.append_metrics(at | {"hellaswag_acc_token": 0.26, "hellaswag_items": HELLASWAG_ITEMS})
            run.append_sample({"step": step, "prompt": "A", "text": f" text of {step}"})
    return run


def train(run: Run, step: int) -> None:
    run.append_metrics(
        {"step": step, "tokens": 100 * step, "train_loss": 3 + 5 / step, "tokens_per_second": 1e3}
    )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_run(tmp_path / "runs" / "one")
    return tmp_path / "runs"


def client_of(path: Path | None) -> TestClient:
    measures = Measures()
    app, _ = build_app(Models([]), Limits(), Guard(None, []), measures, [*run_routes(path)])
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.fixture
def ask(runs: Path) -> Iterator[Callable[..., dict]]:
    with client_of(runs) as client:

        def get(path: str, status: int = 200) -> dict:
            answer = client.get(path)
            assert answer.status_code == status, answer.text
            return answer.json()

        yield get


def test_the_list_says_what_each_run_is(ask, runs):
    make_run(runs / "two", steps=0)
    (runs / "no run").mkdir()
    (runs / "a file").write_text("")
    found = ask("/v1/runs")
    assert found["folder"] == "runs"
    lines = {line["name"]: line for line in found["data"]}
    assert set(lines) == {"one", "two"}
    one = lines["one"]
    assert (one["recipe"], one["network"], one["steps"]) == ("tiny", "gpt2", 40)
    assert (one["step"], one["tokens"], one["val_loss"], one["hellaswag"]) == (20, 2000, 4.05, 0.26)
    assert one["problem"] is None
    assert (lines["two"]["step"], lines["two"]["val_loss"]) == (None, None)


def test_without_a_folder_the_list_is_empty_and_says_so():
    with client_of(None) as client:
        assert client.get("/v1/runs").json() == {"object": "list", "folder": None, "data": []}
        assert client.get("/v1/runs/one").status_code == 404


def test_the_folder_may_be_a_run_itself(runs):
    with client_of(runs / "one") as client:
        (line,) = client.get("/v1/runs").json()["data"]
        assert line["name"] == "one"
        assert client.get("/v1/runs/one/metrics").json()["train"]["step"][-1] == 20


def test_the_newest_run_comes_first(ask, runs):
    make_run(runs / "older")
    for name in ("recipe.json", "metrics.jsonl", "samples.jsonl"):
        os.utime(runs / "older" / name, (1e9, 1e9))
    assert [line["name"] for line in ask("/v1/runs")["data"]] == ["one", "older"]


def test_a_run_tells_its_recipe_and_why_a_reference_does_not_apply(ask):
    about = ask("/v1/runs/one")
    assert about["recipe"] == RECIPE
    assert about["references"]["loss"]["gpt2"] is None
    assert "does not record" in about["references"]["loss"]["why"]
    hellaswag = about["references"]["hellaswag"]
    assert (hellaswag["size"], hellaswag["gpt2"], hellaswag["gpt3"]) == ("124M", 0.2945, 0.337)


def test_gpt2s_loss_is_given_where_it_applies(ask, runs):
    dataset = {"corpus": ["fineweb-edu"], "tokenizer": gpt2_sha256()}
    make_run(runs / "same", trained_on=[dataset])
    assert ask("/v1/runs/same")["references"]["loss"]["gpt2"] == 3.2924


def test_curves_are_read_on_from_a_byte(ask, runs):
    first = ask("/v1/runs/one/metrics")
    assert first["train"]["step"] == list(range(1, 21))
    assert first["train"]["mean"][-1] == first["train"]["low"][-1] == 3.25
    assert first["val"] == {
        "step": [10, 20],
        "tokens": [1000, 2000],
        "loss": [4.1, 4.05],
        "bits_per_byte": [1.5, 1.5],
    }
    assert first["hellaswag"]["accuracy"] == [0.26, 0.26]
    assert (first["next"], first["more"]) == ((runs / "one" / "metrics.jsonl").stat().st_size, False)
    nothing = ask(f"/v1/runs/one/metrics?after={first['next']}")
    assert (nothing["train"]["step"], nothing["next"]) == ([], first["next"])
    train(Run(runs / "one"), 21)
    more = ask(f"/v1/runs/one/metrics?after={first['next']}")
    assert (more["train"]["step"], more["val"]["step"], more["restarted"]) == ([21], [], False)
    assert ask("/v1/runs")["data"][0]["step"] == 21


def test_samples_are_read_on_from_a_byte(ask, runs):
    first = ask("/v1/runs/one/samples")
    assert [sample["text"] for sample in first["samples"]] == [" text of 10", " text of 20"]
    Run(runs / "one").append_sample({"step": 30, "prompt": "A", "text": "<script>alert(1)</script>"})
    assert ask(f"/v1/runs/one/samples?after={first['next']}")["samples"] == [
        {"step": 30, "prompt": "A", "text": "<script>alert(1)</script>"}
    ]


def test_a_line_that_is_being_written_comes_when_it_is_whole(ask, runs):
    path = runs / "one" / "metrics.jsonl"
    end = path.stat().st_size
    with open(path, "ab") as file:
        file.write(b'{"step": 21, "tokens": 2100, "tra')
    cut = ask(f"/v1/runs/one/metrics?after={end}")
    assert (cut["train"]["step"], cut["next"], cut["more"]) == ([], end, False)
    with open(path, "ab") as file:
        file.write(b'in_loss": 3.0}\n')
    assert ask(f"/v1/runs/one/metrics?after={end}")["train"]["step"] == [21]


def test_a_line_that_a_crash_cut_is_passed_over(ask, runs):
    path = runs / "one" / "metrics.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"step": 21, "tokens": 2100, "tra')
    train(Run(runs / "one"), 21)
    train(Run(runs / "one"), 22)
    assert ask("/v1/runs/one/metrics")["train"]["step"] == [*range(1, 23)]


def test_a_file_that_became_shorter_is_read_from_its_beginning(ask, runs):
    end = ask("/v1/runs/one/metrics")["next"]
    assert ask("/v1/runs")["data"][0]["hellaswag"] == 0.26
    (runs / "one" / "metrics.jsonl").unlink()
    gone = ask(f"/v1/runs/one/metrics?after={end}")
    assert (gone["restarted"], gone["next"], gone["train"]["step"]) == (True, 0, [])
    train(Run(runs / "one"), 1)
    again = ask(f"/v1/runs/one/metrics?after={end}")
    assert (again["restarted"], again["train"]["step"]) == (True, [1])
    line = ask("/v1/runs")["data"][0]
    assert (line["step"], line["hellaswag"], line["val_loss"]) == (1, None, None)


def test_of_a_step_that_ran_twice_the_later_record_holds(ask, runs):
    for loss in (7.0, 8.0):
        Run(runs / "one").append_metrics({"step": 20, "tokens": 2000, "train_loss": loss})
    train_ = ask("/v1/runs/one/metrics")["train"]
    assert train_["step"] == [*range(1, 21)]
    assert train_["mean"][-1] == 8.0


def test_a_long_curve_is_thinned_and_its_end_is_exact(ask, runs):
    with open(runs / "one" / "metrics.jsonl", "w", encoding="utf-8") as file:
        for step in range(1, 10_001):
            loss = 50.0 if step == 5000 else 3.0
            file.write(json.dumps({"step": step, "tokens": step, "train_loss": loss}) + "\n")
    curve = ask("/v1/runs/one/metrics")["train"]
    assert len(curve["step"]) <= 2000
    assert curve["step"][-200:] == [*range(9801, 10_001)]
    assert sum(curve["n"]) == 10_000
    assert max(curve["high"]) == 50.0  # no spike is lost
    assert max(curve["mean"]) < 50.0


RECORDS = [
    '{"step": 21, "tokens": 2100, "train_loss": NaN}',
    '{"step": 21, "tokens": 2100, "train_loss": 1e999}',
    '{"step": 21, "tokens": 2100, "train_loss": "low"}',
    '{"step": 21, "tokens": 2100, "train_loss": true}',
    '{"step": 21, "tokens": 2100, "train_loss": 1' + "0" * 400 + "}",
    '{"step": "21", "tokens": 2100, "train_loss": 3.0}',
    '{"step": 1' + "0" * 30 + ', "tokens": 2100, "train_loss": 3.0}',
    '{"step": -1, "tokens": 2100, "train_loss": 3.0}',
    '{"step": 21, "train_loss": 3.0}',
    "[" * 100_000,
    "null",
    "",
    "\ufffd\x00",
]


@pytest.mark.parametrize("line", RECORDS, ids=[line[:50] for line in RECORDS])
def test_a_record_that_is_none_is_passed_over(ask, runs, line):
    with open(runs / "one" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    train(Run(runs / "one"), 22)
    assert ask("/v1/runs/one/metrics")["train"]["step"] == [*range(1, 21), 22]
    assert ask("/v1/runs")["data"][0]["val_loss"] == 4.05
    assert ask("/v1/runs/one")["references"]["hellaswag"]["size"] == "124M"


def test_texts_that_are_no_unicode_are_told(ask, runs):
    with open(runs / "one" / "samples.jsonl", "ab") as file:
        file.write(b'{"step": 30, "prompt": null, "text": "\\ud800 \xff"}\n{"step": 31}\n')
    *_, last = ask("/v1/runs/one/samples")["samples"]
    assert last == {"step": 30, "prompt": "", "text": "\ud800 \ufffd"}


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl"])
def test_absent_files_and_what_is_no_file_have_no_records(ask, runs, name):
    (runs / "one" / name).unlink()
    assert ask("/v1/runs/one/metrics")["val"]["step"] == ([10, 20] if name == "samples.jsonl" else [])
    (runs / "one" / name).mkdir()
    assert ask("/v1/runs/one/samples")["samples"] == [] or name == "metrics.jsonl"
    assert len(ask("/v1/runs")["data"]) == 1
    (runs / "one" / name).rmdir()
    os.mkfifo(runs / "one" / name)  # to open it would wait for a writer
    ask("/v1/runs/one/metrics")
    ask("/v1/runs/one/samples")
    ask("/v1/runs")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"name": NaN, "steps": "x"}', b"[" * 100_000]
)
def test_a_recipe_that_cannot_be_read_is_a_problem_of_that_run_alone(ask, runs, content):
    make_run(runs / "bad")
    (runs / "bad" / "recipe.json").write_bytes(content)
    lines = {line["name"]: line for line in ask("/v1/runs")["data"]}
    assert lines["one"]["problem"] is None
    assert lines["bad"]["step"] == 20
    assert (lines["bad"]["problem"] is None) == content.startswith(b'{"name"')
    assert str(runs) not in str(lines["bad"]["problem"])
    assert ask("/v1/runs/bad")["references"]["loss"]["gpt2"] is None


NAMES = [
    "..",
    ".",
    "../one",
    "one/..",
    "/etc",
    "two",
    ".hidden",
    "out",
    "loop",
    "one\0",
    "\udcff",
    "",
    "a" * 300,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rest", ["", "/metrics", "/samples"])
def test_a_name_that_is_no_run_here_is_not_found(ask, runs, tmp_path, name, rest):
    make_run(tmp_path / "two")
    make_run(runs / ".hidden")
    (runs / "out").symlink_to(tmp_path / "two")
    (runs / "loop").symlink_to(runs / "loop")
    Run(tmp_path).write_recipe(RECIPE)  # the folder above is a run too
    quoted = "".join(f"%{byte:02x}" for byte in name.encode("utf-8", "surrogateescape"))
    if not name and not rest:
        return  # the list itself
    found = ask(f"/v1/runs/{quoted}{rest}", status=404)
    assert found["error"]["type"] == "invalid_request_error"
    assert [line["name"] for line in ask("/v1/runs")["data"]] == ["one"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "recipe.json"])
def test_a_file_that_is_a_link_out_of_the_folder_is_not_read(ask, runs, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text('{"step": 7, "tokens": 7, "train_loss": 7, "text": "secret", "name": "secret"}\n')
    (runs / "one" / name).unlink()
    (runs / "one" / name).symlink_to(secret)
    told = [ask("/v1/runs")]
    if name != "recipe.json":  # without a recipe it is no run
        told += [ask("/v1/runs/one"), ask("/v1/runs/one/metrics"), ask("/v1/runs/one/samples")]
    assert "secret" not in json.dumps(told)
    assert '"mean": [7' not in json.dumps(told)


def test_any_folder_name_can_be_asked_for(ask, runs):
    for name in ("<script>alert(1)<script>", "a b", "ü ?#&", "metrics", "100%"):
        make_run(runs / name, steps=1)
        assert ask(f"/v1/runs/{quote(name, safe='')}")["name"] == name
        assert ask(f"/v1/runs/{quote(name, safe='')}/metrics")["train"]["step"] == [1]


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "", "9" * 30, "٣", "1 "])
def test_a_byte_that_is_none_is_refused(ask, after):
    for what in ("metrics", "samples"):
        assert ask(f"/v1/runs/one/{what}?after={quote(after)}", status=400)["error"]["param"] == "after"


def test_a_byte_in_the_middle_of_a_line_is_no_harm(ask):
    assert ask("/v1/runs/one/metrics?after=5")["train"]["step"] == [*range(2, 21)]


def test_a_folder_that_goes_away_is_empty(ask, runs):
    runs.rename(runs.with_name("elsewhere"))
    assert ask("/v1/runs")["data"] == []
    ask("/v1/runs/one", status=404)


def test_a_run_that_trains_holds_its_lock(ask, runs):
    def writing() -> tuple[bool, str]:
        line = ask("/v1/runs")["data"][0]
        return line["writing"], line["writing_known_by"]

    assert writing() == (True, "mtime")  # no lock's file, and records of a moment ago
    with Run(runs / "one").locked():
        if lock_is_held(Run(runs / "one").lock_path) is None:
            pytest.skip("this system has no table of locks")
        assert writing() == (True, "lock")
    assert writing() == (False, "lock")


def test_a_lock_of_another_machine_tells_nothing(ask, runs, tmp_path):
    lock = Run(runs / "one").lock_path
    lock.write_text("process 1 on another-machine\n")
    assert lock_is_held(lock) is None
    lock.write_text(f"process 1 on {socket.gethostname()}\n")
    table = tmp_path / "locks"
    table.write_text(
        "1: FLOCK  ADVISORY  WRITE 1 fe:00:2425271 0 EOF\n2: POSIX  ADVISORY  WRITE 2 fe:00:1 0 EOF\n"
    )
    assert lock_is_held(lock, table) is True
    lock.write_text(f"process 2 on {socket.gethostname()}\n")
    assert lock_is_held(lock, table) is False
    assert lock_is_held(lock, tmp_path / "absent") is None
    for name in ("recipe.json", "metrics.jsonl", "samples.jsonl"):
        os.utime(runs / "one" / name, (1e9, 1e9))
    lock.write_text("process 1 on another-machine\n")
    line = ask("/v1/runs")["data"][0]
    assert (line["writing"], line["writing_known_by"]) == (False, "mtime")
