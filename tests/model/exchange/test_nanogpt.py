import sys

import pytest
import torch

from myna.errors import CheckpointError, ModelError
from myna.model.exchange.foreign import read_foreign

IDS = torch.randint(0, 257, (3, 12), generator=torch.Generator().manual_seed(1))


def imported(path, n_vocab=257, gelu=None):
    checkpoint = read_foreign(path)
    return checkpoint, *checkpoint.build(n_vocab, gelu or checkpoint.gelu)


def check_equal(network, their):
    with torch.no_grad():
        torch.testing.assert_close(network(IDS), their(IDS)[..., :257], atol=1e-4, rtol=0)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("module", ["__main__", "train_gpt2"])
def test_a_checkpoint_of_the_lecture_computes_what_its_class_does(write, module, legacy):
    path, their = write("build-nanogpt", module=module, legacy=legacy)
    assert module == "__main__" or module not in sys.modules
    checkpoint, network, notes = imported(path)
    check_equal(network, their)
    assert checkpoint.about == "build-nanogpt's checkpoint of step 19,072, validation loss 3.0746"
    assert notes == ["cut rows 257 to 319 of the embedding: the tokenizer has no ids for them"]
    assert module == "__main__" or module not in sys.modules


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod."])
def test_a_checkpoint_of_nanogpt_computes_what_its_class_does(write, prefix, legacy):
    path, their = write("nanoGPT", prefix=prefix, legacy=legacy)
    checkpoint, network, _ = imported(path)
    check_equal(network, their)
    assert network.config.dropout == 0.2
    assert checkpoint.about == "nanoGPT's checkpoint of step 2,000, validation loss 1.4697"


def test_without_biases_it_computes_the_same(write):
    path, their = write("nanoGPT", bias=False, mask=False)
    _, network, notes = imported(path)
    check_equal(network, their)
    assert any("biases" in note for note in notes)
    assert not network.ln_f.bias.any()


def test_the_other_gelu_is_another_function(write):
    path, their = write("nanoGPT")
    _, network, _ = imported(path, gelu="tanh")
    with torch.no_grad():
        assert (network(IDS) - their(IDS)[..., :257]).abs().max() > 2e-4


def test_nothing_is_cut_where_nothing_is_padding(write):
    path, their = write("build-nanogpt", vocab_size=257)
    _, network, notes = imported(path)
    check_equal(network, their)
    assert notes == []


def changed(key, value):
    return lambda content: content | {key: value}


def without(name):
    return lambda content: (content["model"].pop(name), content)[1]


def with_tensor(name, tensor):
    return lambda content: content | {"model": {**content["model"], name: tensor}}


def args(**fields):
    return lambda content: content | {"model_args": content["model_args"] | fields}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: torch.zeros(3), "holds a tensor"),
        (lambda content: [1, 2], "holds an object of type list"),
        (lambda content: {}, "holds an empty dict"),
        (lambda content: content["model"], "holds a dict of transformer.wte.weight"),
        (
            lambda content: {"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(1)},
            "conv1.weight, fc.bias",
        ),
        (changed("model", {}), "no matrix transformer.wte.weight"),
        (changed("model", {"a": 3}), "'a' is no tensor"),
        (changed("model_args", None), "holds a dict of model, optimizer, model_args, iter_num"),
        (without("transformer.ln_f.bias"), "1 tensors are missing, 'ln_f.bias'"),
        (with_tensor("transformer.ln_f.gain", torch.zeros(16)), "no tensor 'ln_f.gain'"),
        (with_tensor("transformer.ln_f.bias", torch.zeros(3)), "shape (3,)"),
        (with_tensor("transformer.ln_f.bias", torch.zeros(16, dtype=torch.int64)), "is no tensor of plain"),
        (with_tensor("transformer.ln_f.bias", torch.zeros(16).to_sparse()), "_rebuild_sparse_tensor"),
        (with_tensor("_orig_mod.transformer.ln_f.bias", torch.zeros(16)), "is there twice"),
        (with_tensor("lm_head.weight", torch.zeros(320, 16)), "the head is untied"),
        (args(use_relu=True), "its config has use_relu, which nanoGPT has not"),
        (args(bias=False), "bias=False, and it has"),
        (args(vocab_size=321), "says vocab_size 321"),
        (args(vocab_size=None), "says vocab_size None"),
        (args(n_head=3), "does not divide"),
        (args(n_layer="2"), "n_layer is '2'"),
        (args(n_layer=3), "12 tensors are missing"),
        (args(n_embd=32), "has shape"),
        (args(dropout=2.0), "dropout is 2.0"),
    ],
)
def test_what_is_no_such_checkpoint_is_named_in_a_line(write, change, says):
    path, _ = write("nanoGPT", change=change)
    with pytest.raises((ModelError, CheckpointError)) as caught:
        imported(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_without_a_size_is_named(write):
    path, _ = write(
        "build-nanogpt", change=lambda content: (vars(content["config"]).pop("n_head"), content)[1]
    )
    with pytest.raises(ModelError, match="n_head is None"):
        imported(path)
