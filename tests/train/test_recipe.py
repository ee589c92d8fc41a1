import dataclasses
import json
from dataclasses import dataclass

import pytest

from myna import recipes
from myna.errors import ModelError, UsageError
from myna.model.network import NETWORKS, NetworkKind, network_kind
from myna.model.weights import build_without_memory
from myna.settings import Options, resume_rules
from myna.train.optimizers.adamw import AdamWOptions
from myna.train.recipe import Change, Recipe, changed_fields


@dataclass(frozen=True)
class OtherOptions(Options):
    """Nobody's."""


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_sound_and_named_as_it_is_called(name):
    assert recipes.named(name).name == name


def test_the_sizes_are_gpt2s():
    """Parameters as OpenAI counts them in the released models: 124M, 355M, 774M, 1558M."""
    counts = {}
    for name in ("gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m"):
        recipe = recipes.named(name)
        network = build_without_memory(network_kind(recipe.network), recipe.network_config(50257))
        counts[name] = network.n_parameters()
    assert counts == {
        "gpt2-124m": 124_439_808,
        "gpt2-355m": 354_823_168,
        "gpt2-774m": 774_030_080,
        "gpt2-1558m": 1_557_611_200,
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sequence_length": 2048, "batch_tokens": 524_288}, "over the model's 1024 positions"),
        ({"batch_tokens": 1000}, "no multiple"),
        ({"batch_tokens": 1500}, "nearest are 1024 and 2048"),
        ({"steps": -1}, "--steps is -1"),
        ({"steps": 0}, "--steps is 0"),
        ({"seed": 1 << 63}, "--seed"),
        ({"learning_rate": float("inf")}, "--learning-rate is inf"),
        (
            {"optimizer_options": AdamWOptions(epsilon=float("nan"))},
            "--optimizer.epsilon is nan; give a finite",
        ),
        ({"optimizer_options": AdamWOptions(beta2=1.0)}, "--optimizer.beta2 is 1.0; give a fraction"),
        ({"optimizer_options": OtherOptions()}, "OtherOptions, and adamw takes AdamWOptions"),
        ({"network_options": OtherOptions()}, "OtherOptions, and gpt2 takes GPTOptions"),
        ({"network": "gpt3"}, "there is no network 'gpt3'; did you mean gpt2"),
        ({"optimizer": "adamx"}, "there is no optimizer 'adamx'; did you mean adam"),
        ({"sample_prompt": "a\udcff"}, "--sample-prompt"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"eval_every": -1}, "--eval-every is -1; give a number of steps, or 0 for never"),
        ({"decay_steps": -1}, "--decay-steps is -1; give 0 or more"),
        ({"micro_batch": 0}, "--micro-batch"),
    ],
)
def test_what_cannot_be_is_refused_by_flag(change, says):
    with pytest.raises(UsageError, match=says):
        Recipe(**change)


def test_an_impossible_model_is_refused_with_the_recipe():
    with pytest.raises(ModelError, match="n_head 5"):
        Recipe(n_head=5)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean shakespeare-char"):
        recipes.named("shakespere-char")


def test_changed_fields_are_those_that_lead_elsewhere():
    stored = Recipe().to_dict()
    assert changed_fields(Recipe(eval_every=7), stored) == {}
    assert changed_fields(Recipe(learning_rate=1e-3), stored) == {
        "learning_rate": Change("override", "--learning-rate was 0.0006, now 0.001")
    }
    assert changed_fields(Recipe(n_layer=2), stored)["n_layer"].rule == "never"
    assert changed_fields(Recipe(optimizer_options=AdamWOptions(beta1=0.8)), stored) == {
        "optimizer.beta1": Change("override", "--optimizer.beta1 was 0.9, now 0.8")
    }


def as_before_there_were_other_optimizers(recipe):
    """recipe.json of an older version: AdamW's numbers among the recipe's own, and no names."""
    stored = recipe.to_dict()
    stored |= stored.pop("optimizer_options")
    for name in ("network", "network_options", "optimizer", "decay_steps"):
        del stored[name]
    return stored


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_goes_through_its_file_of_today_and_of_before(name):
    recipe = recipes.named(name)
    files = [recipe.to_dict()]
    if (recipe.network, recipe.optimizer, recipe.decay_steps) == ("gpt2", "adamw", 0):
        files.append(as_before_there_were_other_optimizers(recipe))
    for stored in files:
        assert Recipe.from_dict(stored) == recipe
        assert changed_fields(recipe, stored) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"decay_steps": 8},
        {"decay": "linear", "constant_fraction": 0.3},
        {"average_decay": 0.99},
        {"init": "gpt2", "train_only": "new-tokens"},
        {"order": "sequential", "fim_rate": 0.5},
        {"batch_ramp_tokens": 1 << 30},
        {"overfit": True},
        {"network": "nanochat"},
        {"optimizer": "muon"},
    ],
)
def test_a_field_that_an_older_recipe_lacks_was_at_its_default(change):
    stored = {name: value for name, value in Recipe().to_dict().items() if name not in change}
    assert changed_fields(Recipe(), stored) == {}
    assert changed_fields(Recipe(**change), stored).keys() == change.keys()


def test_an_option_that_an_older_recipe_lacks_was_at_its_default():
    stored = Recipe().to_dict()
    del stored["optimizer_options"]["decays"]
    assert changed_fields(Recipe(), stored) == {}
    changed = Recipe(optimizer_options=AdamWOptions(decays="all"))
    assert changed_fields(changed, stored).keys() == {"optimizer.decays"}


def test_a_key_that_is_not_known_is_passed_over():
    assert Recipe.from_dict({"n_layer": 2, "trained_on": []}) == Recipe(n_layer=2)


def test_every_field_says_what_a_resume_may_change():
    rules = resume_rules(Recipe())
    assert rules.keys() == {field.name for field in dataclasses.fields(Recipe)}
    never = {
        "tokenizer",
        "network",
        "network_options",
        "n_layer",
        "n_head",
        "n_embd",
        "block_size",
        "optimizer",
        "overfit",
    }
    assert {name for name, rule in rules.items() if rule == "never"} == never


def test_an_option_that_is_a_tuple_is_no_change(monkeypatch):
    """JSON has lists alone: a run with such an option could not be resumed."""

    @dataclass(frozen=True)
    class Wide(Options):
        widths: tuple[int, ...] = (1, 2)

    monkeypatch.setitem(NETWORKS, "wide", NetworkKind("myna.model.gpt2:GPT", options=Wide))
    recipe = Recipe(network="wide", network_options=Wide(widths=(3, 4)))
    stored = json.loads(json.dumps(recipe.to_dict()))
    assert changed_fields(recipe, stored) == {}
    assert Recipe.from_dict(stored) == recipe
