"""A program for tests: saves a checkpoint once for every operation a save makes, and is ended at that operation.

Each life is a forked child whose `os` functions are counted. At the chosen one it ends without any cleaning up, a
write after half of its bytes. "power" also takes back what was not flushed to the disk by then: contents, new names
and renames. Then the parent looks for the newest sound checkpoint, loads it, and saves once more, undisturbed.

    python crash_points.py FOLDER kill|power [damaged]      prints one line of JSON
"""

import collections
import contextlib
import functools
import json
import os
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.files import sweep
from myna.model.checkpoint import checkpoint_step, list_checkpoints, load_train_files, newest_sound
from myna.model.weights import config_files
from myna.train.keep.saver import Retention, Saver
from myna.train.keep.snapshot import Snapshot
from myna.train.state import TrainState

CONFIG = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=257)
OPERATIONS = ("open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir")
ENDED = 77


class Disk:
    """The `os` functions, counted; `end_at` is the number of the one that is not finished any more."""

    def __init__(self, end_at: int, power: bool):
        self.end_at, self.power = end_at, power
        self.count = 0
        self.seen: list[str] = []
        self.real = {name: getattr(os, name) for name in OPERATIONS}
        self.contents: dict[tuple[int, int], int] = {}  # file -> a descriptor of ours, until it is flushed
        self.names: list[tuple[tuple[int, int], str, object]] = []  # (directory, what, how it is taken back)
        for name in OPERATIONS:
            setattr(os, name, self.counted(name))

    def counted(self, name):
        def call(*args, **options):
            self.count += 1
            self.seen.append(name)
            if self.count == self.end_at:
                if name == "write":
                    self.real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
                if self.power:
                    self.lose_what_is_not_flushed()
                os._exit(ENDED)
            before = self.remember(name, args, options) if self.power else None
            result = self.real[name](*args, **options)
            if before is not None:
                before(result)
            return result

        return call

    def identity(self, target, **options):
        found = os.stat(target, **options)
        return found.st_dev, found.st_ino

    def remember(self, name, args, options):
        """What must be known before the operation; returns what is to be noted after it."""
        if name == "open" and args[1] & os.O_CREAT and not os.path.lexists(args[0]):
            parent = self.real["open"](Path(args[0]).parent, os.O_RDONLY)
            base = Path(args[0]).name

            def note(descriptor):
                self.contents[self.identity(descriptor)] = os.dup(descriptor)
                back = lambda: self.real["unlink"](base, dir_fd=parent)  # noqa: E731
                self.names.append((self.identity(parent), f"new {base}", back))

            return note
        if name == "fsync":
            what = self.identity(args[0])
            self.contents.pop(what, None)
            if stat.S_ISDIR(os.fstat(args[0]).st_mode):
                self.names = [entry for entry in self.names if entry[0] != what]
        if name in ("rename", "replace") and not os.path.lexists(args[1]):
            parent = self.identity(Path(args[1]).parent)
            back = lambda: self.real["rename"](args[1], args[0])  # noqa: E731
            return lambda _: self.names.append((parent, f"rename {args[1]}", back))
        return None

    def lose_what_is_not_flushed(self):
        for descriptor in self.contents.values():
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        for _, _, back in reversed(self.names):
            with contextlib.suppress(FileNotFoundError):  # it has been removed since
                back()


@functools.cache
def network(seed):
    torch.manual_seed(seed)
    return GPT(CONFIG)


@functools.cache
def snapshot(step):
    """A step whose numbers follow from it."""
    tensors = {}
    for kind, more in (("exp_avg", 100), ("exp_avg_sq", 200)):
        other = network(step + more)
        tensors |= {f"{kind}.{name}": other.unpadded(name, t) for name, t in other.state_dict().items()}
    state = TrainState(dataset="d", recipe={}, step=step, samples=step)
    return Snapshot(state, network(step).state_dict(), tensors)


def save(folder, step, keep_last=1):
    """As a run does it: by the saver's thread, with what retention removes."""
    model = network(step)
    with Saver(
        folder, model, config_files(model, Tokenizer.bytes()), TOKENIZER, Retention(keep_last), say=print
    ) as saver:
        saver.begin(snapshot(step))


def loads(path):
    """Whether a checkpoint is that of its step to the last bit."""
    expected = snapshot(checkpoint_step(path))
    weights = GPT.from_pretrained(path).state_dict()
    tensors, state = load_train_files(path)
    return (
        all(torch.equal(tensor, expected.weights[name]) for name, tensor in weights.items())
        and tensors.keys() == expected.tensors.keys()
        and all(np.array_equal(tensors[key], tensor.numpy()) for key, tensor in expected.tensors.items())
        and TrainState.from_dict(state, str(path)) == expected.state
    )


def one_life(folder, end_at, power):
    """The exit status of a child that saves step 3 and is ended at an operation; and what it did, if it wasn't."""
    report, answer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(report)
        try:
            disk = Disk(end_at, power)
            save(folder, 3)
            disk.real["write"](answer, json.dumps(disk.seen).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(answer)
    with os.fdopen(report, "rb") as file:
        seen = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), json.loads(seen or b"[]")


def main(folder: Path, power: bool, damaged: bool):
    start = folder / "start"
    for step in (1, 2):
        save(start, step, keep_last=2)
    if damaged:  # a broken one of the very step that is to be saved
        shutil.copytree(start / "step_00000002", start / "step_00000003")
        (start / "step_00000003" / "model.safetensors").write_bytes(b"cut")
    found: collections.Counter[int] = collections.Counter()
    failures = []
    end_at = 0
    while True:
        end_at += 1
        life = folder / "life"
        shutil.copytree(start, life)
        code, operations = one_life(life, end_at, power)
        newest = newest_sound(life, lambda path, error: None)
        if newest is None or checkpoint_step(newest) < 2 or not loads(newest):
            failures.append(end_at)
        elif code == ENDED:
            found[checkpoint_step(newest)] += 1
        sweep(life)
        save(life, 3)
        left = sorted(path.name for path in life.iterdir() if ".damaged" not in path.name)
        if left != ["step_00000003"] or not loads(list_checkpoints(life)[0]):
            failures.append(-end_at)
        shutil.rmtree(life)
        if code != ENDED:
            break
    print(json.dumps({
        "points": end_at - 1, "exit": code, "found": found, "failures": failures,
        "operations": collections.Counter(operations),
    }))  # fmt: skip


if __name__ == "__main__":
    TOKENIZER = Tokenizer.bytes()
    main(Path(sys.argv[1]), sys.argv[2] == "power", "damaged" in sys.argv[3:])
