"""/v1/completions: a checked request becomes a job; what the worker tells becomes an answer or a stream."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from myna.generate.sampling import LogProbs
from myna.serve.answers import json_bytes
from myna.serve.errors import ApiError
from myna.serve.filling import as_filling, read_filling
from myna.serve.limits import Limits
from myna.serve.models import Models, Served
from myna.serve.protocol import (
    Answer,
    ChoiceLogprobs,
    Completion,
    Prompt,
    check_known,
    choice,
    read_completion,
    read_prompt,
    usage,
)
from myna.serve.worker import Job, Told


def read_request(body: Any, models: Models, limits: Limits) -> tuple[Served, Completion, list[Prompt]]:
    """What a request asks for: the model, the fields, the prompts as ids. May take long: a thread's work.

    Raises:
        ApiError: 400 or 404.
    """
    asked = read_completion(body)
    served = models.named(asked.model)
    if asked.sampling.max_tokens > limits.max_tokens:
        raise ApiError(
            400,
            f"max_tokens is {asked.sampling.max_tokens}; this server gives {limits.max_tokens} at most",
            param="max_tokens",
        )
    n_texts, most = len(asked.prompts) * asked.n, min(limits.max_choices, limits.max_texts)
    if n_texts > most:
        raise ApiError(
            400, f"{n_texts} texts asked for at once (prompts times n); this server gives {most}", param="n"
        )
    check_known(asked.sampling.stop_ids, served.tokenizer, "stop_token_ids")
    tokenizer, context, suffix = served.tokenizer, served.context, asked.suffix
    if suffix is None:
        prompts = [read_prompt(one, tokenizer, context, asked.truncate) for one in asked.prompts]
        return served, asked, prompts
    asked = as_filling(asked, served.name, tokenizer)
    return served, asked, [read_filling(one, suffix, tokenizer, context, asked) for one in asked.prompts]


class Texts:
    """The texts of one request, as its asker hears of them. `close` ends what is not written yet."""

    def __init__(self, served: Served, asked: Completion, prompts: list[Prompt], limits: Limits):
        self.served, self.asked, self.prompts, self.limits = served, asked, prompts, limits
        sampling = asked.sampling
        if asked.echo and sampling.logprobs is not None:
            sampling = replace(sampling, prompt_logprobs=True)
        if served.worker.n_waiting >= limits.max_waiting:
            raise ApiError(
                429,
                "too many requests wait already; try again",
                code="queue_full",
                headers={"Retry-After": "1"},
            )
        self.answer = Answer(served.name)
        self.n_texts = self.open = len(prompts) * asked.n
        self.n_new = 0
        offsets = [0 if asked.echo else len(prompt.echo) for prompt in prompts]
        self.logs = [ChoiceLogprobs(served.tokenizer, offsets[n // asked.n]) for n in range(self.n_texts)]
        self._news: list[Told] = []
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        ids = [prompt.ids for prompt in prompts]
        deadline = time.monotonic() + limits.max_seconds
        self.job = Job(ids, sampling, asked.n, self._hear, self._loop, deadline)
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

    def choice(self, index: int, told: list[Told], *, begins: bool) -> dict[str, Any]:
        """What a text was told, as a choice or a part of one.

        Args:
            begins: it is the first part; where the prompt is to be echoed, the prompt comes before it.
        """
        prompt = self.prompts[index // self.asked.n]
        scored: list[tuple[int, LogProbs | None]] = []
        for one in told:
            if one.prompt_logprobs:
                scored += zip(prompt.ids, one.prompt_logprobs, strict=True)
            if one.id is not None:
                scored.append((one.id, one.logprobs))
        with_scores = self.asked.sampling.logprobs is not None and (scored or begins)
        echo = prompt.echo if self.asked.echo and begins else ""
        return choice(
            index,
            echo + "".join(one.text for one in told),
            told[-1].finish_reason,
            self.logs[index].of(scored) if with_scores else None,
        )

    def usage(self) -> dict[str, int]:
        """What it cost so far."""
        return usage(sum(len(prompt.ids) for prompt in self.prompts), self.n_new)

    def about(self) -> dict[str, Any]:
        """What else the answer says: whether prompts were cut."""
        return {"truncated": [prompt.truncated for prompt in self.prompts]} if self.asked.truncate else {}

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
    choices = [texts.choice(index, parts, begins=True) for index, parts in enumerate(told)]
    return texts.answer.choices(choices, usage=texts.usage(), **texts.about())


async def stream(texts: Texts) -> AsyncIterator[bytes]:
    """The answer as server-sent events: what is new of each text in one, several where the client is slow."""
    more: dict[str, Any] = {"usage": None} if texts.asked.include_usage else {}
    begun: set[int] = set()
    try:
        if texts.asked.truncate:
            yield event(texts.answer.choices([], **more, **texts.about()))
        while texts.open:
            told: dict[int, list[Told]] = {}
            for new in await texts.news():
                told.setdefault(new.index, []).append(new)
            if not told:
                yield b": the model is at work\n\n"
                continue
            parts = [texts.choice(index, news, begins=index not in begun) for index, news in told.items()]
            begun |= set(told)
            yield b"".join(event(texts.answer.choices([part], **more)) for part in parts if says(part))
        if texts.asked.include_usage:
            yield event(texts.answer.choices([], usage=texts.usage()))
    except ApiError as error:  # the status was sent long ago
        yield event(error.body())
    yield b"data: [DONE]\n\n"


def says(part: dict[str, Any]) -> bool:
    """Whether a part of a choice says anything: a token may bring no text yet."""
    return bool(part["text"] or part["logprobs"] or part["finish_reason"])


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
