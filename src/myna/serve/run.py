"""The server's life: a socket, the event loop, and a stop that lets running requests end."""

import asyncio
import contextlib
import errno
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from myna.errors import OutputError
from myna.serve.app import Server
from myna.serve.connections import connection_class
from myna.serve.limits import Limits
from myna.serve.models import Models

MOST_PORT = (1 << 16) - 1
LAST_SECONDS = 5  # after running texts were cut, for their ends to be sent


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        OutputError: the port is in use or is none, or the address is not this machine's.
    """
    if not 0 <= port <= MOST_PORT:  # the system would take what is left after a division
        raise OutputError(f"--port is {port}; give 0 to {MOST_PORT}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise OutputError(f"--host {host} --port {port} is no address: {error}; give another") from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        todo = "give another --port" if error.errno == errno.EADDRINUSE else "give another --host or --port"
        raise OutputError(f"cannot listen on {host}, port {port}: {error.strerror}; {todo}") from error
    listening.setblocking(False)
    return listening


def serve(
    app: ASGIApp,
    server: Server,
    models: Models,
    limits: Limits,
    listening: socket.socket,
    *,
    log_requests: bool,
    on_ready: Callable[[], None],
) -> None:
    """Answers until SIGTERM or SIGINT; then takes nothing new, and lets what runs end, or cuts it at the deadline.

    A second SIGINT ends at once.
    """
    config = uvicorn.Config(
        app,
        access_log=log_requests,
        log_level="info" if log_requests else "warning",
        http=connection_class(limits),
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(limits.drain_seconds) + LAST_SECONDS,
        h11_max_incomplete_event_size=64 << 10,
        ws="none",
    )
    inner = uvicorn.Server(config)
    # uvicorn would raise the signal again after its end, and the exit code would be the signal's.
    inner.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]

    def stop(number: int | None = None) -> None:
        if server.draining and number == signal.SIGINT:
            inner.force_exit = True
        if not server.draining:
            asyncio.get_running_loop().call_later(limits.drain_seconds, cut)
        server.draining = inner.should_exit = True

    def cut() -> None:
        for one in models:
            one.worker.cut()

    server.stop = stop

    async def work() -> None:
        with _signals(asyncio.get_running_loop(), stop):
            starting = asyncio.ensure_future(inner.serve(sockets=[listening]))
            while not inner.started and not starting.done():
                await asyncio.sleep(0.01)
            if inner.started:
                on_ready()
            await starting

    try:
        asyncio.run(work())
    finally:
        for one in models:
            one.worker.close(timeout_s=5.0)
        listening.close()


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: Callable[[int], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
