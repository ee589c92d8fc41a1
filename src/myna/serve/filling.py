"""A completion with a suffix: the prompt of the middle, and how it is drawn. See text/fim.py."""

from dataclasses import replace

from myna.errors import MynaError
from myna.serve.errors import ApiError
from myna.serve.protocol import Completion, Prompt, prompt_ids
from myna.text.fim import encode_fill, require_fill, room_for_prompt, stop_ids
from myna.text.tokenizer import Tokenizer


def as_filling(asked: Completion, model: str, tokenizer: Tokenizer) -> Completion:
    """A request with a suffix, drawn as a middle is: it ends at a frame, too.

    Raises:
        ApiError: 400: this model can't fill, or another field does not go with a suffix.
    """
    try:
        require_fill(tokenizer, model)
    except MynaError as error:
        raise ApiError(400, str(error), param="suffix") from error
    for name, is_set, why in (
        ("echo", asked.echo, "the answer is the middle alone"),
        ("slide", asked.sampling.slide, "the model would lose sight of the suffix"),
    ):
        if is_set:
            raise ApiError(400, f"{name} does not go with suffix: {why}; leave one out", param=name)
    ends = {*asked.sampling.stop_ids, *stop_ids(tokenizer)}
    return replace(asked, sampling=replace(asked.sampling, stop_ids=ends))


def read_filling(
    prompt: str | list[int], suffix: str, tokenizer: Tokenizer, context: int, asked: Completion
) -> Prompt:
    """The prompt for the middle between `prompt` and `suffix`.

    With `truncate`, both are cut so that `max_tokens` fit behind them, or half of the context; see `encode_fill`.

    Raises:
        ApiError: 400: it can't be encoded, is too long, or holds ids that the model does not have.
    """
    before = prompt_ids(prompt, tokenizer)
    room = room_for_prompt(context, asked.sampling.max_tokens) if asked.truncate else None
    try:
        found = encode_fill(tokenizer, before, suffix, room)
    except MynaError as error:
        raise ApiError(400, f"the suffix can't be used: {error}", param="suffix") from error
    if len(found.ids) > context:
        raise ApiError(
            400,
            f"prompt and suffix have {len(found.ids)} tokens with what frames them, and the model's context {context}; "
            "shorten them, or send truncate: true to keep the prompt's right end and the suffix's left end",
            param="suffix",
            code="context_length_exceeded",
        )
    whole = isinstance(prompt, str) and not found.cut[0]
    echo = str(prompt) if whole else tokenizer.decode(found.prefix)
    return Prompt(found.ids, any(found.cut), echo)
