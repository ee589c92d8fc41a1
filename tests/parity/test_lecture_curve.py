"""Fifty steps of the lecture's and fifty of ours, on the same text from the same weights, draw the same curve."""

import pydoc_data.topics

import pytest
import torch

from myna import Tokenizer
from myna.bench.ladder import Switches
from myna.bench.rungs import lecture_step, our_step
from myna.model.gpt2 import GPT
from myna.train.recipe import Recipe

STEPS, ROWS, T = 50, 2, 64
# Nats. Rounded to bf16's 8 bits in other places, the two runs part by less than this; the loss falls by 3.
BF16_BOUND = 0.01
FP32_BOUND = 1e-4


@pytest.fixture(scope="module")
def batches():
    """For each step two micro-batches of English in GPT-2's tokens."""
    ids = torch.tensor(Tokenizer.gpt2().encode("\n".join(pydoc_data.topics.topics.values())))
    windows = ids[: STEPS * 2 * ROWS * T + 1].unfold(0, T + 1, T).view(STEPS, 2, ROWS, T + 1)
    return [[(rows[:, :-1], rows[:, 1:]) for rows in step] for step in windows]


def curve(make, batches, precision):
    recipe = Recipe(
        n_layer=2,
        n_head=4,
        n_embd=64,
        block_size=T,
        sequence_length=T,
        batch_tokens=2 * ROWS * T,
        learning_rate=1e-3,
        precision=precision,
        compile=False,
    )
    torch.manual_seed(0)
    step = make(GPT(recipe.network_config(50257)), recipe)
    losses = []
    for step.batches in batches:
        losses.append(step())
    return torch.tensor(losses)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bound"), [("bf16", BF16_BOUND), ("fp32", FP32_BOUND)])
def test_the_curves_agree(batches, precision, bound, monkeypatch):
    monkeypatch.setattr("myna.bench.rungs.keep_freed_memory", lambda: True)  # this process outlives the step
    on = Switches(bf16=precision == "bf16", flash_attention=True, padded_vocabulary=True)
    lecture = curve(lambda gpt, recipe: lecture_step(gpt, recipe, batches[0], on), batches, precision)
    ours = curve(lambda gpt, recipe: our_step(gpt, recipe, batches[0])[0], batches, precision)
    assert lecture[0] - lecture[-5:].mean() > 2
    assert float((ours - lecture).abs().max()) < bound
