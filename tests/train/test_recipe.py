import pytest

from myna import recipes
from myna.errors import ModelError, UsageError
from myna.train.recipe import Recipe, changed_fields


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_sound_and_named_as_it_is_called(name):
    assert recipes.named(name).name == name


def test_the_sizes_are_gpt2s():
    """Parameters as OpenAI counts them in the released models: 124M, 355M, 774M, 1558M."""
    import torch

    from myna.model.gpt2 import GPT
    from myna.train.flops import count_parameters

    counts = {}
    for name in ("gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m"):
        with torch.device("meta"):
            counts[name] = count_parameters(GPT(recipes.named(name).model_config(50257)))
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
        ({"epsilon": float("nan")}, "--epsilon is nan"),
        ({"sample_prompt": "a\udcff"}, "--sample-prompt"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"beta2": 1.0}, "--beta2"),
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
        "learning_rate": "--learning-rate was 0.0006, now 0.001"
    }
