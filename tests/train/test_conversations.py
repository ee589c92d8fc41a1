"""Training on conversations: the mask, the packing, ranks that hold different numbers of scored ids, resume."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from myna import GPT, GPTConfig, Tokenizer
from myna.cli import main
from myna.commands.train_evaluations import Around, validation
from myna.data.batches import rank_share
from myna.data.mixture import Mixture, Source
from myna.data.packing import IGNORE, ConversationStream
from myna.data.shards import open_dataset
from myna.device import Precision
from myna.evaluate.loss import validation_sums
from myna.model.packed import Packed
from myna.run import Run
from myna.train.build import new_network, new_stepper
from myna.train.machines.ranks import Ranks
from myna.train.recipe import Recipe

EOT, N_IDS, T = 256, 259, 160
CPU = torch.device("cpu")
RECIPE = Recipe(
    n_layer=2, n_head=2, n_embd=32, block_size=T, sequence_length=T, batch_tokens=8 * T, learning_rate=1e-2
)


@pytest.fixture
def stream(conversations):
    return ConversationStream(open_dataset(conversations).train, T, seed=1, eot=EOT)


def tensors(batch):
    return tuple(torch.from_numpy(part.copy()) for part in batch)


def stepper(network, rank=0, world_size=1):
    return new_stepper(RECIPE, network, Ranks(rank, world_size, CPU), Precision("fp32", "test"))


def alone(network, row, places):
    """The hidden states of each text of a row, computed by itself."""
    begins = [*torch.nonzero(places == 0).flatten().tolist(), T]
    pairs = itertools.pairwise(begins)
    return torch.cat([network.hidden(row[None, start:end])[0] for start, end in pairs])


@pytest.mark.parametrize("recompute", [False, True])
def test_packed_conversations_give_the_logits_that_each_gives_alone(stream, recompute):
    torch.manual_seed(0)
    network = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=T, vocab_size=N_IDS))
    network.recompute = recompute
    inputs, targets, positions = tensors(stream.batch(0, 3))
    packed = network.logits(network.hidden(inputs, Packed.side_by_side(positions)))
    for row, places, found in zip(inputs, positions, packed, strict=True):
        torch.testing.assert_close(found, network.logits(alone(network, row, places)), atol=1e-5, rtol=0)
    # so the step's gradient is that of each by itself
    result = stepper(network).loss(inputs, targets, positions)
    result.backward()
    found = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    hidden = torch.stack([alone(network, *pair) for pair in zip(inputs, positions, strict=True)])
    network.nats(hidden, targets).backward()
    for mine, expected in zip(found, (p.grad for p in network.parameters()), strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)


def test_an_unscored_position_has_no_gradient(stream):
    """Neither its logits nor, through them, its target: only the scored positions' hidden states get one."""
    network = new_network(RECIPE, N_IDS, CPU)
    inputs, targets, positions = tensors(stream.batch(0, 4))
    hidden = network.hidden(inputs, Packed.side_by_side(positions)).detach().requires_grad_()
    network.nats(hidden, targets).backward()
    moved = hidden.grad.abs().sum(dim=-1) > 0
    assert torch.equal(moved, targets != IGNORE)
    assert 0 < int(moved.sum()) < moved.numel() / 2


def test_validation_is_the_mean_over_scored_ids(conversations):
    network = new_network(RECIPE, N_IDS, CPU)
    split = open_dataset(conversations).val
    id_bytes = np.array([1] * 256 + [0] * 3)
    sums = validation_sums(network, split, id_bytes, eot=EOT)
    shares = [
        validation_sums(network, split, id_bytes, eot=EOT, rank=rank, world_size=2, batch_tokens=T)
        for rank in (0, 1)
    ]
    torch.testing.assert_close(sum(shares), sums, atol=1e-4, rtol=0)
    nats = n = 0
    ids, scored = (part.read(0, part.n_tokens) for part in (split, split.scored))
    for text, mask in zip(
        *(np.split(part, np.flatnonzero(ids == EOT)[1:]) for part in (ids, scored)), strict=True
    ):
        with torch.no_grad():
            logits = network(torch.from_numpy(text[None, :-1]))[0].log_softmax(dim=-1)
        wanted = mask[1:] == 1
        nats -= float(logits[wanted, text[1:][wanted]].sum())
        n += int(wanted.sum())
    assert sums[1] == n
    assert float(sums[0]) == pytest.approx(nats, abs=1e-3)
    assert sums[3] == int((scored * id_bytes[ids]).sum())
    limited = validation_sums(network, split, id_bytes, eot=EOT, limit=n // 2)
    assert 0 < limited[1] <= n // 2


def test_validation_is_left_out_where_no_answer_fits_a_window(conversations, tmp_path, capsys):
    def made(length):
        recipe = replace(RECIPE, sequence_length=length)
        data = Mixture((Source("conversations", open_dataset(conversations), 1),))
        ranks, precision = Ranks(0, 1, CPU), Precision("fp32", "test")
        tokenizer = Tokenizer.load(conversations)
        return validation(Around(recipe, Run(tmp_path), data, tokenizer, ranks, precision, None))

    assert made(T) is not None
    assert capsys.readouterr().out == ""
    assert made(8) is None
    assert "no validation: " in capsys.readouterr().out


@pytest.mark.parametrize(("world_size", "micro_batch"), [(2, 4), (4, 2), (1, 2)])
def test_ranks_with_unequal_scored_ids_add_up(stream, world_size, micro_batch):
    """Ranks by argument: what DDP averages is each rank's gradient, scaled by the world's size."""
    whole = new_network(RECIPE, N_IDS, CPU)
    n = stream.n_targets(0, 8)
    loss = stepper(whole).loss(*tensors(stream.batch(0, 8))) / n
    loss.backward()
    parts = new_network(RECIPE, N_IDS, CPU)
    counts, total = [], 0.0
    for rank in range(world_size):
        first, count = rank_share(0, 8, rank, world_size)
        counts.append(stream.n_targets(first, count))
        it = stepper(parts, rank, world_size)
        for at in range(first, first + count, micro_batch):
            total += float(it.backward(tensors(stream.batch(at, micro_batch)), world_size / n))
    assert world_size == 1 or len(set(counts)) > 1
    assert total / n == pytest.approx(loss.item(), abs=1e-6)
    for mine, expected in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad / world_size, expected.grad, atol=1e-6, rtol=1e-4)


ARGUMENTS = f"""
    shakespeare-char --tokenizer from-data --n-layer 2 --n-head 2 --n-embd 32 --block-size {T} --sequence-length {T}
    --batch-tokens {8 * T} --micro-batch 2 --warmup-steps 2 --precision fp32 --device cpu --average-decay 0 --no-compile
    --eval-every 6 --sample-every 6 --checkpoint-every 3 --dropout 0.1
"""


@pytest.fixture
def arguments(conversations):
    return ["train", *ARGUMENTS.split(), "--data", str(conversations), "--sample-prompt", "Hi\nWho are you?"]


def test_a_run_that_is_taken_up_again_is_bit_equal(arguments, tmp_path, hashes, capsys):
    assert main([*arguments, "--out", str(tmp_path / "a"), "--steps", "6"]) == 0
    said = capsys.readouterr().out
    assert "conversations in " in said
    for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert "train_loss" not in record or 0 < record["train_loss"] < 6
    samples = Run(tmp_path / "a").samples()
    assert [(one["step"], one["prompt"]) for one in samples] == [
        (step, prompt) for step in (0, 6) for prompt in ("Hi\n", "Who are you?\n")
    ]
    assert {"val_loss", "val_bits_per_byte"} <= set(Run(tmp_path / "a").metrics()[0])
    # as if it had been killed after step 3
    again = tmp_path / "a" / "checkpoints"
    before = hashes(tmp_path / "a", 6)
    for file in sorted((again / "step_00000006").iterdir()):
        file.unlink()
    (again / "step_00000006").rmdir()
    assert main([*arguments, "--out", str(tmp_path / "a"), "--steps", "6"]) == 0
    assert "resuming after step 3" in capsys.readouterr().out
    assert hashes(tmp_path / "a", 6) == before


def test_recipes_of_conversations_say_so():
    from myna.recipes import RECIPES

    for name in ("chat-pydoc", "chat-124m"):
        recipe = RECIPES[name]()
        assert recipe.conversations
        assert recipe.init
        assert recipe.tokenizer == "from-init"
        assert replace(recipe, init="x").train_only == "all"
