"""Connections that ask for nothing: they are closed after a while, and earlier where others find no room."""

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from myna.serve.limits import Limits

OTHER_FILES = 64  # open files that are no connections: models, libraries, logs


def connection_class(limits: Limits) -> type[H11Protocol]:
    """uvicorn's connection, with two caps.

    uvicorn waits forever for the first request of a connection, and for the rest of one that has begun. Some hundred
    sockets that send nothing would use up the open files of the process, and nobody else could connect.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = limits.max_connections
    if allowed != resource.RLIM_INFINITY:
        most = max(1, min(most, allowed - OTHER_FILES))

    class Connection(H11Protocol):
        idle_since: float = 0.0
        _alarm: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()
            if len(self.connections) > most:
                idle = [one for one in self.connections if isinstance(one, Connection) and one.is_idle]
                # All others at work: then this new one goes, which is idle too.
                min(idle, key=lambda one: one.idle_since).transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._unwatch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self.is_idle:
                self._unwatch()
            elif self._alarm is None:  # the first bytes of another request
                self._watch()

        def on_response_complete(self) -> None:
            self.idle_since = self.loop.time()
            super().on_response_complete()

        @property
        def is_idle(self) -> bool:
            """Whether it waits for the head of a request."""
            return self.cycle is None or self.cycle.response_complete

        def _watch(self) -> None:
            self.idle_since = self.loop.time()
            self._alarm = self.loop.call_later(limits.body_seconds, self._late)

        def _unwatch(self) -> None:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

        def _late(self) -> None:
            if self.is_idle:
                self.transport.abort()

    return Connection
