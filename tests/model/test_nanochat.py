import dataclasses
import math

import pytest
import torch
from torch import nn

from myna import generate
from myna.cli import main
from myna.errors import ModelError
from myna.model.config import NanoChatConfig, NanoChatOptions
from myna.model.decoder import check_network
from myna.model.loss import head_nats, head_token_nats, token_nats
from myna.model.nanochat import NanoChat
from myna.model.quantize import store_weights
from myna.model.weights import load_network

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 50}
CHANGES = [
    {"softcap": 0.0},
    {"qk_norm": False},
    {"embedding_norm": False},
    {"activation": "gelu"},
    {"rotary_base": 100.0},
    {"tied_head": True},
    {"norm_epsilon": 0.1},
]


def made(**options):
    """A network whose weights are away from zero."""
    torch.manual_seed(0)
    network = NanoChat(NanoChatConfig(**SHAPE, options=NanoChatOptions(**options))).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
            if name in network.vocabulary_rows:
                parameter[50:].zero_()
    return network


def test_rows_of_different_lengths_are_those_of_the_plain_loop():
    network = made()
    prompts = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11]]
    rows = generate(network, prompts, max_tokens=24, temperature=0)
    assert len({tuple(row) for row in rows}) == 3
    for prompt, row in zip(prompts, rows, strict=True):
        window = list(prompt)
        for expected in row:
            if len(window) > 16:
                window = window[-8:]
            assert int(network(torch.tensor([window]))[0, -1].argmax()) == expected
            window.append(expected)


@pytest.mark.parametrize("pieces", [[16], [1] * 16, [5, 1, 10]])
def test_logits_in_pieces_equal_logits_at_once(pieces):
    network, ids = made(), torch.randint(50, (2, 16))
    cache = network.new_cache(2)
    parts = [network(part, cache) for part in ids.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), network(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_option_changes_the_function_and_comes_back_from_the_disk(change, tmp_path):
    network, usual = made(**change), made()
    usual.load_state_dict(network.state_dict(), strict="tied_head" not in change)
    check_network(network)
    network.layout.check(network)
    ids = torch.randint(50, (2, 16))
    assert (network(ids) - usual(ids)).abs().max() > 1e-3
    network.save_pretrained(tmp_path)
    again = load_network(tmp_path)
    assert again.config == network.config
    assert torch.equal(again(ids), network(ids))


@pytest.mark.parametrize("name", ["qk_norm", "embedding_norm"])
def test_export_says_which_option_leads_out_of_transformers_class(name, tmp_path, capsys):
    config = NanoChatConfig(**SHAPE | {"vocab_size": 257}, options=NanoChatOptions(**{name: False}))
    NanoChat(config).save_pretrained(tmp_path / "model")
    assert '"myna-nanochat"' in (tmp_path / "model" / "config.json").read_text()
    args = ["export", str(tmp_path / "model"), "--tokenizer", "bytes", "--to", "hugging-face"]
    assert main([*args, "--out", str(tmp_path / "export")]) == 2
    said = capsys.readouterr().err
    assert f"--network.no-{name.replace('_', '-')}" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "export").exists()


def test_a_changed_class_is_not_written_as_theirs(tmp_path):
    network = made()
    network.layers[0].mlp = nn.Identity()
    with pytest.raises(ModelError, match=r"does not compute NanoChat any more \(layers.0.mlp"):
        network.save_pretrained(tmp_path)


def test_the_initial_weights():
    config = NanoChatConfig(n_layer=2, n_head=2, n_embd=256, block_size=8, vocab_size=1000)
    torch.manual_seed(0)
    network = NanoChat(config)
    for name, parameter in network.named_parameters():
        if name == "embed_tokens.weight":
            assert parameter[:1000].std().item() == pytest.approx(1.0, rel=0.02)
            assert not parameter[1000:].any()
        elif name.endswith(("o_proj.weight", "fc2.weight")) or name == "lm_head.weight":
            assert not parameter.any(), name
        else:
            assert parameter.std().item() == pytest.approx(math.sqrt(0.33 / 256), rel=0.02), name
    ids = torch.randint(1000, (2, 8))
    assert network.nats(network.hidden(ids), ids).item() / 16 == pytest.approx(math.log(1000))
    options = NanoChatOptions(zero_projections=False)
    noisy = NanoChat(dataclasses.replace(config, options=options))
    assert noisy.lm_head.weight[:1000].std().item() == pytest.approx(0.02, rel=0.02)
    assert not noisy.lm_head.weight[1000:].any()
    assert noisy.layers[1].mlp.fc2.weight.std().item() == pytest.approx(math.sqrt(0.33 / 1024 / 4), rel=0.02)


def test_flops_count_the_head_once_and_not_what_is_looked_up():
    blocks, head, attention = 2 * 12 * 32 * 32, 50 * 32, 12 * 2 * 32 * 16
    untied, tied = made(), made(tied_head=True)
    assert untied.n_parameters() == blocks + 2 * head
    assert tied.n_parameters() == blocks + head
    for network in (untied, tied):
        assert network.flops_per_token(16) == 6 * (blocks + head) + attention


def test_capped_logits_have_the_loss_and_gradients_of_the_definition():
    torch.manual_seed(1)
    hidden, weight = torch.randn(2, 7, 16, requires_grad=True), torch.randn(128, 16, requires_grad=True)
    targets = torch.randint(100, (2, 7))
    targets[0, 3] = -100
    expected = token_nats(3.0 * torch.tanh((hidden @ weight[:100].T) / 3.0), targets)
    wanted = torch.autograd.grad(expected.sum(), (hidden, weight))
    nats = head_nats(hidden, weight, targets, 100, softcap=3.0, chunk_bytes=5 * 128 * 4)
    torch.testing.assert_close(nats, expected.sum())
    torch.testing.assert_close(torch.autograd.grad(nats, (hidden, weight)), wanted)
    torch.testing.assert_close(head_token_nats(hidden, weight, targets, 100, softcap=3.0), expected.detach())


@pytest.mark.parametrize("options", [{}, {"tied_head": True}], ids=str)
@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_stored_weights_compute_nearly_the_same(weights, options):
    network, ids = made(**options), torch.randint(50, (2, 16))
    with torch.no_grad():
        before = network(ids)
        store_weights(network, weights)
        assert (network(ids).float() - before).abs().mean() < 0.2 * before.std()
    assert len(generate(network, ids[:, :4], max_tokens=5, temperature=0)) == 2


def test_recomputed_activations_give_the_same_gradients():
    network, ids = made(), torch.randint(50, (2, 9))
    gradients = []
    for network.recompute in (False, True):
        network.zero_grad()
        network.nats(network.hidden(ids), ids).backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--n-head", "3", "--n-embd", "32"], "n_embd 32 does not divide into n_head 3"),
        (["--n-head", "2", "--n-embd", "34"], "heads are 17 wide"),
        (["--network.softcap", "-1"], "--network.softcap is -1"),
        (["--network.rotary-base", "0"], "--network.rotary-base is 0"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_before_anything_is_written(
    flags, says, small_run, tmp_path, capsys
):
    args = [
        "train",
        *small_run,
        "--network",
        "nanochat",
        *flags,
        "--steps",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(args) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
