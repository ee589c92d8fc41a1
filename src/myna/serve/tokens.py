"""A tokenizer's view of a text, for the API and the page: tokens with their bytes, and a word's merges step by step."""

from collections.abc import Mapping
from typing import Any

from myna.errors import MynaError
from myna.serve.errors import ApiError
from myna.serve.limits import Limits
from myna.serve.models import Models
from myna.settings import is_whole
from myna.text.explain import spans, why, words
from myna.text.tokenizer import Tokenizer

MOST_WORD_BYTES = 200  # a word whose merges are told
MOST_WORDS_BYTES = 4000  # a text all of whose words' merges are told


def tokenize(body: Any, models: Models, limits: Limits) -> dict[str, Any]:
    """/v1/tokenize: {"model"?, "text"} to tokens, each with its id, text, bytes, and place in the text's UTF-8.

    Raises:
        ApiError: 400 or 404.
    """
    tokenizer, text = _tokenizer(body, models), _text(body, limits)
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


def merges(body: Any, models: Models, limits: Limits) -> dict[str, Any]:
    """/v1/merges: {"model"?, "text", "at"?} to the words of the text, each with its merges in order.

    With `at`, a byte of the text's UTF-8, the one word that holds it; a text of more than 4,000 bytes needs it. The
    steps of a word of more than 200 bytes are null: their length grows with the square of the word's.

    Raises:
        ApiError: 400 or 404; 400 too for a tokenizer that does not tell.
    """
    tokenizer, text = _tokenizer(body, models), _text(body, limits)
    at = body.get("at")
    if at is not None and not is_whole(at):
        raise ApiError(400, "at is no whole number", param="at")
    if at is None and len(text.encode("utf-8", errors="replace")) > MOST_WORDS_BYTES:
        raise ApiError(
            400,
            f"the text has more than {MOST_WORDS_BYTES:,} bytes; shorten it, or ask for the word at one of them",
            param="at",
        )

    def steps(word: str) -> list[dict[str, Any]] | None:
        if len(word.encode("utf-8")) > MOST_WORD_BYTES:
            return None
        return [
            {
                "parts": [part.decode("utf-8", errors="replace") for part in step.tokens],
                "bytes": [list(part) for part in step.tokens],
                "ranks": list(step.ranks),
                "chosen": step.chosen,
            }
            for step in why(tokenizer, word)
        ]

    def found() -> list[dict[str, Any]]:
        start, answers = 0, []
        for word in words(tokenizer, text):
            end = start + len(word.encode("utf-8"))
            if at is None or start <= at < end:
                answers.append({"word": word, "start": start, "end": end, "steps": steps(word)})
            start = end
        return answers

    return {"words": _asked(found)}


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


def _text(body: Mapping[str, Any], limits: Limits) -> str:
    text = body.get("text")
    if not isinstance(text, str):
        raise ApiError(400, "text is no text", param="text")
    n_bytes = len(text.encode("utf-8", errors="replace"))
    if n_bytes > limits.max_text_bytes:
        raise ApiError(
            400,
            f"the text has {n_bytes:,} bytes; this server shows the tokens of {limits.max_text_bytes:,} at most",
            param="text",
        )
    return text
