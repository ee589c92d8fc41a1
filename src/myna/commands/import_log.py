"""`myna import LOG`: another program's log becomes a folder that `myna report` reads as a run."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from myna.commands.out import new_folder
from myna.errors import UsageError
from myna.evaluate.logs import Log, read_log
from myna.files import sha256_file, write_atomic
from myna.paths import quoted
from myna.references import GPT2_LOSSES, HELLASWAG, gpt2_sha256
from myna.run import LOG_KEY, Run

BATCH_TOKENS = 524_288
Size = Literal["124M", "350M", "774M", "1558M"]
Corpus = Literal["fineweb-edu", "fineweb"]


@dataclass(frozen=True)
class AboutLog:
    """What a log does not say of its run; None is "not given"."""

    batch_tokens: int | None = None
    size: Size | None = None
    corpus: Corpus | None = None


def import_log(path: Path, out: Path, about: AboutLog) -> None:
    """Writes the folder, and prints what was read, what was left out, and what was assumed.

    Raises:
        DataError: it is no log. UsageError: the tokens of a step contradict the log.
    """
    log = read_log(path)
    batch_tokens, why = _batch_tokens(log, about)
    records = log.with_tokens(batch_tokens)
    recipe = {"name": out.resolve().name, "batch_tokens": batch_tokens} | _known(path, about)
    recipe[LOG_KEY] = {
        "program": log.program,
        "file": str(path.resolve()),
        "sha256": sha256_file(path),
        "lines": log.lines,
        "other_lines": log.others,
        "replaced": log.twice,
        "cut": log.cut,
    }
    with new_folder(out) as folder:
        run = Run(folder)
        write_atomic(run.metrics_path, "".join(json.dumps(record) + "\n" for record in records).encode())
        run.write_recipe(recipe)
    print(
        f"{out}: {log.lines:,} lines of {log.program}'s log {path}, until step {records[-1]['step']:,}. "
        "It is a log, and no model."
    )
    for note in (f"tokens: {batch_tokens:,} a step, {why}", *_left_out(log), _compares(about)):
        print(f"  {note}")
    print(f"  myna report {quoted(os.path.relpath(out))}")


def _batch_tokens(log: Log, about: AboutLog) -> tuple[int, str]:
    """The tokens of a step, and where that number is from."""
    given, stated = about.batch_tokens, log.batch_tokens
    if given is not None and stated is not None and given != stated:
        raise UsageError(
            f"--batch-tokens is {given:,}, and the log states {stated:,} tokens a step; leave it out, or give that"
        )
    if given is not None:
        return given, "as --batch-tokens says"
    if stated is not None:
        return stated, "as the log states"
    return BATCH_TOKENS, "GPT-2's batch, which is assumed; --batch-tokens N changes it"


def _known(path: Path, about: AboutLog) -> dict[str, Any]:
    """What `myna.references` asks of a recipe."""
    known: dict[str, Any] = {}
    if about.size is not None:
        layers, width = next(shape for shape, row in HELLASWAG.items() if row[0] == about.size)
        known |= {"network": "gpt2", "n_layer": layers, "n_embd": width}
    if about.size is not None or about.corpus is not None:
        known["tokenizer"] = "gpt2"
    if about.corpus is not None:
        known["trained_on"] = [
            {"path": str(path), "corpus": [about.corpus], "tokenizer": gpt2_sha256(), "identity": "a log"}
        ]
    return known


def _left_out(log: Log) -> list[str]:
    notes = []
    if log.others:
        notes.append(f"left out: {log.others:,} other lines, the first is line {log.first_other:,}")
    if log.twice:
        notes.append(f"logged twice: {log.twice:,} values; the later ones count, as after a resume")
    if log.cut:
        notes.append("left out: the last line, which has no end, as after a crash")
    return notes


def _compares(about: AboutLog) -> str:
    if about.size is None and about.corpus is None:
        names = " or ".join(name for name in GPT2_LOSSES)
        return f"compared with no other model, unless --size (124M) and --corpus ({names}) say what it is of"
    return f"compared as GPT-2 {about.size or 'of another size'} on {about.corpus or 'another corpus'}, as you say"
