"""How ranks find each other: a connection of each with rank 0, made before the process group.

Rank 0 listens, and leaves its port and a secret in the store that torchrun keeps. torchrun keeps it across restarts,
with all that the ranks before had left in it, so what a rank reads there may be old: a port where nobody answers, or
a stranger does. It then reads again. The secret of the connection that came about names the attempt, and keeps what
the process group leaves in the store apart from what an earlier one left.
"""

import hmac
import json
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch.distributed import Store  # type: ignore[attr-defined]

from myna.errors import DeviceError

KEY = "myna/meeting"
HELLO_BYTES = 64
REPLY_S = 5.0
AGAIN_S = 0.2


@dataclass(frozen=True)
class Links:
    """This rank's connections: on rank 0 with all others, elsewhere with rank 0."""

    attempt: str  # the same on all ranks, and new in every attempt
    by_rank: Mapping[int, socket.socket] = field(default_factory=dict)


def meet(store: Store, *, rank: int, world_size: int, host: str, timeout_s: float) -> Links:
    """Connects this rank.

    Args:
        store: one that all ranks share, and earlier attempts shared too.
        host: the machine of rank 0.
    Raises:
        DeviceError: not all are connected within `timeout_s`.
    """
    return _accept(store, world_size, timeout_s) if rank == 0 else _connect(store, rank, host, timeout_s)


def _accept(store: Store, world_size: int, timeout_s: float) -> Links:
    secret = secrets.token_hex(16)
    links: dict[int, socket.socket] = {}
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    end = time.monotonic() + timeout_s
    with socket.create_server(("", 0), family=family, dualstack_ipv6=both, backlog=world_size) as server:
        store.set(KEY, json.dumps([server.getsockname()[1], secret]))
        while len(links) < world_size - 1:
            server.settimeout(max(0.001, end - time.monotonic()))
            try:
                link, _ = server.accept()
            except TimeoutError as error:
                missing = sorted(set(range(1, world_size)) - links.keys())
                raise DeviceError(
                    f"rank {', '.join(map(str, missing))} of {world_size} did not join rank 0 within {timeout_s:g} s; "
                    "see that it was started, and that the machines may open connections to each other"
                ) from error
            link.settimeout(REPLY_S)
            try:
                said, _, number = link.recv(HELLO_BYTES, socket.MSG_WAITALL).decode("ascii").partition(" ")
                if not hmac.compare_digest(said, secret):
                    raise ValueError("a stranger")
                links[int(number)] = link
                link.sendall(secret.ljust(HELLO_BYTES).encode("ascii"))
            except (OSError, ValueError):
                link.close()
    return Links(secret, links)


def _connect(store: Store, rank: int, host: str, timeout_s: float) -> Links:
    end = time.monotonic() + timeout_s
    while True:
        port, secret = json.loads(store.get(KEY))
        try:
            link = socket.create_connection((host, port), timeout=REPLY_S)
            try:
                link.sendall(f"{secret} {rank}".ljust(HELLO_BYTES).encode("ascii"))
                said = link.recv(HELLO_BYTES, socket.MSG_WAITALL).decode("ascii").strip()
                if not hmac.compare_digest(said, secret):
                    raise ConnectionError("a stranger answers")
            except BaseException:
                link.close()
                raise
            return Links(secret, {0: link})
        except (OSError, ValueError) as error:
            if time.monotonic() > end:
                raise DeviceError(
                    f"rank {rank} could not join rank 0 at {host}, port {port}, within {timeout_s:g} s: {error}; "
                    "see that the machines may open connections to each other"
                ) from error
            time.sleep(AGAIN_S)
