"""How much one server takes on, and who may ask it."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from myna.serve.errors import ApiError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Caps, each a flag of `myna serve`. Beyond one the server refuses; it never slows others down instead."""

    max_texts: int = 32
    """Texts that a model writes at once."""
    max_waiting: int = 64
    """Requests that may wait for a place. More get 429, with Retry-After."""
    max_tokens: int = 4096
    """New tokens that one text may ask for."""
    max_choices: int = 32
    """Texts that one request may ask for: prompts times n."""
    max_body_bytes: int = 1 << 20
    """Bytes of a request."""
    max_text_bytes: int = 128 << 10
    """Bytes of a text whose tokens or merges are asked for; an answer is some eighty times as long."""
    max_seconds: float = 600.0
    """Most seconds from a request's arrival to its end. What was written by then is the answer."""
    max_connections: int = 512
    """Connections at once. Beyond it, the one that has asked for nothing for longest is closed."""
    body_seconds: float = 30.0
    """Seconds in which a request's head must arrive, and then its body."""
    keep_alive_seconds: float = 15.0
    """A stream that is silent for so long sends a comment, so that nobody between takes it for dead."""
    drain_seconds: float = 30.0
    """Seconds that running requests get to end after SIGTERM. Then they are cut."""
    prefix_bytes: int = 512 << 20
    """Bytes of keys and values of earlier texts that a model keeps for prompts that begin alike."""


LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def host_name(host: str) -> str:
    """A Host header, or an authority, without its port.

    >>> host_name("localhost:8000"), host_name("[::1]:8000"), host_name("::1"), host_name("Example.org")
    ('localhost', '::1', '::1', 'example.org')
    """
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and ":" not in name and (port.isdigit() or not port) else host


class Guard:
    """Who may ask.

    A page of another site in the user's browser must not reach a server on the user's machine: its Origin is foreign,
    and after a trick with names (DNS rebinding) its Host is.

    Args:
        api_key: needed for all but the page and /health; None for none.
        hosts: names under which this server is asked, besides the loopback's.
    """

    def __init__(self, api_key: str | None, hosts: Iterable[str]):
        self.api_key = api_key
        self.hosts = LOOPBACK | {host_name(host) for host in hosts}

    def check_names(self, host: str | None, origin: str | None) -> None:
        """
        Raises:
            ApiError: 403: the Host or the Origin is not this server's.
        """
        if host is None or host_name(host) not in self.hosts:
            raise ApiError(
                403,
                f"this server does not answer to the name {host!r}; give it with --allow-host if it is yours",
                code="foreign_host",
            )
        if origin is not None and origin.partition("://")[2] != host:
            raise ApiError(403, f"a page of {origin} may not ask this server", code="foreign_origin")

    def check_key(self, authorization: str | None) -> None:
        """
        Raises:
            ApiError: 401: the key is missing or wrong.
        """
        if self.api_key is None:
            return
        scheme, _, given = (authorization or "").partition(" ")
        # A header's bytes come as latin-1. Compared in a time that does not tell how much was right.
        same = hmac.compare_digest(given.strip().encode("latin-1"), self.api_key.encode("utf-8"))
        if scheme.lower() != "bearer" or not same:
            raise ApiError(
                401,
                "the API key is missing or wrong; send the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
