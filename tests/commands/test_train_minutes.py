"""`myna train --minutes`: the run it makes is that of --steps, is taken up again as it was begun, or is refused."""

import contextlib
import io
import itertools
import json
import shutil
import types

import pytest

from myna.cli import main
from myna.commands import train as command
from myna.commands import train_end, train_minutes, train_start
from myna.errors import Stopped, UsageError
from myna.run import Run
from myna.train import pace
from myna.train.laid_out import LaidOut
from myna.train.loop import Training
from myna.train.minutes import Costs, Recurring

STEPS, MINUTES = 6, 0.05  # so short that little is measured
# The shares of shakespeare-char's 6,900 steps.
LAID_OVER = {"warmup_steps": 1, "eval_every": 1, "sample_every": 2, "checkpoint_every": 2}


def files_of(folder):
    """What a folder holds, to be compared."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def laid_over(steps):
    """So many steps, whatever was measured."""
    return lambda minutes, recipe, *measured: LaidOut(minutes, recipe.steps, steps)


@pytest.fixture(scope="module", autouse=True)
def no_report():
    """A picture takes longer to draw than these runs take to train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_end, "finish", lambda *given: None)
        yield


@pytest.fixture(scope="module")
def args(small_run):
    """The small run with the schedule of its recipe, and weights that are averaged."""
    kept = list(small_run)
    for flag in ("--warmup-steps", "--eval-every", "--sample-every", "--average-decay"):
        at = kept.index(flag)
        del kept[at : at + 2]
    return [*kept, "--average-decay", "0.9"]


@pytest.fixture
def run(args, tmp_path):
    """Trains in this process: (name, *more arguments) to the run. Errors come as they are."""

    def train(name, *more):
        command.main([*args, "--out", str(tmp_path / name), *map(str, more)])
        return Run(tmp_path / name)

    return train


@pytest.fixture
def six(monkeypatch):
    """Whatever is measured, 6 steps fit."""
    monkeypatch.setattr(train_minutes, "lay_out", laid_over(STEPS))


@pytest.fixture(scope="module")
def finished(args, tmp_path_factory):
    """A finished run of some minutes, of which 6 steps were made, and what was said."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(train_minutes, "lay_out", laid_over(STEPS))
        command.main([*args, "--out", str(out), "--minutes", str(MINUTES)])
    return Run(out), said.getvalue()


@pytest.fixture
def begun(finished, tmp_path, monkeypatch):
    """That run, to go on with; nothing may be measured."""
    shutil.copytree(finished[0].path, tmp_path / "run")
    monkeypatch.setattr(train_minutes, "measured", None)
    return Run(tmp_path / "run")


def stop_after(step, patch):
    original = Training._show

    def show(self, *args):
        original(self, *args)
        if self.state.step == step:
            raise Stopped("in the middle")

    patch.setattr(Training, "_show", show)


def state_of(run, step=STEPS):
    folder = run.checkpoints / f"step_{step:08d}"
    names = ("model.safetensors", "train_state.safetensors", "train_state.json")
    return [(folder / name).read_bytes() for name in names]


def test_it_is_the_run_of_so_many_steps_bit_for_bit(finished, run):
    """What was measured before, steps and evaluations, left nothing."""
    timed, said = finished
    assert "--minutes 0.05: 6 steps, since one takes " in said
    assert (
        "laid over 6 steps, of 6,900 in the recipe: --warmup-steps 1 (was 50), --eval-every 1 (was 460)"
        in said
    )
    assert "validation" in said
    flags = [word for name, n in LAID_OVER.items() for word in (f"--{name.replace('_', '-')}", n)]
    counted = run("counted", "--steps", STEPS, *flags, "--hellaswag-every", 1)
    assert state_of(timed) == state_of(counted)
    for key in ("train_loss", "val_loss"):
        losses = [[r["step"], r[key]] for r in timed.metrics() if key in r]
        assert losses == [[r["step"], r[key]] for r in counted.metrics() if key in r]
    assert timed.samples() == counted.samples()
    kept = timed.recipe()
    assert kept.pop("minutes") == {
        "minutes": MINUTES,
        "recipe_steps": 6900,
        "steps": STEPS,
        "evaluations_apart": 1,
    }
    assert kept == counted.recipe()


def test_what_is_measured_gives_the_steps_that_fit(run, monkeypatch, capsys):
    """With a clock that goes on by a tenth of a second whenever it is read, so nothing here depends on the machine."""
    ticks = itertools.count()
    for module in (pace, train_minutes, train_start):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks) / 10))
    args = ("--minutes", MINUTES, "--eval-every", 0, "--sample-every", 0)
    kept = run("run", *args).recipe()
    steps = kept["steps"]
    assert steps == kept["minutes"]["steps"]
    assert 5 <= steps <= 60 * MINUTES / 0.1
    assert (kept["eval_every"], kept["sample_every"]) == (0, 0)
    monkeypatch.setattr(train_minutes, "measured", None)
    run("run", *args)
    assert f"is finished: {steps} of {steps} steps. Nothing is left to train." in capsys.readouterr().out


def test_what_a_person_gives_is_not_laid_over(run, six):
    kept = run("run", "--minutes", MINUTES, "--warmup-steps", 5, "--eval-every=6").recipe()
    assert (kept["warmup_steps"], kept["eval_every"], kept["sample_every"]) == (5, 6, 2)


# Taken up again


def test_a_finished_run_is_left_as_it_is(begun, run, capsys):
    before = files_of(begun.path)
    run("run", "--minutes", MINUTES)
    assert "is finished: 6 of 6 steps. Nothing is left to train." in capsys.readouterr().out
    assert files_of(begun.path) == before


@pytest.mark.parametrize("step", [1, 3])
def test_what_was_stopped_goes_on_with_its_steps(begun, run, six, monkeypatch, step):
    """Before its first checkpoint, which is of step 2, and after it; the machine is not asked again."""
    with monkeypatch.context() as patch:
        patch.setattr(train_minutes, "measured", lambda trial, seconds: Costs(1.0, 1))
        stop_after(step, patch)
        with pytest.raises(Stopped):
            run("parts", "--minutes", MINUTES)
    parts = run("parts", "--minutes", MINUTES)
    assert state_of(parts) == state_of(begun)
    assert parts.recipe() == begun.recipe()


def test_what_was_killed_before_it_was_a_run_is_measured_anew(run, six, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train_start, "open_records", None)
        with pytest.raises(TypeError):
            run("run", "--minutes", MINUTES)
    assert not Run(tmp_path / "run").exists()
    monkeypatch.setattr(train_minutes, "lay_out", laid_over(5))
    assert run("run", "--minutes", MINUTES).recipe()["steps"] == 5


def refusal_of(args, out, capsys, *more):
    """The line with which a call ends that leaves the run as it was."""
    before = files_of(out)
    assert main(["train", *args, "--out", str(out), *map(str, more)]) == 2
    assert files_of(out) == before
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize("more", [[], ["--override"]])
def test_other_minutes_are_refused(begun, args, capsys, more):
    said = refusal_of(args, begun.path, capsys, "--minutes", 5, *more)
    assert "was begun with --minutes 0.05, which came to 6 steps, and not with --minutes 5; " in said
    assert "--steps N changes its length: with --extend once it is finished, with --override before" in said


def test_neither_minutes_nor_steps_is_refused(begun, args, capsys):
    said = refusal_of(args, begun.path, capsys)
    assert (
        "was begun with --minutes 0.05, which came to 6 steps; give --minutes 0.05 again, or another --out"
        in said
    )


def test_other_steps_are_refused_and_nothing_else_is_named(begun, args, capsys):
    said = refusal_of(args, begun.path, capsys, "--steps", 20)
    assert (
        "another recipe (--steps was 6, now 20); give another --out, or go on with --override, or train"
        in said
    )


def test_another_learning_rate_is_refused_as_ever(begun, args, capsys):
    said = refusal_of(args, begun.path, capsys, "--minutes", MINUTES, "--learning-rate", 0.5)
    assert "another recipe (--learning-rate was 0.001, now 0.5)" in said
    said = refusal_of(args, begun.path, capsys, "--minutes", MINUTES, "--warmup-steps", 50)
    assert "another recipe (--warmup-steps was 1, now 50)" in said


@pytest.mark.parametrize("more", [[], ["--override"]])
def test_a_run_of_steps_does_not_go_on_by_minutes(run, args, capsys, more):
    counted = run("counted", "--steps", 2)
    capsys.readouterr()
    said = refusal_of(args, counted.path, capsys, "--minutes", MINUTES, *more)
    assert "was begun without --minutes, with 2 steps; leave --minutes out, or give another --out" in said


def test_the_same_number_of_steps_is_the_same_run(begun, run, capsys):
    run("run", "--steps", STEPS)
    assert "is finished: 6 of 6 steps" in capsys.readouterr().out


def test_it_is_trained_further_by_steps(begun, run, capsys):
    """The rest of the schedule stays as it was laid out; and the first command still finds everything done."""
    run("run", "--extend", "--steps", 9)
    kept = begun.recipe()
    assert {name: kept[name] for name in LAID_OVER} == LAID_OVER
    assert (kept["steps"], kept["decay_steps"], kept["extended_from"]) == (9, 6, 6)
    capsys.readouterr()
    for again in (["--minutes", MINUTES], ["--extend", "--steps", 9]):
        before = files_of(begun.path)
        run("run", *again)
        assert "is finished: 9 of 9 steps" in capsys.readouterr().out
        assert files_of(begun.path) == before


def test_its_length_is_changed_before_it_is_finished_by_override(begun, run, six, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(train_minutes, "measured", lambda trial, seconds: Costs(1.0, 1))
        stop_after(3, patch)
        with pytest.raises(Stopped):
            run("other", "--minutes", MINUTES)
    changed = run("other", "--steps", 4, "--override")
    assert "going on with a changed recipe: --steps was 6, now 4\n" in capsys.readouterr().out
    assert state_of(changed, 4)
    run("other", "--minutes", MINUTES)
    assert "is finished: 4 of 4 steps" in capsys.readouterr().out


def test_checkpoints_without_a_recipe_do_not_tell_the_steps(begun, args, capsys):
    begun.recipe_path.unlink()
    said = refusal_of(args, begun.path, capsys, "--minutes", MINUTES)
    assert (
        "has checkpoints and no recipe.json, which says how many steps were chosen; restore the file" in said
    )


def test_what_somebody_edited_is_a_line(begun, args, capsys):
    begun.recipe_path.write_text(
        json.dumps(begun.recipe() | {"minutes": {"minutes": MINUTES, "steps": "12"}})
    )
    said = refusal_of(args, begun.path, capsys, "--minutes", MINUTES)
    assert f"{begun.recipe_path} is not what was written there: --minutes does not hold minutes" in said


# Bad input


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--minutes", "0"], "--minutes is 0.0; give a number of minutes over 0"),
        (["--minutes", "-3"], "--minutes is -3.0; give"),
        (["--minutes", "nan"], "--minutes is nan; give"),
        (["--minutes", "inf"], "--minutes is inf; give"),
        (
            ["--minutes", "1e9"],
            "--minutes is 1000000000.0; give a number of minutes over 0, at most 527,040 (a year)",
        ),
        (["--minutes", "3", "--steps", "5"], "leave --steps out, or --minutes"),
        (["--minutes", "3", "--steps=6900"], "leave --steps out, or --minutes"),  # the recipe's own number
        (["--minutes", "3", "--extend"], "--extend goes on to a number of steps; give --steps N"),
        (["--minutes", "3", "--data", "absent"], "absent"),
        (["--minutes", "1e-9"], "--minutes 1e-09 is too short: 3 steps take "),
    ],
)
def test_a_wrong_call_is_a_line_and_leaves_nothing(args, tmp_path, capsys, more, says):
    assert main(["train", *args, "--out", str(tmp_path / "new" / "run"), *more]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1, said
    assert list(tmp_path.iterdir()) == []


def test_too_short_a_time_says_what_takes_so_long_and_the_least(run, monkeypatch):
    costs = Costs(20.0, 1, (Recurring("validation", 100.0, lambda recipe: 4),))
    monkeypatch.setattr(train_minutes, "measured", lambda trial, seconds: costs)
    says = "--minutes 7 is too short: 3 steps take 60 s here, their evaluations and checkpoints 400 s, and the start"
    with pytest.raises(UsageError, match=rf"{says} took .* s; give --minutes 8\.\d or more"):
        run("run", "--minutes", 7)


# The parts of what is measured


@pytest.mark.parametrize("data", ["text", "conversations", "mixture"])
def test_an_evaluation_has_the_rounds_that_it_says(
    args, tmp_path, shared_data, conversations, mixture, monkeypatch, data
):
    """Validation, samples and HellaSwag: the number by which their first rounds are multiplied."""
    from myna.commands import train_evaluations

    counted = {}
    make_all = train_evaluations.evaluations

    def watched(around):
        made = make_all(around)
        for evaluation in made:
            function = evaluation.function

            def count(network, step, before_batch, function=function, evaluation=evaluation):
                calls = []
                values = function(network, step, lambda: calls.append(before_batch()))
                counted[evaluation.name] = len(calls), evaluation.rounds(network)
                return values

            object.__setattr__(evaluation, "function", count)
        return made

    monkeypatch.setattr(train_start, "evaluations", watched)
    more = ["--hellaswag", str(shared_data("hellaswag_val_first500.jsonl"))]
    if data != "text":
        args = args[: args.index("--data")] + args[args.index("--data") + 2 :]
    if data == "mixture":
        more = mixture("small:0.7", "other:0.3")
    if data == "conversations":
        more = ["--data", str(conversations), "--tokenizer", "from-data", "--block-size", "160"]
        more += ["--sequence-length", "160", "--batch-tokens", "1280", "--sample-prompt", "one?\ntwo?"]
    command.main([*args, *more, "--out", str(tmp_path / "run"), "--steps", "1"])
    assert counted.keys() == ({"validation", "samples"} | ({"hellaswag"} if data == "text" else set()))
    for calls, rounds in counted.values():
        assert calls == rounds > 0
