"""What is recorded of a prompt's way is what the network computes without anybody looking."""

import pytest
import torch

from myna import GPT, GPTConfig
from myna.errors import ModelError
from myna.evaluate.inspect.prompt import habits, lens, lens_rows, trace
from myna.model.attention import attention, attention_watched, join_heads

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=3, n_head=2, n_embd=16, block_size=8, vocab_size=40, dropout=0.3))
    for parameter in network.parameters():  # large enough that attention is far from even
        parameter.data *= 8
    return network


def undisturbed(network):
    """What goes into each layer's last projection of attention, while nobody watches; and the logits."""
    inputs = []
    hooks = [
        block.attn.c_proj.register_forward_pre_hook(lambda _, x: inputs.append(x[0])) for block in network.h
    ]
    network.eval()
    with torch.no_grad():
        logits = network(torch.tensor([IDS]))
    for hook in hooks:
        hook.remove()
    return inputs, logits[0]


def test_maps_times_values_are_the_blocks_own_attention(network):
    expected, _ = undisturbed(network)
    network.train()  # dropout must be off all the same, and on again afterwards
    seen = trace(network, IDS)
    assert network.training
    for layer in range(3):
        maps = seen.attention(layer)
        assert maps.shape == (2, 8, 8)
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 8))
        assert not maps.triu(1).any()
        ((_, _, v),) = seen.heads[layer]
        torch.testing.assert_close(join_heads(maps[None] @ v), expected[layer], rtol=1e-4, atol=1e-5)
    assert float(seen.attention(1).max()) > 0.6  # else even maps would pass


def test_the_lens_of_the_last_layer_is_the_models_own_answer(network):
    _, logits = undisturbed(network)
    seen = trace(network, IDS)
    assert len(seen.streams) == 4
    torch.testing.assert_close(lens(network, seen, 3), logits.log_softmax(dim=-1))
    with torch.no_grad():
        start = network.wte(torch.tensor(IDS)) + network.wpe.weight
        torch.testing.assert_close(seen.streams[0], start)
        expected = network.logits(network.ln_f(network.h[0](start[None])))[0].log_softmax(dim=-1)
    torch.testing.assert_close(lens(network, seen, 1), expected)


def test_rows_of_the_lens_say_what_it_says(network):
    seen = trace(network, IDS)
    rows = lens_rows(network, seen, count=3)
    assert [row.layer for row in rows] == [0, 1, 2, 3]
    log_p = lens(network, seen, 3)
    assert rows[3].ids == log_p.argmax(dim=-1).tolist()
    assert rows[3].top[0] == (rows[3].ids[-1], pytest.approx(rows[3].probabilities[-1]))
    assert len(rows[3].top) == 3
    targets = torch.tensor(IDS[1:])
    assert rows[3].nats == pytest.approx(float(torch.nn.functional.nll_loss(log_p[:-1], targets)), rel=1e-5)
    assert lens_rows(network, trace(network, [7]))[0].nats is None


def test_habits_are_shares_of_the_positions_with_a_choice():
    maps = torch.tensor([[[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.3, 0.2]]])
    (habit,) = habits(maps)
    assert (habit.first, habit.previous, habit.itself) == pytest.approx((0.375, 0.275, 0.475))


def test_a_watcher_is_gone_after_an_error():
    q = torch.zeros(1, 1, 2, 4)
    seen = []

    def fail(*qkv):
        seen.append(qkv)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), attention_watched(fail):
        attention(q, q, q)
    attention(q, q, q)
    assert len(seen) == 1


def test_a_prompt_over_the_window_is_refused(network):
    with pytest.raises(ModelError, match="9 positions are needed, and the model has 8"):
        trace(network, [*IDS, 1])
