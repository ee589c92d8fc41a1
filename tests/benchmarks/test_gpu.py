"""`scripts/gpu`: its parts made up, and the quick ones of its own with tiny networks on the CPU."""

import doctest
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpu import command, machine, report, sections
from gpu import results as results_file
from gpu.part import Part, Setting
from gpu.parts import PARTS
from gpu.sections import SECTIONS, Section
from myna.commands import parse
from myna.commands.bench import Bench, plan_of

ROOT = Path(__file__).parents[2]
TINY = Setting(True, 2, None)
REAL = Setting(False, 1, Path("hellaswag.jsonl"))


def printing(text: str):
    """The arguments of a process that notes that it ran, and prints a text."""
    return lambda setting: ["-c", f"open('ran', 'a').write('.'); print({text!r})"]


def failing(code: str):
    return lambda setting: ["-c", code]


GOOD = Part("good", "the good one", printing('{"x": "1 | 2"}'))
BAD = Part(
    "bad", "the bad one", failing("import sys; print('a trace'); sys.exit('myna bench: out of memory\\n')")
)
KILLED = Part("killed", "the killed one", failing("import os; os.kill(os.getpid(), 9)"))
NO_JSON = Part("no-json", "no JSON", failing("print('hello')"))
LACKING = Part("lacking", "the lacking one", printing("{}"), lambda setting: "no file: items.jsonl")
ENDLESS = Part("endless", "the endless one", failing("import time; time.sleep(600)"), limit_s=0.3)
ALL = [BAD, GOOD, KILLED, NO_JSON, LACKING]


@pytest.fixture
def made_up(monkeypatch):
    """Has `scripts/gpu` know other parts, all in one table."""

    def use(parts):
        table = Section("Numbers", parts, ("part", "x"), lambda title, value: iter([[title, value["x"]]]))
        monkeypatch.setattr(command, "PARTS", parts)
        monkeypatch.setattr(report, "SECTIONS", [table])

    use(ALL)
    return use


def lines_of(out: Path) -> list[str]:
    return (out / "results.md").read_text().splitlines()


def test_a_part_that_fails_is_named_with_its_line_and_the_rest_goes_on(made_up, tmp_path, capsys):
    assert command.main(["--tiny", "--out", str(tmp_path)]) == 1
    assert lines_of(tmp_path)[-7:] == [
        "| part | x |",
        "|---|---|",
        "| the bad one | failed: exit code 1: myna bench: out of memory |",
        "| the good one | 1 \\| 2 |",
        "| the killed one | failed: SIGKILL: it said nothing |",
        "| no JSON | failed: what it printed is no JSON |",
        "| the lacking one | skipped: no file: items.jsonl |",
    ]
    assert "these figures say nothing" in lines_of(tmp_path)[0]
    said = capsys.readouterr().out
    assert "bad: failed: exit code 1: myna bench: out of memory\n" in said
    assert said.endswith("results.md\n")


def test_what_is_done_is_not_made_again_and_what_failed_is_tried_again(made_up, tmp_path, capsys):
    command.main(["--tiny", "--out", str(tmp_path)])
    page, ran = lines_of(tmp_path), tmp_path / "files" / "ran"
    capsys.readouterr()
    assert command.main(["--tiny", "--out", str(tmp_path)]) == 1
    assert ran.read_text() == "."
    assert lines_of(tmp_path) == page
    said = capsys.readouterr().out
    assert "good: there already" in said
    assert "bad ..." in said
    made_up([replace(BAD, arguments=printing('{"x": "mended"}')), GOOD])
    assert command.main(["--tiny", "--out", str(tmp_path), "--part", "bad"]) == 0
    assert "| the bad one | mended |" in lines_of(tmp_path)


def test_a_part_with_another_command_is_another_measurement(made_up, tmp_path):
    command.main(["--tiny", "--out", str(tmp_path), "--part", "good"])
    made_up([replace(GOOD, environment={"TUNING": "1"})])
    setting = command.setting_of(command.parser().parse_args(["--tiny"]))
    page = report.text(setting, results_file.read(tmp_path))
    assert "| the good one | not measured: `scripts/gpu --part good` |" in page
    command.main(["--tiny", "--out", str(tmp_path)])
    assert (tmp_path / "files" / "ran").read_text() == ".."


def test_a_part_is_ended_at_its_time_limit(made_up, tmp_path):
    made_up([ENDLESS, GOOD])
    assert command.main(["--tiny", "--out", str(tmp_path)]) == 1
    assert lines_of(tmp_path)[-2:] == [
        "| the endless one | failed: not done after 0 s |",
        "| the good one | 1 \\| 2 |",
    ]


def test_a_line_that_a_crash_cut_is_left_out_and_begun_anew(tmp_path):
    good = {"part": "good", "state": "done"}
    results_file.append(tmp_path, good)
    with open(tmp_path / "results.jsonl", "a") as file:
        file.write('{"part": "go')
    assert results_file.read(tmp_path) == {"good": good}
    results_file.append(tmp_path, good | {"state": "failed"})
    assert results_file.read(tmp_path) == {"good": good | {"state": "failed"}}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--part", "goood"], "there is no part 'goood'; there are: bad, good"),
        (["--hellaswag", "nowhere.jsonl"], "--hellaswag nowhere.jsonl: there is no such file"),
        (["--tiny", "--out", "a-file"], "--out a-file: File exists; give another folder"),
        ([], "there is no NVIDIA GPU here (no /dev/nvidia0, no nvidia-smi); --tiny tries"),
    ],
)
def test_a_wrong_call_is_a_line_and_exit_2(args, words, made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "gpu_count", lambda: 0)
    Path("a-file").touch()
    assert command.main(args) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"scripts/gpu: {words}")
    assert said.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def test_missing_packages_are_one_line(made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "is_missing", lambda name: name in ("tyro", "gigatoken"))
    assert command.main(["--tiny", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert " lacks gigatoken, tyro; install them" in said
    assert said.count("\n") == 1


def test_a_gpu_that_torch_does_not_reach_is_a_line(made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "gpu_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    assert "does not reach it" in capsys.readouterr().err


def test_gpus_are_counted_by_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.gpu_count() == 0
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert machine.gpu_count() == 2


def test_without_a_gpu_the_call_ends_before_torch_is_loaded(tmp_path):
    code = (
        "import pathlib, shutil, sys\n"
        "from gpu import machine\n"
        "machine.DEVICES, shutil.which = pathlib.Path('nowhere'), lambda name: None\n"
        "from gpu.command import main\n"
        "assert main([]) == 2\n"
        "assert not {'torch', 'numpy', 'rich', 'myna'} & set(sys.modules)\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT / "benchmarks")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)


def test_every_part_has_its_own_name_and_stands_in_one_table():
    names = [part.name for part in PARTS]
    assert len(set(names)) == len(names)
    assert sorted(part.name for section in SECTIONS for part in section.parts) == sorted(names)
    assert all(part.limit_s <= 600 for part in PARTS)


@pytest.mark.parametrize(
    "setting", [TINY, REAL, replace(REAL, gpus=8)], ids=["tiny", "one GPU", "eight GPUs"]
)
def test_every_call_of_the_bench_is_one_that_it_takes(setting):
    found = 0
    for part in PARTS:
        *_, args = " ".join(part.arguments(setting)).partition("-m myna bench ")
        if args:
            call = parse(Bench, args.split(), command="bench")
            assert call.attention or plan_of(call, part.name == "ranks").rungs
            found += 1
    assert found > 10


def test_what_a_machine_lacks_skips_a_part(monkeypatch):
    by_name = {part.name: part for part in PARTS}
    assert by_name["ranks"].lacks(REAL) == "this machine has one GPU"
    assert by_name["ranks"].lacks(TINY) is None
    assert "no file" in by_name["route"].lacks(TINY)
    assert by_name["route"].lacks(REAL) is None
    monkeypatch.setattr("gpu.part.is_missing", lambda name: name == "transformers")
    assert by_name["logits"].lacks(REAL) == "transformers is not installed"


def test_nothing_untested_is_on_where_training_compiles():
    """The compiler's tuning is measured by a part of its own, and by default it is off."""
    import torch._inductor.config as inductor

    assert not inductor.coordinate_descent_tuning
    assert [part.name for part in PARTS if part.environment] == ["tuning"]


@pytest.mark.parametrize("module", [sections, report], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_hold(module):
    tried = doctest.testmod(module)
    assert tried.attempted
    assert not tried.failed


def test_mfu_is_of_the_data_sheet_or_not_there():
    record = {"flops": 494.5e12}
    assert sections.mfu(record, "NVIDIA H200") == "50.0%"
    assert sections.mfu(record, "a new GPU") == "no data sheet"


def scripts_gpu(out: Path, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(ROOT / "scripts" / "gpu"), "--tiny", "--out", str(out), *args],
        env=os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )


def test_quick_parts_from_end_to_end(tmp_path):
    """Two processes that load torch: seconds, and the only test by default that runs the script itself."""
    pytest.importorskip("transformers")
    names = ["--part", "logits", "--part", "kernels"]
    done = scripts_gpu(tmp_path, *names)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "results.md").read_text()
    assert "| ours, fp32 | " in page
    assert "| all kernels | | " in page
    assert "| ladder | not measured: `scripts/gpu --part ladder` |" in page
    records = (tmp_path / "results.jsonl").read_bytes()
    again = scripts_gpu(tmp_path, *names)
    assert again.stdout == f"logits: there already\nkernels: there already\n{tmp_path / 'results.md'}\n"
    assert (tmp_path / "results.jsonl").read_bytes() == records


@pytest.mark.slow
def test_all_parts_from_end_to_end(tmp_path, shared_data):
    done = scripts_gpu(tmp_path, "--hellaswag", str(shared_data("hellaswag_val_first500.jsonl")))
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [record["part"] for record in records] == [part.name for part in PARTS]
    page = (tmp_path / "results.md").read_text()
    assert "not measured" not in page
    assert "failed" not in page
    assert "| weights | bit-equal |" in page
