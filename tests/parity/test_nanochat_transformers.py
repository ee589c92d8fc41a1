"""Held to transformers' NanoChat: logits, files and greedy text, in both directions."""

import json

import pytest
import torch

from myna import Tokenizer, generate
from myna.errors import ModelError
from myna.model.config import NanoChatConfig, NanoChatOptions
from myna.model.nanochat import NanoChat
from myna.model.weights import load_network

transformers = pytest.importorskip("transformers", minversion="5")

SHAPES = [
    NanoChatConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=257),
    NanoChatConfig(n_layer=3, n_head=4, n_embd=64, block_size=64, vocab_size=1000),
    NanoChatConfig(
        n_layer=2,
        n_head=2,
        n_embd=32,
        block_size=300,
        vocab_size=384,
        options=NanoChatOptions(softcap=0.0, activation="gelu", tied_head=True),
    ),
    NanoChatConfig(
        n_layer=2,
        n_head=5,
        n_embd=30,
        block_size=32,
        vocab_size=50,
        dropout=0.1,
        options=NanoChatOptions(softcap=2.5, rotary_base=77.0, norm_epsilon=0.03),
    ),
]


def randomised(model):
    """Every parameter away from its special initial value, so that a swapped name or transpose shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if isinstance(model, NanoChat) and name in model.vocabulary_rows:
                parameter[model.config.vocab_size :].zero_()
    return model.eval()


def their_config(config):
    return transformers.NanoChatConfig(
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        hidden_size=config.n_embd,
        intermediate_size=4 * config.n_embd,
        max_position_embeddings=config.block_size,
        vocab_size=config.vocab_size,
        attention_dropout=config.dropout,
        final_logit_softcapping=config.options.softcap or None,
        hidden_act={"relu2": "relu2", "gelu": "gelu_new"}[config.options.activation],
        tie_word_embeddings=config.options.tied_head,
        rope_parameters={"rope_type": "default", "rope_theta": config.options.rotary_base},
        rms_norm_eps=config.options.norm_epsilon,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
    )


@pytest.mark.parametrize(
    "config", SHAPES, ids=lambda c: f"L{c.n_layer}-C{c.n_embd}-T{c.block_size}-V{c.vocab_size}"
)
@pytest.mark.parametrize("direction", ["ours to theirs", "theirs to ours"])
def test_logits_are_equal(config, direction, tmp_path):
    torch.manual_seed(0)
    if direction == "ours to theirs":
        ours = randomised(NanoChat(config))
        ours.save_pretrained(tmp_path)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert type(theirs) is transformers.NanoChatForCausalLM
    else:
        theirs = randomised(transformers.NanoChatForCausalLM(their_config(config)))
        theirs.save_pretrained(tmp_path)
        ours = NanoChat.from_pretrained(tmp_path)
        assert ours.config == config
    ids = torch.randint(0, config.vocab_size, (2, min(config.block_size, 200)))
    with torch.no_grad():
        logits = ours(ids)
        torch.testing.assert_close(logits, theirs(ids).logits, atol=1e-4, rtol=0)
    assert logits.std() > 0.1


def test_a_runs_checkpoint_loads_directly_with_equal_ids_and_greedy_text(small_run, tmp_path):
    from myna.commands import train

    flags = [
        "--network",
        "nanochat",
        "--optimizer",
        "muon",
        "--learning-rate",
        "0.02",
        "--out",
        str(tmp_path / "run"),
    ]
    train.main([*small_run, *flags, "--steps", "12"])
    (path,) = (tmp_path / "run" / "checkpoints").iterdir()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    ours, tokenizer = load_network(path).eval(), Tokenizer.load(path)
    text = "7 green bottles — 漢字"
    assert their_tokenizer(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    assert (
        their_tokenizer.eos_token_id
        == theirs.config.eos_token_id
        == theirs.config.bos_token_id
        == tokenizer.eot
    )
    assert theirs.config.pad_token_id is None
    prompt = torch.tensor([tokenizer.encode("7 green")])
    (new,) = generate(ours, prompt, max_tokens=20, temperature=0)
    with torch.no_grad():
        found = theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
        )
    assert found[0, prompt.shape[1] :].tolist() == new


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    NanoChat(SHAPES[0]).save_pretrained(tmp_path)
    return tmp_path


def configure(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_bias", True),
        ("sliding_window", 128),
        ("layer_types", ["sliding_attention"]),
        ("window_pattern", "SSSL"),
        ("hidden_act", "silu"),
        ("rms_norm_eps", 0),
        ("num_key_value_heads", 3),
        ("head_dim", 4),
        ("intermediate_size", 8192),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": -1}),
        ("rope_parameters", {"rope_theta": 10_000.0, "partial_rotary_factor": 0.5}),
        ("rope_parameters", "default"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("partial_rotary_factor", 0.5),
        ("final_logit_softcapping", 0),
        ("tie_word_embeddings", 1),
        ("quantization_config", {}),
        ("hidden_size", 9),
    ],
)
def test_a_key_that_changes_what_is_computed_is_refused_by_name(folder, key, value):
    configure(folder, **{key: value})
    with pytest.raises(ModelError) as refused:
        NanoChat.from_pretrained(folder)
    said = str(refused.value)
    assert "\n" not in said
    assert str(folder) in said
    assert {"hidden_size": "n_embd"}.get(key, key) in said or "rope_theta" in said


def test_other_spellings_of_the_same_function_are_read(folder):
    before = NanoChat.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "num_key_value_heads", "final_logit_softcapping", "rms_norm_eps"):
        del config[key]
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 10_000}))
    assert NanoChat.from_pretrained(folder).config == before.config
    theirs = transformers.AutoConfig.from_pretrained(folder)
    assert theirs.rope_parameters["rope_theta"] == 10_000
