"""Prepare is killed, stopped, crowded and starved; run again, it gives the bytes of an undisturbed run."""

import contextlib
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from myna.data.prepare.parts import part_folder
from myna.data.prepare.share import Part
from myna.data.shards import open_dataset

PROGRAM = Path(__file__).parent / "prepare_in_small_parts.py"
PART_BYTES = 100_000
OPTIONS = ("--shard-tokens", "200003", "--workers", "2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 6 MB of JSONL: 60 parts."""
    rng = random.Random(0)
    words = [f"{rng.choice('bcdfghklmnprst')}{rng.choice('aeiou')}{n}" for n in range(500)]
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(6000):
            file.write(json.dumps({"text": " ".join(rng.choices(words, k=rng.randrange(20, 300)))}) + "\n")
    return path


def start(corpus: Path, out: Path, *options: str, part_bytes: int = PART_BYTES) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(part_bytes), str(corpus), "--out", str(out), *OPTIONS, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """The result to match, and how long it took."""
    out = tmp_path_factory.mktemp("undisturbed") / "data"
    began = time.monotonic()
    process = start(corpus, out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(digest(out)) > 5
    return digest(out), time.monotonic() - began


def kill_until_done(corpus: Path, out: Path, kills: int, seconds: float, seed: int) -> int:
    """Kills `kills` runs at random moments, lets the last one finish; returns how many were really killed."""
    rng = random.Random(seed)
    killed = 0
    for _ in range(kills):
        process = start(corpus, out)
        time.sleep(rng.uniform(0, seconds))
        killed += process.poll() is None
        process.kill()
        process.communicate()
        if out.exists():
            break
    process = start(corpus, out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return killed


def test_killed_three_times(corpus: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path) -> None:
    expected, seconds = undisturbed
    assert kill_until_done(corpus, tmp_path / "data", 3, seconds * 0.7, seed=1) >= 1
    assert digest(tmp_path / "data") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    open_dataset(tmp_path / "data")


@pytest.mark.slow
def test_one_prepare_is_killed_thirty_times(
    corpus: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """Half of the kills come while it starts, half soon after it got on with the work.

    Where the work ends before its kill, it is held to the undisturbed run and begun anew: thirty kills in any case.
    """
    rng = random.Random(0)
    out, journal = tmp_path / "data", tmp_path / "data.partial" / "journal.json"

    def written() -> bytes:
        try:
            return journal.read_bytes()
        except FileNotFoundError:  # not begun, or just finished
            return b""

    kills = 0
    while kills < 30:
        before = written()
        process = start(corpus, out, part_bytes=2500)
        if kills % 2:
            time.sleep(rng.uniform(0, 1))
        else:
            while process.poll() is None and written() == before:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.4))
        process.kill()
        _, errors = process.communicate()
        if process.returncode == 0:
            assert digest(out) == undisturbed[0]
            shutil.rmtree(out)
        else:
            assert process.returncode == -signal.SIGKILL, errors
            kills += 1
    process = start(corpus, out, part_bytes=2500)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert digest(out) == undisturbed[0]


@pytest.mark.slow
def test_parts_are_killed_at_random_moments(
    corpus: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """Each of three parts, and their join, is killed soon after it got on with its work, and then begun again."""
    rng, out = random.Random(0), tmp_path / "data"

    def begin_and_kill(folder: Path, begin: Callable[[], "subprocess.Popen[str]"], kill: bool) -> None:
        journal = folder.with_name(folder.name + ".partial") / "journal.json"
        before = journal.read_bytes() if journal.exists() else b""
        process = begin()
        while kill and process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                if journal.read_bytes() != before:
                    time.sleep(rng.uniform(0, 0.3))
                    process.kill()
        _, errors = process.communicate()
        assert process.returncode in ((0, -signal.SIGKILL) if kill else (0,)), errors

    def join() -> "subprocess.Popen[str]":
        words = [sys.executable, "-m", "myna", "data", "join", str(out)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    numbers = [1, 2, 3] * 3
    rng.shuffle(numbers)
    for kill in (True, False):
        for number in numbers if kill else (3, 1, 2):
            folder = part_folder(out, Part(number, 3))
            begin_and_kill(folder, functools.partial(start, corpus, out, "--part", f"{number}/3"), kill)
    for kill in (True, True, False):
        begin_and_kill(out, join, kill)
    assert digest(out) == undisturbed[0]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent_and_a_signal_says_how_to_go_on(
    corpus: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path, number: signal.Signals
) -> None:
    process = start(corpus, tmp_path / "data")
    deadline = time.monotonic() + 60
    journal = tmp_path / "data.partial" / "journal.json"
    while time.monotonic() < deadline and not (journal.exists() and b"train_" in journal.read_bytes()):
        time.sleep(0.005)
    workers = children_of(process.pid)
    assert len(workers) == 2
    process.send_signal(number)
    _, errors = process.communicate()
    if number != signal.SIGKILL:
        assert process.returncode == 75
        assert f"stopped by {number.name}; to go on, run the same command again" in errors
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers)
    process = start(corpus, tmp_path / "data")
    process.communicate()
    assert digest(tmp_path / "data") == undisturbed[0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the workers")
def test_a_worker_that_is_killed_is_reported(corpus: Path, tmp_path: Path) -> None:
    process = start(corpus, tmp_path / "data")
    workers: list[int] = []
    while process.poll() is None and len(workers) < 2:
        workers = children_of(process.pid)
    time.sleep(0.3)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "a worker process ended (code -9)" in errors
    assert not (tmp_path / "data").exists()


def test_two_prepares_into_one_folder(
    corpus: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    first = start(corpus, tmp_path / "data")
    while not (tmp_path / "data.partial" / "journal.json").exists():
        time.sleep(0.005)
    first.send_signal(signal.SIGSTOP)  # so that it is still at work, however slow the second one's start is
    second = start(corpus, tmp_path / "data")
    _, errors = second.communicate()
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert (first.returncode, second.returncode) == (0, 2)
    assert "another process is preparing" in errors
    assert digest(tmp_path / "data") == undisturbed[0]


def test_an_unfinished_prepare_of_another_call_is_not_continued(corpus: Path, tmp_path: Path) -> None:
    process = start(corpus, tmp_path / "data")
    while not (tmp_path / "data.partial" / "journal.json").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    process = start(corpus, tmp_path / "data", "--tokenizer", "bytes")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "unfinished prepare by another call (different: tokenizer)" in errors


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4.5 MB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4500k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_an_error_and_room_lets_it_go_on(
    corpus: Path, undisturbed: tuple[dict[str, str], float], small_disk: Path
) -> None:
    process = start(corpus, small_disk / "data")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert len(errors.strip().splitlines()) == 1
    assert f"the disk is full at {small_disk / 'data'}; make room and run the same command again" in errors
    assert not (small_disk / "data").exists()
    done = json.loads((small_disk / "data.partial" / "journal.json").read_bytes())
    assert done["position"] != [0, 0]
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    process = start(corpus, small_disk / "data")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert digest(small_disk / "data") == undisturbed[0]
