"""A comparison as one page: for each prompt the models' texts beside each other."""

from collections.abc import Sequence

from myna.evaluate.compare import Column, rows, settings_line, visible
from myna.generate.sampling import Sampling
from myna.html.page import Page, Printed, Section, SideBySide


def compare_page(columns: Sequence[Column], sampling: Sampling) -> Page:
    """The page: a section for each continuation, in it a text for each model, under the model's name."""
    total = len(columns[0].texts)
    sections = []
    for number, row in enumerate(rows(columns), start=1):
        texts = [
            Printed(visible(text.prompt + text.new), column.model)
            for column, text in zip(columns, row, strict=True)
        ]
        sections.append(
            Section(f"Text {number} of {total}" if total > 1 else "The text", [SideBySide(texts)])
        )
    models = ", ".join(dict.fromkeys(column.model for column in columns))
    return Page(
        f"{len(columns)} models, one prompt and seed", sections, lead=models, foot=settings_line(sampling)
    )
