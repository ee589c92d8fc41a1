"""A compiled step gives each row the logits that it has without one."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from myna.generate.engine import Engine, run
from myna.generate.sampling import Sampling
from myna.model.config import GPTConfig, NanoChatConfig, VariantsConfig
from myna.model.decoding import CompiledStep
from myna.model.matrix import largest_int8_weight
from myna.model.network import NETWORKS
from myna.model.quantize import store_weights

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 24, "vocab_size": 61}
CONFIGS = {
    "gpt2": GPTConfig(**SHAPE),
    "nanochat": NanoChatConfig(**SHAPE),
    "variants": VariantsConfig(**SHAPE),
}
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8], [9] * 12]


def network(name: str, weights: str = "fp32"):
    torch.manual_seed(0)
    made = NETWORKS[name].load()(CONFIGS[name]).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    store_weights(made, weights)
    return made


@pytest.fixture
def as_if_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that a compiler would see, run as it is: a default test can't wait for the compiler."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


@pytest.mark.parametrize("weights", ["fp32", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_gives_each_row_its_own_logits(name, weights, as_if_compiled, monkeypatch):
    """Rows of different lengths, in storage that was full of NaN; then of equal ones."""
    model = network(name, weights)
    monkeypatch.setattr(torch, "empty", lambda shape, **options: torch.full(shape, float("nan"), **options))
    cache, lengths = model.new_cache(3), [len(row) for row in PROMPTS]
    model.hidden(torch.tensor([[*row, *[0] * (12 - len(row))] for row in PROMPTS]), cache)
    cache.cut(lengths)
    step, texts = CompiledStep(model), [list(row) for row in PROMPTS]
    for new in ([11, 12, 13], [14, 15, 16], [17, 18, 19]):
        found = step.logits(new, cache)
        for text, id in zip(texts, new, strict=True):
            text.append(id)
        for row, text in zip(found, texts, strict=True):
            alone = model(torch.tensor([text]))[0, -1]
            torch.testing.assert_close(row, alone, atol=1e-4 if weights == "fp32" else 0.05, rtol=1e-4)
    assert cache.lengths == [n + 3 for n in lengths]


def written(engine: Engine, prompts) -> list[list[int]]:
    sampling = Sampling(max_tokens=30, temperature=0, slide=True)
    slots = [engine.add(prompt, sampling)[0] for prompt in prompts]
    found = {slot: [] for slot in slots}
    for new in run(engine):
        found[new.slot] += [] if new.id is None else [new.id]
    return list(found.values())


def test_a_step_that_cannot_be_compiled_says_why_and_changes_nothing(monkeypatch):
    def refuse(*_, **__):
        def call(*_):
            raise RuntimeError("no C++ compiler\nfor you")

        return call

    engine = Engine(network("gpt2"))
    wanted = written(engine, PROMPTS)
    monkeypatch.setattr(torch, "compile", refuse)
    assert engine.compile_step() == "no C++ compiler"
    assert written(engine, PROMPTS) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_compiled_texts_are_those_without(name):
    """Windows fill and slide, texts end and join."""
    model = network(name)
    engine = Engine(copy.deepcopy(model))
    assert engine.compile_step() is None
    before = counters["stats"]["unique_graphs"]
    prompts = [*PROMPTS, *[[n] * n for n in range(1, 9)]]
    assert written(engine, prompts) == written(Engine(model), prompts)
    assert counters["stats"]["unique_graphs"] == before, "compiled again while texts were written"


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["bf16", "fp16", "int8"])
def test_stored_weights_are_compiled_too(weights):
    """Keys and values are rounded to bf16, so logits move a little."""
    if weights == "int8" and largest_int8_weight() is None:
        pytest.skip("this processor has no fbgemm")
    model = network("gpt2", weights)
    caches = [model.new_cache(3, dtype=dtype) for dtype in (None, torch.bfloat16)]
    ids = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    with torch.no_grad():
        for cache in caches:
            model.hidden(ids, cache)
        plain = model(torch.tensor([[10], [11], [12]]), caches[0])[:, -1].float()
        found = CompiledStep(model).logits([10, 11, 12], caches[1]).float()
    assert (plain - found).abs().max() < 0.05 * plain.std()
