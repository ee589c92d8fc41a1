"""`myna sample`: models continue prompts."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse, write_any_character
from myna.commands.model_flags import RunningFlags, checked_name, compile_step, open_to_run
from myna.commands.text_flags import TextFlags, read_prompts, sampling_of, warn_of_cut
from myna.errors import UsageError

if TYPE_CHECKING:
    from myna.generate.sampling import Sampling
    from myna.generate.text import TextEngine
    from myna.text.tokenizer import Tokenizer

    Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Let models continue a text. A continuation ends at the end-of-text token, at --stop, or after --max-tokens."""

    models: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL...")]
    """Run folders (the newest checkpoint of each), checkpoints, Hugging Face folders, URLs of these, or hub names such
    as gpt2."""
    texts: Annotated[TextFlags, tyro.conf.arg(name="")]
    running: Annotated[RunningFlags, tyro.conf.arg(name="")]
    suffix: str | None = None
    """Fill in the middle: write what stands between the prompt and this text, for models trained with --fim-rate. The
    middle ends where the model ends it. If prompt and suffix together don't fit the context, the parts next to the
    middle are kept."""
    compile: bool = False
    """Compile the step that writes several texts at once, for --count, or a --file with many prompts. This takes
    seconds before the first text."""
    json: bool = False
    """Print a JSON object for each text, one per line."""


def main(args: Sequence[str]) -> None:
    """Runs `myna sample`."""
    call = parse(Sample, args, command="sample")
    if not call.models:
        raise UsageError("no MODEL; name a run, a checkpoint, a folder or a hub name such as gpt2")
    prompts, count = read_prompts(call.texts), call.texts.count
    sampling = sampling_of(call.texts.sampling, call.texts.max_tokens)
    from myna.generate.many import in_order, rows_at_once
    from myna.generate.text import TextEngine
    from myna.model.open import find_folder

    # Find all models now: the first one's texts may take long.
    for model in call.models[1:]:
        find_folder(checked_name(model))
    write_any_character()
    total = len(prompts) * count
    for model in call.models:
        running = open_to_run(model, call.running)
        encode, sampling_here = None, sampling
        context = running.opened.model.config.block_size
        if call.suffix is None:
            warn_of_cut(prompts, running.tokenizer, context)
        else:
            encode, sampling_here = filling(model, running.tokenizer, prompts, call.suffix, sampling, context)
        running.store()
        engine = TextEngine(running.opened.model, running.tokenizer, autocast_dtype=running.precision.dtype)
        if call.compile and total > 1:
            compile_step(engine.engine)
        if len(call.models) > 1 and not call.json:
            print(f"=== {model} ===", flush=True)
        if total == 1 and not call.json:
            stream(engine, prompts[0], call.suffix or "", encode, sampling_here)
            continue
        texts_at_once = rows_at_once(running.opened.model.config)
        texts = in_order(engine, prompts, count, sampling_here, texts_at_once, encode)
        for number, text in enumerate(texts, start=1):
            if call.json:
                about = {"model": model, "prompt": text.prompt, "number": text.number, "seed": sampling.seed}
                about |= {} if call.suffix is None else {"suffix": call.suffix}
                done = {"text": text.new, "tokens": text.n_new, "finish_reason": text.finish_reason}
                print(json.dumps(about | done, ensure_ascii=False), flush=True)
            else:
                whole = f"{text.prompt}{text.new}{call.suffix or ''}"
                print(f"--- {number} of {total} ---\n{whole}", flush=True)


def filling(
    model: str,
    tokenizer: "Tokenizer",
    prompts: Sequence[str],
    suffix: str,
    sampling: "Sampling",
    context: int,
) -> "tuple[Encode, Sampling]":
    """The function that encodes a prompt for filling in the middle, and the middle's sampling. Warns of what is cut.

    Raises:
        TokenizerError: the model can't fill. TextError: its context is too short.
    """
    from myna.text.fim import encode_fill, require_fill, room_for_prompt, stop_ids

    require_fill(tokenizer, model)
    room = room_for_prompt(context, sampling.max_tokens)

    def encode(prompt: str) -> list[int]:
        return encode_fill(tokenizer, prompt, suffix, room).ids

    cuts = [encode_fill(tokenizer, prompt, suffix, room).cut for prompt in prompts]
    if any(map(any, cuts)):
        of_prompt, of_suffix = (max(lost) for lost in zip(*cuts, strict=True))
        unseen = [f"the first {of_prompt:,} tokens of the prompt"] * bool(of_prompt)
        unseen += [f"the last {of_suffix:,} tokens of the suffix"] * bool(of_suffix)
        warnings.warn(
            f"prompt and suffix don't fit the model's context of {context} tokens, of which "
            f"{context - room} are kept free for the middle; the model does not see {' and '.join(unseen)}"
            + f" (the largest cuts among {len(prompts):,} prompts)"
            * (len(prompts) > 1),
            stacklevel=2,
        )
    # The special tokens around prefix and suffix are at the window's left end, and sliding would cut them off. So a
    # text that fills the window ends.
    return encode, replace(sampling, stop_ids={*sampling.stop_ids, *stop_ids(tokenizer)}, slide=False)


def stream(
    engine: "TextEngine", prompt: str, suffix: str, encode: "Encode | None", sampling: "Sampling"
) -> None:
    """One text, shown as it comes."""
    engine.add(encode(prompt) if encode else prompt, sampling)
    print(prompt, end="", flush=True)
    while engine.busy:
        for piece in engine.step():
            if piece.new.error:
                print()
                raise piece.new.error
            print(piece.text, end="", flush=True)
    print(suffix)
