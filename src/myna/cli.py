"""The command line: a name leads to a module in `myna.commands`, whose `main(args)` does the work."""

import codecs
import contextlib
import difflib
import errno
import importlib
import json
import keyword
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from myna.errors import MynaError, OutputError, Stopped
from myna.signals import interrupted_by_signals, same_command_behind, signal_behind

COMMANDS = {
    "train": "train a model from a recipe; with no argument, the whole route on text this machine already has",
    "prepare": "text to tokens: a corpus becomes shards that training reads",
    "sample": "a model continues a prompt",
    "chat": "talk with a model that was trained on conversations, in the terminal",
    "serve": "talk to a model: OpenAI's API, and a page in the browser",
    "compare": "what several models write with the same prompt and seed, side by side",
    "eval": "validation loss, perplexity, HellaSwag, MMLU, CORE, lm-evaluation-harness",
    "import": "other programs' checkpoints as a model: build-nanogpt's, nanoGPT's, nanochat's",
    "export": "a model as files for other programs: Hugging Face, GGUF, llm.c",
    "sweep": "many runs of a recipe: every combination of some values, in one table and one picture",
    "bench": "the lecture's speed ladder, measured on this machine",
    "device": "what this machine has, what auto chooses on it, and what limits a step",
    "plan": "what a training run takes on GPUs: hours, bytes and money, computed from stated assumptions",
    "report": "loss and HellaSwag curves of one or more runs, as a picture",
    "inspect": "a look inside a model: weights, attention, predictions on the way, tokens",
    "tokenizer": "train, show and compare tokenizers",
    "data": "look at a prepared dataset, verify it, and search it for test items",
}

# Where the same call goes on from what an interrupted one left.
GO_ON = ("prepare", "train", "sweep")
GOES_ON = "the same command goes on from what is saved, if anything is"

LEAST_COLUMNS = 40  # below, a panel of the help can't be laid out


def usage() -> str:
    """The text of `myna --help`."""
    lines = [
        "usage: myna COMMAND [OPTIONS]",
        "",
        "Reproduce GPT-2: from raw text to a trained, scored, sampled model.",
        "",
    ]
    width = max(map(len, COMMANDS))
    lines += [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    lines += ["", "`myna COMMAND --help` lists a command's options. Start with `myna train`."]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns the exit code.

    0 done; 2 the call or the input is wrong; 75 a signal stopped it, and the same call goes on; 128 and the signal's
    number (130 for Ctrl-C, 143 for SIGTERM) where the same call begins again.
    """
    name = argv[0] if argv else "--help"
    try:
        with interrupted_by_signals():
            return _answered(name, argv[1:])
    except KeyboardInterrupt as error:
        number = signal_behind(error) or signal.SIGINT
        how = f"; {same_command_behind(error) or GOES_ON}" if name in GO_ON else ""
        _tell(f"myna {name}: stopped by {signal.Signals(number).name}{how}")
        return Stopped.exit_code if name in GO_ON else 128 + number


def _answered(name: str, args: Sequence[str]) -> int:
    """Runs one command; what a person can mend is a line on stderr, and the exit code says so."""
    _write_anything()
    try:
        code = run(name, args)
        sys.stdout.flush()
        return code
    except MynaError as error:
        if not error.told:
            _tell(f"myna {name}: {error}")
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output went away, as in `myna ... | head`
            _drop_output()
            if name != "prepare":
                return 0
            _tell("myna prepare: nobody reads the output any more; the same call goes on from here")
            return Stopped.exit_code
        if error.errno == errno.ENOSPC and error.filename is None:
            _drop_output()
            _tell(f"myna {name}: cannot write the output: {error.strerror}; free some space")
        elif not getattr(error, "told", False):  # a file that can't be used is no defect of ours
            from myna.paths import cannot_use

            _tell(f"myna {name}: {cannot_use(error)}")
        return OutputError.exit_code


def _tell(line: str) -> None:
    """A line on stderr. Where that can't be written, the exit code says it alone."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def module_of(name: str) -> str:
    """The module of a command; `import`, which no module can be named, is in `import_`."""
    return f"myna.commands.{name}{'_' * keyword.iskeyword(name)}"


def run(name: str, args: Sequence[str]) -> int:
    """Does what a name stands for; the exit code."""
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name == "--version":
        from myna.version import version

        print(f"myna {version()}")
    elif name in COMMANDS:
        importlib.import_module(module_of(name)).main(args)
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean `myna {near[0]}`?" if near else "`myna --help` lists the commands"
        _tell(f"myna: there is no command {name!r}; {hint}")
        return 2
    return 0


def _write_anything() -> None:
    """A character that the output's encoding can't say (PYTHONIOENCODING=ascii) is written as JSON would: `\\u00e9`.

    So a program reads the same from lines of JSON strings, and no command fails for a character.
    """
    codecs.register_error("myna", _as_json)
    errors = getattr(sys.stdout, "errors", None)
    if errors == "strict" or (errors == "surrogateescape" and sys.stdout.encoding.lower() != "utf-8"):
        sys.stdout.reconfigure(errors="myna")  # type: ignore[union-attr]


def _as_json(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _drop_output() -> None:
    """What is still to be written goes nowhere, or Python would try again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning for a person, without the place in the source that Python would add."""
    return f"myna: {message}\n" if category is UserWarning else f"{category.__name__}: {message}\n"


def entry() -> None:
    """The `myna` script."""
    # torch's threads on Linux spin while they wait for each other. Where another program wants a core too, that made
    # training ten times slower; after a short spin they had better sleep. Read by libgomp when torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    os.environ["MPLBACKEND"] = "agg"  # pictures are files here, whatever notebooks are told
    if os.environ.get("COLUMNS", "").isdecimal() and int(os.environ["COLUMNS"]) < LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(LEAST_COLUMNS)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for as long as we live)
    warnings.formatwarning = _one_line
    sys.exit(main(sys.argv[1:]))
