"""A tokenizer's view of a text, for the API and the page: tokens with their bytes, and a word's merges step by step."""

from collections.abc import Mapping
from typing import Any

from myna.errors import MynaError
from myna.serve.errors import ApiError
from myna.serve.models import Models
from myna.settings import is_whole
from myna.text.explain import spans, why, words
from myna.text.tokenizer import Tokenizer


def tokenize(body: Any, models: Models) -> dict[str, Any]:
    """/v1/tokenize: {"model"?, "text"} to tokens, each with its id, text, bytes, and place in the text's UTF-8.

    Raises:
        ApiError: 400 or 404.
    """
    tokenizer, text = _tokenizer(body, models), _text(body, "text")
    tokens = [
        {
            "id": span.id,
            "text": span.data.decode("utf-8", errors="replace"),
            "bytes": list(span.data),
            "start": span.start,
            "end": span.end,
            "of": span.of,
        }
        for span in _asked(lambda: list(spans(tokenizer, text)))
    ]
    return {"tokens": tokens, "count": len(tokens), "tokenizer": tokenizer.name}


def detokenize(body: Any, models: Models) -> dict[str, Any]:
    """/v1/detokenize: {"model"?, "tokens"} to text.

    Raises:
        ApiError: 400 or 404.
    """
    tokenizer = _tokenizer(body, models)
    ids = body.get("tokens")
    if not isinstance(ids, list) or not all(map(is_whole, ids)):
        raise ApiError(400, "tokens is no list of ids", param="tokens")
    return {"text": _asked(lambda: tokenizer.decode(ids))}


def merges(body: Any, models: Models) -> dict[str, Any]:
    """/v1/merges: {"model"?, "text"} to the words of the text, each with its merges in order.

    Raises:
        ApiError: 400 or 404; 400 too for a tokenizer that does not tell.
    """
    tokenizer, text = _tokenizer(body, models), _text(body, "text")

    def steps(word: str) -> dict[str, Any]:
        return {
            "word": word,
            "steps": [
                {
                    "parts": [part.decode("utf-8", errors="replace") for part in step.pieces],
                    "ranks": list(step.ranks),
                    "chosen": step.chosen,
                }
                for step in why(tokenizer, word)
            ],
        }

    return {"words": _asked(lambda: [steps(word) for word in words(tokenizer, text)])}


def _asked(work: Any) -> Any:
    try:
        return work()
    except (MynaError, UnicodeError) as error:
        raise ApiError(400, str(error)) from error


def _tokenizer(body: Any, models: Models) -> Tokenizer:
    if not isinstance(body, Mapping):
        raise ApiError(400, "the body is no JSON object")
    name = body.get("model")
    if name is not None and not isinstance(name, str):
        raise ApiError(400, "model is no text; give a name that /v1/models lists", param="model")
    return models.named(name).tokenizer


def _text(body: Mapping[str, Any], name: str) -> str:
    text = body.get(name)
    if not isinstance(text, str):
        raise ApiError(400, f"{name} is no text", param=name)
    return text
