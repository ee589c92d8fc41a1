"""`myna tokenizer train|show|compare`: make a tokenizer, see what it does, hold it against others."""

import difflib
import errno
import reprlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from myna.commands import parse
from myna.commands.tokenizer_train import Train, train
from myna.errors import TextError, UsageError
from myna.progress import counted

if TYPE_CHECKING:
    from rich.console import Console


SAMPLE_CHARACTERS = 600
MOST_WORDS = 8  # of a text, in a message


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
        some = ", ".join(map(reprlib.repr, list(dict.fromkeys(words))[:MOST_WORDS]))
        hint = f"did you mean {near[0]!r}?" if near else f"give one of its own, such as {some}"
        raise UsageError(
            f"the text has no pre-token {call.word!r}; {hint if words else 'give a text that is not empty'}"
        )
    n_bytes = len(text.encode("utf-8"))
    ratio = f", {n_bytes / len(spans):.2f} bytes a token" if spans else ""
    summary = (
        f"{tokenizer.name}: {counted(len(spans), 'token')} for {counted(len(text), 'character')}, "
        f"{counted(n_bytes, 'byte')}{ratio}"
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
