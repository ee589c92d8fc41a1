"""What `myna train` understands, and what it refuses: recipes, options, resumes, extensions."""

import json

import pytest

from myna.cli import main
from myna.errors import Stopped
from myna.model.checkpoint import load_train_files
from myna.model.network import NETWORKS
from myna.run import Run
from myna.train.loop import Training
from myna.train.optimizers import OPTIMIZERS


def files_of(folder):
    """What a folder holds, to be compared."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def help_of(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main(["train", *args, "--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_spells_out_the_sources_and_the_options(capsys):
    said = help_of(capsys, "gpt2-124m")
    assert "[1] GPT-2: Radford et al. 2019" in said
    assert "[2] GPT-3: Brown et al. 2020, arXiv:2005.14165" in said
    assert f"Networks: {', '.join(NETWORKS)}. Optimizers: {', '.join(OPTIMIZERS)}." in said
    for option, default in (("beta1", 0.9), ("beta2", 0.95), ("weight-decay", 0.1), ("epsilon", 1e-08)):
        assert f"--optimizer.{option} FLOAT" in said
        assert f"(default: {default})" in said
    assert "(default: 0.8)" in help_of(capsys, "shakespeare-char")  # its beta1
    assert "--optimizer.newton-schulz-steps INT" in help_of(capsys)  # the demo's, which has Muon


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--network", "nope"], "there is no network 'nope'; there are: gpt2"),
        (["--network=gpt-2"], "there is no network 'gpt-2'; did you mean gpt2? There are: gpt2"),
        (
            ["--optimizer", "adamx"],
            "there is no optimizer 'adamx'; did you mean adam? There are: adamw, adam",
        ),
        (
            ["--optimizer.beta1", "1"],
            "--optimizer.beta1 is 1.0; give a fraction from 0 up to, not including, 1",
        ),
        (["--steps", "0"], "--steps is 0; give 1 or more"),
        (["--learning-rate", "nan"], "--learning-rate is nan; give a finite number"),
        (["--keep-every", "5"], "give --keep-last too"),
        (["--timeout-s", "0"], "--timeout-s is 0"),
        (["--keep-last", "-1"], "--keep-last is -1"),
        (["--extend", "--steps", "9"], "holds no run; leave --extend out, or name the run with --out"),
    ],
)
def test_a_wrong_call_is_a_line_and_leaves_nothing(refused, tmp_path, args, says):
    assert says in refused("--out", tmp_path / "new" / "run", *args)
    assert list(tmp_path.iterdir()) == []


def test_an_option_of_no_optimizer_names_what_there_is(small_run, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", *small_run, "--optimizer.beta3", "0.8"])
    assert ended.value.code == 2
    assert "--optimizer.beta" in capsys.readouterr().err


def test_an_option_of_the_optimizer_is_kept_and_must_not_change(train, refused, tmp_path, capsys):
    run = train(tmp_path / "run", 1, "--optimizer.beta1", 0.7)
    assert run.recipe()["optimizer_options"] == {
        "weight_decay": 0.45,
        "decays": "matrices",
        "beta1": 0.7,
        "beta2": 0.99,
        "epsilon": 1e-8,
    }
    before = files_of(run.path)
    said = refused("--out", run.path, "--steps", 1, "--optimizer.beta1", 0.6)
    assert (
        "another recipe (--optimizer.beta1 was 0.7, now 0.6); give another --out, or go on with --override"
        in said
    )
    assert files_of(run.path) == before
    train(run.path, 2, "--optimizer.beta1", 0.6, "--override")
    assert (
        "going on with a changed recipe: --steps was 1, now 2; --optimizer.beta1 was 0.7"
        in capsys.readouterr().out
    )
    assert run.recipe()["optimizer_options"]["beta1"] == 0.6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": "8"}, "--steps is '8'; give a whole number"),
        ({"steps": None}, "--steps is None; give a whole number"),
        ({"steps": True}, "--steps is True; give a whole number"),
        ({"micro_batch": "auto"}, "--micro-batch is 'auto', and a run has the number that was chosen"),
        ({"micro_batch": 1.5}, "--micro-batch is 1.5; give auto or a whole number"),
        ({"micro_batch": 0}, "--micro-batch is 0; give auto, or 1 or more"),
        ({"micro_batch": True}, "--micro-batch is True; give auto or a whole number"),
        ({"micro_batch": ...}, "--micro-batch is missing"),
        ({"micro_batch": [4]}, "--micro-batch is [4]; give auto or a whole number"),
        ({"optimizer_options": None}, "options are None; give an object of beta1, beta2"),
        ({"optimizer_options": [[1]]}, "options are [[1]]; give an object of"),
        ({"optimizer_options": {"beta1": {"a": [1]}}}, "--optimizer.beta1 is {'a': [1]}; give a number"),
        ({"optimizer_options": {"beta9": 1}}, "options are {'beta9': 1}; give an object of beta1"),
        ({"network_options": "rubbish"}, "options are 'rubbish'; give an object of gelu"),
        ({"network": ["gpt2"]}, "there is no network \"['gpt2']\""),
        ({"corpus": "shakespeare"}, "--corpus is 'shakespeare'; give a list, each text"),
        ({"tokenizer": {}}, "--tokenizer is {}; give text"),
        ({"learning_rate": "fast"}, "--learning-rate is 'fast'; give a number"),
        ({"precision": "fp8"}, "--precision is 'fp8'; give auto or fp32 or tf32 or bf16 or fp16"),
        ({"n_head": 5}, "n_head 5"),
        ({"steps": ...}, "--steps is missing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("extend", [(), ("--extend",)])
def test_a_recipe_that_somebody_edited_is_a_line(one_step, refused, change, says, extend):
    recipe = {k: v for k, v in (one_step.recipe() | change).items() if v is not ...}
    whole = one_step.recipe_path.read_bytes()
    one_step.recipe_path.write_text(json.dumps(recipe))
    try:
        said = refused("--out", one_step.path, "--steps", 3, *extend)
    finally:
        one_step.recipe_path.write_bytes(whole)
    assert said.startswith(f"myna train: {one_step.recipe_path} is not what was written there: ")
    assert says in said
    assert "; restore the file, or give another --out" in said


def test_so_are_brackets_without_end(one_step, refused):
    whole = one_step.recipe_path.read_bytes()
    one_step.recipe_path.write_text("[" * 200_000)
    said = refused("--out", one_step.path, "--steps", 3)
    one_step.recipe_path.write_bytes(whole)
    assert f"{one_step.recipe_path} is not JSON (its brackets are nested too deeply)" in said


@pytest.fixture(scope="module")
def one_step(small_run, tmp_path_factory):
    """A finished run of a step, which the tests leave as it is."""
    out = tmp_path_factory.mktemp("one") / "run"
    assert main(["train", *small_run, "--steps", "1", "--out", str(out)]) == 0
    return Run(out)


def test_a_run_of_before_there_were_other_optimizers_goes_on(train, refused, tmp_path, capsys):
    """Its recipe.json has AdamW's numbers among the recipe's own, and lacks the newer fields."""
    run = train(tmp_path / "run", 2, "--checkpoint-every", 1)
    (run.checkpoints / "step_00000002").rename(tmp_path / "away")
    stored = run.recipe()
    stored |= stored.pop("optimizer_options")
    for name in (
        "network",
        "network_options",
        "optimizer",
        "decay_steps",
        "average_decay",
        "init",
        "train_only",
    ):
        del stored[name]
    run.recipe_path.write_text(json.dumps(stored))
    for more, says in (
        (["--optimizer.beta1", 0.7], "--optimizer.beta1 was 0.8, now 0.7"),
        (["--average-decay", 0.9], "--average-decay was 0.0, now 0.9"),
        (
            ["--optimizer", "muon", "--override"],
            "--optimizer was 'adamw', now 'muon'); --optimizer cannot change",
        ),
        (["--network", "nanochat"], "--network was 'gpt2', now 'nanochat'); --network cannot change"),
    ):
        assert says in refused("--out", run.path, "--steps", 2, *more)
    train(run.path, 2, "--checkpoint-every", 1)
    assert "resuming after step 1" in capsys.readouterr().out
    assert run.recipe()["optimizer_options"]["beta1"] == 0.8


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--learning-rate", "0.5"], "--learning-rate was 0.001, now 0.5"),
        (["--resume", "never"], "holds a run already"),
        (["--tokenizer", "gpt2"], "--tokenizer was 'bytes', now 'gpt2'"),
        (["--n-layer", "3", "--override"], "--n-layer was 2, now 3); --n-layer cannot change"),
        (
            ["--steps", "2"],
            "(--steps was 1, now 2); give another --out, or go on with --override, or train it further",
        ),
    ],
)
def test_a_resume_that_would_not_be_one_is_refused(train, refused, tmp_path, more, says):
    run = train(tmp_path / "run", 1)
    before = files_of(run.path)
    assert says in refused("--out", run.path, "--steps", 1, *more)
    assert files_of(run.path) == before


# Extending


@pytest.fixture
def finished(train, tmp_path):
    """A run of six steps, with checkpoints at each: four of warmup, two of the cosine."""
    return train(tmp_path / "run", 6, "--checkpoint-every", 1)


def rates_of(run):
    return {r["step"]: r["learning_rate"] for r in run.metrics() if "learning_rate" in r}


@pytest.mark.parametrize("steps", [6, 5])
def test_to_no_more_steps_nothing_is_extended(finished, refused, steps):
    before = files_of(finished.path)
    said = refused("--out", finished.path, "--extend", "--steps", steps, "--checkpoint-every", 1)
    assert "has 6 steps already; give --steps more than that" in said
    assert files_of(finished.path) == before


def test_what_is_not_finished_is_not_extended(finished, refused, tmp_path):
    (finished.checkpoints / "step_00000006").rename(tmp_path / "away")
    before = files_of(finished.path)
    said = refused("--out", finished.path, "--extend", "--steps", 9, "--checkpoint-every", 1)
    assert "is not finished (5 of 6 steps); finish it first" in said
    assert files_of(finished.path) == before


def test_a_finished_run_is_trained_further_at_the_last_rate(finished, train, hashes, tmp_path, capsys):
    """And what it trains is what one long run does whose cosine ends at step 6."""
    rates, more = rates_of(finished), ("--extend", "--checkpoint-every", 1)
    train(finished.path, 9, *more)
    assert (
        f"extending {finished.path} from 6 to 9 steps; the cosine ends at step 6" in capsys.readouterr().out
    )
    assert rates_of(finished) == rates | dict.fromkeys((7, 8, 9), rates[6])
    recipe = finished.recipe()
    assert (recipe["steps"], recipe["decay_steps"], recipe["extended_from"]) == (9, 6, 6)
    whole = train(tmp_path / "whole", 9, "--decay-steps", 6)
    assert hashes(finished.path, 9) == hashes(whole.path, 9)
    capsys.readouterr()
    before = files_of(finished.path)
    train(finished.path, 9, *more)  # the same command again
    train(finished.path, 9, "--checkpoint-every", 1)  # and without the word
    assert capsys.readouterr().out.count("is finished: 9 of 9 steps") == 2
    assert files_of(finished.path) == before
    train(finished.path, 10, *more)
    assert rates_of(finished)[10] == rates[6]
    assert finished.recipe()["extended_from"] == 9


def test_a_cosine_may_be_drawn_anew(finished, train, refused, tmp_path):
    args = ("--extend", "--decay-steps", 9)
    train(finished.path, 10, *args)
    drawn = rates_of(train(tmp_path / "whole", 10, "--decay-steps", 9))
    assert drawn[7] > drawn[8] > drawn[9] == drawn[10]
    assert [rates_of(finished)[step] for step in (7, 8, 9, 10)] == [drawn[step] for step in (7, 8, 9, 10)]
    before = files_of(finished.path)
    said = refused("--out", finished.path, "--steps", 10, "--extend", "--decay-steps", 8)
    assert "--decay-steps was 9, now 8" in said  # it is drawn already
    assert files_of(finished.path) == before
    train(finished.path, 10, *args)
    assert files_of(finished.path) == before


def test_an_extension_that_was_stopped_goes_on_with_the_same_command(
    finished, train, refused, hashes, tmp_path, monkeypatch, capsys
):
    original = Training._show

    def stop_at_8(self, *args):
        original(self, *args)
        if self.state.step == 8:
            raise Stopped("in the middle")

    more = ("--extend", "--checkpoint-every", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_show", stop_at_8)
        with pytest.raises(Stopped):
            train(finished.path, 10, *more)
    said = refused("--out", finished.path, "--extend", "--steps", 11, "--checkpoint-every", 1)
    assert "is not finished (7 of 10 steps)" in said
    train(finished.path, 10, *more)
    assert "resuming after step 7" in capsys.readouterr().out
    whole = train(tmp_path / "whole", 10, "--decay-steps", 6)
    assert hashes(finished.path, 10) == hashes(whole.path, 10)


def test_an_extension_changes_the_steps_alone(finished, refused):
    before = files_of(finished.path)
    said = refused("--out", finished.path, "--extend", "--steps", 9, "--learning-rate", 0.5)
    assert "(--learning-rate was 0.001, now 0.5)" in said
    assert files_of(finished.path) == before


# Formats


def test_a_checkpoint_of_a_newer_format_is_a_line(train, refused, tmp_path):
    from myna.model import checkpoint

    run = train(tmp_path / "run", 2, "--checkpoint-every", 1)
    newest = run.checkpoints / "step_00000002"
    _, state = load_train_files(newest)
    (newest / "train_state.json").write_text(json.dumps(state | {"format": 99}))
    (newest / "manifest.json").write_bytes(checkpoint._manifest(newest, {}))
    before = files_of(run.path)
    said = refused("--out", run.path, "--steps", 3, "--override")
    assert (
        "train_state.json has format 99, and this Myna reads up to 2; use the version that wrote it" in said
    )
    assert files_of(run.path) == before
