"""The texts of a request, whatever its endpoint: a job for the worker, and what it tells as an answer or a stream.

An endpoint reads a `Request` from a body. Its `Shape` says how OpenAI writes that endpoint's answers.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from myna.serve.answers import json_bytes
from myna.serve.errors import ApiError
from myna.serve.fields import Asked, check_known
from myna.serve.limits import Limits
from myna.serve.models import Served
from myna.serve.worker import Job, Told
from myna.text.tokenizer import Tokenizer


class Shape(Protocol):
    """How an endpoint writes the answer to one request.

    Attributes:
        head: what each object of the answer begins with.
        about: what else the answer says, such as whether prompts were cut.
    """

    head: dict[str, Any]
    about: dict[str, Any]

    def choice(self, index: int, told: list[Told]) -> dict[str, Any]:
        """A text, from all that was told of it."""
        ...

    def part(self, index: int, told: list[Told], *, begins: bool) -> dict[str, Any] | None:
        """What is new of a text; None where that says nothing: a token may bring no text yet.

        Args:
            begins: nothing was told of this text before.
        """
        ...


@dataclass(frozen=True)
class Request:
    """What is asked for, checked: `asked` of the model `served`, each of the `prompts` as ids."""

    served: Served
    asked: Asked
    prompts: list[list[int]]
    shape: Shape


def head(kind: str, prefix: str, served: Served) -> dict[str, Any]:
    """What an answer of OpenAI's begins with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": served.name,
    }


def check_size(asked: Asked, n_prompts: int, tokenizer: Tokenizer, limits: Limits) -> None:
    """
    Raises:
        ApiError: 400: more than the server gives, or ids that the model does not have.
    """
    if asked.sampling.max_tokens > limits.max_tokens:
        raise ApiError(
            400,
            f"max_tokens is {asked.sampling.max_tokens}; this server gives {limits.max_tokens} at most",
            param="max_tokens",
        )
    n_texts, most = n_prompts * asked.n, min(limits.max_choices, limits.max_texts)
    if n_texts > most:
        raise ApiError(
            400, f"{n_texts} texts asked for at once (prompts times n); this server gives {most}", param="n"
        )
    check_known(asked.sampling.stop_ids, tokenizer, "stop_token_ids")


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """One token as text; as "bytes:\\\\xe2\\\\x80" where it holds a part of a character, as OpenAI writes it."""
    data = tokenizer.token_bytes(id)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class Texts:
    """The texts of one request, as its asker hears of them. `close` ends what is not written yet."""

    def __init__(self, request: Request, limits: Limits):
        self.served, self.asked, self.shape = request.served, request.asked, request.shape
        self.limits = limits
        served, asked, prompts = request.served, request.asked, request.prompts
        if served.worker.n_waiting >= limits.max_waiting:
            raise ApiError(
                429,
                "too many requests wait already; try again",
                code="queue_full",
                headers={"Retry-After": "1"},
            )
        self.n_texts = self.open = len(prompts) * asked.n
        self.n_prompt, self.n_new = sum(map(len, prompts)), 0
        self._news: list[Told] = []
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        deadline = time.monotonic() + limits.max_seconds
        self.job = Job(prompts, asked.sampling, asked.n, self._hear, self._loop, deadline)
        served.worker.submit(self.job)

    def _hear(self, told: Told) -> None:
        self._news.append(told)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def news(self) -> list[Told]:
        """All that is new, in order; nothing after a silence of `keep_alive_seconds`.

        Raises:
            ApiError: 500: the model failed; 503: no place in time.
        """
        if not self._news:
            self._waiter = self._loop.create_future()
            alarm = self._loop.call_later(self.limits.keep_alive_seconds, self._wake)
            try:
                await self._waiter
            finally:
                alarm.cancel()
        news = list(itertools.takewhile(lambda told: told.error is None, self._news))
        if self._news and not news:
            error = self._news[0].error or ""
            raise ApiError(503 if "no place" in error else 500, error)
        del self._news[: len(news)]  # an error is raised when all before it has been taken
        self.n_new += sum(told.id is not None for told in news)
        self.open -= sum(told.finish_reason is not None for told in news)
        return news

    def usage(self) -> dict[str, int]:
        """What it cost so far."""
        return {
            "prompt_tokens": self.n_prompt,
            "completion_tokens": self.n_new,
            "total_tokens": self.n_prompt + self.n_new,
        }

    def answer(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """The object with these choices."""
        return self.shape.head | {"choices": choices} | more

    def close(self) -> None:
        """The asker has all, or went away."""
        if self.open:
            self.served.worker.cancel(self.job)


async def whole(texts: Texts) -> dict[str, Any]:
    """The answer in one piece."""
    told: list[list[Told]] = [[] for _ in range(texts.n_texts)]
    while texts.open:
        for new in await texts.news():
            told[new.index].append(new)
    choices = [texts.shape.choice(index, parts) for index, parts in enumerate(told)]
    return texts.answer(choices, usage=texts.usage(), **texts.shape.about)


async def stream(texts: Texts) -> AsyncIterator[bytes]:
    """The answer as server-sent events: what is new of each text in one, several where the client is slow."""
    more: dict[str, Any] = {"usage": None} if texts.asked.include_usage else {}
    begun: set[int] = set()
    try:
        if texts.shape.about:
            yield event(texts.answer([], **more, **texts.shape.about))
        while texts.open:
            told: dict[int, list[Told]] = {}
            for new in await texts.news():
                told.setdefault(new.index, []).append(new)
            if not told:
                yield b": the model is at work\n\n"
                continue
            parts = [texts.shape.part(index, new, begins=index not in begun) for index, new in told.items()]
            begun |= set(told)
            yield b"".join(event(texts.answer([part], **more)) for part in parts if part)
        if texts.asked.include_usage:
            yield event(texts.answer([], usage=texts.usage()))
    except ApiError as error:  # the status was sent long ago
        yield event(error.body())
    yield b"data: [DONE]\n\n"


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json_bytes(value) + b"\n\n"


class TextStream(StreamingResponse):
    """The answer of `stream`. When it ends, or the client hangs up, nothing is written any more."""

    media_type = "text/event-stream"

    def __init__(self, texts: Texts):
        self.texts = texts
        super().__init__(stream(texts), headers={"cache-control": "no-store", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:  # here, not in the generator: who hangs up at once leaves it before its first line
            self.texts.close()
