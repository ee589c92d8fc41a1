"""Random calls of every command: bad paths, bad values, unknown flags, damaged JSON.

Each ends with exit code 0 or 2, without a traceback; with 2, it says why in a few lines and leaves nothing behind. The
flags are read from each command's own help, so that a new one is tried without a line here. What a call would do for
long is cut off at its beginning; what would need the network is not asked for.
"""

import contextlib
import io
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import COMMANDS, main
from myna.text.chat import with_chat_tokens

# A call of each kind that would work, in units that belong together. A command that is not here fails a test below.
BASES: list[list[tuple[str, ...]]] = [
    [
        ("train", "shakespeare-char"),
        *(
            ("--n-layer", "1"), ("--n-head", "1"), ("--n-embd", "8"), ("--block-size", "16"), ("--micro-batch", "2"),
            ("--sequence-length", "16"), ("--batch-tokens", "64"), ("--steps", "1"), ("--device", "cpu"),
            ("--no-compile",), ("--precision", "fp32"),
        ),
        ("--data", "data"), ("--out", "new"),
    ],
    [("prepare",), ("text.txt",), ("--out", "new"), ("--tokenizer", "bytes")],
    [
        ("prepare",), ("items.jsonl",), ("--column", "ctx"), ("--where", "label >= 1"), ("--out", "new"),
        ("--tokenizer", "bytes"),
    ],
    [("prepare",), ("--from-shards", "data"), ("--out", "new"), ("--tokenizer", "bytes")],
    [("sample",), ("run",), ("--prompt", "a"), ("--max-tokens", "2")],
    [("chat",), ("chatty",), ("--max-tokens", "2")],
    [("compare",), ("run",), ("hf",), ("--prompt", "a"), ("--max-tokens", "2")],
    [("serve",), ("hf",), ("--port", "0")],
    [("eval",), ("run",), ("--task", "val")],
    [("eval",), ("hf",), ("--task", "hellaswag"), ("--data", "items.jsonl")],
    [("export",), ("hf",), ("--to", "hugging-face"), ("--out", "new")],
    [("export",), ("hf",), ("--to", "llmc"), ("--out", "new")],
    [("import",), ("ckpt.pt",), ("--out", "new"), ("--tokenizer", "bytes")],
    [("import",), ("log.txt",), ("--out", "new"), ("--batch-tokens", "64")],
    [("bench",), ("--out", "new")],
    [("bench",), ("--attention",), ("--lengths", "16,32"), ("--out", "new")],
    [("device",), ("--recipe", "pydoc"), ("--micro-batch", "2")],
    [
        ("plan", "shakespeare-char"), ("--gpus", "2"), ("--gpu", "h100"), ("--tokens", "1e6"), ("--mfu", "0.4"),
        ("--json",),
    ],
    [
        ("sweep", "shakespeare-char"), ("steps=1,2",), ("n-layer=1",), ("--micro-batch", "2"), ("--data", "data"),
        ("--part", "1/2"), ("--out", "new"),
    ],
    [("report",), ("run",)],
    [("inspect",), ("run",), ("--show", "tensors"), ("--out", "new")],
    [("tokenizer", "train"), ("text.txt",), ("--vocab-size", "258"), ("--out", "new")],
    [("tokenizer", "show"), ("text",), ("--tokenizer", "hf")],
    [("tokenizer", "compare"), ("text.txt",), ("--tokenizer", "bytes"), ("--tokenizer", "hf")],
    [("data", "show"), ("data",)],
    [("data", "overlap"), ("data",), ("--with", "items.jsonl"), ("--workers", "1"), ("--out", "new")],
    [
        ("train", "shakespeare-char"),
        *(
            ("--n-layer", "1"), ("--n-head", "1"), ("--n-embd", "8"), ("--block-size", "16"), ("--micro-batch", "2"),
            ("--sequence-length", "16"), ("--batch-tokens", "64"), ("--minutes", "3"), ("--device", "cpu"),
            ("--no-compile",), ("--precision", "fp32"),
        ),
        ("--data", "data"), ("--out", "new"),
    ],
]  # fmt: skip

EXPORT = next(number for number, base in enumerate(BASES) if base[0] == ("export",))

PATHS = [
    "run", "data", "hf", "new", "new/below", "text.txt", "items.jsonl", "hf/config.json", ".", "absent", "./absent",
    "", " ", "-", "--", "-x", "~nosuchuser/x", "~", "a\0b", "caf\udce9", "a\nb", "x" * 300, "x" * 5000, "dangling",
    "text.txt/below", "circle", "empty", "hollow", "deep.json", "not-utf8.txt", "/dev/null", "/dev/null/x",
    "/proc/nowhere/x", "closed", "closed/x", "*.nothing", "hf:", "file.png", "new.tiktoken", "run/checkpoints",
    "run/metrics.jsonl", "ckpt.pt", "new.gguf", "log.txt",
]  # fmt: skip
VALUES = [
    "0", "1", "2", "3", "-1", "2.5", "-0.5", "nan", "inf", "-inf", "1e999", "1e-400", "4" + "0" * 18, "9" * 23,
    "9" * 400, "9" * 5000, "٣", "0x10", "1_0", "None", "True", "auto", "gpt2", "bytes", "train:", "train:x",
    "from-data", "\N{GRINNING FACE}", "(", "[a",
]  # fmt: skip
JSON = [
    None, True, 0, -1, 3.5, float("inf"), float("nan"), 10**400, "", "x", "\udcff", [], [[]], [1, "a", None], {},
    {"a": {"b": []}}, "../x", 2**63, "step_00000001",
]  # fmt: skip
TEXTS = [
    b"",
    b"\xff\xfe",
    b"{",
    b"null",
    b"[" * 200_000,
    b"[" * 300 + b"]" * 300,
    b'{"a": ' + b"9" * 5000 + b"}",
]


class FarEnough(BaseException):
    """The call was found right, and its long work would begin now."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a little of everything that a command takes."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        Path("text.txt").write_text("".join(f"{n} green bottles, {n * 7 % 13}.\n" for n in range(90)))
        row = {"ctx": "A man", "ctx_a": "A", "ctx_b": "man", "activity_label": "Rest", "label": 1}
        Path("items.jsonl").write_text(json.dumps(row | {"endings": ["a.", "b.", "c.", "d."]}) + "\n")
        write_checkpoint(Path("ckpt.pt"))
        Path("log.txt").write_text("0 val 10.9511\n0 train 10.955029\n1 train 10.854980\n")
        data = [("--out", "data") if unit[0] == "--out" else unit for unit in BASES[1]]
        run = [("--out", "run") if unit[0] == "--out" else unit for unit in BASES[0]]
        hf = [
            ("run",) if unit == ("hf",) else ("--out", "hf") if unit[0] == "--out" else unit
            for unit in BASES[EXPORT]
        ]
        for call in (data, run, hf):
            assert main([word for unit in call for word in unit]) == 0
        chatty = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=64, vocab_size=259))
        chatty.save_pretrained("chatty", with_chat_tokens(Tokenizer.bytes()))
        Path("dangling").symlink_to("nowhere")
        Path("circle").symlink_to("circle")
        for name in ("empty", "hollow", "closed"):
            Path(name).mkdir()
        for name in ("config.json", "recipe.json", "dataset.json", "tokenizer.json", "checkpoints"):
            Path("hollow", name).mkdir()
        Path("closed").chmod(0)
        Path("deep.json").write_bytes(TEXTS[4])
        Path("not-utf8.txt").write_bytes(b"caf\xe9 " * 100)
    return folder


def write_checkpoint(path: Path) -> None:
    """A checkpoint as nanoGPT saves it."""
    shape = {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 16, "vocab_size": 257}
    weights = {f"transformer.{name}": tensor for name, tensor in GPT(GPTConfig(**shape)).state_dict().items()}
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"][:257].clone()
    torch.save({"model": weights, "model_args": shape | {"bias": True}, "iter_num": 3}, path)


@pytest.fixture(scope="module")
def flags() -> dict[tuple[str, ...], list[str]]:
    """The flags of each command, as its help names them."""
    found = {}
    for base in BASES:
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
            main([*base[0][:2], "--help"])
        found[base[0]] = sorted(set(re.findall(r"--[a-z][a-z0-9.-]*[a-z0-9]", said.getvalue())) - {"--help"})
    return found


@pytest.fixture(scope="module", autouse=True)
def short(world: Path) -> Iterator[None]:
    """Long work ends where it begins; the world is made before."""
    import myna.bench.limits
    import myna.bench.measure
    import myna.commands.bench_attention
    import myna.commands.sweep
    import myna.commands.train_data
    import myna.commands.train_minutes
    import myna.commands.train_start
    import myna.generate.text
    import myna.serve.run
    import myna.train.loop

    step = myna.generate.text.TextEngine.step
    stepped: list[Any] = []

    def enough(*_: Any, **__: Any) -> None:
        raise FarEnough

    def first_step(engine: Any) -> Any:
        if engine in stepped:
            raise FarEnough
        stepped[:] = [engine]
        return step(engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(myna.train.loop.Training, "train", enough)
        patch.setattr(myna.bench.measure, "measure_ladder", enough)
        patch.setattr(myna.bench.limits, "measured", enough)
        patch.setattr(myna.commands.bench_attention, "measure_attention", enough)
        patch.setattr(myna.commands.sweep, "_run", enough)
        patch.setattr(myna.commands.train_data, "prepare_own", enough)
        patch.setattr(myna.commands.train_start, "compile_or_say_why", enough)
        patch.setattr(myna.commands.train_minutes, "measured", enough)
        patch.setattr(myna.generate.text.TextEngine, "step", first_step)
        patch.setattr(myna.serve.run, "serve", enough)
        yield


def test_every_command_has_a_call_that_would_work() -> None:
    assert {base[0][0] for base in BASES} == set(COMMANDS)


def test_the_flags_of_every_command_are_found(flags: dict[tuple[str, ...], list[str]]) -> None:
    for base in BASES:
        named = {unit[0] for unit in base if unit[0].startswith("--")}
        assert named <= set(flags[base[0]]), base


@st.composite
def edits(draw: st.DrawFn) -> tuple[int, list[tuple[str, int, str]], tuple[int, int, int] | None]:
    """Which base, what is changed in its words (how, where, a value), and what in a JSON file of the folder."""
    value = st.one_of(st.sampled_from(PATHS), st.sampled_from(VALUES))
    change = st.tuples(
        st.sampled_from(["replace", "replace", "flag", "flag", "equals", "drop", "positional"]),
        st.integers(0, 400),
        value,
    )
    damage = st.one_of(st.none(), st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)))
    damaged = draw(damage)
    least = 0 if damaged else 1
    return draw(st.integers(0, len(BASES) - 1)), draw(st.lists(change, min_size=least, max_size=3)), damaged


def call_of(
    number: int, changes: list[tuple[str, int, str]], flags: dict[tuple[str, ...], list[str]]
) -> list[str]:
    """The words of an edited call."""
    head, *units = BASES[number]
    for how, where, value in changes:
        flag = flags[head][where % len(flags[head])]
        at = where % max(1, len(units))
        if how == "replace" and units:
            units[at] = (*units[at][:-1], value)
        elif how == "drop" and units:
            del units[at]
        else:
            more = {"flag": (flag, value), "equals": (f"{flag}={value}",)}.get(how, (value,))
            units.append(more)
    return [word for unit in (head, *units) for word in unit]


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON value, as keys; of long lists the first few."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in itertools.islice(inner, 30):
        yield from nodes(below, (*path, key))


def damage(folder: Path, which: int, where: int, how: int) -> str:
    """Puts another value somewhere in a JSON file, or another text in place of it; says what it did."""
    files = sorted(path for path in folder.rglob("*.json*") if path.is_file() and path.name != "deep.json")
    file = files[which % len(files)]
    if how < len(TEXTS):
        file.write_bytes(TEXTS[how])
        return f"{file.relative_to(folder)} is {TEXTS[how][:20]!r}"
    lines = file.read_text("utf-8").splitlines() if file.suffix == ".jsonl" else [file.read_text("utf-8")]
    value = json.loads(lines[-1])
    places = list(nodes(value))
    *above, last = (None, *places[where % len(places)])
    box: Any = {None: value}
    place = box
    for key in above:
        place = place[key]
    place[last] = JSON[how % len(JSON)]
    lines[-1] = json.dumps(box[None])
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{file.relative_to(folder)}: {(*above[1:], last)} is {JSON[how % len(JSON)]!r}"


def listing(folder: Path) -> dict[str, object]:
    """All names in a folder, with size and time of files; not of locks, which tell who had them last."""
    return {
        str(path.relative_to(folder)): path.is_dir()
        or path.name == ".lock"
        or (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def outcome(words: list[str], folder: Path) -> tuple[int | None, str]:
    """The exit code of a call in a folder, None where its long work began, and what it wrote to stderr."""
    before = Path.cwd(), sys.stdin
    os.chdir(folder)
    sys.stdin = io.TextIOWrapper(io.BytesIO(b"text of standard input"))
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with (
            contextlib.redirect_stderr(io.StringIO()) as stderr,
            contextlib.redirect_stdout(stdout),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                code: Any = main(words)
            except SystemExit as ending:  # the parser's
                code = ending.code
            except FarEnough:
                code = None
    finally:
        os.chdir(before[0])
        sys.stdin = before[1]
    return code, stderr.getvalue()


def check(world: Path, words: list[str], damaged: tuple[int, int, int] | None) -> None:
    """Runs a call in a copy of the world and holds it to what the head of this file says."""
    with tempfile.TemporaryDirectory(dir=world.parent) as made:
        folder = Path(made, "here")
        shutil.copytree(world, folder, symlinks=True)
        what = damage(folder, *damaged) if damaged else "nothing damaged"
        before = listing(folder)
        code, said = outcome(words, folder)
        told = f"{words} ({what}) gave {code}: {said}"
        assert code in (0, 2, None), told
        assert "Traceback" not in said, told
        if code == 2:
            assert said.strip(), told
            assert "╭" in said or len(said.splitlines()) <= 4, told
            assert listing(folder) == before, told


FEW = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), max_examples=60
)


# A call that is cut off may leave a socket open, which the process would close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@FEW
@given(edited=edits())
def test_a_random_call_is_answered_in_a_few_lines(edited, world, flags):
    number, changes, damaged = edited
    check(world, call_of(number, changes, flags), damaged)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(FEW, max_examples=3000)
@given(edited=edits())
def test_three_thousand_random_calls_are_answered_in_a_few_lines(edited, world, flags):
    number, changes, damaged = edited
    check(world, call_of(number, changes, flags), damaged)


@pytest.mark.slow
def test_twenty_as_real_processes(world, tmp_path, child_environment):
    """Each with a value that no call can take, so that none begins its work."""
    chance = random.Random(0)
    never = [
        "~nosuchuser/x",
        "text.txt/below",
        "x" * 5000,
        "caf\udce9",
        "/proc/nowhere/x",
        "circle",
        "deep.json",
    ]
    for number in range(20):
        folder = tmp_path / str(number)
        shutil.copytree(world, folder, symlinks=True)
        head, *units = BASES[number % len(BASES)]
        named = [
            at
            for at, unit in enumerate(units)
            if unit[-1] in ("data", "text.txt", "run", "hf", "chatty", "new", "items.jsonl")
        ]
        at = chance.choice(named) if named else len(units) - 1
        units[at] = (*units[at][:-1], chance.choice(never))
        words = [word for unit in (head, *units) for word in unit]
        before = listing(folder)
        done = subprocess.run(
            [sys.executable, "-m", "myna", *words], cwd=folder, env=child_environment, capture_output=True
        )
        said = done.stderr.decode("utf-8", "replace")
        assert done.returncode in (0, 2), (words, said)
        assert "Traceback" not in said, (words, said)
        assert done.returncode == 0 or listing(folder) == before, words
