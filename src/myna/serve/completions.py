"""/v1/completions: a checked request becomes a job; what the worker tells becomes an answer or a stream."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from myna.generate.sampling import LogProbs
from myna.serve.errors import ApiError
from myna.serve.limits import Limits
from myna.serve.models import Models, Served
from myna.serve.protocol import Answer, ChoiceLogprobs, Completion, choice, prompt_ids, usage
from myna.serve.worker import Job, Told


class Texts:
    """The texts of one request, as its asker hears of them. A context: at its end nothing is written any more."""

    def __init__(self, served: Served, asked: Completion, limits: Limits):
        self.served, self.asked, self.limits = served, asked, limits
        tokenizer = served.tokenizer
        self.ids = [prompt_ids(one, tokenizer, served.context, asked.truncate) for one in asked.prompts]
        sampling = asked.sampling
        if sampling.max_tokens > limits.max_tokens:
            raise ApiError(
                400,
                f"max_tokens is {sampling.max_tokens}; this server gives {limits.max_tokens} at most",
                param="max_tokens",
            )
        n_texts = len(self.ids) * asked.n
        if n_texts > min(limits.max_choices, limits.max_texts):
            raise ApiError(
                400,
                f"{n_texts} texts asked for at once (prompts times n); this server gives "
                f"{min(limits.max_choices, limits.max_texts)}",
                param="n",
            )
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
        # What is echoed is the text that the ids stand for: with `truncate`, what is left of the prompt.
        self.echoes = [self._echo(prompt, ids) for prompt, ids in zip(asked.prompts, self.ids, strict=True)]
        offsets = [0 if asked.echo else len(echo) for echo in self.echoes]
        self.logs = [ChoiceLogprobs(tokenizer, offsets[n // asked.n]) for n in range(n_texts)]
        self.n_texts, self.n_new, self.open = n_texts, 0, n_texts
        self._told: asyncio.Queue[Told] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(told: Told) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._told.put_nowait, told)

        self.job = Job(self.ids, sampling, asked.n, tell, time.monotonic() + limits.max_seconds)
        served.worker.submit(self.job)

    def _echo(self, prompt: str | list[int], ids: list[int]) -> str:
        if not prompt:
            return ""
        return (
            prompt
            if isinstance(prompt, str) and not self.asked.truncate
            else self.served.tokenizer.decode(ids)
        )

    @property
    def truncated(self) -> list[bool]:
        """Of each prompt, whether its beginning was left out."""
        encode = self.served.tokenizer.encode
        given = [len(encode(one) if isinstance(one, str) else one) for one in self.asked.prompts]
        return [n > len(ids) for n, ids in zip(given, self.ids, strict=True)]

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
                found += zip(self.ids[index // self.asked.n], one.prompt_logprobs, strict=True)
            if one.id is not None:
                found.append((one.id, one.logprobs))
        return self.logs[index].of(found)

    def usage(self) -> dict[str, int]:
        """What it cost so far."""
        return usage(sum(map(len, self.ids)), self.n_new)

    def about(self) -> dict[str, Any]:
        """What else the answer says: whether prompts were cut."""
        return {"truncated": self.truncated} if self.asked.truncate else {}

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
        echo = texts.echoes[index // texts.asked.n] if texts.asked.echo else ""
        text = echo + "".join(part.text for part in parts)
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
                begun[told.index], text = True, texts.echoes[told.index // texts.asked.n] + text
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
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def open_texts(models: Models, limits: Limits) -> Callable[[Completion], Texts]:
    """What begins a request's texts. It must be called where the event loop runs."""

    def begin(asked: Completion) -> Texts:
        return Texts(models.named(asked.model), asked, limits)

    return begin
