"""OpenAI's completions: a request's own fields, each checked, and the answers' shapes.

The fields that other endpoints take too are in `fields`.

Source: https://platform.openai.com/docs/api-reference/completions
"""

from dataclasses import dataclass
from typing import Any

from myna.errors import MynaError
from myna.generate.sampling import LogProbs
from myna.serve import fields
from myna.serve.errors import ApiError
from myna.serve.fields import Asked, check_known, check_names, flag, read_asked, read_sampling
from myna.serve.texts import token_text
from myna.settings import is_whole
from myna.text.stream import CharacterOffsets
from myna.text.tokenizer import Tokenizer

ONLY = fields.ONLY | {"best_of": 1}
SAMPLING = fields.SAMPLING | {"logprobs": "logprobs"}
OWN = frozenset({"prompt", "echo", "suffix"})
MAX_TOKENS = 16  # where a request does not say


@dataclass(frozen=True)
class Completion(Asked):
    """A request for texts that go on from prompts.

    Attributes:
        prompts: texts, or ids.
        echo: an answer begins with its prompt.
        suffix: what stands behind the text that is asked for; None: nothing is known of it.
    """

    prompts: list[str | list[int]]
    echo: bool
    suffix: str | None


def read_completion(body: Any) -> Completion:
    """The request in a JSON body.

    Raises:
        ApiError: 400, names the field.
    """
    body = check_names(body, OWN | SAMPLING.keys(), ONLY, "a prompt")
    asked = read_asked(body, read_sampling(body, SAMPLING, max_tokens=MAX_TOKENS))
    suffix = body.get("suffix")
    if suffix is not None and not isinstance(suffix, str):
        raise ApiError(400, "suffix is no text; give one, or leave it out", param="suffix")
    prompts = _prompts(body.get("prompt"))
    return Completion(**vars(asked), prompts=prompts, echo=flag(body, "echo"), suffix=suffix)


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


def choice(
    index: int, text: str, finish_reason: str | None = None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A choice, or a part of one."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
