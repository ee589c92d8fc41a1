"""/v1/chat/completions: a conversation's fields, each checked, and how its answers are written.

Texts in messages never become special tokens: see `myna.text.chat`.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from myna.errors import MynaError
from myna.generate.chat import answer_tokens
from myna.generate.sampling import LogProbs, Sampling
from myna.serve import fields
from myna.serve.errors import ApiError
from myna.serve.fields import Asked, check_names, flag, read_asked, read_sampling
from myna.serve.limits import Limits
from myna.serve.models import Models, Served
from myna.serve.texts import Request, check_size, head, token_text
from myna.serve.worker import Told
from myna.text.chat import (
    ASSISTANT,
    ChatPrompt,
    Message,
    TooLongError,
    encode_prompt,
    read_messages,
    require_chat,
    stop_ids,
)
from myna.text.tokenizer import Tokenizer

ONLY = fields.ONLY | {
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "function_call": "none",
    "response_format": {"type": "text"},
    "modalities": ["text"],
}
LENGTHS = ("max_tokens", "max_completion_tokens")
SAMPLING = fields.SAMPLING | dict.fromkeys(LENGTHS, "max_tokens")
OWN = frozenset({"messages", "logprobs", "top_logprobs"})
# What a field of a message may be that is not ours: clients send answers back whole.
NOTHING: tuple[Any, ...] = (None, [], {}, "")


def read_chat_request(body: Any, models: Models, limits: Limits) -> Request:
    """What a request asks for. May take long: a thread's work.

    Raises:
        ApiError: 400 or 404.
    """
    body = check_names(body, OWN | SAMPLING.keys(), ONLY, "messages")
    asked = read_asked(body, _sampling(body))
    served = models.named(asked.model)
    tokenizer = served.tokenizer
    try:
        require_chat(tokenizer, f"the model {served.name}")
    except MynaError as error:
        raise ApiError(400, str(error), param="model", code="model_cannot_chat") from error
    sampling = asked.sampling
    if all(body.get(name) is None for name in LENGTHS):
        sampling = replace(sampling, max_tokens=min(answer_tokens(served.context), limits.max_tokens))
    asked = replace(asked, sampling=replace(sampling, stop_ids={*sampling.stop_ids, *stop_ids(tokenizer)}))
    check_size(asked, 1, tokenizer, limits)
    prompt = _prompt(_messages(body.get("messages")), asked, served)
    return Request(served, asked, [prompt.ids], ChatShape(served, asked, prompt.left_out))


def _sampling(body: Mapping[str, Any]) -> Sampling:
    lengths = {name: body[name] for name in LENGTHS if body.get(name) is not None}
    scored = flag(body, "logprobs")
    if not scored and body.get("top_logprobs") is not None:
        raise ApiError(400, "top_logprobs is for logprobs: true alone", param="top_logprobs")
    names = SAMPLING | ({"top_logprobs": "logprobs"} if scored else {})
    sampling = read_sampling(body, names, logprobs=0 if scored else None)
    if len(lengths) > 1 and len(set(lengths.values())) > 1:
        raise ApiError(
            400,
            "max_tokens and max_completion_tokens differ; give one of them",
            param="max_completion_tokens",
        )
    return sampling


def _messages(raw: Any) -> tuple[Message, ...]:
    for number, turn in enumerate(raw if isinstance(raw, list) else [], start=1):
        for name, value in turn.items() if isinstance(turn, Mapping) else ():
            if name not in ("role", "content") and value not in NOTHING:
                raise ApiError(
                    400,
                    f"turn {number} has a field {name!r}, which is not supported; leave it out",
                    param="messages",
                )
    try:
        return read_messages(raw)
    except MynaError as error:
        raise ApiError(400, f"messages are no conversation: {error}", param="messages") from error


def _prompt(messages: tuple[Message, ...], asked: Asked, served: Served) -> ChatPrompt:
    """The prompt; with `truncate`, of the newest turns that fit the model's context beside the answer."""
    most, context = asked.sampling.max_tokens, served.context
    if asked.truncate and most >= context:
        raise ApiError(
            400,
            f"max_tokens is {most}, and leaves no room for messages in the model's context of {context}; give less",
            param="max_tokens",
        )
    try:
        prompt = encode_prompt(served.tokenizer, messages, context - most if asked.truncate else None)
    except MynaError as error:
        code = "context_length_exceeded" if isinstance(error, TooLongError) else None
        raise ApiError(400, str(error), param="messages", code=code) from error
    if len(prompt.ids) > context:
        raise ApiError(
            400,
            f"the messages have {len(prompt.ids)} tokens, and the model's context {context}; shorten them, or send "
            "truncate: true to keep the newest that fit",
            param="messages",
            code="context_length_exceeded",
        )
    return prompt


class ChatShape:
    """See `Shape`. A chat's stream has other words than its whole answer.

    Args:
        left_out: the oldest turns that the model is not given, in number.
    """

    def __init__(self, served: Served, asked: Asked, left_out: int):
        self.asked, self.tokenizer = asked, served.tokenizer
        kind = "chat.completion.chunk" if asked.stream else "chat.completion"
        self.head = head(kind, "chatcmpl", served)
        self.about = {"truncated": [left_out > 0], "left_out": left_out} if asked.truncate else {}

    def choice(self, index: int, told: list[Told]) -> dict[str, Any]:
        """An answer."""
        message = {"role": ASSISTANT, "content": _text(told), "refusal": None}
        return self._choice(index, told, "message", message, self._logprobs(told))

    def part(self, index: int, told: list[Told], *, begins: bool) -> dict[str, Any] | None:
        """What is new of one; the role comes with the first."""
        text, scores = _text(told), self._logprobs(told)
        delta = ({"role": ASSISTANT} if begins else {}) | ({"content": text} if text or begins else {})
        if not (delta or scores or told[-1].finish_reason):
            return None
        return self._choice(index, told, "delta", delta, scores)

    def _choice(
        self, index: int, told: list[Told], key: str, value: dict[str, Any], scores: list[dict[str, Any]]
    ) -> dict[str, Any]:
        has_scores = scores or (key == "message" and self.asked.sampling.logprobs is not None)
        logprobs = {"content": scores, "refusal": None} if has_scores else None
        return {
            "index": index,
            key: value,
            "logprobs": logprobs,
            "finish_reason": told[-1].finish_reason,
        }

    def _logprobs(self, told: list[Told]) -> list[dict[str, Any]]:
        return [
            scored(self.tokenizer, one.id, one.logprobs)
            for one in told
            if one.id is not None and one.logprobs is not None
        ]


def _text(told: list[Told]) -> str:
    return "".join(one.text for one in told)


def scored(tokenizer: Tokenizer, id: int, logs: LogProbs) -> dict[str, Any]:
    """A token with its log-probability, and the likeliest in its place."""

    def one(id: int, value: float) -> dict[str, Any]:
        data = tokenizer.token_bytes(id)
        return {"token": token_text(tokenizer, id), "logprob": value, "bytes": list(data)}

    return one(id, logs.chosen) | {"top_logprobs": [one(*likely) for likely in logs.likeliest]}
