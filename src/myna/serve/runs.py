"""The runs of a folder, for the page: what each is, its curves and its samples, also while it trains.

Nothing is written here, and no lock is taken. A client asks again with the byte at which its last answer ended, so a
look at a run that goes on costs what was appended.

A run is a folder directly inside the one of `--runs`, or that folder itself. A name never leads out of it, and nor does
a link: runs and files elsewhere are not there.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from myna.errors import MynaError
from myna.parsing import number, whole
from myna.references import (
    HELLASWAG_CHANCE,
    hellaswag_reference,
    loss_reference,
    tokenizer_of,
)
from myna.run import Run
from myna.serve.answers import Json
from myna.serve.curves import Chunk, curves, read_on
from myna.serve.errors import ApiError

IN_SHORT = (
    "name", "network", "corpus", "tokenizer", "n_layer", "n_head", "n_embd", "block_size", "steps", "batch_tokens",
    "sequence_length", "learning_rate", "warmup_steps", "dropout", "optimizer", "seed",
)  # fmt: skip
MOST_SAMPLES = 200  # in one answer, the newest
MOST_CHARACTERS = 20_000  # of one sample
MOST_AFTER = 1 << 62


@dataclass
class Last:
    """What a run's records say last; each look reads on from where the one before ended."""

    next: int = 0
    step: int | None = None
    tokens: int | None = None
    val_loss: float | None = None
    val_bits_per_byte: float | None = None
    hellaswag: float | None = None
    hellaswag_items: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def look(self, path: Path) -> None:
        """Reads what is new."""
        with self.lock:
            more = True
            while more:
                chunk = read_on(path, self.next)
                if chunk.restarted:
                    self._forget()
                for record in chunk.records:
                    self._take(record)
                self.next, more = chunk.next, chunk.more

    def _take(self, record: Mapping[str, Any]) -> None:
        step, tokens = whole(record, "step"), whole(record, "tokens")
        if step is None or tokens is None:
            return
        self.step, self.tokens = step, tokens
        for key, name in (
            ("val_loss", "val_loss"),
            ("val_bits_per_byte", "val_bits_per_byte"),
            ("hellaswag_acc_token", "hellaswag"),
        ):
            if (value := number(record, key)) is not None:
                setattr(self, name, value)
        if (items := whole(record, "hellaswag_items")) is not None:
            self.hellaswag_items = items

    def _forget(self) -> None:
        self.step = self.tokens = self.hellaswag_items = None
        self.val_loss = self.val_bits_per_byte = self.hellaswag = None


class RunsFolder:
    """The runs that a server shows.

    Args:
        path: the folder; None where the server was given none.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._last: dict[str, Last] = {}

    def runs(self) -> dict[str, Run]:
        """Those there are now, by name. The folder's own name comes first where it is a run."""
        if self.path is None:
            return {}
        found: dict[str, Run] = {}
        try:
            root = self.path.resolve()
            folders = [root, *sorted(root.iterdir())]
        except OSError:
            return {}
        for folder in folders:
            name = folder.name
            if not folder_name(name) or name in found:
                continue
            run = Run(folder)
            if inside(root, run.recipe_path):
                found[name] = run
        return found

    def named(self, name: str) -> Run:
        """
        Raises:
            ApiError: 404: it isn't there.
        """
        run = self.runs().get(name)
        if run is None:
            known = "give its folder with --runs" if self.path is None else "/v1/runs lists those there are"
            raise ApiError(404, f"there is no run {name!r}; {known}", param="name", code="run_not_found")
        return run

    def list(self) -> dict[str, Any]:
        """The answer of /v1/runs, the newest first."""
        found = self.runs()
        for gone in set(self._last) - set(found):
            self._last.pop(gone, None)
        lines = [self.line(name, run) for name, run in found.items()]
        lines.sort(key=lambda line: line["modified"], reverse=True)
        return {
            "object": "list",
            "folder": None if self.path is None else self.path.resolve().name,
            "data": lines,
        }

    def line(self, name: str, run: Run) -> dict[str, Any]:
        """A run in a line."""
        recipe, problem = self._recipe(run)
        last = self._last.setdefault(name, Last())
        last.look(self._file(run.metrics_path))
        modified = run.modified()
        writing, known_by = run.is_written()
        return {
            "name": name,
            "recipe": plain(recipe.get("name")),
            "network": plain(recipe.get("network")),
            "steps": whole(recipe, "steps"),
            "step": last.step,
            "tokens": last.tokens,
            "val_loss": last.val_loss,
            "val_bits_per_byte": last.val_bits_per_byte,
            "hellaswag": last.hellaswag,
            "hellaswag_items": last.hellaswag_items,
            "writing": writing,
            "writing_known_by": known_by,
            "modified": round(modified, 3),
            "problem": problem,
        }

    def about(self, name: str) -> dict[str, Any]:
        """The answer of /v1/runs/{name}: its line, its recipe in short, and the references that apply to it."""
        run = self.named(name)
        line = self.line(name, run)
        recipe, _ = self._recipe(run)
        loss = loss_reference(recipe)
        accuracy = hellaswag_reference(recipe, line["hellaswag_items"])
        size, gpt2, gpt3 = accuracy.size or (None, None, None)
        return line | {
            "recipe": {key: plain(recipe[key]) for key in IN_SHORT if key in recipe},
            "tokenizer": tokenizer_of(recipe),
            "references": {
                "loss": {
                    "gpt2": loss.value,
                    "label": loss.label,
                    "why": loss.why,
                },
                "hellaswag": {
                    "size": size,
                    "gpt2": gpt2,
                    "gpt3": gpt3,
                    "chance": HELLASWAG_CHANCE,
                    "why": accuracy.why,
                },
            },
        }

    def metrics(self, name: str, after: int) -> dict[str, Any]:
        """The answer of /v1/runs/{name}/metrics."""
        return curves(read_on(self._file(self.named(name).metrics_path), after))

    def samples(self, name: str, after: int) -> dict[str, Any]:
        """The answer of /v1/runs/{name}/samples."""
        chunk = read_on(self._file(self.named(name).samples_path), after)
        return chunk.about() | {"samples": texts(chunk)}

    def _recipe(self, run: Run) -> tuple[dict[str, Any], str | None]:
        try:
            return run.recipe(), None
        except (MynaError, RecursionError) as error:
            # The folder may have gone since it was listed; and the message's path is the server's own affair.
            return {}, str(error).replace(str(run.path), run.path.name)

    def _file(self, path: Path) -> Path:
        """The path, or one that is never there where it leads out of the folder."""
        assert self.path is not None
        return path if inside(self.path.resolve(), path) else path / "outside"


def folder_name(name: str) -> bool:
    """Whether a run may be called so: shown in a list, and asked for by a URL.

    >>> folder_name("gpt2-124m"), folder_name(".."), folder_name(".lock"), folder_name("a/b"), folder_name("\\udcff")
    (True, False, False, False, False)
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def inside(root: Path, path: Path) -> bool:
    """Whether a file is there, and within the folder when links are followed."""
    try:
        return path.is_file() and path.resolve().is_relative_to(root)
    except (OSError, RuntimeError, ValueError):  # a circle of links, a name that no file can have
        return False


def texts(chunk: Chunk) -> list[dict[str, Any]]:
    """The newest samples of a chunk, in the order written."""
    return [
        {
            "step": whole(record, "step"),
            "prompt": _short(record.get("prompt")),
            "text": _short(record.get("text")),
        }
        for record in chunk.records[-MOST_SAMPLES:]
        if isinstance(record.get("text"), str)
    ]


def _short(text: Any) -> str:
    return text[:MOST_CHARACTERS] if isinstance(text, str) else ""


def plain(value: Any) -> Any:
    """A value of a recipe as JSON can say it, and no longer than a line; a recipe.json may hold anything."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, list):
        return [plain(one) for one in value[:20]]
    return str(value)[:200]


def offset(request: Request) -> int:
    """The query's `after`; 0 without one.

    Raises:
        ApiError: 400: it is no number of bytes.
    """
    given = request.query_params.get("after", "0")
    if not (given.isascii() and given.isdigit()) or len(given) > 20 or int(given) > MOST_AFTER:
        raise ApiError(
            400, f"after is {given[:40]!r}; give the `next` of an earlier answer, or 0", param="after"
        )
    return int(given)


def answer(value: Any) -> Response:
    """JSON that no browser keeps: it may be another one a second later."""
    return Json(value, headers={"cache-control": "no-store"})


def run_routes(path: Path | None) -> list[Route]:
    """The routes of a folder of runs; without one the list is empty, and says so."""
    folder = RunsFolder(path)

    async def list_runs(request: Request) -> Response:
        return answer(await run_in_threadpool(folder.list))

    async def about(request: Request) -> Response:
        return answer(await run_in_threadpool(folder.about, request.path_params["name"]))

    async def metrics(request: Request) -> Response:
        return answer(await run_in_threadpool(folder.metrics, request.path_params["name"], offset(request)))

    async def samples(request: Request) -> Response:
        return answer(await run_in_threadpool(folder.samples, request.path_params["name"], offset(request)))

    return [
        Route("/v1/runs", list_runs),
        Route("/v1/runs/{name}", about),
        Route("/v1/runs/{name}/metrics", metrics),
        Route("/v1/runs/{name}/samples", samples),
    ]
