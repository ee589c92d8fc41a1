"""Greedy ids: transformers' generate, ours with the cache, ours without, all the same."""

import pytest
import torch

from myna import GPT, GPTConfig
from myna.generate.engine import generate
from myna.generate.sampling import Draw, Sampling, kept_probabilities

transformers = pytest.importorskip("transformers")


def hugging_face_copy(model: GPT) -> "transformers.GPT2LMHeadModel":
    """The same weights in transformers' network, without a detour over the disk."""
    config = transformers.GPT2Config(**model.layout.config_json(model, eot=None))
    arrays = model.layout.to_file(model, model.state_dict())
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with torch.device("meta"):
        theirs = transformers.GPT2LMHeadModel(config)
    theirs.load_state_dict(state, strict=False, assign=True)
    theirs.tie_weights()
    assert not any(tensor.is_meta for tensor in theirs.state_dict().values())
    return theirs.eval()


@torch.no_grad()
def plain_greedy(model: GPT, ids: torch.Tensor, max_tokens: int) -> list[list[int]]:
    """Ours without cache or engine."""
    n = ids.shape[1]
    for _ in range(max_tokens):
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids[:, n:].tolist()


def their_greedy(theirs, ids: torch.Tensor, max_tokens: int) -> list[list[int]]:
    out = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[:, ids.shape[1] :].tolist()


@pytest.mark.parametrize("shape", [(1, 1, 8, 40, 100), (3, 4, 32, 64, 257), (2, 3, 48, 48, 1000)])
def test_greedy_ids_of_small_models(shape):
    n_layer, n_head, n_embd, block_size, vocab_size = shape
    torch.manual_seed(1)
    model = GPT(
        GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, vocab_size=vocab_size)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ids = torch.randint(0, vocab_size, (3, 7))
    theirs = their_greedy(hugging_face_copy(model), ids, 30)
    assert generate(model, ids, max_tokens=30, temperature=0) == theirs
    assert plain_greedy(model, ids, 30) == theirs


def test_greedy_ids_of_gpt2_124m_shaped_weights():
    torch.manual_seed(2)
    model = GPT(GPTConfig()).eval()
    ids = torch.randint(0, 50257, (2, 12))
    cached = generate(model, ids, max_tokens=8, temperature=0)
    assert cached == plain_greedy(model, ids, 8)
    assert cached == their_greedy(hugging_face_copy(model), ids, 8)


@pytest.mark.parametrize("seed", range(20))
def test_filters_are_those_of_transformers(seed):
    """Repetition penalty, temperature, top-k, top-p, min-p, in this order."""
    from transformers.generation import logits_process as theirs

    torch.manual_seed(seed)
    logits, held = torch.randn(1, 50) * 3, torch.randint(0, 50, (1, 9))
    some = torch.rand(5).tolist()
    penalty, temperature, top_k = 0.5 + some[0], 0.2 + some[1], 1 + int(49 * some[4])
    top_p, min_p = some[2], some[3] / 3
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
    )
    wanted = logits
    for step in (
        theirs.RepetitionPenaltyLogitsProcessor(penalty),
        theirs.TemperatureLogitsWarper(temperature),
        theirs.TopKLogitsWarper(top_k),
        theirs.TopPLogitsWarper(top_p),
        theirs.MinPLogitsWarper(min_p),
    ):
        wanted = step(held, wanted)
    penalised = Draw(sampling, 0, held[0].tolist()).penalised(logits[0])
    kept, ids = kept_probabilities(penalised[None], sampling)
    ids = torch.arange(50)[None] if ids is None else ids
    found = torch.zeros(1, 50).scatter(1, ids, kept / kept.sum())
    assert torch.allclose(found, wanted.softmax(-1), atol=1e-6)
