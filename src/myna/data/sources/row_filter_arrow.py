"""A row filter as a pyarrow expression, so that row groups which can't match are never read.

Every cast is written out. Left to itself, pyarrow compares whole numbers with 2.5 in 32 bits and fails, and it takes
row groups with NaN for row groups without.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from myna.data.sources.row_filter import (
    COMPARE,
    FLAG,
    NUMBER,
    TEXT,
    AllOf,
    AnyOf,
    Column,
    Comparison,
    Constant,
    IsMissing,
    IsTrue,
    Not,
    RowFilter,
    Term,
    kind_of_value,
    require_same_kind,
)


class ArrowFilter:
    """A row filter for the rows of one schema.

    Args:
        schema: of pyarrow; it has all of the filter's columns, see `missing_columns`.
    Raises:
        KindError: it compares columns and values of two kinds.
    """

    def __init__(self, where: RowFilter, schema: Any) -> None:
        self._types = {column: type_of(column, schema) for column in where.columns}
        # A row group's statistics say nothing of NaN. So they can't answer whether a value is missing.
        self._prunes = not any(_is_float(self._types[column]) for column in _asked_missing(where.term))
        self._exact = self._expression(where.term, exact=True)
        self._rough = self._expression(where.term, exact=False)

    def matching_groups(self, path: str, groups: Sequence[int]) -> list[int]:
        """Those of a file's row groups that may hold a row that stays, by their statistics."""
        import pyarrow
        import pyarrow.dataset
        import pyarrow.fs

        if not self._prunes or not groups:
            return list(groups)
        format = pyarrow.dataset.ParquetFileFormat()
        fragment = format.make_fragment(path, pyarrow.fs.LocalFileSystem(), row_groups=list(groups))
        try:
            return [group.id for group in fragment.subset(self._rough).row_groups]
        except (
            pyarrow.ArrowInvalid
        ):  # whole numbers past 2**53 among the statistics, compared with a fraction
            return list(groups)

    def keeps(self, batch: Any) -> Any:
        """Which rows of a record batch stay: their numbers, a NumPy array."""
        import pyarrow.compute as pc
        import pyarrow.dataset

        rows = pyarrow.dataset.InMemoryDataset(batch)
        kept = rows.scanner(columns={"keep": self._exact}, use_threads=False).to_table().column("keep")
        return pc.indices_nonzero(kept).to_numpy()

    def _expression(self, term: Term, exact: bool) -> Any:
        inner = partial(self._expression, exact=exact)
        match term:
            case Comparison(sign=sign, left=left, right=right):
                return self._comparison(sign, left, right, exact)
            case IsMissing(column=column):
                return _field(column).is_null(nan_is_null=_is_float(self._types[column]))
            case IsTrue(column=column):
                return self._comparison("==", column, True, exact)
            case Not(term=term):
                return ~inner(term)
            case AllOf(terms=terms):
                return _folded([inner(term) for term in terms], lambda a, b: a & b)
            case AnyOf(terms=terms):
                return _folded([inner(term) for term in terms], lambda a, b: a | b)

    def _comparison(self, sign: str, left: Column | Constant, right: Column | Constant, exact: bool) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        sides = (left, right)
        types = [self._types[side] if isinstance(side, Column) else None for side in sides]
        if any(type is not None and pa.types.is_null(type) for type in types):
            return pc.scalar(pa.scalar(None, pa.bool_()))
        kinds = [
            _kind(type) if type else kind_of_value(side) for side, type in zip(sides, types, strict=True)
        ]
        require_same_kind(sign, (left, kinds[0]), (right, kinds[1]))
        common = _common_type(kinds[0], sides, types)
        one, other = (self._operand(side, common, exact) for side in sides)
        return COMPARE[sign](one, other)

    def _operand(self, side: Column | Constant, common: Any, exact: bool) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not isinstance(side, Column):
            return pc.scalar(pa.scalar(float(side) if pa.types.is_floating(common) else side, common))
        found = _field(side)
        if self._types[side] != common:
            found = found.cast(common, safe=False)
        if exact and _is_float(self._types[side]):
            found = pc.if_else(pc.is_nan(found), pa.scalar(None, common), found)
        return found


def _common_type(kind: str | None, sides: Sequence[Any], types: Sequence[Any]) -> Any:
    """In which type a comparison is made: the column's own where that loses nothing, since casts hide statistics."""
    import pyarrow as pa

    columns = [type for type in types if type is not None]
    constants = [side for side, type in zip(sides, types, strict=True) if type is None]
    if kind == FLAG:
        return pa.bool_()
    if kind == TEXT:
        own = columns[0] if columns[0] in (pa.string(), pa.large_string()) else pa.string()
        return own if columns == [own] * len(columns) else pa.large_string()
    whole = [pa.types.is_integer(type) for type in columns] + [isinstance(value, int) for value in constants]
    if not all(whole):
        return pa.float64()
    if columns == [columns[0]] * len(columns) and all(_fits(value, columns[0]) for value in constants):
        return columns[0]
    return pa.float64() if pa.uint64() in columns else pa.int64()


def _fits(value: int, type: Any) -> bool:
    import pyarrow as pa

    signed = pa.types.is_signed_integer(type)
    bits = type.bit_width - signed
    return (-(2**bits) if signed else 0) <= value < 2**bits


def type_of(column: Column, schema: Any) -> Any:
    """The type of a column, of those inside another too; None where a schema does not have it."""
    import pyarrow as pa

    fields: Any = schema
    found = None
    for name in column.path:
        if fields is None or fields.get_field_index(name) < 0:
            return None
        found = fields.field(name).type
        fields = found if pa.types.is_struct(found) else None
    return found


def column_names(schema: Any) -> list[str]:
    """The names of a schema's columns, with those inside others."""
    import pyarrow as pa

    names = []
    for field in schema:
        names += (
            [f"{field.name}.{inner.name}" for inner in field.type]
            if pa.types.is_struct(field.type)
            else [field.name]
        )
    return names


def _kind(type: Any) -> str | None:
    """What kind the values of a type are of, in the words of `kind_of_value`."""
    import pyarrow.types as types

    if types.is_dictionary(type):
        return _kind(type.value_type)
    if types.is_integer(type) or types.is_floating(type):
        return NUMBER
    if types.is_string(type) or types.is_large_string(type) or types.is_string_view(type):
        return TEXT
    return FLAG if types.is_boolean(type) else None


def _is_float(type: Any) -> bool:
    import pyarrow.types as types

    return types.is_floating(type)


def _field(column: Column) -> Any:
    import pyarrow.compute as pc

    return pc.field(*column.path)


def _asked_missing(term: Term) -> list[Column]:
    match term:
        case IsMissing(column=column):
            return [column]
        case Not(term=inner):
            return _asked_missing(inner)
        case AllOf(terms=terms) | AnyOf(terms=terms):
            return [column for inner in terms for column in _asked_missing(inner)]
    return []


def _folded(parts: list[Any], join: Callable[[Any, Any], Any]) -> Any:
    """AllOf parts joined two by two: a list of thousands is then some ten levels deep, not thousands."""
    while len(parts) > 1:
        pairs = [join(*pair) for pair in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[2 * len(pairs) :]
    return parts[0]
