"""A network and an optimizer that src does not know do all that GPT-2 and AdamW do, by their lines in the tables."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from myna.cli import main
from myna.evaluate.inspect.prompt import trace
from myna.files import sha256_file
from myna.model.attention import join_heads
from myna.model.network import NETWORKS
from myna.model.weights import load_network
from myna.run import Run
from myna.train.optimizers import OPTIMIZERS

HERE = Path(__file__).parent
ARGS = """
    shakespeare-char --network rotary --network.rotary-base 500 --optimizer momentum --optimizer.momentum 0.8
    --n-layer 2 --n-head 2 --n-embd 32 --block-size 32 --sequence-length 32 --batch-tokens 256 --micro-batch 4
    --learning-rate 0.5 --warmup-steps 4 --precision fp32 --device cpu --average-decay 0 --no-compile
    --eval-every 0 --sample-every 0
"""


@pytest.fixture
def seams(monkeypatch):
    """Both tables with their second line; gone after the test."""
    before = dict(NETWORKS), dict(OPTIMIZERS)
    modules = []
    for name in ("rotary", "momentum"):
        spec = importlib.util.spec_from_file_location(f"seams_{name}", HERE / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        modules.append(module)
    yield modules
    for table, lines in zip((NETWORKS, OPTIMIZERS), before, strict=True):
        table.clear()
        table.update(lines)


@pytest.fixture
def args(small_dataset):
    return [*ARGS.split(), "--data", str(small_dataset)]


@pytest.fixture
def hellaswag_file(tmp_path):
    item = {
        "ctx": "7 green bottles",
        "endings": [" hanging on", " fall", " a wall of", " bottles green"],
        "label": 0,
    }
    path = tmp_path / "hellaswag.jsonl"
    path.write_text("".join(json.dumps(item | {"label": n % 4}) + "\n" for n in range(3)))
    return path


def last_loss(out):
    return [record["train_loss"] for record in Run(out).metrics() if "train_loss" in record][-1]


def test_the_whole_route_on_one_rank(seams, args, hellaswag_file, tmp_path, capsys):
    out = tmp_path / "run"
    more = ["--eval-every", "4", "--sample-every", "8", "--hellaswag", str(hellaswag_file)]
    assert main(["train", *args, *more, "--steps", "8", "--out", str(out)]) == 0
    records = Run(out).metrics()
    losses = [record["train_loss"] for record in records if "train_loss" in record]
    assert losses[-1] < losses[0] - 1
    assert [record["step"] for record in records if "val_loss" in record] == [0, 4, 8]
    assert any("hellaswag_acc" in record for record in records)
    stored = Run(out).recipe()
    assert (stored["network"], stored["network_options"]) == ("rotary", {"rotary_base": 500.0})
    assert (stored["optimizer"], stored["optimizer_options"]["momentum"]) == ("momentum", 0.8)
    (checkpoint,) = (out / "checkpoints").iterdir()
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["model_type"] == "myna-rotary"
    capsys.readouterr()
    assert main(["sample", str(out), "--prompt", "7 green", "--max-tokens", "8", "--temperature", "0"]) == 0
    assert main(["eval", str(out), "--task", "val", "--json", "--precision", "fp32"]) == 0
    *_, scores = capsys.readouterr().out.splitlines()
    recorded = [record["val_loss"] for record in records if "val_loss" in record][-1]
    assert json.loads(scores)["val_loss"] == pytest.approx(recorded, abs=1e-6)
    assert main(["eval", str(out), "--task", "hellaswag", "--data", str(hellaswag_file), "--json"]) == 0
    assert main(["export", str(out), "--to", "hugging-face", "--out", str(tmp_path / "export")]) == 2
    assert "no exporter" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()


def test_a_look_inside_needs_nothing_of_it(seams, args, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", *args, "--steps", "4", "--checkpoint-every", "2", "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(out), "--prompt", "7 green", "--layer", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["positions"] == {"name": None}
    assert shown["smoothness"] == {"checkpoints": []}
    page = (out / "inspect" / "inspect.html").read_text("utf-8")
    assert page.count("This network has no position embeddings, so there are none to show") == 2
    by_name = {row["name"]: row for row in shown["tensors"]["tensors"]}
    assert not shown["tensors"]["tied"]
    assert (by_name["head.weight"]["head"], by_name["tokens.weight"]["head"]) == (True, False)
    assert by_name["layers.N.gate.weight"]["count"] == 2
    network = load_network(next(path for path in (out / "checkpoints").iterdir() if "4" in path.name)).eval()
    ids, inputs = torch.tensor([list(b"7 green")]), []
    for block in network.blocks:
        block.out.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    with torch.no_grad():
        p = network(ids)[0].softmax(dim=-1).max(dim=-1)
    assert shown["lens"]["layers"][-1]["ids"] == p.indices.tolist()
    assert shown["lens"]["layers"][-1]["probabilities"] == pytest.approx(p.values.tolist(), abs=1e-6)
    seen = trace(network, ids[0].tolist())
    ((_, _, v),) = seen.heads[1]
    torch.testing.assert_close(join_heads(seen.attention(1)[None] @ v), inputs[1], rtol=1e-4, atol=1e-6)


def test_transformers_refuses_its_checkpoint(seams, args, tmp_path):
    from transformers import AutoModelForCausalLM

    assert main(["train", *args, "--steps", "1", "--out", str(tmp_path / "run")]) == 0
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    with pytest.raises(ValueError, match="myna-rotary"):
        AutoModelForCausalLM.from_pretrained(checkpoint)


def test_flops_and_parameters_are_of_its_own_shapes(seams):
    rotary = seams[0]
    kind = NETWORKS["rotary"]
    config = kind.config(
        n_layer=2, n_head=2, n_embd=32, block_size=32, vocab_size=257, options=kind.options()
    )
    network = rotary.Rotary(config)
    block = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32
    head = 257 * 32
    assert network.n_parameters() == 2 * block + 2 * head + 32
    assert network.flops_per_token(16) == 6 * (2 * block + head + 32) + 12 * 2 * 32 * 16


def test_rows_of_different_lengths_are_those_of_the_plain_loop(seams):
    from myna import generate

    kind = NETWORKS["rotary"]
    torch.manual_seed(0)
    network = (
        seams[0]
        .Rotary(
            kind.config(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=50, options=kind.options())
        )
        .eval()
    )
    prompts = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11]]
    rows = generate(network, prompts, max_tokens=24, temperature=0)
    for prompt, row in zip(prompts, rows, strict=True):
        window = list(prompt)
        for expected in row:
            if len(window) > 16:
                window = window[-8:]
            assert int(network(torch.tensor([window]))[0, -1].argmax()) == expected
            window.append(expected)


def test_own_layout_comes_back_bit_for_bit(seams, tmp_path):
    kind = NETWORKS["rotary"]
    options = kind.options(rotary_base=123.0)
    network = seams[0].Rotary(
        kind.config(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=20, options=options)
    )
    network.save_pretrained(tmp_path)
    again = load_network(tmp_path)
    assert again.config == network.config
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def start(args, out, env, *more):
    command = [sys.executable, str(HERE / "main.py"), "train", *args, "--out", str(out), *more]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(seams, args, tmp_path, child_environment):
    steps = ["--steps", "60", "--checkpoint-every", "5"]
    process = start(args, tmp_path / "killed", child_environment, *steps)
    while not (tmp_path / "killed" / "checkpoints" / "step_00000005").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    for out in ("killed", "undisturbed"):
        assert main(["train", *args, *steps, "--out", str(tmp_path / out)]) == 0
    newest = "checkpoints/step_00000060"
    for name in ("model.safetensors", "train_state.safetensors"):
        assert sha256_file(tmp_path / "killed" / newest / name) == sha256_file(
            tmp_path / "undisturbed" / newest / name
        )


@pytest.mark.slow
def test_ddp_and_fsdp_reach_the_loss_of_one_rank(seams, args, tmp_path, child_environment):
    steps = ["--steps", "6"]
    assert main(["train", *args, *steps, "--out", str(tmp_path / "alone")]) == 0
    for shard in ("ddp", "fsdp"):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        script = [str(HERE / "main.py"), "train", *args, *steps, "--shard", shard]
        ended = subprocess.run(
            [*command, *script, "--out", str(tmp_path / shard)],
            env=child_environment,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert last_loss(tmp_path / shard) == pytest.approx(last_loss(tmp_path / "alone"), abs=1e-5)


@pytest.mark.slow
def test_it_compiles(seams, args, tmp_path, capsys):
    args = [arg for arg in args if arg != "--no-compile"]
    assert main(["train", *args, "--compile", "--steps", "6", "--out", str(tmp_path / "compiled")]) == 0
    assert "torch.compile failed" not in capsys.readouterr().out
    assert main(["train", *args, "--no-compile", "--steps", "6", "--out", str(tmp_path / "eager")]) == 0
    assert last_loss(tmp_path / "compiled") == pytest.approx(last_loss(tmp_path / "eager"), abs=1e-4)
