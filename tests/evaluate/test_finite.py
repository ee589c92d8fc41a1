"""A score that is no finite number is refused in a line that says what to do."""

import pytest

from myna.errors import ModelError
from myna.evaluate.finite import finite


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_score_is_named_and_what_to_do(value):
    with pytest.raises(ModelError) as refused:
        finite({"val_loss": 3.0, "hellaswag_acc": value})
    said = str(refused.value)
    assert said.startswith(f"hellaswag_acc is {value}: the model's output is not finite")
    assert said.endswith("; try --precision fp32, or give an earlier checkpoint")
