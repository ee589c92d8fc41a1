"""Which rows of a corpus become documents: what an expression such as `score >= 3 and language == 'en'` means.

A missing value is null, NaN, or a field that the row does not have. As in SQL, a comparison with a missing value is
neither true nor false, and so is its `not`. A row stays only where the whole expression is true.

`row_filter_syntax.py` reads the expression. JSONL is filtered row by row, here. Parquet is filtered by pyarrow: see
`row_filter_arrow.py`. A test holds both to the same answers.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NUMBER, TEXT, FLAG = "a number", "text", "True or False"
Constant = int | float | str | bool


class KindError(ValueError):
    """Values of two kinds can't be compared. One line, without the place."""


@dataclass(frozen=True)
class Column:
    """A column of the rows: its name, or the names that lead to it."""

    path: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.path)

    def of(self, row: Any) -> Any:
        """A row's value; None where it is missing."""
        for name in self.path:
            row = row.get(name) if isinstance(row, Mapping) else None
        return None if isinstance(row, float) and math.isnan(row) else row

    def is_in(self, row: Any) -> bool:
        """Whether a row has such a field, be its value missing or not."""
        for name in self.path:
            if not isinstance(row, Mapping) or name not in row:
                return False
            row = row[name]
        return True


@dataclass(frozen=True)
class Comparison:
    """Two values, at least one of them a column's."""

    sign: str
    left: Column | Constant
    right: Column | Constant


@dataclass(frozen=True)
class IsMissing:
    """Whether a column has no value."""

    column: Column


@dataclass(frozen=True)
class IsTrue:
    """A column of True and False."""

    column: Column


@dataclass(frozen=True)
class Not:
    """The opposite."""

    term: "Term"


@dataclass(frozen=True)
class AllOf:
    """`and`."""

    terms: tuple["Term", ...]


@dataclass(frozen=True)
class AnyOf:
    """`or`."""

    terms: tuple["Term", ...]


Term = Comparison | IsMissing | IsTrue | Not | AllOf | AnyOf
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class RowFilter:
    """A filter of rows.

    Attributes:
        text: the expression in one spelling: what differs only in spaces, quotes or brackets is the same filter.
    """

    text: str
    term: Term

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that it asks for, each once."""
        return tuple(dict.fromkeys(_columns(self.term)))

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Whether a row stays.

        Raises:
            KindError: it compares values of two kinds, such as text and a number.
        """
        return _evaluate(self.term, row) is True


def _columns(term: Term) -> Iterator[Column]:
    match term:
        case Comparison(left=left, right=right):
            yield from (side for side in (left, right) if isinstance(side, Column))
        case IsMissing(column=column) | IsTrue(column=column):
            yield column
        case Not(term=inner):
            yield from _columns(inner)
        case AllOf(terms=terms) | AnyOf(terms=terms):
            for inner in terms:
                yield from _columns(inner)


def kind_of_value(value: Any) -> str | None:
    """What kind a value is of, in words; None for one that nothing can be compared with."""
    if isinstance(value, bool):
        return FLAG
    if isinstance(value, int | float):
        return NUMBER
    return TEXT if isinstance(value, str) else None


def require_same_kind(sign: str, left: tuple[Any, str | None], right: tuple[Any, str | None]) -> None:
    """Raises KindError unless values of these kinds can be compared.

    Args:
        left, right: a `Column` or a constant, and of which kind its values are.
    """
    for (one, kind), (other, other_kind) in ((left, right), (right, left)):
        if isinstance(one, Column) and (kind is None or kind != other_kind):
            found = kind or "neither a number, nor text, nor True or False"
            shown = f"{other} ({other_kind})" if isinstance(other, Column) else other_kind
            raise KindError(f"{one} is {found}, and --where compares it with {shown}")
    if left[1] == FLAG and sign not in ("==", "!="):
        raise KindError(f"{left[0]} is True or False, which have no order")


def _evaluate(term: Term, row: Mapping[str, Any]) -> bool | None:
    """True, False, or None where a missing value leaves it open. Every part is evaluated, so a wrong kind is seen."""
    match term:
        case Comparison(sign=sign, left=left, right=right):
            return _compare(sign, left, right, row)
        case IsMissing(column=column):
            return column.of(row) is None
        case IsTrue(column=column):
            value = column.of(row)
            if value is not None:
                require_same_kind("==", (column, kind_of_value(value)), (True, FLAG))
            return value
        case Not(term=inner):
            found = _evaluate(inner, row)
            return None if found is None else not found
        case AllOf(terms=terms):
            results = [_evaluate(inner, row) for inner in terms]
            return False if False in results else None if None in results else True
        case AnyOf(terms=terms):
            results = [_evaluate(inner, row) for inner in terms]
            return True if True in results else None if None in results else False


def _compare(
    sign: str, left: Column | Constant, right: Column | Constant, row: Mapping[str, Any]
) -> bool | None:
    one, other = (_value(side, row) for side in (left, right))
    if one is None or other is None:
        return None
    require_same_kind(sign, (left, kind_of_value(one)), (right, kind_of_value(other)))
    if isinstance(one, float) or isinstance(other, float):
        one, other = _double(one), _double(other)
    return COMPARE[sign](one, other)


def _value(side: Column | Constant, row: Mapping[str, Any]) -> Any:
    return side.of(row) if isinstance(side, Column) else side


def _double(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)
