"""`myna tokenizer train`: a vocabulary learned from text, by our own BPE or by sentencepiece."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from myna.errors import DataError, OutputError, TokenizerError, UsageError
from myna.paths import quoted
from myna.progress import Progress, speak

if TYPE_CHECKING:
    from myna.text.training import Learned

# What is called with the bytes counted since the last call, or the number of merges found so far.
Tell = Callable[[int], None]


@dataclass(frozen=True)
class Train:
    """Learn a vocabulary from text, of any size: BPE's memory holds the unique pre-tokens, not the text."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files, folders or globs (.txt .md .jsonl .parquet, also .gz .zst), or any corpus that `myna prepare` knows."""
    vocab_size: int
    """All ids: 256 bytes, the merges, and <|endoftext|>, which is the last. Sentencepiece's: <unk>, <s>, </s>, 256
    bytes, and the pieces."""
    out: Path
    """The directory to make (it may exist if it is empty), or a file whose name ends in .tiktoken (in .model for
    sentencepiece)."""
    kind: Literal["bpe", "sentencepiece"] = "bpe"
    """bpe: byte-level BPE, as GPT-2's. sentencepiece: BPE of characters by the library sentencepiece, as Llama 2's."""
    pattern: str | None = None
    """Where bpe cuts text before merging: gpt2 (the default), gpt4, o200k, or a regular expression in the syntax of
    Python's regex module."""
    workers: int | None = None
    """Processes that split and count. Default: one per core. The result is the same for any number."""
    column: str | None = None
    """The text column of parquet files, or field of JSONL. Default: text, content, or the only one with text."""


@dataclass(frozen=True)
class Made:
    """A trained tokenizer: how it is saved, and what is said of it."""

    save: Callable[[Path], None]
    report: Callable[[], None]


def train(call: Train) -> None:
    """Streams the corpus, learns, and writes the tokenizer whole or not at all."""
    from myna.data.sources.corpora import find_files
    from myna.data.sources.documents import documents

    if not call.files:
        raise UsageError("from what? name files, folders or a corpus")
    if call.workers is not None and call.workers < 1:
        raise UsageError(f"--workers is {call.workers}; the work needs at least 1 worker")
    learn = KINDS[call.kind](call)
    check_place(call.out, FILES[call.kind])
    files = find_files(call.files, speak)
    sizes = [file.n_bytes for file in files if not file.compression and file.kind == "text"]
    total = sum(size or 0 for size in sizes) if len(sizes) == len(files) else None
    workers = call.workers or os.cpu_count() or 1
    if total is not None and total < 8 << 20:
        workers = 1  # it would be done before a process has started
    with progress(total, call.vocab_size - 257) as (on_bytes, on_merge):
        texts = documents(call.files, val_fraction=0.0, column=call.column)
        first = next(texts, None)
        if first is None:
            raise DataError(
                f"{', '.join(call.files)}: no text in it to learn from; name files that hold some"
            )
        made = learn(chain([first], texts), workers, on_bytes, on_merge)
    write(made, call.out)
    made.report()
    next_step = f"next: myna tokenizer show 'some text' --tokenizer {quoted(call.out)}"
    print(next_step + " --explain" * (call.kind == "bpe"))


# -- the kinds

# (texts, workers, on_bytes, on_merge) -> what was made.
Learn = Callable[[Iterable[str], int, Tell, Tell], Made]


def bpe(call: Train) -> Learn:
    """Our own: checks the call, and returns what learns."""
    from myna.text import patterns
    from myna.text.engines import RankModel
    from myna.text.tokenizer import Tokenizer
    from myna.text.training import check_vocab_size, learn

    check_vocab_size(call.vocab_size)
    try:
        pattern = patterns.named("gpt2" if call.pattern is None else call.pattern)
    except TokenizerError as error:
        raise TokenizerError(f"{error}; correct --pattern, or give gpt2, gpt4 or o200k") from error
    if call.out.suffix == ".model":
        raise UsageError(f"{call.out}: a .model is sentencepiece's; name a directory or a .tiktoken")

    def run(texts: Iterable[str], workers: int, on_bytes: Tell, on_merge: Tell) -> Made:
        learned = learn(texts, call.vocab_size, pattern, workers, on_bytes, on_merge)
        tokenizer = Tokenizer(RankModel(learned.vocabulary), call.out.stem)
        return Made(tokenizer.save, partial(report, call, learned))

    return run


def sentencepiece(call: Train) -> Learn:
    """Sentencepiece's: checks the call, and returns what learns."""
    from myna.files import write_atomic
    from myna.text.exchange import SENTENCEPIECE
    from myna.text.foreign import SentencePieceModel
    from myna.text.sentencepiece_training import learn_sentencepiece

    if call.pattern is not None:
        raise UsageError(
            "--pattern is for --kind bpe; sentencepiece cuts at spaces, digits and changes of script"
        )
    if call.out.suffix == ".tiktoken":
        raise UsageError(f"{call.out}: sentencepiece has no ranks; name a directory or a .model")

    def run(texts: Iterable[str], workers: int, on_bytes: Tell, on_merge: Tell) -> Made:
        began = time.perf_counter()
        data = learn_sentencepiece(texts, call.vocab_size, workers, on_bytes)
        seconds = time.perf_counter() - began

        def save(out: Path) -> None:
            write_atomic(out if out.suffix == ".model" else out / SENTENCEPIECE, data)

        def say() -> None:
            model = SentencePieceModel(data, str(call.out))
            in_bytes = sum(piece.startswith("<0x") for piece in model.pieces)
            others = len(model.pieces) - in_bytes - len(model.special_tokens)
            print(
                f"{call.out}: {len(model.pieces):,} ids ({', '.join(model.special_tokens)}, {in_bytes} bytes, "
                f"{others:,} pieces), in {seconds:.1f} s; memory at most {peak_bytes() / 1e6:,.0f} MB"
            )

        return Made(save, say)

    return run


KINDS: dict[str, Callable[[Train], Learn]] = {"bpe": bpe, "sentencepiece": sentencepiece}
# By kind: the ending of a name that is one file, and what the file is called in a directory.
FILES = {"bpe": (".tiktoken", "tokenizer.json"), "sentencepiece": (".model", "tokenizer.model")}


# -- where it goes, and what is said


def check_place(out: Path, names: tuple[str, str]) -> None:
    """Finds out before the work that the result can be written.

    Args:
        names: see FILES.
    Raises:
        OutputError: something is there already, or the place can't be written to.
    """
    ending, inside = names
    taken = out if out.suffix == ending or not out.is_dir() else out / inside
    if taken.exists():
        raise OutputError(f"{taken} already exists; remove it or choose another place with --out")
    if taken != out and any(out.iterdir()):
        raise OutputError(f"{out} holds other files; give a new or an empty directory with --out")
    above = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise OutputError(f"cannot write to {above}; choose another place with --out")


def write(made: Made, out: Path) -> None:
    """Saves a tokenizer so that its directory is whole or absent."""
    from myna.files import atomic_directory

    if out.suffix in (".tiktoken", ".model") or out.exists():
        made.save(out)
        return
    with atomic_directory(out) as folder:
        made.save(folder)


def report(call: Train, learned: "Learned") -> None:
    """Says what was learned and what it took."""
    from rich.console import Console
    from rich.text import Text

    from myna.text.render import COLOURS, legible

    say = partial(Console(highlight=False, markup=False).print, soft_wrap=True)
    tokens = [token for token in learned.vocabulary.tokens if token is not None]
    seconds = learned.count_seconds + learned.merge_seconds
    say(
        f"{call.out}: {call.vocab_size:,} ids (256 bytes, {len(tokens) - 256:,} merges, <|endoftext|>), "
        f"pattern {learned.vocabulary.pattern.name}"
    )
    say(
        f"read {learned.n_bytes:,} bytes, {learned.unique_pretokens:,} unique pre-tokens, in {seconds:.1f} s "
        f"(counting {learned.count_seconds:.1f}, merging {learned.merge_seconds:.1f}); "
        f"memory at most {peak_bytes() / 1e6:,.0f} MB"
    )
    line = Text("longest words: ")
    readable = [token for token in tokens if token.strip().isalpha()]
    for number, token in enumerate(sorted(readable, key=len, reverse=True)[:8]):
        line.append(legible(token), style=COLOURS[number % len(COLOURS)])
        line.append(" ")
    say(line)


def peak_bytes() -> int:
    """The most memory that this process, and the largest of its children, have had."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    parts = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return unit * sum(resource.getrusage(part).ru_maxrss for part in parts)


@contextmanager
def progress(total_bytes: int | None, n_merges: int) -> Iterator[tuple[Tell, Tell]]:
    """Shows how far training is, on stderr: first the counting, then the merging.

    Yields:
        (on_bytes, on_merge): see `training.learn`.
    """
    with ExitStack() as shown:
        counting = merging = shown.enter_context(Progress("counting", total_bytes, counted=False))

        def on_bytes(more: int) -> None:
            counting.advance(more, f"{(counting.done + more) / 1e6:,.0f} MB")

        def on_merge(count: int) -> None:
            nonlocal merging
            if count == 1:
                shown.close()
                merging = shown.enter_context(Progress("merging", n_merges))
            if count % 100 == 0 or count == n_merges:
                merging.update(count)

        yield on_bytes, on_merge
