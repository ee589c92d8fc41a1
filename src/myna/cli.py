"""The command line: a name leads to a module in `myna.commands`, whose `main(args)` does the work."""

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from myna.errors import MynaError, Stopped

COMMANDS = {
    "train": "train a model from a recipe; with no argument, the whole route on text this machine already has",
    "prepare": "text to tokens: a corpus becomes shards that training reads",
    "sample": "a model continues a prompt",
    "eval": "validation loss, bits per byte, HellaSwag",
    "bench": "the lecture's speed ladder, measured on this machine",
    "report": "loss and HellaSwag curves of one or more runs, as a picture",
    "tokenizer": "train, show and compare tokenizers",
    "data": "look at a prepared dataset, and verify it",
}


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
    """Runs one command and returns the exit code: 0 done, 2 the call or the input is wrong, 75 stopped and saved."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name, args = argv[0], argv[1:]
    if name == "--version":
        from importlib.metadata import version

        print(f"myna {version('myna')}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean `myna {near[0]}`?" if near else "`myna --help` lists the commands"
        print(f"myna: there is no command {name!r}; {hint}", file=sys.stderr)
        return 2
    try:
        importlib.import_module(f"myna.commands.{name}").main(args)
        sys.stdout.flush()
    except MynaError as error:
        print(f"myna {name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"myna {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `myna ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if name == "prepare":
            print(
                "myna prepare: nobody reads the output any more; the same call goes on from here",
                file=sys.stderr,
            )
            return Stopped.exit_code
        return 0
    return 0


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
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    warnings.formatwarning = _one_line
    sys.exit(main(sys.argv[1:]))
