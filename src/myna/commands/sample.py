"""`myna sample`: models continue prompts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from myna.commands import parse, write_any_character
from myna.commands.model_flags import RunningFlags, checked_name, open_to_run
from myna.commands.text_flags import TextFlags, read_prompts, sampling_of, warn_of_cut
from myna.errors import UsageError

if TYPE_CHECKING:
    from myna.generate.sampling import Sampling
    from myna.generate.text import TextEngine


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Let models continue a text. It ends at the end-of-text token, at --stop, or after --max-tokens."""

    models: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL...")]
    """Run folders (the newest checkpoint of each), checkpoints, Hugging Face folders, or hub names such as gpt2."""
    texts: Annotated[TextFlags, tyro.conf.arg(name="")]
    running: Annotated[RunningFlags, tyro.conf.arg(name="")]
    json: bool = False
    """Print a JSON object for each text, a line each."""


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

    for model in call.models[1:]:  # before the texts of the first, which may take long
        find_folder(checked_name(model))
    write_any_character()
    total = len(prompts) * count
    for model in call.models:
        running = open_to_run(model, call.running)
        running.store()
        warn_of_cut(prompts, running.tokenizer, running.opened.model.config.block_size)
        engine = TextEngine(running.opened.model, running.tokenizer, autocast_dtype=running.precision.dtype)
        if len(call.models) > 1 and not call.json:
            print(f"=== {model} ===", flush=True)
        if total == 1 and not call.json:
            stream(engine, prompts[0], sampling)
            continue
        together = rows_at_once(running.opened.model.config)
        for number, text in enumerate(in_order(engine, prompts, count, sampling, together), start=1):
            if call.json:
                about = {"model": model, "prompt": text.prompt, "number": text.number, "seed": sampling.seed}
                done = {"text": text.new, "tokens": text.n_new, "finish_reason": text.finish_reason}
                print(json.dumps(about | done, ensure_ascii=False), flush=True)
            else:
                print(f"--- {number} of {total} ---\n{text.prompt}{text.new}", flush=True)


def stream(engine: "TextEngine", prompt: str, sampling: "Sampling") -> None:
    """One text, shown as it comes."""
    engine.add(prompt, sampling)
    print(prompt, end="", flush=True)
    while engine.busy:
        for piece in engine.step():
            if piece.new.error:
                print()
                raise piece.new.error
            print(piece.text, end="", flush=True)
    print()
