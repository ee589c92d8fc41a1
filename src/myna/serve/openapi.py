"""/openapi.json: the API in the words that programs read. Held to the server by a test that sends what it allows."""

from collections.abc import Mapping
from typing import Any

from myna.generate.sampling import MOST_LOGPROBS
from myna.serve import chat, protocol
from myna.serve.fields import FORGOTTEN, MOST_STOPS
from myna.serve.limits import Limits
from myna.text.chat import ROLES

TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}
REFUSALS = ("400", "401", "403", "404", "408", "413", "429", "500", "503")
FLAG: dict[str, Any] = {"type": ["boolean", "null"]}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

NAME: dict[str, Any] = {"name": "name", "in": "path", "required": True, "schema": TEXT}
AFTER: dict[str, Any] = {"name": "after", "in": "query", "schema": WHOLE | {"minimum": 0}}


def number(least: float | None = None, most: float | None = None, *, whole: bool = False) -> dict[str, Any]:
    """A number between two others, or null."""
    schema: dict[str, Any] = {"type": ["integer" if whole else "number", "null"]}
    return (
        schema | ({} if least is None else {"minimum": least}) | ({} if most is None else {"maximum": most})
    )


def text_fields(limits: Limits, only: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of every request for texts.

    Args:
        only: those that are taken at one value alone.
    """
    return {
        "model": {"type": ["string", "null"]},
        "max_tokens": number(0, limits.max_tokens, whole=True),
        "temperature": number(0),
        "top_p": number(0, 1) | {"exclusiveMinimum": 0},
        "top_k": number(1, whole=True),
        "min_p": number(0, 1),
        "repetition_penalty": number() | {"exclusiveMinimum": 0},
        "seed": number(0, whole=True),
        "n": number(1, min(limits.max_choices, limits.max_texts), whole=True),
        "stop": {
            "anyOf": [
                {"type": ["string", "null"], "minLength": 1},
                {"type": "array", "items": TEXT | {"minLength": 1}, "maxItems": MOST_STOPS},
            ]
        },
        "stop_token_ids": {"type": ["array", "null"], "items": WHOLE},
        "stream": FLAG,
        "stream_options": {"type": ["object", "null"], "properties": {"include_usage": FLAG}},
        "truncate": FLAG,
        "slide": FLAG,
        **{name: {"enum": [value, None]} for name, value in only.items() if value is not None},
        **{name: {"type": "null"} for name, value in only.items() if value is None},
        **{name: {} for name in sorted(FORGOTTEN)},
    }


def completion_schema(limits: Limits) -> dict[str, Any]:
    """A request for texts that go on from prompts."""
    ids = {"type": "array", "items": WHOLE | {"minimum": 0}, "minItems": 1}
    prompt = {
        "anyOf": [
            {"type": ["string", "null"]},
            {"type": "array", "items": TEXT, "minItems": 1},
            ids,
            {"type": "array", "items": ids, "minItems": 1},
        ]
    }
    own = {"prompt": prompt, "logprobs": number(0, MOST_LOGPROBS, whole=True), "echo": FLAG}
    own["suffix"] = {"type": ["string", "null"]}
    properties = own | text_fields(limits, protocol.ONLY)
    return {"type": "object", "additionalProperties": False, "properties": properties}


def chat_schema(limits: Limits) -> dict[str, Any]:
    """A request for the next answer of a conversation."""
    part = {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"enum": ["text"]}, "text": TEXT},
    }
    content = {"anyOf": [TEXT | {"minLength": 1}, {"type": "array", "items": part, "minItems": 1}]}
    turn = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": list(ROLES)}, "content": content},
    }
    own = {
        "messages": {"type": "array", "items": turn, "minItems": 1},
        "max_completion_tokens": number(0, limits.max_tokens, whole=True),
        "logprobs": FLAG,
        "top_logprobs": number(0, MOST_LOGPROBS, whole=True),
    }
    properties = own | text_fields(limits, chat.ONLY)
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["messages"],
        "properties": properties,
    }


def openapi(limits: Limits, version: str) -> dict[str, Any]:
    """The whole document."""
    model = {"model": {"type": ["string", "null"]}}

    def answers(content: dict[str, Any]) -> dict[str, Any]:
        wrong = {"description": "refused", "content": {"application/json": {"schema": ERROR}}}
        fine = {"description": "done", "content": content}
        return {"200": fine} | dict.fromkeys(REFUSALS, wrong)

    def asked(schema: dict[str, Any], summary: str) -> dict[str, Any]:
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        told = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": TEXT}}
        return {"post": {"summary": summary, "requestBody": body, "responses": answers(told)}}

    def told(summary: str, kind: str = "application/json") -> dict[str, Any]:
        return {"get": {"summary": summary, "responses": answers({kind: {"schema": {}}})}}

    def named(summary: str, *more: dict[str, Any]) -> dict[str, Any]:
        one = told(summary)
        one["get"]["parameters"] = [NAME, *more]
        return one

    def of_text(**fields: Any) -> dict[str, Any]:
        return {"type": "object", "required": list(fields), "properties": model | fields}

    return {
        "openapi": "3.1.0",
        "info": {"title": "Myna", "version": version},
        "paths": {
            "/v1/completions": asked(completion_schema(limits), "Continue texts"),
            "/v1/chat/completions": asked(chat_schema(limits), "Answer the last turn of a conversation"),
            "/v1/tokenize": asked(of_text(text=TEXT), "A text's tokens"),
            "/v1/detokenize": asked(of_text(tokens={"type": "array", "items": WHOLE}), "The text of tokens"),
            "/v1/merges": asked(
                of_text(text=TEXT) | {"properties": model | {"text": TEXT, "at": number(0, whole=True)}},
                "The merges of a text's words, step by step; with `at`, a byte of the text, of the one word there",
            ),
            "/v1/models": told("The models that are served"),
            "/v1/models/{name}": named("A model"),
            "/v1/runs": told("The runs of the folder that --runs names"),
            "/v1/runs/{name}": named("A run: its recipe, and the reference values that apply"),
            "/v1/runs/{name}/metrics": named("A run's curves, from a byte of metrics.jsonl on", AFTER),
            "/v1/runs/{name}/samples": named("A run's samples, from a byte of samples.jsonl on", AFTER),
            "/health": told("Whether the server is well"),
            "/metrics": told("Counts and gauges, in Prometheus's format", "text/plain"),
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }
