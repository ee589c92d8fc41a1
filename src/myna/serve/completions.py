"""/v1/completions: a checked request, and how its answers are written."""

from dataclasses import replace
from typing import Any

from myna.generate.sampling import LogProbs
from myna.serve.filling import as_filling, read_filling
from myna.serve.limits import Limits
from myna.serve.models import Models, Served
from myna.serve.protocol import ChoiceLogprobs, Completion, Prompt, choice, read_completion, read_prompt
from myna.serve.texts import Request, check_size, head
from myna.serve.worker import Told


def read_request(body: Any, models: Models, limits: Limits) -> Request:
    """What a request asks for. May take long: a thread's work.

    Raises:
        ApiError: 400 or 404.
    """
    asked = read_completion(body)
    served = models.named(asked.model)
    check_size(asked, len(asked.prompts), served.tokenizer, limits)
    tokenizer, context, suffix = served.tokenizer, served.context, asked.suffix
    if suffix is None:
        prompts = [read_prompt(one, tokenizer, context, asked.truncate) for one in asked.prompts]
    else:
        asked = as_filling(asked, served.name, tokenizer)
        prompts = [read_filling(one, suffix, tokenizer, context, asked) for one in asked.prompts]
    if asked.echo and asked.sampling.logprobs is not None:
        asked = replace(asked, sampling=replace(asked.sampling, prompt_logprobs=True))
    shape = CompletionShape(served, asked, prompts)
    return Request(served, asked, [prompt.ids for prompt in prompts], shape)


class CompletionShape:
    """See `Shape`."""

    def __init__(self, served: Served, asked: Completion, prompts: list[Prompt]):
        self.asked, self.prompts = asked, prompts
        self.head = head("text_completion", "cmpl", served)
        self.about = {"truncated": [prompt.truncated for prompt in prompts]} if asked.truncate else {}
        offsets = [0 if asked.echo else len(prompt.echo) for prompt in prompts for _ in range(asked.n)]
        self._logs = [ChoiceLogprobs(served.tokenizer, offset) for offset in offsets]

    def choice(self, index: int, told: list[Told]) -> dict[str, Any]:
        """A text."""
        return self._choice(index, told, begins=True)

    def part(self, index: int, told: list[Told], *, begins: bool) -> dict[str, Any] | None:
        """What is new of one."""
        part = self._choice(index, told, begins=begins)
        return part if part["text"] or part["logprobs"] or part["finish_reason"] else None

    def _choice(self, index: int, told: list[Told], *, begins: bool) -> dict[str, Any]:
        """With its first part comes the prompt, where it is to be echoed."""
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
            self._logs[index].of(scored) if with_scores else None,
        )
