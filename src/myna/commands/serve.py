"""`myna serve`: models behind OpenAI's API, and a page to talk to them."""

import contextlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from myna.commands import parse
from myna.commands.model_flags import RunningFlags, compile_step, open_to_run
from myna.errors import DataError, UsageError
from myna.paths import cannot_use, shown
from myna.progress import speak
from myna.serve.limits import LOOPBACK, Guard, Limits

API_KEY_VARIABLE = "MYNA_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve models: OpenAI's API at /v1, and a page to talk to them at /. Ends with Ctrl-C or SIGTERM."""

    models: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL...")]
    """Run folders (the newest checkpoint of each), checkpoints, Hugging Face folders, URLs of these, or hub names such
    as gpt2."""
    running: Annotated[RunningFlags, tyro.conf.arg(name="")]
    host: str = "127.0.0.1"
    """The address to listen on. Any but 127.0.0.1, ::1 and localhost needs an API key."""
    port: int = 8000
    """The port; 0 takes a free one."""
    runs: Path | None = None
    """A folder of runs, whose curves and samples the page shows, also while they train."""
    api_key_file: Path | None = None
    """A file with the key that requests must send. Or the environment variable MYNA_API_KEY."""
    allow_host: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A name under which browsers ask this server, besides localhost. May be given several times."""
    compile: bool = False
    """Before serving, compile the step that writes several texts at once. This takes seconds per model, and gives more
    tokens per second."""
    log_requests: bool = False
    """Print a line for each request: the client's address and the path, never the text."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)


def main(args: Sequence[str]) -> None:
    """Runs `myna serve`."""
    call = parse(Serve, args, command="serve")
    if not call.models:
        raise UsageError("no MODEL; name a run, a checkpoint, a folder or a hub name such as gpt2")
    for package in ("starlette", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"`myna serve` needs {package}; install it: pip install 'myna[serve]'")

    limits = call.limits
    check_limits(limits)
    key = api_key(call)
    if call.host not in LOOPBACK and key is None:
        raise UsageError(
            f"--host {call.host} lets others ask this server; give a key with --api-key-file FILE or "
            f"{API_KEY_VARIABLE}, or listen on 127.0.0.1"
        )
    for name in call.allow_host:
        if not name or "/" in name:
            raise UsageError(f"--allow-host is {name!r}; give a name alone, such as gpu.example.org")
    if call.runs is not None and not call.runs.is_dir():
        raise DataError(f"--runs {call.runs} is no folder; give one that holds runs")
    from myna.serve.app import build_app
    from myna.serve.measures import Measures
    from myna.serve.models import Models, serve_model, unique_names
    from myna.serve.run import bound_socket, serve
    from myna.serve.runs import run_routes

    # Bind first: reading the models takes a while, and a port in use should be reported at once.
    with contextlib.closing(bound_socket(call.host, call.port)) as listening:
        served = []
        for name, spec in zip(unique_names(call.models), call.models, strict=True):
            running = open_to_run(spec, call.running)
            running.store()
            model = serve_model(
                name,
                running.opened.model,
                running.tokenizer,
                running.weights,
                most_texts=limits.max_texts,
                prefix_bytes=limits.prefix_bytes,
                autocast_dtype=running.precision.dtype,
            )
            served.append(model)
            if call.compile:
                compile_step(model.worker.engine.engine)
            speak(f"{name}: {running.opened.path}, weights {running.weights} ({running.why})")
        models, measures = Models(served), Measures()
        measures.watch(models)
        guard = Guard(key, [call.host, *call.allow_host])
        app, server = build_app(models, limits, guard, measures, [*run_routes(call.runs)])
        port = listening.getsockname()[1]
        address = f"[{call.host}]" if ":" in call.host else call.host

        def ready() -> None:
            speak(f"serving at http://{address}:{port} (the API at /v1); Ctrl-C ends it")

        serve(app, server, models, limits, listening, log_requests=call.log_requests, on_ready=ready)


def check_limits(limits: Limits) -> None:
    """
    Raises:
        UsageError: a cap that lets nothing through.
    """
    for name, value in vars(limits).items():
        least = 0 if name in ("prefix_bytes", "max_waiting", "drain_seconds") else 1
        if not value >= least:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; give {least} or more")


def api_key(call: Serve) -> str | None:
    """The API key, from the file or the environment; None if neither gives one.

    Raises:
        DataError: the file can't be read. UsageError: it is empty.
    """
    if call.api_key_file is not None:
        try:
            key = call.api_key_file.read_text("utf-8").strip()
        except OSError as error:
            raise DataError(f"--api-key-file: {cannot_use(error, call.api_key_file)}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"--api-key-file {shown(call.api_key_file)} is no text in UTF-8") from error
        where = f"--api-key-file {call.api_key_file}"
    else:
        key, where = os.environ.get(API_KEY_VARIABLE, "").strip(), API_KEY_VARIABLE
        if API_KEY_VARIABLE not in os.environ:
            return None
    if not key:
        raise UsageError(f"{where} holds no key; write one, such as: openssl rand -hex 24")
    if any(letter.isspace() or not letter.isprintable() for letter in key):
        raise UsageError(
            f"{where} holds more than a key: there is a space or a line break in it; it must hold nothing but the key"
        )
    return key
