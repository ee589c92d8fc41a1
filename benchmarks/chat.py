"""What a model learned from conversations, and what it forgot: before and after, on questions it never saw.

    myna train pydoc
    myna train chat-pydoc
    python benchmarks/chat.py runs/pydoc runs/chat-pydoc --data data/pydoc --hellaswag hellaswag_val.jsonl

The questions: 200 of pydoc-chat's validation conversations whose function's bare name is the answer to no question of
the training part. An answer is in the right form where it begins with the call that was asked for, `name(...)`: the
expression is `FORM` below. A model without chat tokens gets the question as plain text, and a line's end. Greedy, 64
new tokens at most. Beside it: HellaSwag's accuracy and the loss on the text that the base model was validated on.
"""

import argparse
import json
import re
from pathlib import Path

import torch

from myna.data.conversations import messages_of
from myna.data.shards import open_dataset
from myna.data.sources.pydoc_chat import pydoc_conversations
from myna.data.sources.validation import document_hash, split_of
from myna.evaluate.choices import choice_sums
from myna.evaluate.hellaswag import encode_items, hellaswag_scores, read_items
from myna.evaluate.loss import validation_scores, validation_sums
from myna.generate.engine import Engine
from myna.generate.sampling import Sampling
from myna.model.open import Opened, open_model
from myna.text.chat import USER, Message, can_chat, encode_prompt, stop_ids

VAL_FRACTION = 0.1  # what `myna train chat-pydoc` prepares with
# Arguments may hold brackets of their own, three deep.
INSIDE = r"[^()]*"
for _ in range(3):
    INSIDE = rf"(?:[^()]|\({INSIDE}\))*"
FORM = r"{name}\(" + INSIDE + r"\)"


def held_out(count: int) -> list[tuple[str, str]]:
    """Questions, and the bare name of the function that each asks for."""
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "val": []}
    for document in pydoc_conversations():
        question, answer, *_ = messages_of(document)
        split = split_of(document_hash(document.encode()), VAL_FRACTION)
        parts[split].append((question.content, answer.content.partition("(")[0]))
    seen = {name for _, name in parts["train"]}
    found = {name: question for question, name in parts["val"] if name not in seen}
    return [(question, name) for name, question in found.items()][:count]


def answers(opened: Opened, questions: list[str]) -> list[str]:
    """Greedy answers to some questions, all at once."""
    tokenizer = opened.tokenizer
    assert tokenizer is not None
    chats = can_chat(tokenizer)
    ends = stop_ids(tokenizer) if chats else frozenset((tokenizer.eot,))
    engine = Engine(opened.model, vocab_size=tokenizer.n_vocab)
    slots, ids = [], []
    for question in questions:
        asked = [Message(USER, question)]
        prompt = encode_prompt(tokenizer, asked).ids if chats else tokenizer.encode(question + "\n")
        (slot,) = engine.add(prompt, Sampling(max_tokens=64, temperature=0, stop_ids=ends))
        slots.append(slot)
        ids.append([])
    while engine.busy:
        for new in engine.step():
            if new.id is not None:
                ids[slots.index(new.slot)].append(new.id)
    return [tokenizer.decode(one) for one in ids]


def main() -> None:
    """Prints a JSON object for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument(
        "--data", type=Path, help="a dataset of text, prepared with the base model's tokenizer"
    )
    parser.add_argument("--hellaswag", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--show", type=int, default=3, help="answers to print of each model")
    call = parser.parse_args()
    asked = held_out(call.count)
    for model in call.models:
        opened = open_model(model)
        found = answers(opened, [question for question, _ in asked])
        right = [
            bool(re.match(FORM.format(name=re.escape(n)), text))
            for (_, n), text in zip(asked, found, strict=True)
        ]
        any_call = [bool(re.match(FORM.format(name=r"\w+"), text)) for text in found]
        about = {
            "model": model,
            "questions": len(asked),
            "right_form": sum(right) / len(right),
            "a_call_of_anything": sum(any_call) / len(any_call),
        }
        tokenizer = opened.tokenizer
        assert tokenizer is not None
        with torch.no_grad():
            if call.hellaswag:
                items = encode_items(read_items(call.hellaswag), tokenizer, opened.model.config.block_size)
                about |= hellaswag_scores(choice_sums(opened.model, items))
            if call.data:
                val = open_dataset(call.data).val
                about |= validation_scores(validation_sums(opened.model, val, tokenizer.id_bytes()), val)
        print(json.dumps(about), flush=True)
        for (question, _), text in list(zip(asked, found, strict=True))[: call.show]:
            print(f"  {question}\n    {text!r}", flush=True)


if __name__ == "__main__":
    main()
