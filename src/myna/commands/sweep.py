"""`myna sweep`: many runs, one table, one picture."""

import contextlib
import dataclasses
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from myna.commands import parse, refuse_empty
from myna.commands.part import read_part
from myna.commands.train_sources import DataFlag
from myna.cores import usable_cores
from myna.errors import DataError, MynaError, OutputError, Stopped, UsageError, first_line, unknown_name
from myna.files import ensure_writable_directory
from myna.locks import lock_is_held, locked
from myna.progress import speak
from myna.run import Run
from myna.settings import DeviceName, PrecisionName
from myna.sweep import (
    PREPARED,
    Result,
    Sweep,
    Trial,
    combinations,
    markdown,
    outcome_path,
    read_fields,
    result_of,
    write_outcome,
)
from myna.train.recipe import Recipe

# What runs must share to be compared, or what the sweep itself says.
NOT_VARIED = {
    "name": "the sweep names its runs",
    "tokenizer": "losses of two tokenizers don't compare",
    "corpus": "losses on two texts don't compare",
    "conversations": "losses on two texts don't compare",
    "overfit": "a run on one batch does not compare with others",
    "seed": "give --seeds N",
    "micro_batch": "give --micro-batch",
    "precision": "give --precision",
}
MOST_SEEDS, WAIT_SECONDS = 1000, 1.0
DIVERGED = re.compile(r"step [\d,]+: .*nothing was updated|updates in a row")


@dataclass(frozen=True)
class SweepCall:
    """Train a recipe many times, with every combination of some values, and show all in one table and one picture.

    `myna sweep pydoc learning-rate=0.01,0.02 network=variants network.norm=pre,post`: a field with one value is the
    same in all runs. `myna sweep lecture` asks the lecture's questions. The same call goes on after an interruption.
    """

    recipe: tyro.conf.Positional[str]
    """A recipe of `myna train`, or lecture: a prepared set of single changes."""
    fields: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="FIELD=V1,V2")] = ()
    """Options of `myna train` without their dashes, each with its values."""
    seeds: int | None = None
    """Run each combination with so many seeds. Default: 1; of a prepared set, its own."""
    part: str | None = None
    """I/N: make only every Nth run, from the Ith on. Several machines share a sweep so; the table is drawn by the call
    without --part."""
    out: Path | None = None
    """The sweep's folder; runs/sweep-RECIPE if not given."""
    data: DataFlag = ()
    """Folder of a prepared dataset, or several with weights, as for `myna train`."""
    device: DeviceName = "auto"
    """Where to compute."""
    precision: PrecisionName = "auto"
    """What matrix products are computed in."""
    micro_batch: int | None = None
    """Sequences at once. Default: measured once, by a run of one step, and kept for all."""
    threads: int | None = None
    """Threads of a run on a CPU. Default: all cores."""


def main(args: Sequence[str]) -> None:
    """Runs `myna sweep`."""
    refuse_empty(args)
    call = parse(SweepCall, args, command="sweep")
    part = read_part(call.part)
    folder = call.out or Path("runs") / f"sweep-{call.recipe}"
    asked = asked_sweep(call)
    recipes = {trial.name: recipe_of(asked, trial) for trial in asked.trials()}
    if len(recipes) < len(asked.trials()):
        raise UsageError(
            "two combinations would have the same folder; give values that differ in letters or digits"
        )
    sweep = settled(call, asked, folder, recipes)
    for number, trial in enumerate(mine := sweep.part(*part) if part else sweep.trials(), 1):
        make(call, sweep, folder, trial, recipes[trial.name], f"{number} of {len(mine)}")
    results = [result_of(folder / trial.name, trial) for trial in sweep.trials()]
    if part is None:
        show(sweep, folder, results)
        return
    left = sum(result.outcome == "missing" for result in results)
    speak(
        f"part {call.part} is done; {left} of {len(results)} runs are not; the call without --part shows the table"
    )


def asked_sweep(call: SweepCall) -> Sweep:
    """What the call asks for, before anything is resolved.

    Raises:
        UsageError: a field can't vary, or nothing varies.
    """
    if call.seeds is not None and not 1 <= call.seeds <= MOST_SEEDS:
        raise UsageError(f"--seeds is {call.seeds}; give 1 to {MOST_SEEDS:,}")
    for name in ("micro_batch", "threads"):
        if (value := getattr(call, name)) is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; give 1 or more")
    fields = read_fields(call.fields)
    known = [field.name for field in dataclasses.fields(Recipe) if not field.name.endswith("_options")]
    for name in fields:
        if name not in known and not name.startswith(("network.", "optimizer.")):
            raise unknown_name("field", name, known)
        if name in NOT_VARIED:
            raise UsageError(f"{name} can't vary in a sweep: {NOT_VARIED[name]}")
    if call.recipe in PREPARED:
        prepared = PREPARED[call.recipe]
        fixed, rows = combinations(fields)
        if len(rows) > 1:
            raise UsageError(f"the prepared sweep {call.recipe} varies by itself; give each field one value")
        seeds = prepared.seeds if call.seeds is None else _seeds(prepared.seeds[0], call.seeds)
        return replace(prepared, fixed={**prepared.fixed, **fixed}, seeds=seeds)
    from myna.recipes import named

    fixed, rows = combinations(fields)
    if len(rows) == 1 and (call.seeds or 1) == 1:
        raise UsageError("nothing varies; give FIELD=V1,V2, as in learning-rate=0.01,0.02, or --seeds N")
    return Sweep(call.recipe, fixed, rows, _seeds(named(call.recipe).seed, call.seeds or 1))


def _seeds(first: int, count: int) -> tuple[int, ...]:
    return tuple(range(first, first + count))


def recipe_of(sweep: Sweep, trial: Trial) -> Recipe:
    """The recipe of a run, as `myna train` reads it.

    Raises:
        UsageError: a field that doesn't exist, or a value that can't be.
    """
    from myna.commands.train import read_call

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return read_call([sweep.recipe, *flags_of(sweep, trial)]).settings
    except SystemExit as error:
        settings = ", ".join(f"{name}={value}" for name, value in sweep.settings(trial).items())
        why = " ".join(re.findall(r"[\w.,:;'`()=/-]+", said.getvalue()))
        raise UsageError(f"`myna train {sweep.recipe}` does not take {settings}: {why}") from error


def flags_of(sweep: Sweep, trial: Trial) -> list[str]:
    """The options of `myna train` for a run."""
    flags = []
    for name, value in sweep.settings(trial).items():
        prefix, dot, option = name.rpartition(".")
        if value.lower() in ("true", "false"):
            no = "" if value.lower() == "true" else "no-"
            flags.append(f"--{prefix}{dot}{no}{option}".replace("_", "-"))
        else:
            flags += [f"--{name}".replace("_", "-"), value]
    return flags


def settled(call: SweepCall, asked: Sweep, folder: Path, recipes: dict[str, Recipe]) -> Sweep:
    """The sweep that stands in the folder, or this one, with what `auto` comes to here. Written before the first run.

    Raises:
        UsageError: the folder holds another sweep. OutputError: it holds something else, or can't be written.
    """
    path = folder / "sweep.json"
    if (folder / "recipe.json").exists() or (folder / "dataset.json").exists():
        raise OutputError(f"{folder} is a run or a dataset; give another --out for the sweep")
    ensure_writable_directory(folder)
    # Parts that begin at once: one resolves, the others wait for it.
    with _waiting_for(folder / ".sweep.lock"):
        if path.exists():
            stored = Sweep.read(path)
            if replace(stored, resolved={}) != asked:
                raise UsageError(
                    f"{folder} holds another sweep than this call's; give another --out, or that sweep's call"
                )
            return stored
        sweep = replace(asked, resolved=resolved(call, asked, folder, recipes))
        sweep.write(path)
    return sweep


@contextlib.contextmanager
def _waiting_for(path: Path) -> Iterator[None]:
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(path, busy="busy"))
            except OutputError as error:
                if str(error) != "busy":
                    raise
                time.sleep(WAIT_SECONDS)
                continue
            yield
            return


def resolved(call: SweepCall, sweep: Sweep, folder: Path, recipes: dict[str, Recipe]) -> dict[str, Any]:
    """Device, precision, threads and micro-batch for all runs. The last is measured by a run of one step."""
    from myna.device import resolve_device, resolve_precision

    device = resolve_device(call.device)
    values: dict[str, Any] = {
        "device": device.type,
        "precision": resolve_precision(call.precision, device).name,
        "threads": call.threads or usable_cores(),
    }
    if call.micro_batch is not None:
        return values | {"micro_batch": call.micro_batch}
    trial = sweep.trials()[0]
    probe = folder / ".one-step"
    shutil.rmtree(probe, ignore_errors=True)  # of a call that was killed
    short = [
        "--steps",
        "1",
        "--warmup-steps",
        "0",
        "--eval-every",
        "0",
        "--sample-every",
        "0",
        "--no-compile",
    ]
    command = [*_train(call, sweep.recipe, values), *flags_of(sweep, trial), *short, "--out", str(probe)]
    done = _run(command, values["threads"])
    if done.returncode:
        raise _raised(done, f"the first run, {trial.name}, can't begin")
    micro_batch = Run(probe).recipe()["micro_batch"]
    shutil.rmtree(probe)
    return values | {"micro_batch": micro_batch}


def _train(call: SweepCall, recipe: str, values: dict[str, Any]) -> list[str]:
    command = [sys.executable, "-m", "myna", "train", recipe]
    command += ["--device", values["device"], "--precision", values["precision"]]
    return command + [word for given in call.data for word in ("--data", given)]


def _run(command: Sequence[str], threads: int) -> "subprocess.CompletedProcess[str]":
    """Runs a process to its end; a signal to this one ends it first, with its work saved."""
    environ = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, said = process.communicate()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
            process.communicate()
            raise
    return subprocess.CompletedProcess(command, process.returncode, "", said)


def _raised(done: "subprocess.CompletedProcess[str]", what: str) -> MynaError:
    if done.returncode == Stopped.exit_code:
        return Stopped(f"{what}: it was stopped; the same call goes on")
    return DataError(f"{what}: {_last_line(done.stderr)}")


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("myna train: ") if lines else "it said nothing"


def make(call: SweepCall, sweep: Sweep, folder: Path, trial: Trial, recipe: Recipe, number: str) -> None:
    """Makes a run, goes on with it, or leaves it where it has ended.

    Raises:
        Stopped: the run was stopped, not this process.
    """
    out = folder / trial.name
    _wait_while_trained(out)
    if outcome_path(out).exists() and result_of(out, trial).outcome != "failed":
        return
    speak(f"run {number}: {trial.name}")
    micro_batch = sweep.resolved["micro_batch"]
    while recipe.ramp.unit % micro_batch:  # a row may have a batch or a length of its own
        micro_batch -= 1
    command = [*_train(call, sweep.recipe, dict(sweep.resolved)), *flags_of(sweep, trial)]
    done = _run([*command, "--micro-batch", str(micro_batch), "--out", str(out)], sweep.resolved["threads"])
    if done.returncode == Stopped.exit_code:
        raise Stopped(f"{trial.name} was stopped and is saved; the same call goes on")
    out.mkdir(exist_ok=True)
    message = _last_line(done.stderr) if done.returncode else ""
    if not done.returncode:
        write_outcome(out, "finished")
    elif DIVERGED.search(message):
        write_outcome(out, "diverged", message)
        speak(f"{trial.name} diverged, which is a result: {message}")
    else:
        write_outcome(out, "failed", message)
        speak(f"{trial.name} failed: {message}")


def _wait_while_trained(out: Path) -> None:
    """A sweep that was killed may have left a run that goes on by itself."""
    told = False
    while lock_is_held(Run(out).lock_path):
        if not told:
            speak(f"{out} is being trained by another process; waiting for it")
        told = True
        time.sleep(WAIT_SECONDS)


def show(sweep: Sweep, folder: Path, results: Sequence[Result]) -> None:
    """Writes and prints the table; the curves of all runs that have any, as a picture and a page."""
    from myna.evaluate.report import page_beside, report
    from myna.files import write_atomic

    table = markdown(sweep, results)
    write_atomic(folder / "sweep.md", table.encode())
    print(table, end="")
    ended = [result for result in results if result.outcome in ("finished", "diverged") and result.step]
    rows: dict[str, list[Path]] = {}
    for result in ended:
        rows.setdefault(result.trial.variation.name, []).append(folder / result.trial.name)
    drawn = [path for paths in rows.values() for path in paths]
    if drawn:
        picture = folder / "sweep.png"
        try:
            report(drawn, picture, rows=rows)
        except MynaError as error:
            raise DataError(
                f"the table is in {folder / 'sweep.md'}; the picture failed: {first_line(error)}"
            ) from error
        print(picture)
        print(page_beside(picture))
