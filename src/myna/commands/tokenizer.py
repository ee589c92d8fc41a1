"""`myna tokenizer train|show|compare`: make a tokenizer, see what it does, hold it against others."""

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from myna.commands import parse
from myna.errors import DataError, OutputError, TextError, UsageError
from myna.progress import Progress, speak

if TYPE_CHECKING:
    from rich.console import Console

    from myna.text.tokenizer import Tokenizer
    from myna.text.training import Learned

SAMPLE_CHARACTERS = 600
Tell = Callable[[int], None]


@dataclass(frozen=True)
class Train:
    """Learn a byte-level BPE vocabulary from text, of any size: memory holds the unique pre-tokens, not the text."""

    files: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files, folders or globs (.txt .md .jsonl .parquet, also .gz .zst), or any corpus that `myna prepare` knows."""
    vocab_size: int
    """All ids: 256 bytes, the merges, and <|endoftext|>, which is the last."""
    out: Path
    """The directory to make (tokenizer.json, tokenizer_config.json), or a name that ends in .tiktoken."""
    pattern: str = "gpt2"
    """Where text is cut before merging: gpt2, gpt4, or a regular expression in the syntax of Python's regex module."""
    workers: int | None = None
    """Processes that split and count. Default: one a core. The result is the same for any number."""
    column: str | None = None
    """The text column of parquet files, or field of JSONL. Default: text, content, or the only one with text."""


@dataclass(frozen=True)
class Show:
    """Print a text's tokens in colour, with ids, places and bytes.

    In a pipe or a file: a line for each token, with its id, a tab, and its text as a JSON string. A token whose bytes
    are not UTF-8 by themselves is in hexadecimal. The counts then go to standard error.
    """

    text: Annotated[str, tyro.conf.Positional]
    """The text; - reads it from standard input."""
    tokenizer: str = "gpt2"
    """gpt2, bytes, or a tokenizer's directory or file."""
    explain: bool = False
    """Show how the merges built a word: what could merge at each moment, at which rank, and what did."""
    word: str | None = None
    """The word to explain, with its space if it has one. Default: the one of the most merges."""


@dataclass(frozen=True)
class Compare:
    """Hold tokenizers against each other over a text or file: tokens, and bytes per token.

    Without colours, each token of the sample is a JSON string, or hexadecimal where its bytes are not UTF-8.
    """

    text: Annotated[str, tyro.conf.Positional]
    """A text, or the name of a UTF-8 file; - reads it from standard input."""
    tokenizer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """gpt2, bytes, or a tokenizer's directory or file. Give it once for each, at least twice."""


def main(args: Sequence[str]) -> None:
    """Runs `myna tokenizer`."""
    actions: dict[str, tuple[type, Callable[[Any], None]]] = {
        "train": (Train, train),
        "show": (Show, show),
        "compare": (Compare, compare),
    }
    if not args or args[0] in ("-h", "--help"):
        print("usage: myna tokenizer train|show|compare [OPTIONS]\n")
        for name, (call, _) in actions.items():
            print(f"  {name:<8} {(call.__doc__ or '').splitlines()[0]}")
        print("\n`myna tokenizer train --help` and so on list the options.")
        return
    if args[0] not in actions:
        near = difflib.get_close_matches(args[0], actions, n=1)
        hint = f"did you mean {near[0]}?" if near else "there are train, show and compare"
        raise UsageError(f"there is no action {args[0]!r}; {hint}")
    call, action = actions[args[0]]
    action(parse(call, args[1:], command=f"tokenizer {args[0]}"))


# -- train


def train(call: Train) -> None:
    """Streams the corpus, learns, and writes the tokenizer whole or not at all."""
    from myna.data.sources.corpora import find_files
    from myna.data.sources.documents import documents
    from myna.text import patterns
    from myna.text.engines import RankModel
    from myna.text.tokenizer import Tokenizer
    from myna.text.training import check_vocab_size, learn

    if not call.files:
        raise UsageError("from what? name files, folders or a corpus")
    if call.workers is not None and call.workers < 1:
        raise UsageError(f"--workers is {call.workers}; the work needs at least 1 worker")
    check_vocab_size(call.vocab_size)
    pattern = patterns.named(call.pattern)
    check_place(call.out)
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
        learned = learn(chain([first], texts), call.vocab_size, pattern, workers, on_bytes, on_merge)
    write(Tokenizer(RankModel(learned.vocabulary), call.out.stem), call.out)
    report(call, learned)


def check_place(out: Path) -> None:
    """Finds out before the work that the result can be written.

    Raises:
        OutputError: something is there already, or the place can't be written to.
    """
    taken = out if out.suffix == ".tiktoken" or not out.is_dir() else out / "tokenizer.json"
    if taken.exists():
        raise OutputError(f"{taken} already exists; remove it or choose another place with --out")
    above = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise OutputError(f"cannot write to {above}; choose another place with --out")


def write(tokenizer: "Tokenizer", out: Path) -> None:
    """Saves a tokenizer so that its directory is whole or absent."""
    from myna.files import atomic_directory

    if out.suffix == ".tiktoken" or out.exists():
        tokenizer.save(out)
        return
    with atomic_directory(out) as folder:
        tokenizer.save(folder)


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
    say(f"next: myna tokenizer show 'some text' --tokenizer {call.out} --explain")


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


# -- show, compare


def show(call: Show) -> None:
    """Prints a text's tokens."""
    from rich.console import Console

    from myna.text import explain, render
    from myna.text.tokenizer import Tokenizer

    text = read_stdin() if call.text == "-" else call.text
    tokenizer = Tokenizer.open(call.tokenizer)
    spans = list(explain.spans(tokenizer, text))
    words = explain.words(tokenizer, text) if call.explain or call.word else []
    if call.word is not None and call.word not in words:
        near = difflib.get_close_matches(call.word, words, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"the text has no pre-token {call.word!r}{hint}")
    n_bytes = len(text.encode("utf-8"))
    ratio = f", {n_bytes / len(spans):.2f} bytes a token" if spans else ""
    summary = (
        f"{tokenizer.name}: {len(spans):,} tokens for {len(text):,} characters, {n_bytes:,} bytes{ratio}"
    )
    console = Console(highlight=False, markup=False)
    if console.is_terminal:
        render.show(console, summary, render.flow(spans, in_colour(console)), render.token_table(spans))
    else:
        print(summary, file=sys.stderr)
        sys.stdout.writelines(line + "\n" for line in render.lines(spans))
        if words:
            console.print()  # ends the lines of tokens
    if words:
        chosen = call.word or max(words, key=lambda word: len(explain.why(tokenizer, word)))
        render.show(console, render.merges(chosen, explain.why(tokenizer, chosen)))


def compare(call: Compare) -> None:
    """Prints tokenizers side by side."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from myna.text import explain, render
    from myna.text.tokenizer import Tokenizer

    if len(call.tokenizer) < 2:
        raise UsageError(
            "compare what? give --tokenizer at least twice, as in --tokenizer gpt2 --tokenizer bytes"
        )
    text = text_or_file(call.text)
    if not text:
        raise TextError("there is no text to compare on")
    tokenizers = [Tokenizer.open(spec) for spec in call.tokenizer]
    n_bytes = len(text.encode("utf-8"))
    counts = [len(tokenizer.encode_arrays([text])[0]) for tokenizer in tokenizers]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("tokenizer", "ids", "tokens", "bytes per token", "tokens, relative"):
        table.add_column(heading, justify="left" if heading == "tokenizer" else "right")
    for tokenizer, count in zip(tokenizers, counts, strict=True):
        row = (
            f"{tokenizer.n_vocab:,}",
            f"{count:,}",
            f"{n_bytes / count:.3f}",
            f"{100 * count / counts[0]:.1f}%",
        )
        table.add_row(tokenizer.name, *row)
    console = Console(highlight=False, markup=False)
    render.show(console, f"{len(text):,} characters, {n_bytes:,} bytes", table)
    sample = text[:SAMPLE_CHARACTERS]
    if len(text) > len(sample):
        console.print(f"the first {len(sample)} characters:\n")
    for tokenizer in tokenizers:
        flow = render.flow(list(explain.spans(tokenizer, sample)), in_colour(console))
        console.print(f"{tokenizer.name}:", style="bold")
        render.show(console, flow)


def in_colour(console: "Console") -> bool:
    """Whether colours would tell tokens apart here."""
    return console.color_system is not None and not console.no_color


def read_stdin() -> str:
    """All of standard input.

    Raises:
        TextError: it is not UTF-8.
    """
    return decoded(sys.stdin.buffer.read(), "standard input")


def text_or_file(given: str) -> str:
    """The text of a file if there is one of that name, else the text itself; standard input for -.

    Raises:
        TextError: something of that name is there, and it is a folder or can't be read, or is not UTF-8.
    """
    if given == "-":
        return read_stdin()
    try:
        return decoded(Path(given).read_bytes(), given)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no file; or a NUL in it
        return given
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return given
        raise TextError(
            f"cannot read {given}: {error.strerror}; name a file, or give the text on standard input, with -"
        ) from error


def decoded(data: bytes, name: str) -> str:
    """Bytes as UTF-8.

    Raises:
        TextError: they are not.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{name} is not UTF-8 at byte {error.start:,}; convert it first") from None
