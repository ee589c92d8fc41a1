"""`myna inspect`: a look inside a model."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse, refuse_empty
from myna.commands.model_flags import ModelFlags, checked_name
from myna.commands.out import folder_of_results
from myna.errors import ModelError, OutputError, UsageError
from myna.run import Run
from myna.store.here import here, results_beside
from myna.store.records import fetch_records_if_any

if TYPE_CHECKING:
    from myna.evaluate.inspect.view import View
    from myna.html.page import Table
    from myna.text.tokenizer import Tokenizer

PROMPT = "Hello, I'm a language model,"  # the lecture's
MOST_SHOWN_ROWS = 25  # of a table on the terminal; the page has them all
MOST_SAMPLED = 16  # tokens of a sample that stand for a prompt
PIPED_WIDTH = 160  # columns


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Look inside a model: pictures, one HTML page, and a summary.

    Parts: tensors, positions, smoothness, weights, attention, lens, nearest, undertrained.
    """

    model: Annotated[ModelFlags, tyro.conf.arg(name="")]
    prompt: str | None = None
    """The text for attention and the logit lens. Default: the start of the run's last sample, else the lecture's."""
    token: str | None = None
    """The token whose nearest are wanted: its text, or its id (a number is an id). Default: those of the prompt."""
    layer: int | None = None
    """The layer whose weights and attention are drawn, counted from 0. Default: the middle one."""
    channels: tuple[int, ...] = ()
    """Channels of the position embeddings to draw, such as 150 200 250. Default: the three that vary most."""
    show: str | None = None
    """Parts, separated by commas. Default: all that the model has."""
    out: Path | None = None
    """The folder to write. Default: inspect in the run's folder; for any other model, inspect here."""
    json: bool = False
    """Print one JSON object instead of the summary. The files are written all the same."""


def main(args: Sequence[str]) -> None:
    """Runs `myna inspect`."""
    refuse_empty(args, but=("--prompt",))
    call = parse(Inspect, args, command="inspect")
    spec = checked_name(call.model.model)
    from myna.evaluate.inspect.look import PAGE, look, write
    from myna.evaluate.inspect.parts import PARTS, named_parts
    from myna.evaluate.inspect.view import Subject
    from myna.evaluate.inspect.weights import check_layer
    from myna.model.checkpoint import list_checkpoints
    from myna.model.open import open_model

    wanted = named_parts(list(PARTS) if call.show is None else call.show.replace(" ", "").split(","))
    run = Run(here(spec, fetch_records_if_any, ModelError))
    opened = open_model(spec)
    is_run = run.exists() or run.checkpoints.is_dir()
    out = call.out or (results_beside(spec, "inspect") if is_run else Path("inspect"))
    check_place(out, opened.path)
    tokenizer = opened.tokenizer_or(call.model.tokenizer) if call.model.tokenizer else opened.tokenizer
    if tokenizer is None:
        wanted = without_tokenizer(wanted, call, opened.path)
    layer = (len(opened.model.blocks) - 1) // 2 if call.layer is None else call.layer
    check_layer(opened.model, layer)
    recipe = run.recipe() if run.exists() else {}
    prompt: list[int] = []
    if tokenizer is not None:
        prompt = prompt_ids(call.prompt, run, tokenizer, opened.model.config.block_size)
    length = recipe.get("sequence_length")
    subject = Subject(
        name=opened.name,
        network=opened.model,
        tokenizer=tokenizer,
        prompt=prompt,
        token=None if call.token is None or tokenizer is None else token_id(call.token, tokenizer),
        layer=layer,
        channels=call.channels,
        checkpoints=list_checkpoints(run.checkpoints)[::-1],
        trained_positions=length if isinstance(length, int) and length > 0 else None,
    )
    with folder_of_results(out, [PAGE]):
        views = look(subject, wanted)
        written = write(subject, views, out)
    if call.json:
        files = {"page": str(written[0]), "pictures": list(map(str, written[1:]))}
        values = {name: view.values for name, view in views.items()}
        about = {"model": opened.name, "path": str(opened.path)}
        print(json.dumps(about | values | files, ensure_ascii=False))
    else:
        summary(views)
        print(f"{written[0]} and {len(written) - 1} picture{'' if len(written) == 2 else 's'}")


def check_place(out: Path, model: Path) -> None:
    """Refuses a place that is no folder, or that belongs to a model's files or to the hub's cache.

    Raises:
        OutputError: it is one of these.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"--out {out} is a file; give a folder")
    place, model = out.resolve(), model.resolve()
    for folder, what in (
        (model, "the model's own files"),
        *((cache, "the hub's cache") for cache in hub_caches()),
    ):
        if place == folder or folder in place.parents:
            raise OutputError(f"{out} is in {folder}, which is for {what}; give another folder with --out")


def hub_caches() -> list[Path]:
    """Where huggingface_hub keeps what it fetched, by its own environment variables."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    named = [os.environ.get(name) for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")]
    return [home.resolve(), *(Path(one).expanduser().resolve() for one in named if one)]


def without_tokenizer(wanted: list[str], call: Inspect, path: Path) -> list[str]:
    """The parts that a model without a tokenizer has. Those that were asked for by name are not left out.

    Raises:
        ModelError: a part, the prompt or the token needs one.
    """
    from myna.evaluate.inspect.parts import PARTS

    needing = [name for name in wanted if PARTS[name].needs_tokenizer]
    asked = [
        flag for flag, given in (("--prompt", call.prompt), ("--token", call.token)) if given is not None
    ]
    if needing and (call.show is not None or asked):
        raise ModelError(
            f"{path} has no tokenizer beside the weights, and {(asked or needing)[0]} needs one; name one with "
            "--tokenizer"
        )
    print(
        f"no tokenizer beside the weights, so left out: {', '.join(needing)} (see --tokenizer)",
        file=sys.stderr,
    )
    return [name for name in wanted if name not in needing]


def prompt_ids(given: str | None, run: Run, tokenizer: "Tokenizer", block_size: int) -> list[int]:
    """The prompt as ids. Where none is given: the beginning of the run's last sample, or the lecture's prompt.

    Raises:
        UsageError: it is longer than the window.
        TokenizerError: it is empty, and the tokenizer has no end-of-text token that could stand for it.
    """
    if given is None:
        samples = run.samples() if run.exists() else []
        text = "".join(str(samples[-1].get(key, "")) for key in ("prompt", "text")) if samples else ""
        return tokenizer.encode(text or PROMPT)[: min(block_size, MOST_SAMPLED)]
    ids = tokenizer.encode(given) or [tokenizer.eot]
    if len(ids) > block_size:
        raise UsageError(
            f"--prompt is {len(ids):,} tokens, and the model's window {block_size:,}; shorten it"
        )
    return ids


def token_id(given: str, tokenizer: "Tokenizer") -> int:
    """The id that --token names: a number is an id, any other text a token.

    Raises:
        UsageError: there is no such id, or the text is several tokens; says which.
    """
    if given.isascii() and given.isdigit():
        if (id := int(given)) < tokenizer.n_vocab:
            return id
        raise UsageError(
            f"--token {given}: the tokenizer's ids are 0 to {tokenizer.n_vocab - 1}; give one of those"
        )
    if given in tokenizer.special_tokens:
        return tokenizer.special_tokens[given]
    ids = tokenizer.encode(given)
    if len(ids) == 1:
        return ids[0]
    from myna.text.render import exact

    pieces = ", ".join(f"{id} {exact(tokenizer.token_bytes(id))}" for id in ids[:8])
    more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    raise UsageError(
        f"--token {given!r} is {len(ids)} tokens: {pieces}{more}; give one of them, by its id or text"
    )


def summary(views: "Mapping[str, View]") -> None:
    """Prints what each part has to say, and its tables as far as a screen goes."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, width=None if terminal else PIPED_WIDTH)
    for view in views.values():
        console.print(view.title, style="bold")
        for line in view.lines:
            console.print(line, soft_wrap=not terminal)
        for table in view.tables:
            console.print(as_text(table, terminal))
            if len(table.rows) > MOST_SHOWN_ROWS:
                console.print(f"and {len(table.rows) - MOST_SHOWN_ROWS} more on the page")
        console.print()


def as_text(table: "Table", terminal: bool) -> object:
    """The page's table for a terminal."""
    from rich import box
    from rich.table import Table as Rich

    shown = Rich(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, title=None)
    numbers = [
        all(isinstance(row[column], (int, float)) for row in table.rows)
        for column in range(len(table.header))
    ]
    for name, is_number in zip(table.header, numbers, strict=True):
        shown.add_column(name, justify="right" if is_number else "left")
    for row in table.rows[:MOST_SHOWN_ROWS]:
        shown.add_row(
            *(f"{v:.4g}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else str(v) for v in row)
        )
    return shown
