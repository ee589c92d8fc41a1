"""OpenAI's completions: a request's fields, each checked, and the answers' shapes.

A field that would change the text and is not supported is refused, never ignored. Fields that only tell who asks are
taken and forgotten. Beside OpenAI's fields there are `top_k`, `min_p`, `repetition_penalty`, `stop_token_ids`,
`truncate` (of a prompt that is too long, keep the right end; of a suffix, the left end) and `slide` (a full window goes
on from its last half).

Source: https://platform.openai.com/docs/api-reference/completions
"""

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from myna.errors import MynaError, UsageError
from myna.generate.sampling import LogProbs, Sampling
from myna.serve.errors import ApiError
from myna.settings import is_whole
from myna.text.stream import CharacterOffsets
from myna.text.tokenizer import Tokenizer

# Of OpenAI's fields, those that are supported at one value alone, which changes nothing.
ONLY = {"presence_penalty": 0, "frequency_penalty": 0, "best_of": 1, "logit_bias": {}}
FORGOTTEN = frozenset({"user", "metadata", "store"})
# Field -> the name in `Sampling`; null stands for the default.
SAMPLING = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "stop": "stop",
    "stop_token_ids": "stop_ids",
    "logprobs": "logprobs",
    "slide": "slide",
}
DEFAULTS: dict[str, Any] = {
    "max_tokens": 16,
    "slide": False,
}  # where OpenAI's, or a server's, is not `Sampling`'s
OWN = frozenset({"model", "prompt", "n", "echo", "stream", "stream_options", "truncate", "suffix"})
MOST_STOPS = 16


@dataclass(frozen=True)
class Completion:
    """A request for texts, checked as far as it can be without the model.

    Attributes:
        prompts: texts, or ids.
        n: texts of each.
        truncate: of a prompt that is longer than the model's context, keep the right end.
        suffix: what stands behind the text that is asked for; None: nothing is known of it.
    """

    model: str | None
    prompts: list[str | list[int]]
    sampling: Sampling
    n: int
    echo: bool
    stream: bool
    include_usage: bool
    truncate: bool
    suffix: str | None


def read_completion(body: Any) -> Completion:
    """The request in a JSON body.

    Raises:
        ApiError: 400, names the field.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "the body is no JSON object; send one with a prompt")
    for name, value in body.items():
        if name in ONLY:
            if value is not None and (isinstance(value, bool) or value != ONLY[name]):
                raise ApiError(400, f"{name} is not supported; leave it out", param=name)
        elif name not in SAMPLING and name not in OWN and name not in FORGOTTEN:
            raise ApiError(400, f"there is no field {name!r}; leave it out", param=name)
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise ApiError(400, "model is no text; give a name that /v1/models lists", param="model")
    suffix = body.get("suffix")
    if suffix is not None and not isinstance(suffix, str):
        raise ApiError(400, "suffix is no text; give one, or leave it out", param="suffix")
    options = _object(body, "stream_options", {"include_usage", "include_obfuscation"})
    if options and not _flag(body, "stream"):
        raise ApiError(400, "stream_options is for stream: true alone", param="stream_options")
    return Completion(
        model=model,
        prompts=_prompts(body.get("prompt")),
        sampling=_sampling(body),
        n=_whole(body, "n", 1),
        echo=_flag(body, "echo"),
        stream=_flag(body, "stream"),
        include_usage=_flag(options, "include_usage"),
        truncate=_flag(body, "truncate"),
        suffix=suffix,
    )


def _sampling(body: Mapping[str, Any]) -> Sampling:
    values = dict(DEFAULTS)
    for field, name in SAMPLING.items():
        value = body.get(field)
        if value is None:
            continue
        if field == "stop":
            value = [value] if isinstance(value, str) else value
            if not isinstance(value, list) or len(value) > MOST_STOPS:
                raise ApiError(400, f"stop is no text or list of up to {MOST_STOPS} texts", param="stop")
        if field == "slide":
            value = _flag(body, "slide")
        one: dict[str, Any] = {name: value}
        try:
            Sampling(**one)
        except UsageError as error:
            raise ApiError(400, str(error), param=field) from error
        values[name] = value
    return Sampling(**values)


def _prompts(prompt: Any) -> list[str | list[int]]:
    if prompt is None:
        prompt = ""  # OpenAI's default: the beginning of a document
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(map(is_whole, prompt)):
            return [prompt]
        if all(isinstance(one, str) for one in prompt):
            return prompt
        if all(isinstance(one, list) and all(map(is_whole, one)) for one in prompt):
            return prompt
    raise ApiError(
        400, "prompt is no text, list of texts, list of ids, or list of lists of ids", param="prompt"
    )


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise ApiError(400, f"{name} is {value!r}; give true or false", param=name)
    return bool(value)


def _whole(body: Mapping[str, Any], name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if not is_whole(value) or value < 1:
        raise ApiError(400, f"{name} is {value!r}; give a whole number from 1 on", param=name)
    return value


def _object(body: Mapping[str, Any], name: str, fields: set[str]) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not set(value) <= fields:
        raise ApiError(400, f"{name} is no object of {', '.join(sorted(fields))}", param=name)
    return value


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model takes it.

    Attributes:
        ids: one or more, at most the model's context.
        truncated: its beginning was left out; of a prompt with a suffix, an end of either.
        echo: the text that the ids stand for.
    """

    ids: list[int]
    truncated: bool
    echo: str


def read_prompt(prompt: str | list[int], tokenizer: Tokenizer, context: int, truncate: bool) -> Prompt:
    """
    Raises:
        ApiError: 400: it can't be encoded, is too long, or holds ids that the model does not have.
    """
    ids = prompt_ids(prompt, tokenizer)
    truncated = len(ids) > context
    if truncated and not truncate:
        raise ApiError(
            400,
            f"the prompt has {len(ids)} tokens, and the model's context {context}; shorten it, or send "
            "truncate: true to keep its right end",
            param="prompt",
            code="context_length_exceeded",
        )
    ids = ids[-context:]
    echo = prompt if isinstance(prompt, str) and not truncated else tokenizer.decode(ids)
    return Prompt(ids or [tokenizer.eot], truncated, echo)


def prompt_ids(prompt: str | list[int], tokenizer: Tokenizer) -> list[int]:
    """The ids of a prompt, however long.

    Raises:
        ApiError: 400: it can't be encoded, or holds ids that the model does not have.
    """
    if not isinstance(prompt, str):
        check_known(prompt, tokenizer, "prompt")
        return prompt
    try:
        return tokenizer.encode(prompt)
    except MynaError as error:
        raise ApiError(400, f"the prompt can't be encoded: {error}", param="prompt") from error


def check_known(ids: Iterable[int], tokenizer: Tokenizer, param: str) -> None:
    """
    Raises:
        ApiError: 400: the model does not have one of the ids.
    """
    wrong = next((id for id in ids if not 0 <= id < tokenizer.n_vocab), None)
    if wrong is not None:
        raise ApiError(400, f"id {wrong} is outside the vocabulary of {tokenizer.n_vocab}", param=param)


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """One token as text; as "bytes:\\\\xe2\\\\x80" where it holds a part of a character, as OpenAI writes it."""
    data = tokenizer.token_bytes(id)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class ChoiceLogprobs:
    """The log-probabilities of a choice, piece by piece, in the API's shape.

    Args:
        offset: of the choice's first character in its text.
    """

    def __init__(self, tokenizer: Tokenizer, offset: int = 0):
        self.tokenizer, self._offsets = tokenizer, CharacterOffsets(offset)

    def of(self, found: list[tuple[int, LogProbs | None]]) -> dict[str, Any]:
        """Those of some tokens; None for one that nothing comes before."""
        return {
            "tokens": [token_text(self.tokenizer, id) for id, _ in found],
            "token_logprobs": [logs and logs.chosen for _, logs in found],
            "top_logprobs": [
                logs and {token_text(self.tokenizer, id): value for id, value in logs.likeliest}
                for _, logs in found
            ],
            "text_offset": [self._offsets.feed(self.tokenizer.token_bytes(id))[1] for id, _ in found],
        }


class Answer:
    """One request's answer, or the chunks of its stream."""

    def __init__(self, model: str):
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def choices(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """The object with these choices."""
        return self.head | {"choices": choices} | more


def choice(
    index: int, text: str, finish_reason: str | None = None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A choice, or a part of one."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """What a request cost."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
