"""Every recipe's length against its corpus: tokens, epochs, and where the learning rate has come down."""

import pytest

from myna.data.sources.corpora import tokens_of
from myna.recipes import RECIPES, named

# Billions of tokens trained on; of the corpus, None where nobody has said; of the learning rate's decay.
LENGTHS = {
    "pydoc": (0.00147, None, 0.00147),
    "pydoc-speedrun": (0.00147, None, 0.00147),
    "shakespeare": (0.0049, None, 0.0049),
    "shakespeare-char": (0.0141, None, 0.0141),
    "gpt2-124m": (10.0, 10, 10.0),
    "gpt2-355m": (10.0, 10, 10.0),
    "gpt2-774m": (10.0, 10, 10.0),
    "gpt2-1558m": (32.0, 100, 32.0),
    "gpt2-124m-40b": (40.0, 10, 40.0),
    "gpt3-124m": (300.0, 350, 260.0),
    "gpt3-350m": (300.0, 350, 260.0),
    "gpt3-760m": (300.0, 350, 260.0),
    "gpt3-1.3b": (300.0, 350, 260.0),
    "speedrun-124m": (1.7, 10, 1.7),
    "chat-pydoc": (0.00049, None, 0.00049),
    "chat-124m": (0.79, None, 0.79),
}
MOST_EPOCHS = {"gpt2-124m-40b": 4.0}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_length_fits_its_corpus(name):
    recipe, (tokens, has, decays) = named(name), LENGTHS[name]
    assert recipe.name == name
    assert recipe.steps * recipe.batch_tokens == pytest.approx(1e9 * tokens, rel=0.02)
    assert (recipe.decay_steps or recipe.steps) * recipe.batch_tokens == pytest.approx(1e9 * decays, rel=0.02)
    sizes = [tokens_of(corpus) for corpus in recipe.corpus]
    assert sizes == [None if has is None else 1e9 * has]
    if has is not None:
        assert tokens / has <= MOST_EPOCHS.get(name, 1.001)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("gpt")])
def test_warmup_is_gpt3s_375_million_tokens(name):
    assert named(name).warmup_steps * named(name).batch_tokens == pytest.approx(375e6, rel=0.002)


# Parameters without padding, by 12 L C^2 + 13 L C + (V + T) C + 2 C.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2-124m-40b", 124_439_808),
        ("gpt3-124m", 125_226_240),
        ("gpt3-350m", 355_871_744),
        ("gpt3-760m", 760_300_032),
        ("gpt3-1.3b", 1_315_723_264),
    ],
)
def test_shapes_are_the_papers(name, parameters):
    recipe = named(name)
    L, C, T, V = recipe.n_layer, recipe.n_embd, recipe.block_size, 50257
    assert parameters == 12 * L * C**2 + 13 * L * C + (V + T) * C + 2 * C
