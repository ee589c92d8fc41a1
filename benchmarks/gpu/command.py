"""The flags of `scripts/gpu`, and what ends the call before anything runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpu import results
from gpu.machine import ROOT, gpu_count, missing_packages
from gpu.part import Part, Setting
from gpu.parts import PARTS
from gpu.run import run

HELLASWAG = [folder / "shared/data/hellaswag_val_first500.jsonl" for folder in (ROOT, ROOT.parent)]


class WrongCallError(Exception):
    """A line for the person who called."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="scripts/gpu",
        description="Measures what a machine with an NVIDIA GPU reaches. Each part is a process of its own, with ten "
        "minutes at most. The folder gets results.md, a table of all parts, and results.jsonl, their raw values. A "
        "part that is done is not made again; one that failed or was skipped is tried again. Needs no network.",
    )
    flags.add_argument(
        "--part", action="append", metavar="NAME", help="run this part alone; give it several times"
    )
    flags.add_argument(
        "--out", type=Path, default=Path("gpu"), metavar="DIR", help="folder of the results (gpu)"
    )
    flags.add_argument("--list", action="store_true", help="list the parts and their commands; run nothing")
    flags.add_argument(
        "--hellaswag",
        type=Path,
        metavar="FILE",
        help="HellaSwag's JSONL file (that of shared/data, in or beside the checkout)",
    )
    flags.add_argument(
        "--tiny",
        action="store_true",
        help="tiny networks on the CPU, to try the script itself; the figures say nothing",
    )
    return flags


def main(args: Sequence[str]) -> int:
    """Runs the parts; the exit code: 0 all asked for are done or skipped, 1 one failed, 2 the call can't run here."""
    call = parser().parse_args(args)
    try:
        asked = chosen(call.part)
        setting = setting_of(call)
        if call.list:
            for part in asked:
                print(f"{part.name}: {part.command(setting)}")
            return 0
        require(setting)
        make_folder(call.out)
    except WrongCallError as error:
        print(f"scripts/gpu: {error}", file=sys.stderr)
        return 2
    try:
        return run_all(asked, setting, call.out)
    except KeyboardInterrupt:
        print("scripts/gpu: stopped; the same call goes on from there", file=sys.stderr)
        return 130


def chosen(names: Sequence[str] | None) -> list[Part]:
    """The parts of those names, in their order; all for None.

    Raises:
        WrongCallError: there is no such part.
    """
    known = [part.name for part in PARTS]
    for name in names or ():
        if name not in known:
            raise WrongCallError(f"there is no part {name!r}; there are: {', '.join(known)}")
    return [part for part in PARTS if names is None or part.name in names]


def setting_of(call: argparse.Namespace) -> Setting:
    """
    Raises:
        WrongCallError: the file of --hellaswag is not there.
    """
    if call.hellaswag is not None and not call.hellaswag.is_file():
        raise WrongCallError(f"--hellaswag {call.hellaswag}: there is no such file")
    hellaswag = call.hellaswag or next(filter(Path.is_file, HELLASWAG), None)
    gpus = 2 if call.tiny else gpu_count()  # tiny: two processes
    return Setting(call.tiny, gpus, hellaswag.resolve() if hellaswag else None)


def require(setting: Setting) -> None:
    """
    Raises:
        WrongCallError: there is no GPU, or a package is missing.
    """
    if not setting.tiny and not setting.gpus:
        raise WrongCallError(
            "there is no NVIDIA GPU here (no /dev/nvidia0, no nvidia-smi); --tiny tries the script on the CPU"
        )
    if lacking := missing_packages():
        names = " ".join(lacking)
        raise WrongCallError(
            f"{sys.executable} lacks {', '.join(lacking)}; install them, or call with PYTHONPATH=DIR after "
            f"`python -m pip install --target DIR {names}`, on another machine too"
        )
    if not setting.tiny:
        import torch

        if not torch.cuda.is_available():
            raise WrongCallError(f"there is a GPU, but torch {torch.__version__} does not reach it")


def make_folder(out: Path) -> None:
    """
    Raises:
        WrongCallError: it can't be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongCallError(f"--out {out}: {error.strerror}; give another folder") from error


def run_all(asked: Sequence[Part], setting: Setting, out: Path) -> int:
    """Runs what is not there yet, one part after the other, and writes the table after each."""
    from gpu import report  # it needs packages, and by now they are known to be here

    failed = 0
    for part in asked:
        there = results.read(out).get(part.name)
        if there and there["state"] == "done" and there["command"] == part.command(setting):
            print(f"{part.name}: there already", flush=True)
            continue
        print(f"{part.name} ...", flush=True)
        record = run(part, setting, out)
        results.append(out, record)
        report.write(out, setting, results.read(out))
        failed += record["state"] == "failed"
        said = f": {record['why']}" if "why" in record else f" in {record['seconds']:.0f} s"
        print(f"{part.name}: {record['state']}{said}", flush=True)
    report.write(out, setting, results.read(out))
    print(out / report.NAME)
    return 1 if failed else 0
