import subprocess
import sys

import pytest

from myna import references as module
from myna.reference_curves import LLMC_LOSSES, LLMC_STEP_TOKENS, llmc_steps
from myna.references import curve_reference, gpt2_sha256, hellaswag_reference, loss_reference


def test_the_references_are_those_of_the_design():
    assert module.GPT2_LOSSES["fineweb-edu"][1] == {"124M": 3.2924}
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
        ({"log": {}}, "import it with --corpus"),
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


def trained(corpus, tokenizer="gpt2", **more):
    """A recipe that says what one dataset says."""
    sha256 = gpt2_sha256() if tokenizer == "gpt2" else tokenizer
    return {"trained_on": [{"corpus": corpus, "tokenizer": sha256} | more]}


LLMC = {"format": "llm.c", "val_files": ["fineweb_val_000000.bin"]}
LECTURE = {"format": "build-nanogpt", "val_files": ["edufineweb_val_000000.npy"]}
SMALL, LARGE = {"n_layer": 12, "n_embd": 768}, {"n_layer": 36, "n_embd": 1280}


@pytest.mark.parametrize(
    ("recipe", "value", "label"),
    [
        (trained(["fineweb-edu"]), 3.2924, "GPT-2 124M on FineWeb-Edu"),
        (trained(["fineweb-edu"]) | LARGE, 3.2924, "GPT-2 124M on FineWeb-Edu"),
        (trained(["fineweb"]) | SMALL, 3.4250, "GPT-2 124M on FineWeb"),
        (trained(["fineweb"]) | LARGE, 3.0006, "GPT-2 774M on FineWeb"),
        (trained(None, **LLMC), 3.4250, "GPT-2 124M on FineWeb"),
        (trained(None, **LECTURE), 3.2924, "GPT-2 124M on FineWeb-Edu"),
    ],
)
def test_gpt2s_loss_is_that_of_the_corpus_and_the_size(recipe, value, label):
    found = loss_reference(recipe)
    assert (found.value, found.label) == (value, label)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(trained(["my-notes"]), id="other text under the recipe's name"),
        pytest.param(trained(["fineweb-edu", "wikipedia"]), id="mixed text"),
        pytest.param({"trained_on": 2 * trained(["fineweb-edu"])["trained_on"]}, id="two datasets"),
        pytest.param(trained(["fineweb-edu"], "0f"), id="other tokens"),
        pytest.param(trained(["fineweb-edu"], None), id="nobody knows the tokens"),
        pytest.param(trained(None), id="a foreign format"),
        pytest.param(
            trained(None, format="llm.c", val_files=["tinyshakespeare_val.bin"]), id="llm.c, other text"
        ),
        pytest.param(trained(None, format="nanoGPT", val_files=["val.bin"]), id="nanoGPT"),
        pytest.param(trained(None, format="llm.c", val_files=[]), id="no file"),
        pytest.param(trained(None, format="llm.c", val_files=[None, 3]), id="damaged files"),
        pytest.param(trained(None, "0f", **LLMC), id="llm.c's file under another tokenizer"),
        pytest.param({"trained_on": []}, id="no dataset"),
        pytest.param({"trained_on": [*trained(["fineweb-edu"])["trained_on"], "x"]}, id="damaged"),
        pytest.param({"corpus": ["fineweb-edu"], "tokenizer": "gpt2"}, id="a run of an earlier version"),
    ],
)
def test_gpt2s_loss_applies_only_where_the_datasets_say_so(recipe):
    assert loss_reference(SMALL | recipe).value is None
    assert curve_reference(SMALL | recipe).tolerance is None


@pytest.mark.parametrize(
    ("recipe", "tolerance", "words"),
    [
        (trained(None, **LLMC) | SMALL, 0.02, "same validation text"),
        (trained(["fineweb"]) | SMALL, 0.05, "another sample"),
        (trained(["fineweb"], **LLMC) | SMALL, 0.02, "same validation text"),
        (
            trained(["fineweb-edu"]) | SMALL,
            None,
            "Trained on FineWeb-Edu; llm.c's curve is known on FineWeb alone",
        ),
        (trained(["fineweb"]) | LARGE, None, "another network"),
        (trained(["fineweb"]) | SMALL | {"network": "nanochat"}, None, "another network"),
        (trained(["fineweb"]) | SMALL | {"sequence_length": 512}, None, "1,024 tokens"),
        (trained(["pydoc"]) | SMALL, None, "Trained on pydoc; llm.c's curve is known on FineWeb alone"),
    ],
)
def test_llmcs_curve_applies_to_its_experiment_alone(recipe, tolerance, words):
    found = curve_reference(recipe)
    assert (found.tolerance, found.same_text) == (tolerance, tolerance == 0.02)
    assert words in found.why


def test_llmcs_curve_is_the_file_beside_the_checkout(shared_data):
    rows = shared_data("reference_gpt2_124m_fineweb_llmc.csv").read_text("utf-8").split()[1:]
    stored = [
        (step, step * LLMC_STEP_TOKENS, loss) for step, loss in zip(llmc_steps(), LLMC_LOSSES, strict=True)
    ]
    assert [tuple(map(float, row.split(","))) for row in rows] == stored


@pytest.mark.parametrize(
    ("recipe", "items", "why"),
    [
        ({}, None, "No HellaSwag score"),
        ({"tokenizer": "gpt2"}, 500, "500 items"),
        ({"tokenizer": "bytes"}, 10_042, "not GPT-2's"),
        ({"log": {}}, 10_042, "import it with --size"),
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
