"""What /metrics tells: counts and gauges, in Prometheus's words, by its own library."""

from collections.abc import Iterable
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from myna.serve.models import Served


class Measures:
    """One server's numbers, in a registry of their own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "myna_requests", "Answers by path and HTTP status", ["path", "status"], registry=self.registry
        )
        self._tokens = Counter("myna_generated_tokens", "New tokens", ["model"], registry=self.registry)
        self._running = Gauge("myna_running_texts", "Texts being written", ["model"], registry=self.registry)
        self._waiting = Gauge(
            "myna_waiting_requests", "Requests without a place", ["model"], registry=self.registry
        )

    def watch(self, models: Iterable[Served]) -> None:
        """Asks each model for its numbers whenever the text is made."""
        for one in models:
            self._running.labels(one.name).set_function(partial(getattr, one.worker, "n_running"))
            self._waiting.labels(one.name).set_function(partial(getattr, one.worker, "n_waiting"))
            one.worker.on_tokens = self._tokens.labels(one.name).inc

    def answered(self, path: str, status: int) -> None:
        """An answer has begun."""
        self._requests.labels(path, str(status)).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
