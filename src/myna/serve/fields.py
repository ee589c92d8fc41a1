"""The fields of a request for texts that both endpoints take, each checked.

A field that would change the text and is not supported is refused, never ignored. Fields that only tell who asks are
taken and forgotten. Beside OpenAI's fields there are `top_k`, `min_p`, `repetition_penalty`, `stop_token_ids`,
`truncate` (of what is too long for the model's context, keep the newest) and `slide` (a full window goes on from its
last half).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from myna.errors import UsageError
from myna.generate.sampling import Sampling
from myna.serve.errors import ApiError
from myna.settings import is_whole
from myna.text.tokenizer import Tokenizer

# Of OpenAI's fields, those that are supported at one value alone, which changes nothing.
ONLY: dict[str, Any] = {"presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}}
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
    "slide": "slide",
}
OWN = frozenset({"model", "n", "stream", "stream_options", "truncate"})
MOST_STOPS = 16


@dataclass(frozen=True)
class Asked:
    """A request for texts, checked as far as it can be without the model.

    Attributes:
        n: texts of each prompt.
        truncate: of a prompt that is longer than the model's context, keep the newest part.
    """

    model: str | None
    sampling: Sampling
    n: int
    stream: bool
    include_usage: bool
    truncate: bool


def check_names(body: Any, known: Collection[str], only: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """The body, an object whose fields are all known.

    Args:
        only: fields that are taken at that value, or null, alone.
        what: it can't do without.
    Raises:
        ApiError: 400, names the field.
    """
    if not isinstance(body, dict):
        raise ApiError(400, f"the body is no JSON object; send one with {what}")
    for name, value in body.items():
        if name in only:
            if value is not None and (isinstance(value, bool) or value != only[name]):
                raise ApiError(400, f"{name} is not supported; leave it out", param=name)
        elif name not in known and name not in OWN and name not in FORGOTTEN:
            raise ApiError(400, f"there is no field {name!r}; leave it out", param=name)
    return body


def read_asked(body: Mapping[str, Any], sampling: Sampling) -> Asked:
    """What every request may say besides how to sample.

    Raises:
        ApiError: 400, names the field.
    """
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise ApiError(400, "model is no text; give a name that /v1/models lists", param="model")
    options = _object(body, "stream_options", {"include_usage", "include_obfuscation"})
    if options and not flag(body, "stream"):
        raise ApiError(400, "stream_options is for stream: true alone", param="stream_options")
    return Asked(
        model=model,
        sampling=sampling,
        n=_whole(body, "n", 1),
        stream=flag(body, "stream"),
        include_usage=flag(options, "include_usage"),
        truncate=flag(body, "truncate"),
    )


def read_sampling(body: Mapping[str, Any], fields: Mapping[str, str], **defaults: Any) -> Sampling:
    """How to sample.

    Args:
        fields: see `SAMPLING`.
        defaults: where OpenAI's, or a server's, are not `Sampling`'s.
    Raises:
        ApiError: 400, names the field.
    """
    values = {"slide": False} | defaults
    for field, name in fields.items():
        value = body.get(field)
        if value is None:
            continue
        if field == "stop":
            value = [value] if isinstance(value, str) else value
            if not isinstance(value, list) or len(value) > MOST_STOPS:
                raise ApiError(400, f"stop is no text or list of up to {MOST_STOPS} texts", param="stop")
        if field == "slide":
            value = flag(body, "slide")
        one: dict[str, Any] = {name: value}
        try:
            Sampling(**one)
        except UsageError as error:
            raise ApiError(400, str(error), param=field) from error
        values[name] = value
    return Sampling(**values)


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false; false where it is left out.

    Raises:
        ApiError: 400, names the field.
    """
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


def check_known(ids: Iterable[int], tokenizer: Tokenizer, param: str) -> None:
    """
    Raises:
        ApiError: 400: the model does not have one of the ids.
    """
    wrong = next((id for id in ids if not 0 <= id < tokenizer.n_vocab), None)
    if wrong is not None:
        raise ApiError(400, f"id {wrong} is outside the vocabulary of {tokenizer.n_vocab}", param=param)
