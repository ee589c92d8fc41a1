"""`myna chat`: a conversation with a model, in the terminal or through a pipe."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from myna.commands import parse, write_any_character
from myna.commands.model_flags import RunningModelFlags, open_to_run
from myna.commands.text_flags import SamplingFlags, sampling_of
from myna.errors import TextError, UsageError


@dataclass(frozen=True, kw_only=True)
class Call:
    """Talk with a model that was trained on conversations. A line is a question; one of several lines stands between
    two lines of three double quotes. /help lists the commands: /reset, /system, /save, /quit. Ctrl-C stops an answer,
    Ctrl-D ends. Questions may also come from a pipe; then only answers go to stdout."""

    running: Annotated[RunningModelFlags, tyro.conf.arg(name="")]
    system: str | None = None
    """The system turn, which stands before all others and is never left out. Default: none."""
    max_tokens: int | None = None
    """New tokens at most, in each answer. The conversation has the rest of the model's context: where it no longer
    fits, the oldest turns are left out. Default: 512, or half of a context under 1024."""
    sampling: Annotated[SamplingFlags, tyro.conf.arg(name="")]
    json: bool = False
    """Print a JSON object for each answer, one per line."""


def main(args: Sequence[str]) -> None:
    """Runs `myna chat`."""
    call = parse(Call, args, command="chat")
    name = call.running.model
    if call.system is not None and not call.system.strip():
        raise UsageError("--system is empty; give a text, or leave it out")
    sampling = sampling_of(call.sampling, call.max_tokens or 1)
    from myna.commands.chat_loop import Loop
    from myna.generate.chat import Chat, answer_tokens
    from myna.generate.many import window_bytes
    from myna.generate.text import TextEngine
    from myna.text.chat import require_chat

    running = open_to_run(name, call.running)
    require_chat(running.tokenizer, name)
    config = running.opened.model.config
    most = answer_tokens(config.block_size) if call.max_tokens is None else call.max_tokens
    running.store()
    engine = TextEngine(
        running.opened.model,
        running.tokenizer,
        autocast_dtype=running.precision.dtype,
        prefix_bytes=window_bytes(config),
    )
    chat = Chat(engine, dataclasses.replace(sampling, max_tokens=most), call.system)
    write_any_character()
    person = sys.stdin.isatty()
    if person:
        print(f"{name}, {config.block_size} tokens of context. /help lists the commands.", file=sys.stderr)
    read = ask_person if person else line_reader()
    Loop(chat, read, person=person, model=name if call.json else None).run()
    if person:
        print(file=sys.stderr)


def ask_person(prompt: str) -> str:
    """A line that is typed, with the terminal's editing and history.

    Raises:
        EOFError: Ctrl-D. TextError: it is not UTF-8.
    """
    with contextlib.suppress(ImportError):  # what makes `input` an editor; a system may lack it
        import readline  # noqa: F401
    if not sys.stdout.isatty():  # where answers go to a file, prompts don't
        print(prompt, end="", file=sys.stderr, flush=True)
        prompt = ""
    try:
        return input(prompt)
    except UnicodeDecodeError as error:
        raise TextError("that line is not UTF-8; set the terminal to it") from error


def line_reader() -> Callable[[str], str]:
    """Reads the lines of a pipe: a function like `ask_person` that shows no prompt."""
    number = 0

    def read(prompt: str) -> str:
        nonlocal number
        line, number = sys.stdin.buffer.readline(), number + 1
        if not line:
            raise EOFError
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise TextError(f"line {number} of the standard input is not UTF-8; convert it") from error
        return text.removesuffix("\n").removesuffix("\r")

    return read
