"""A signal in the third unit of some work: no fourth begins, one line says so, and nothing half-written stays.

A unit is a batch, a file, a piece, a token: what a command does between two moments at which Python may answer. Units
are counted, never timed.
"""

import functools
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from myna import cli, files
from myna.bench import measure
from myna.cli import main
from myna.commands import train, train_end, train_start
from myna.data import split, verify
from myna.data.prepare import assemble, dataset, encode, shard_writer, work_folder
from myna.data.sources import cut, formats
from myna.evaluate import compression
from myna.evaluate import loss as evaluate_loss
from myna.generate import engine
from myna.model.config import GPTConfig
from myna.model.decoder import Decoder
from myna.model.gpt2 import GPT
from myna.run import Run
from myna.text import counting, engines, foreign, merging, patterns
from myna.text.tokenizer import Tokenizer
from myna.train.machines import ranks

SIGNAL_IN = 3
CPU = ("--device", "cpu", "--precision", "fp32")
STOPPED = "myna train: stopped by SIGTERM; "
GOES_ON = (75, STOPPED + "the same command goes on from the last checkpoint")
BEGINS_ANEW = (75, STOPPED + "no checkpoint was saved yet, so the same command begins the run anew")


@pytest.fixture
def signal_in(monkeypatch) -> Callable[..., list[None]]:
    """Has the third call of OWNER.NAME send a signal to this process; returns what gets an entry for each call."""

    def arrange(owner: object, name: str, number: int = signal.SIGTERM, at: int = SIGNAL_IN) -> list[None]:
        real, begun = getattr(owner, name), []

        @functools.wraps(real)
        def counted(*args, **options):
            begun.append(None)
            if len(begun) == at:
                os.kill(os.getpid(), number)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, counted)
        return begun

    return arrange


def stopped(capsys, *args: object) -> tuple[int, str]:
    """The exit code of a command, and the one line that it says last."""
    capsys.readouterr()
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    code = main([*map(str, args)])
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return code, said.splitlines()[-1]


def left(folder: Path) -> list[str]:
    """What is in a folder and those under it, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=64, vocab_size=257))
    network.save_pretrained(tmp_path / "model", Tokenizer.bytes())
    return tmp_path / "model"


@pytest.fixture
def hellaswag_file(tmp_path: Path) -> Path:
    """Enough for more than three batches."""
    endings = ["rows.", "sinks a lot.", "waves.", "is."]
    rows = [{"ctx": f"{n} men sit" + "." * (n % 8), "label": n % 4, "endings": endings} for n in range(80)]
    (tmp_path / "h.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "h.jsonl"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {n} of many words " * 20}) + "\n" for n in range(300)))
    return path


CODES = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_hellaswag(signal_in, capsys, model, hellaswag_file, number, code):
    batches = signal_in(Decoder, "logits", number)
    call = ("eval", model, "--task", "hellaswag", "--data", hellaswag_file, *CPU)
    assert stopped(capsys, *call) == (code, f"myna eval: stopped by {number.name}")
    assert len(batches) == SIGNAL_IN


def test_validation(signal_in, capsys, monkeypatch, model, small_dataset):
    small = functools.partial(evaluate_loss.validation_sums, batch_tokens=256)
    monkeypatch.setattr(evaluate_loss, "validation_sums", small)
    batches = signal_in(Decoder, "token_nats")
    call = ("eval", model, "--task", "val", "--data", small_dataset, "--json", *CPU)
    assert stopped(capsys, *call) == (143, "myna eval: stopped by SIGTERM")
    assert len(batches) == SIGNAL_IN


def test_sampling(signal_in, capsys, model):
    tokens = signal_in(engine, "choose")
    call = ("sample", model, "--prompt", "A", "--count", "2", "--max-tokens", "50", *CPU)
    assert stopped(capsys, *call) == (143, "myna sample: stopped by SIGTERM")
    assert len(tokens) == SIGNAL_IN


@pytest.fixture
def signal_in_a_piece(monkeypatch) -> list[None]:
    """The third piece of a file that threads hash sends SIGTERM. It ends only because the threads are told to."""
    begun: list[None] = []
    real = verify.sha256_file

    def hashed(path, before_piece):
        def before():
            begun.append(None)
            if len(begun) == SIGNAL_IN:
                os.kill(os.getpid(), signal.SIGTERM)
            end = time.monotonic() + 60
            while len(begun) >= SIGNAL_IN and time.monotonic() < end:
                before_piece()
                time.sleep(0.001)

        return real(path, before)

    monkeypatch.setattr(verify, "sha256_file", hashed)
    monkeypatch.setattr(verify, "HASH_THREADS", 1)
    monkeypatch.setattr(files, "CHUNK_BYTES", 1000)
    return begun


def test_verifying(signal_in_a_piece, capsys, small_dataset):
    assert stopped(capsys, "data", "show", small_dataset, "--verify") == (
        143,
        "myna data: stopped by SIGTERM",
    )
    assert len(signal_in_a_piece) == SIGNAL_IN


def test_training_that_verifies_its_data(signal_in_a_piece, capsys, small_run, tmp_path):
    call = ("train", *small_run, "--steps", "3", "--out", tmp_path / "new" / "run")
    assert stopped(capsys, *call) == BEGINS_ANEW
    assert len(signal_in_a_piece) == SIGNAL_IN
    assert left(tmp_path) == []


def test_looking_at_anothers_shards(signal_in, capsys, monkeypatch, tmp_path):
    """Their documents and bytes are counted from the ids, a stretch at a time."""
    np.arange(8000, dtype=np.uint16).tofile(tmp_path / "train.bin")
    monkeypatch.setattr(split, "SCAN_IDS", 500)
    stretches = signal_in(split.Split, "read")
    call = ("data", "show", tmp_path, "--tokenizer", "gpt2")
    assert stopped(capsys, *call) == (143, "myna data: stopped by SIGTERM")
    assert len(stretches) == SIGNAL_IN


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_preparing_in_this_process(signal_in, capsys, monkeypatch, text, tmp_path, number):
    monkeypatch.setattr(encode, "BLOCK_CHARACTERS", 10_000)
    blocks = signal_in(encode.TextEncoder, "flush", number)
    code, line = stopped(capsys, "prepare", text, "--out", tmp_path / "out" / "data")
    assert code == 75
    assert line.startswith(f"myna prepare: stopped by {number.name}; to go on, run the same command again")
    assert len(blocks) == SIGNAL_IN
    assert left(tmp_path / "out") == []  # no part of it was whole
    assert main(["prepare", str(text), "--out", str(tmp_path / "out" / "data")]) == 0


def test_preparing_by_workers(signal_in, capsys, monkeypatch, text, tmp_path):
    """What is whole stays, and the same call goes on after it."""
    monkeypatch.setattr(cut, "PART_BYTES", 10_000)
    monkeypatch.setattr(dataset, "JOURNAL_EVERY_S", 0.0)
    call = ("prepare", text, "--tokenizer", "bytes", "--workers", "1", "--out")
    assert main([*map(str, call), str(tmp_path / "whole")]) == 0
    parts = signal_in(assemble.Assembler, "append")
    code, line = stopped(capsys, *call, tmp_path / "out" / "data")
    assert code == 75
    assert "stopped by SIGTERM; to go on, run the same command again (" in line
    assert len(parts) == SIGNAL_IN
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data.partial"]
    journal = json.loads((tmp_path / "out" / "data.partial" / "journal.json").read_text())
    assert journal["position"] == [0, SIGNAL_IN - 1]
    assert main([*map(str, call), str(tmp_path / "out" / "data")]) == 0
    names = ("dataset.json", "train_000000.npy", "val_000000.npy")
    for name in names:
        assert (tmp_path / "out" / "data" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_publishing_a_dataset(signal_in, capsys, text, tmp_path):
    """Its name is given, or not; the same call finds it done."""
    signal_in(work_folder, "tidy", at=1)
    call = ("prepare", text, "--tokenizer", "bytes", "--out", tmp_path / "data")
    assert stopped(capsys, *call)[0] == 75
    assert {".lock", "journal.json"} < set(left(tmp_path / "data"))
    assert main([*map(str, call)]) == 0
    names = ["dataset.json", "tokenizer.json", "train_000000.npy", "val_000000.npy"]
    assert left(tmp_path / "data") == names


def test_preparing_from_anothers_shards(signal_in, capsys, monkeypatch, tmp_path):
    np.arange(8000, dtype=np.uint16).tofile(tmp_path / "train.bin")
    monkeypatch.setattr(split, "SCAN_IDS", 500)
    stretches = signal_in(shard_writer.ShardWriter, "write")
    call = ("prepare", "--from-shards", tmp_path, "--out", tmp_path / "out" / "data")
    code, line = stopped(capsys, *call)
    assert code == 75
    assert "stopped by SIGTERM; to go on, run the same command again" in line
    assert len(stretches) == SIGNAL_IN
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize(("owner", "unit"), [(counting, "count_batch"), (merging.Corpus, "merge")])
def test_training_a_tokenizer(signal_in, capsys, monkeypatch, text, tmp_path, owner, unit):
    monkeypatch.setattr(counting, "BATCH_CHARACTERS", 10_000)
    units = signal_in(owner, unit)
    call = ("tokenizer", "train", text, "--vocab-size", "300", "--workers", "1")
    stop = stopped(capsys, *call, "--out", tmp_path / "new" / "tokenizer")
    assert stop == (143, "myna tokenizer: stopped by SIGTERM")
    assert len(units) == SIGNAL_IN
    assert left(tmp_path) == ["texts.jsonl"]


def test_workers_that_count_end_at_once(monkeypatch, text):
    """The pool would else wait for the batches that they have."""
    shut_down = []
    real = counting.ProcessPoolExecutor.shutdown

    def shutdown(pool, *args, **options):
        workers = list((pool._processes or {}).values())
        real(pool, *args, **options)
        shut_down.extend(worker.exitcode for worker in workers)

    monkeypatch.setattr(counting.ProcessPoolExecutor, "shutdown", shutdown)
    monkeypatch.setattr(counting, "BATCH_CHARACTERS", 10_000)
    read = [json.loads(line)["text"] for line in text.read_text().splitlines()]
    counts = counting._each_batch(read, patterns.NONE, 2)
    next(counts)
    counts.close()
    assert shut_down
    assert set(shut_down) <= {1, -signal.SIGTERM}  # none came to the end of its work, which is 0


def test_encoding_a_long_text(signal_in, capsys, monkeypatch, tmp_path):
    """It is cut where no token spans the cut."""
    long, tokenizer = "Some words, 12 and more of them.\n" * 5000, Tokenizer.gpt2()
    whole = tokenizer.encode(long)
    monkeypatch.setattr(engines, "BLOCK_CHARACTERS", 20_000)
    assert tokenizer.encode(long) == whole == tokenizer.encode_arrays(["a", long])[0].tolist()[1:]
    (tmp_path / "long.txt").write_text(long)
    blocks = signal_in(engines.RankModel, "_encode_block")
    call = ("tokenizer", "compare", tmp_path / "long.txt", "--tokenizer", "gpt2", "--tokenizer", "bytes")
    assert stopped(capsys, *call) == (143, "myna tokenizer: stopped by SIGTERM")
    assert len(blocks) == SIGNAL_IN


@pytest.fixture
def stuck() -> Iterator[Callable[..., None]]:
    """A call that does not come back for a minute, and meanwhile this process gets SIGTERM."""
    over = threading.Event()

    def call(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert over.wait(60)
        raise ValueError("it came back")

    yield call
    over.set()


@pytest.mark.filterwarnings("ignore:the tokenizer")
def test_a_library_that_cannot_be_cut(stuck, capsys, monkeypatch, tmp_path):
    """A text as long as this goes into `tokenizers` in one call."""
    tokenizers = pytest.importorskip("tokenizers")
    word_level = tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")
    tokenizers.Tokenizer(word_level).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "long.txt").write_text("a" * 1000)
    monkeypatch.setattr(foreign, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(foreign.HuggingFaceModel, "_ids", stuck)
    which = ("--tokenizer", tmp_path, "--tokenizer", "bytes")
    assert stopped(capsys, "tokenizer", "compare", tmp_path / "long.txt", *which) == (
        143,
        "myna tokenizer: stopped by SIGTERM",
    )


def test_waiting_for_the_other_ranks(stuck, capsys, monkeypatch, small_run, tmp_path):
    """Who joins a store that nobody opens is in C for ten minutes."""
    monkeypatch.setattr(ranks, "rendezvous", stuck)
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    monkeypatch.setattr("myna.commands.train.process_environment", lambda: place)
    assert stopped(capsys, "train", *small_run, "--out", tmp_path / "run") == BEGINS_ANEW
    assert left(tmp_path) == []


@pytest.mark.parametrize("at", [1, 2])
def test_a_report(signal_in, capsys, tmp_path, at):
    """While a picture's file is written, and before: nothing of it stays."""
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.write_recipe({"name": "run", "corpus": ["pydoc"], "tokenizer": "bytes"})
    run.append_metrics({"step": 1, "tokens": 100, "train_loss": 5.0})
    before = left(run.path)
    signal_in(*((files.SyncedWriter, "write") if at == 1 else (files.os, "replace")), at=1)
    assert stopped(capsys, "report", run.path) == (143, "myna report: stopped by SIGTERM")
    assert left(run.path) == before


def test_an_export(signal_in, capsys, model, tmp_path):
    writes = signal_in(files.SyncedWriter, "write")
    call = ("export", model, "--to", "hugging-face", "--out", tmp_path / "out" / "model")
    assert stopped(capsys, *call) == (143, "myna export: stopped by SIGTERM")
    assert len(writes) == SIGNAL_IN
    assert left(tmp_path / "out") == []


def test_a_bench(capsys, monkeypatch, tmp_path):
    """Its jobs are processes; here they only note that they began."""
    jobs = []

    def run_job(job, on_step=None):
        jobs.append(job["task"])
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(measure, "run_job", run_job)
    assert stopped(capsys, "bench", "--out", tmp_path / "new" / "bench") == (
        143,
        "myna bench: stopped by SIGTERM",
    )
    assert jobs == ["survey"]
    assert left(tmp_path) == []


def test_training_that_prepares_its_own_data(signal_in, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    documents = [f"documentation of function {n}, " * 20 for n in range(300)]
    monkeypatch.setattr(formats, "pydoc_documents", lambda: iter(documents))
    monkeypatch.setattr(counting, "BATCH_CHARACTERS", 10_000)
    batches = signal_in(counting, "count_batch")
    assert stopped(capsys, "train", "--device", "cpu") == BEGINS_ANEW
    assert len(batches) == SIGNAL_IN
    assert left(tmp_path) == []


def test_training_before_step_1(signal_in, capsys, small_run, tmp_path):
    signal_in(train_start, "new_network", at=1)
    call = ("train", *small_run, "--steps", "3", "--out", tmp_path / "run")
    assert stopped(capsys, *call) == BEGINS_ANEW
    assert left(tmp_path) == []


def test_training_before_it_knows_its_folder(signal_in, capsys, small_run):
    signal_in(train, "read_call", at=1)
    code, line = stopped(capsys, "train", *small_run)
    assert (code, line) == (75, STOPPED + "the same command goes on from what is saved, if anything is")


def test_training_whose_copy_may_hold_checkpoints(signal_in, capsys, small_run, tmp_path):
    signal_in(train_start, "new_network", at=1)
    call = ("train", *small_run, "--out", tmp_path / "run", "--copy-to", f"file://{tmp_path}/copy")
    code, line = stopped(capsys, *call)
    assert (code, line) == (75, STOPPED + "the same command goes on from what is saved, if anything is")


@pytest.mark.parametrize("what", ["hellaswag", "samples"])
def test_an_evaluation_on_the_way(signal_in, capsys, small_run, hellaswag_file, tmp_path, what):
    """The step is saved, and made up for by the same call."""
    unit = (Decoder, "logits") if what == "hellaswag" else (engine, "choose")
    flags = {"hellaswag": ("--hellaswag", hellaswag_file, "--hellaswag-every", "2"), "samples": ()}
    every = ("--sample-every", "2" if what == "samples" else "0")
    call = ("train", *small_run, *every, *flags[what], "--steps", "2", "--out", tmp_path / "run")
    units = signal_in(*unit)
    code, line = stopped(capsys, *call)
    assert (code, len(units)) == (75, SIGNAL_IN)
    assert line.endswith("after step 0, which is saved; the same command goes on from there")
    assert main([*map(str, call)]) == 0
    if what == "samples":
        assert [sample["step"] for sample in Run(tmp_path / "run").samples()] == [0, 2]


@pytest.mark.parametrize("unit", [(train_end, "report"), (compression.bz2, "BZ2Compressor")])
def test_the_report_of_a_training(signal_in, capsys, small_run, tmp_path, unit):
    """All steps are made: the same call makes the report."""
    call = ("train", *small_run, "--steps", "2", "--out", tmp_path / "run")
    signal_in(*unit, at=1)
    assert stopped(capsys, *call) == GOES_ON
    assert main([*map(str, call)]) == 0
    assert (tmp_path / "run" / "report.png").exists()


# -- the mechanism itself


def pieces(monkeypatch, sent: Callable[[int], None], count: int = 200) -> list[int]:
    """Makes `myna data` a command of many pieces; `sent` is told each one's number. Returns those that end."""
    ended: list[int] = []

    def run(name, args):
        for number in range(count):
            sent(number)
            time.sleep(0.001)
            ended.append(number)
        return 0

    monkeypatch.setattr(cli, "run", run)
    return ended


def test_an_ignored_signal_stays_ignored(monkeypatch):
    """As nohup has it."""
    monkeypatch.setattr(cli, "run", lambda name, args: os.kill(os.getpid(), signal.SIGHUP) or 0)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["data"]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_does_not_disturb_the_ending(monkeypatch, capsys, tmp_path):
    def run(name, args):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            (tmp_path / "tidied").touch()

    monkeypatch.setattr(cli, "run", run)
    assert stopped(capsys, "data") == (143, "myna data: stopped by SIGTERM")
    assert (tmp_path / "tidied").exists()


def test_a_signal_that_comes_where_python_drops_errors_is_not_lost(monkeypatch, capsys):
    """`__del__` is such a place: what it raises is printed and forgotten."""

    class Dying:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def sent(number):
        if number == 3:
            Dying()
            gc.collect()

    ended = pieces(monkeypatch, sent, count=30_000)
    assert stopped(capsys, "data") == (143, "myna data: stopped by SIGTERM")
    assert len(ended) < 30_000


def test_in_another_thread_a_command_runs_without_signals(monkeypatch, capsys):
    ended, codes = pieces(monkeypatch, lambda number: None, count=3), []
    thread = threading.Thread(target=lambda: codes.append(main(["data"])))
    thread.start()
    thread.join()
    assert (codes, ended) == ([0], [0, 1, 2])
