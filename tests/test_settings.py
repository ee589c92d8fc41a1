from dataclasses import dataclass

import pytest

from myna.errors import UsageError
from myna.settings import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    UP_TO_1,
    Options,
    check_settings,
    resume_rules,
    setting,
)


@dataclass(frozen=True)
class Some(Options):
    """One setting of each check."""

    above_0: float = setting(1.0, ABOVE_0)
    at_least_0: float = setting(0.0, AT_LEAST_0, resume="free")
    at_least_1: int = setting(1, AT_LEAST_1, resume="never")
    below_1: float = setting(0.0, BELOW_1)
    up_to_1: float = setting(1.0, UP_TO_1)
    unchecked: float = 5.0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"above_0": 0.0}, "--of.above-0 is 0.0; give more than 0"),
        ({"at_least_0": -1e-9}, "--of.at-least-0 is -1e-09; give 0 or more"),
        ({"at_least_1": 0}, "--of.at-least-1 is 0; give 1 or more"),
        ({"below_1": 1.0}, "--of.below-1 is 1.0; give a fraction from 0 up to, not including, 1"),
        ({"up_to_1": 1.1}, "--of.up-to-1 is 1.1; give 0 to 1"),
        ({"above_0": float("inf")}, "--of.above-0 is inf; give a finite number"),
        ({"unchecked": float("nan")}, "--of.unchecked is nan; give a finite number"),
    ],
)
def test_what_fails_a_check_is_named_by_its_flag(values, says):
    check_settings(Some(), "of.")
    with pytest.raises(UsageError) as refused:
        check_settings(Some(**values), "of.")
    assert str(refused.value) == says


def test_without_a_rule_a_change_needs_override():
    assert resume_rules(Some()) == {
        "above_0": "override",
        "at_least_0": "free",
        "at_least_1": "never",
        "below_1": "override",
        "up_to_1": "override",
        "unchecked": "override",
    }
