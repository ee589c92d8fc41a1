import subprocess
import sys

import pytest

from myna import references as module
from myna.references import hellaswag_reference, loss_reference


def test_the_references_are_those_of_the_design():
    assert module.GPT2_FINEWEB_EDU_LOSS == 3.2924
    assert [row[1:] for row in module.HELLASWAG.values()] == [
        (0.2945, 0.337),
        (0.3752, 0.436),
        (0.4320, 0.510),
        (0.4889, 0.547),
    ]


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ({}, "does not record"),
        ({"trained_on": [{"corpus": ["pydoc"]}]}, "Trained on pydoc"),
        ({"trained_on": [{"corpus": None}]}, "does not name"),
        ({"trained_on": [{"corpus": [1, None]}]}, "does not name"),
        ({"trained_on": [{}, {}]}, "several datasets"),
        ({"trained_on": [{"corpus": ["fineweb-edu"], "tokenizer": "0f"}]}, "not GPT-2's"),
    ],
)
def test_a_loss_that_does_not_compare_says_why(recipe, why):
    assert not loss_reference(recipe).applies
    assert why in loss_reference(recipe).why


@pytest.mark.parametrize(
    ("recipe", "items", "why"),
    [
        ({}, None, "No HellaSwag score"),
        ({"tokenizer": "gpt2"}, 500, "500 items"),
        ({"tokenizer": "bytes"}, 10_042, "not GPT-2's"),
        ({"tokenizer": "gpt2", "n_layer": 4, "n_embd": 128}, 10_042, "4 layers of width 128"),
        ({"tokenizer": "gpt2", "n_layer": [], "n_embd": {}}, 10_042, "No GPT-2 has"),
    ],
)
def test_a_score_that_does_not_compare_says_why(recipe, items, why):
    reference = hellaswag_reference(recipe, items)
    assert reference.size is None
    assert why in reference.why


def test_reading_the_references_takes_no_torch_and_no_matplotlib():
    script = "import sys, myna.references; sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
