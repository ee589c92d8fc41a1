"""Held to transformers' GPT-2: logits, files and greedy text, in both directions."""

import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer, generate
from myna.model.checkpoint import save_checkpoint
from myna.model.config import GPTOptions
from myna.model.weights import config_files

transformers = pytest.importorskip("transformers")

SHAPES = [
    GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=257),
    GPTConfig(n_layer=3, n_head=4, n_embd=64, block_size=64, vocab_size=1000),
    GPTConfig(n_layer=2, n_head=12, n_embd=768, block_size=1024, vocab_size=50257),
    GPTConfig(n_layer=2, n_head=5, n_embd=320, block_size=2048, vocab_size=384),
]
TEXT = "def train(model):\n    '''Returns 1234567 — naïve, 漢字 🙂.'''\n    return model\n" * 30


def randomised(model):
    """Every parameter away from its special initial value, so that a swapped name or transpose shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    if isinstance(model, GPT):
        with torch.no_grad():
            model.wte.weight[model.config.vocab_size :].zero_()
    return model.eval()


@pytest.mark.parametrize(
    "config", SHAPES, ids=lambda c: f"L{c.n_layer}-C{c.n_embd}-T{c.block_size}-V{c.vocab_size}"
)
@pytest.mark.parametrize("direction", ["ours to theirs", "theirs to ours"])
def test_logits_are_equal(config, direction, tmp_path):
    torch.manual_seed(0)
    if direction == "ours to theirs":
        ours = randomised(GPT(config))
        ours.save_pretrained(tmp_path)
        theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    else:
        theirs = randomised(
            transformers.GPT2LMHeadModel(
                transformers.GPT2Config(
                    n_layer=config.n_layer,
                    n_head=config.n_head,
                    n_embd=config.n_embd,
                    n_positions=config.block_size,
                    vocab_size=config.vocab_size,
                    bos_token_id=0,
                    eos_token_id=0,
                )
            )
        )
        theirs.save_pretrained(tmp_path)
        ours = GPT.from_pretrained(tmp_path).eval()
    ids = torch.randint(0, config.vocab_size, (2, min(config.block_size, 200)))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)


def test_the_exact_gelu_is_theirs_in_both_directions(tmp_path):
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 64}
    ours = GPT(GPTConfig(**shape, options=GPTOptions(gelu="exact"))).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.3)  # so that the two forms of GELU lead to other logits
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()
    theirs.save_pretrained(tmp_path / "theirs")
    again = GPT.from_pretrained(tmp_path / "theirs")
    other = GPT(GPTConfig(**shape)).eval()
    other.load_state_dict(ours.state_dict())
    ids = torch.randint(0, 64, (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours(ids), again(ids), atol=1e-5, rtol=0)
        assert (ours(ids) - other(ids)).abs().max() > 2e-4


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "bytes"])
def test_a_checkpoint_loads_as_it_lies_with_equal_ids_and_greedy_text(pattern, tmp_path):
    tokenizer = (
        Tokenizer.bytes() if pattern == "bytes" else Tokenizer.train([TEXT], vocab_size=300, pattern=pattern)
    )
    torch.manual_seed(3)
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=64, vocab_size=tokenizer.n_vocab)
    model = randomised(GPT(config))
    save_checkpoint(
        tmp_path / "step_00000001",
        model,
        files=config_files(model, tokenizer),
        weights=model.state_dict(),
        tokenizer=tokenizer,
        tensors={f"exp_avg {name}": parameter for name, parameter in model.named_parameters()},
        state={"samples": 0},
    )

    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "step_00000001")
    their_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "step_00000001").eval()
    for text in (TEXT, "1234567890", "  x\n\n y's", "a\u0301 🙂"):
        assert their_tokenizer(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    assert their_tokenizer.eos_token_id == tokenizer.eot

    prompt = tokenizer.encode("def train")
    (new,) = generate(model, torch.tensor([prompt]), max_tokens=20, temperature=0, stop_ids=[tokenizer.eot])
    with torch.no_grad():
        theirs = their_model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=20,
            do_sample=False,
        )[0, len(prompt) :].tolist()
    if tokenizer.eot in theirs:
        theirs = theirs[: theirs.index(tokenizer.eot)]
    assert new == theirs
    assert their_tokenizer.decode(new, clean_up_tokenization_spaces=False) == tokenizer.decode(new)
