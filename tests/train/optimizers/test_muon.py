import subprocess
import sys

import pytest
import torch
from torch import nn

from myna import GPT
from myna.cli import main
from myna.device import Precision
from myna.errors import ModelError
from myna.model.config import GPTConfig, NanoChatConfig, NanoChatOptions
from myna.model.decoder import Decoder
from myna.model.nanochat import NanoChat
from myna.run import Run
from myna.train.build import new_network, new_stepper
from myna.train.machines.ranks import Ranks
from myna.train.optimizers import muon, muon_matrices
from myna.train.optimizers.muon_matrices import Muon, orthogonalised
from myna.train.recipe import Recipe


@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (32, 96), (5, 1)])
def test_singular_values_come_near_1_and_the_directions_stay(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape) * 1e-9  # as small as a gradient of a mean may be
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    found = u.T @ orthogonalised(matrix).double() @ v.T
    after = found.diagonal()
    assert (found - torch.diag(after)).abs().max() < 1e-4
    seen = after[s > 0.01 * s.norm()]  # what is smaller takes more steps
    assert len(seen) > 0
    assert 0.67 < seen.min() <= seen.max() < 1.21


def test_in_bf16_the_values_end_near_those_of_fp32():
    torch.manual_seed(0)
    matrix = torch.randn(48, 32)
    exact, fast = orthogonalised(matrix), orthogonalised(matrix, dtype=torch.bfloat16)
    assert fast.dtype == torch.bfloat16
    apart = torch.linalg.svdvals(exact) - torch.linalg.svdvals(fast.float())
    assert 0 < apart.abs().max() < 0.02


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float32), ("fp32", torch.float32)]
)
def test_the_iteration_is_in_bf16_where_the_network_is(precision, dtype, monkeypatch):
    asked = set()

    def watched(matrix, steps, dtype):
        asked.add(dtype)
        return matrix

    monkeypatch.setattr(muon_matrices, "orthogonalised", watched)
    recipe = Recipe(
        name="x", n_layer=1, n_head=1, n_embd=8, block_size=8, sequence_length=8, optimizer="muon"
    )
    cpu = torch.device("cpu")
    stepper = new_stepper(recipe, new_network(recipe, 9, cpu), Ranks(0, 1, cpu), Precision(precision, "test"))
    stepper.optimizer.step()
    assert asked == {dtype}


def test_a_zero_matrix_stays_zero():
    assert not orthogonalised(torch.zeros(4, 6)).any()


def updated(optimizer, matrix, gradients):
    for gradient in gradients:
        matrix.grad = gradient.clone()
        optimizer.step()
    return matrix.detach()


@pytest.mark.parametrize("shape", [(48, 48), (96, 32), (32, 96)])
def test_it_is_torchs_muon_within_bf16(shape):
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(4)]
    a, b = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = updated(Muon([a], lr=0.1, momentum=0.9, weight_decay=0.3, steps=5), a, gradients)
    theirs = updated(torch.optim.Muon([b], lr=0.1, momentum=0.9, weight_decay=0.3), b, gradients)
    assert (ours - theirs).norm() < 0.03 * (theirs - start).norm()


def test_the_update_is_the_rule_written_out():
    """Of a matrix whose singular vectors are the axes, where the iteration is arithmetic on single numbers."""
    start = torch.ones(3, 2)
    matrix = nn.Parameter(start.clone())
    gradients = [torch.tensor([[3.0, 0], [0, 4.0], [0, 0]]), torch.tensor([[1.0, 0], [0, 0.5], [0, 0]])]
    found = updated(Muon([matrix], lr=0.1, momentum=0.8, weight_decay=0.5, steps=2), matrix, gradients)
    mean, expected = [0.0, 0.0], start
    for gradient in gradients:
        g = gradient.diagonal().tolist()
        mean = [0.8 * m + 0.2 * x for m, x in zip(mean, g, strict=True)]
        s = [0.2 * x + 0.8 * m for m, x in zip(mean, g, strict=True)]  # Nesterov
        norm = sum(x * x for x in s) ** 0.5
        s = [x / norm for x in s]
        for _ in range(2):
            s = [3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5 for x in s]
        direction = torch.zeros(3, 2)
        direction[0, 0], direction[1, 1] = s
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * (3 / 2) ** 0.5 * direction
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8, "vocab_size": 100}
NETWORKS = {
    "gpt2": lambda: GPT(GPTConfig(**SHAPE)),
    "nanochat": lambda: NanoChat(NanoChatConfig(**SHAPE)),
    "tied": lambda: NanoChat(NanoChatConfig(**SHAPE, options=NanoChatOptions(tied_head=True))),
}
GROUPS = {
    "gpt2": {28.0: set(), 0.16: {"wte.weight", "wpe.weight"}, 0.6: "bias"},
    "nanochat": {28.0: {"embed_tokens.weight"}, 0.16: {"lm_head.weight"}, 0.6: set()},
    "tied": {28.0: set(), 0.16: {"embed_tokens.weight"}, 0.6: set()},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_which_parameters_take_which_rate(name):
    network = NETWORKS[name]()
    optimizer = muon.build(network, 0.02, muon.MuonOptions())
    optimizer.set_learning_rate(0.5)
    matrices, rest = (part.optimizer for part in optimizer.parts)
    names = {parameter: n for n, parameter in network.named_parameters()}
    (group,) = matrices.param_groups
    assert group["lr"] == 0.5
    assert {names[p] for p in group["params"]} == {
        n
        for n, p in network.blocks.named_parameters(prefix="h" if name == "gpt2" else "layers")
        if p.dim() == 2
    }
    found = {group["factor"]: {names[p] for p in group["params"]} for group in rest.param_groups}
    for factor, expected in GROUPS[name].items():
        if expected == "bias":
            expected = {n for n, p in network.named_parameters() if p.dim() == 1}
        assert found.get(factor, set()) == expected
    assert all(g["lr"] == 0.5 * g["factor"] and g["eps"] == 2e-16 for g in rest.param_groups)


class Bare(Decoder):
    """Blocks that have no matrix."""

    def __init__(self, config):
        super().__init__(config)
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embd)
        self.h = nn.ModuleList([nn.LayerNorm(config.n_embd)])

    @property
    def blocks(self):
        return self.h

    @property
    def head_weight(self):
        return self.wte.weight


def test_a_network_without_matrices_is_refused():
    with pytest.raises(ModelError, match=r"Bare has none; use --optimizer adamw"):
        muon.build(Bare(GPTConfig(**SHAPE)), 0.02, muon.MuonOptions())


def stepper(network, **options):
    recipe = Recipe(
        network=network, optimizer="muon", n_layer=2, n_head=2, n_embd=32, block_size=16, sequence_length=16,
        batch_tokens=128, clip_norm=0.0, optimizer_options=muon.MuonOptions(**options),
    )  # fmt: skip
    made = new_network(recipe, 100, torch.device("cpu"))
    return new_stepper(recipe, made, Ranks(0, 1, torch.device("cpu")), Precision("fp32", "test"))


def run(it, steps):
    """The losses; the batches repeat after three."""
    losses = []
    for step in steps:
        ids = torch.randint(0, 100, (8, 17), generator=torch.Generator().manual_seed(step % 3))
        batch = iter([(ids[:, :-1], ids[:, 1:])])
        rate = 0.02 / (1 + step / 10)
        losses.append(it.step(step, batch, accumulate=1, step_targets=128, learning_rate=rate).loss)
    return losses


@pytest.mark.parametrize("network", ["gpt2", "nanochat"])
def test_it_learns_and_a_resume_is_bit_equal(network):
    whole, first, second = stepper(network), stepper(network), stepper(network)
    losses = run(whole, range(24))
    assert losses[-1] < losses[0] - 0.3
    run(first, range(11))
    state = {name: tensor.clone() for name, tensor in first.optimizer.named_state().items()}
    assert {name.partition(".")[0] for name in state} == {"momentum", "exp_avg", "exp_avg_sq", "step"}
    second.network.load_state_dict(first.network.state_dict())
    second.optimizer.load_named_state(state, "a file")
    assert run(second, range(11, 24)) == losses[11:]
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.optimizer.memory_bytes() == sum(
        t.nbytes for name, t in whole.optimizer.named_state().items() if not name.startswith("step.")
    )


def test_without_decay_what_has_no_gradient_stays_bit_by_bit():
    """What `--train-only new-tokens` stands on."""
    it = stepper("nanochat", weight_decay=0.0, adamw_weight_decay=0.0)
    it.network.lm_head.weight.data[:100].normal_()  # else no gradient passes
    before = {name: p.detach().clone() for name, p in it.network.named_parameters()}
    it.first_new_row = 90
    run(it, range(3))
    for name, p in it.network.named_parameters():
        stays = 90 if name in it.network.vocabulary_rows else None
        assert torch.equal(p[:stays], before[name][:stays]), name
    assert not torch.equal(it.network.lm_head.weight[90:], before["lm_head.weight"][90:])


def test_what_pads_the_vocabulary_stays_zero():
    it = stepper("nanochat")
    run(it, range(3))
    for name in it.network.vocabulary_rows:
        assert not it.network.get_parameter(name)[100:].any()


def test_a_matrix_without_a_gradient_is_none_that_the_others_wait_for():
    a, b = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.eye(2))
    b.grad = torch.eye(2)
    Muon([a, b], lr=0.1, momentum=0.9, weight_decay=0.5, steps=5).step()
    torch.testing.assert_close(a.detach(), torch.full((2, 2), 0.95))
    assert b[0, 0] < 0.9


MUON = ["--optimizer", "muon", "--learning-rate", "0.02"]


def test_another_network_or_optimizer_does_not_go_on_with_the_run(train, refused, tmp_path):
    train(tmp_path / "run", 2, *MUON, "--network", "nanochat")
    for flags in (MUON, ["--network", "nanochat"]):
        refused(*flags, "--steps", 4, "--out", tmp_path / "run")


def last_loss(out):
    return [record["train_loss"] for record in Run(out).metrics() if "train_loss" in record][-1]


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
@pytest.mark.parametrize("network", ["gpt2", "nanochat"])
def test_two_ranks_reach_the_loss_of_one_and_go_on_alone(
    network, shard, small_run, tmp_path, child_environment
):
    args = [*small_run, "--dropout", "0", *MUON, "--network", network, "--checkpoint-every", "4"]
    assert main(["train", *args, "--steps", "8", "--out", str(tmp_path / "alone")]) == 0
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "myna",
    ]
    command += ["train", *args, "--steps", "8", "--shard", shard, "--out", str(tmp_path / "two")]
    ended = subprocess.run(command, env=child_environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert last_loss(tmp_path / "two") == pytest.approx(last_loss(tmp_path / "alone"), abs=1e-4)
    # The main rank's checkpoint has all of the state: one rank goes on from it as from its own.
    last = tmp_path / "two" / "checkpoints" / "step_00000008"
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    assert main(["train", *args, "--steps", "8", "--out", str(tmp_path / "two")]) == 0
    assert last_loss(tmp_path / "two") == pytest.approx(last_loss(tmp_path / "alone"), abs=1e-4)


@pytest.mark.slow
def test_it_compiles(small_run, tmp_path, capsys):
    args = [arg for arg in small_run if arg != "--no-compile"]
    args += ["--dropout", "0", *MUON, "--network", "nanochat", "--steps", "6"]
    assert main(["train", *args, "--compile", "--out", str(tmp_path / "compiled")]) == 0
    assert "torch.compile failed" not in capsys.readouterr().out
    assert main(["train", *args, "--no-compile", "--out", str(tmp_path / "eager")]) == 0
    assert last_loss(tmp_path / "compiled") == pytest.approx(last_loss(tmp_path / "eager"), abs=1e-4)
