"""/v1/completions: a checked request becomes a job; what the worker tells becomes an answer or a stream."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from myna.generate.sampling import LogProbs
from myna.serve.answers import json_bytes
from myna.serve.errors import ApiError
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
    prompts = [read_prompt(one, served.tokenizer, served.context, asked.truncate) for one in asked.prompts]
    return served, asked, prompts


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
        self._told: asyncio.Queue[Told] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(told: Told) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._told.put_nowait, told)

        ids = [prompt.ids for prompt in prompts]
        self.job = Job(ids, sampling, asked.n, tell, time.monotonic() + limits.max_seconds)
        served.worker.submit(self.job)

    def prompt_of(self, index: int) -> Prompt:
        """The prompt that a text goes on from."""
        return self.prompts[index // self.asked.n]

    def begins(self, index: int) -> str:
        """What a text begins with: the prompt, where it is to be echoed."""
        return self.prompt_of(index).echo if self.asked.echo else ""

    async def next(self) -> Told | None:
        """What is new; None after a silence of `keep_alive_seconds`.

        Raises:
            ApiError: 500: the model failed; 503: no place in time.
        """
        try:
            told = await asyncio.wait_for(self._told.get(), self.limits.keep_alive_seconds)
        except TimeoutError:
            return None
        if told.error:
            raise ApiError(503 if "no place" in told.error else 500, told.error)
        self.n_new += told.id is not None
        self.open -= told.finish_reason is not None
        return told

    def logprobs(self, told: list[Told]) -> dict[str, Any] | None:
        """The API's object of log-probabilities for what a choice was told; None where none were asked for."""
        if self.asked.sampling.logprobs is None or not told:
            return None
        index = told[0].index
        assert index is not None
        found: list[tuple[int, LogProbs | None]] = []
        for one in told:
            if one.prompt_logprobs:
                found += zip(self.prompt_of(index).ids, one.prompt_logprobs, strict=True)
            if one.id is not None:
                found.append((one.id, one.logprobs))
        return self.logs[index].of(found)

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
        new = await texts.next()
        if new is not None and new.index is not None:
            told[new.index].append(new)
    choices = []
    for index, parts in enumerate(told):
        text = texts.begins(index) + "".join(part.text for part in parts)
        choices.append(choice(index, text, parts[-1].finish_reason, texts.logprobs(parts)))
    return texts.answer.choices(choices, usage=texts.usage(), **texts.about())


async def stream(texts: Texts) -> AsyncIterator[bytes]:
    """The answer as server-sent events, a chunk for each piece of text."""
    more: dict[str, Any] = {"usage": None} if texts.asked.include_usage else {}
    try:
        begun = [not texts.asked.echo] * texts.n_texts
        if texts.asked.truncate:
            yield event(texts.answer.choices([], **more, **texts.about()))
        while texts.open:
            told = await texts.next()
            if told is None:
                yield b": the model is at work\n\n"
                continue
            assert told.index is not None
            text = told.text
            if not begun[told.index]:
                begun[told.index], text = True, texts.begins(told.index) + text
            scored = told.id is not None and texts.asked.sampling.logprobs is not None
            if text or scored or told.finish_reason:
                part = choice(told.index, text, told.finish_reason, texts.logprobs([told]))
                yield event(texts.answer.choices([part], **more))
        if texts.asked.include_usage:
            yield event(texts.answer.choices([], usage=texts.usage()))
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
