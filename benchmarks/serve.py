"""`myna serve` under many clients: speed against one client, waiting times, memory, errors.

    python benchmarks/serve.py                                  # a small model of random weights, 32 clients, 5 minutes
    python benchmarks/serve.py --seconds 20 --layers 2          # quick
    python benchmarks/serve.py --model runs/pydoc --weights int8

The server is a process of its own, `myna serve`, and the clients speak HTTP over loopback, each request over a
connection of its own. The requests are mixed: prompts of 1 id up to half the context, some with the same beginning as
others; 1 to 128 new tokens; greedy and sampled; half of them streamed; some with log-probabilities. One client asks for
a while alone, then many at once. Meanwhile /health is asked 20 times a second.

Random weights: what is written does not matter for the time. The clients need a part of the processor too: where the
server's threads take all of it, the figures hold both.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEALTH_PAUSE_SECONDS = 0.05
TEXT = (
    "The return value is a list of the tokens of the text, or None if the file is not open for reading and writing. "
    "Each model has a class with a count of bytes, and an error is raised when the last line of a path is no object: "
)
WORDS = TEXT.split()


@dataclass
class Seen:
    """What the clients of one round saw."""

    seconds: float = 0.0
    processor_seconds: float = 0.0  # the server's
    requests: int = 0
    tokens: int = 0
    errors: list[str] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)  # seconds, of streamed requests
    health: list[float] = field(default_factory=list)  # seconds

    def about(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "seconds": self.seconds,
            "requests": self.requests,
            "errors": len(self.errors),
            "tokens_per_s": self.tokens / self.seconds,
            "processor_ms_a_token": 1e3 * self.processor_seconds / max(1, self.tokens),
            "first_token_ms": percentiles(self.first_token),
            "health_ms": percentiles(self.health),
        }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The 50th and the 99th, and the largest, in milliseconds."""
    if len(seconds) < 2:
        return {}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": 1e3 * cuts[49], "p99": 1e3 * cuts[98], "most": 1e3 * max(seconds)}


def random_model(folder: Path, call: argparse.Namespace) -> None:
    """A GPT of random weights with GPT-2's tokenizer."""
    import torch

    from myna import GPT, GPTConfig, Tokenizer

    torch.manual_seed(0)
    heads = max(1, call.width // 64)
    config = GPTConfig(n_layer=call.layers, n_head=heads, n_embd=call.width, block_size=call.context)
    GPT(config).save_pretrained(folder, Tokenizer.gpt2())


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    port: int
    process: int  # its number

    def processor_seconds(self) -> float:
        """What it has computed since its start, all threads together."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Its memory now."""
        status = Path(f"/proc/{self.process}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) << 10


@contextlib.contextmanager
def serving(model: str, call: argparse.Namespace) -> Iterator[Served]:
    """`myna serve` on a free port; it must end with 0."""
    command = [sys.executable, "-m", "myna", "serve", model, "--port", "0", "--weights", call.weights]
    command += ["--max-texts", str(call.clients), "--prefix-bytes", str(call.prefix_mib << 20)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr)
            if found := re.search(r"serving at http://[^ ]*:(\d+)", line):
                break
        else:
            raise SystemExit("myna serve did not come up")
        yield Served(int(found[1]), process.pid)
        process.terminate()
        if process.wait(60):
            raise SystemExit(f"myna serve ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def random_request(chance: random.Random, context: int) -> dict[str, Any]:
    """Fields of /v1/completions."""
    length = min(chance.choice((1, 4, 16, 64, context // 2)), context // 2)
    begin = chance.choice(("", "", "the model text token return value if "))
    words = begin.split() + chance.choices(WORDS, k=length)
    asked: dict[str, Any] = {
        "prompt": " ".join(words[:length]),
        "max_tokens": min(chance.choice((1, 8, 32, 64, 128)), context // 2 - 1),
        "temperature": chance.choice((0, 0.8, 1)),
        "seed": chance.randrange(1 << 30),
    }
    if chance.random() < 0.3:
        asked |= {"top_k": 50, "top_p": 0.95}
    if chance.random() < 0.2:
        asked["logprobs"] = 5
    if chance.random() < 0.5:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return asked


async def exchanged(port: int, method: str, path: str, body: bytes) -> tuple[asyncio.StreamReader, Any, int]:
    """Sends a request over a new connection; the reader stands behind the head of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    status = int((await reader.readline()).split()[1])
    while (await reader.readline()).strip():
        pass
    return reader, writer, status


async def complete(port: int, asked: dict[str, Any], seen: Seen) -> None:
    """One request, its answer read to the end."""
    begun = time.perf_counter()
    reader, writer, status = await exchanged(port, "POST", "/v1/completions", json.dumps(asked).encode())
    try:
        if status != 200 or not asked.get("stream"):
            found = json.loads(await reader.read())
            if status != 200:
                raise ValueError(f"{status}: {found}")
            seen.tokens += found["usage"]["completion_tokens"]
            return
        first, last = None, ""
        while line := await reader.readline():  # the lines of chunked encoding are passed over
            if line.startswith(b"data: "):
                first = first or time.perf_counter()
                last, before = line[len("data: ") :].decode().strip(), last
        if last != "[DONE]":
            raise ValueError("the stream broke off")
        seen.tokens += json.loads(before)["usage"]["completion_tokens"]
        if first is not None:
            seen.first_token.append(first - begun)
    finally:
        writer.close()


async def client(number: int, port: int, context: int, until: float, seen: Seen) -> None:
    """Asks again and again until it is time to end."""
    chance = random.Random(number)
    while time.perf_counter() < until:
        try:
            await complete(port, random_request(chance, context), seen)
        except (OSError, ValueError, KeyError, IndexError) as error:
            seen.errors.append(repr(error))
        seen.requests += 1


async def ask_health(port: int, seen: Seen) -> None:
    """Asks /health until it is cancelled."""
    while True:
        begun = time.perf_counter()
        try:
            reader, writer, status = await exchanged(port, "GET", "/health", b"")
            await reader.read()
            writer.close()
            if status != 200:
                raise ValueError(f"/health: {status}")
        except (OSError, ValueError, IndexError) as error:
            seen.errors.append(repr(error))
        seen.health.append(time.perf_counter() - begun)
        await asyncio.sleep(HEALTH_PAUSE_SECONDS)


async def note_memory(served: Served, noted: list[int]) -> None:
    """Notes the server's memory every second until it is cancelled."""
    while True:
        noted.append(served.resident_bytes())
        await asyncio.sleep(1.0)


async def round_of(clients: int, seconds: float, served: Served, context: int, noted: list[int]) -> Seen:
    """So many clients for so long. What is under way at the end is finished, and counts."""
    seen = Seen()
    begun, computed = time.perf_counter(), served.processor_seconds()
    beside = [
        asyncio.create_task(ask_health(served.port, seen)),
        asyncio.create_task(note_memory(served, noted)),
    ]
    await asyncio.gather(
        *(client(number, served.port, context, begun + seconds, seen) for number in range(clients))
    )
    seen.seconds = time.perf_counter() - begun
    seen.processor_seconds = served.processor_seconds() - computed
    for task in beside:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return seen


def context_of(model: Path) -> int:
    """Positions of a model's window: of a folder's config.json, or of the newest checkpoint's of a run."""
    configs = sorted(model.glob("checkpoints/step_*/config.json")) or [model / "config.json"]
    return int(json.loads(configs[-1].read_text())["n_positions"])


def show(name: str, seen: Seen) -> None:
    """A round in a line."""
    about = seen.about()
    first, health = (
        "/".join(f"{about[key].get(p, 0):.0f}" for p in ("p50", "p99"))
        for key in ("first_token_ms", "health_ms")
    )
    print(
        f"{name:<12} {seen.requests:>8} {len(seen.errors):>6} {about['tokens_per_s']:>9.1f} "
        f"{about['processor_ms_a_token']:>12.2f} {first:>18} {health:>14}"
    )


def main() -> None:
    """Prints the table, and with --json an object. Exit code 1 where a request failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a run or a folder; by default random weights")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="of the many; one client asks a tenth as long"
    )
    parser.add_argument(
        "--prefix-mib", type=int, default=64, help="of kept keys and values; full before memory is compared"
    )
    parser.add_argument("--json", action="store_true")
    call = parser.parse_args()
    noted: list[int] = []
    with tempfile.TemporaryDirectory() as made:
        if call.model is None:
            random_model(Path(made), call)
        model = call.model or made
        context = context_of(Path(model))
        with serving(model, call) as served:
            at_start = served.resident_bytes()
            alone = asyncio.run(round_of(1, max(5.0, call.seconds / 10), served, context, []))
            many = asyncio.run(round_of(call.clients, call.seconds, served, context, noted))
    memory = {"start": at_start, "middle": noted[len(noted) // 2], "end": noted[-1], "most": max(noted)}
    print(
        f"{'':<12} {'requests':>8} {'errors':>6} {'tokens/s':>9} {'cpu ms/token':>12} "
        f"{'first token p50/99':>18} {'health p50/99':>14}"
    )
    show("1 client", alone)
    show(f"{call.clients} clients", many)
    ratio = (many.tokens / many.seconds) / (alone.tokens / alone.seconds)
    print(f"tokens/s, many over one: {ratio:.2f}   times in ms; {os.cpu_count()} cores")
    print("resident memory, MiB: " + ", ".join(f"{name} {size / 2**20:.0f}" for name, size in memory.items()))
    for error in (*alone.errors, *many.errors)[:5]:
        print(error)
    if call.json:
        found = {"alone": alone.about(), "many": many.about(), "ratio": ratio, "memory_bytes": memory}
        json.dump(found | {"clients": call.clients}, sys.stdout)
        print()
    if alone.errors or many.errors:
        sys.exit(1)


if __name__ == "__main__":
    main()
