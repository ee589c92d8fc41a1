"""A text in company is what it is alone, by the measure of benchmarks/company.py."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from myna.generate.engine import Engine

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "company.py"


@pytest.fixture(scope="module")
def company():
    spec = importlib.util.spec_from_file_location("benchmark_company", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(company):
    return company.random_model()


def test_texts_in_company_are_those_alone(company, model):
    found = company.compare(model, 20)
    assert found.requests == 20
    assert found.ids > 100
    assert found.holds, found.about()


@pytest.mark.slow
def test_two_thousand_texts_in_company_are_those_alone(company, model):
    found = company.compare(model, 2000)
    assert found.requests == 2000
    assert found.holds, found.about()


def test_the_measure_sees_a_text_that_others_disturb(company, model, monkeypatch):
    """An engine that is a little off wherever it holds several texts."""
    drawn = Engine._drawn

    def disturbed(self, logits, slots):
        with torch.no_grad():
            return drawn(self, logits + 1e-3 * (len(self._running) > 1), slots)

    monkeypatch.setattr(Engine, "_drawn", disturbed)
    found = company.compare(model, 10)
    assert not found.holds
    assert 9e-4 < found.furthest < 1.1e-3
