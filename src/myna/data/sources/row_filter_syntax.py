"""Reads `--where "score >= 3 and language == 'en'"`. The syntax is Python's: `ast` reads it, and nothing ever runs it.

score, meta.url                     a column; one inside another after a dot
3, -0.5, 'en', True, False          constants
==  !=  <  <=  >  >=                comparisons, also chained: 3 <= score < 5
language in ('en', 'de')            one of some constants; also `not in`
score is None                       the value is missing; also `is not None`, == None, != None
and  or  not  ( )                   a column of True and False stands by itself: not is_spam
"""

import ast
import warnings

from myna.data.sources.row_filter import (
    FLAG,
    NUMBER,
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
)
from myna.errors import UsageError, first_line
from myna.paths import is_unicode

MOST_NESTED = 50
ALLOWED = "use columns, numbers, text in quotes, True, False, None, comparisons, in, and, or, not"
SIGNS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


def parse_filter(text: str) -> RowFilter:
    """Reads an expression.

    Raises:
        UsageError: it is no expression of the grammar above; the line says where.

    >>> where = parse_filter('3<=score and language in ("en", "de")')
    >>> where.text
    "3 <= score and language in ('en', 'de')"
    >>> where.keeps({"score": 3.5, "language": "en"}), where.keeps({"score": None, "language": "en"})
    (True, False)
    >>> parse_filter("len(text) > 3")
    Traceback (most recent call last):
    myna.errors.UsageError: --where: at character 1, 'len(text)': a call can't be used; use columns, ...
    """
    if not is_unicode(text):
        raise UsageError("--where is not UTF-8; write it again")
    text = " ".join(text.split("\n")).strip()
    if not text:
        raise UsageError("--where is empty; give an expression such as \"score >= 3 and language == 'en'\"")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes, and a number next to a word
            tree = ast.parse(text, mode="eval").body
        return RowFilter(ast.unparse(tree), _Reader(text).term(tree))
    except SyntaxError as error:
        place = min(len(text) + 1 if error.offset == 0 else error.offset or 1, len(text) + 1)
        where = "at its end" if place > len(text) else f"at character {place}, {text[place - 1 :][:40]!r}"
        raise UsageError(f"--where: {where}: {error.msg}; {ALLOWED}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(
            f"--where can't be read ({first_line(error) or 'it is too deep'}); {ALLOWED}"
        ) from error


class _Reader:
    """Python's syntax tree to ours."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _no(self, node: ast.AST, why: str, do: str = ALLOWED) -> UsageError:
        at = len(self._text.encode()[: getattr(node, "col_offset", 0)].decode()) + 1
        part = ast.get_source_segment(self._text, node) or ""
        return UsageError(f"--where: at character {at}, {part[:40]!r}: {why}; {do}")

    def term(self, node: ast.expr, depth: int = 0) -> Term:
        if depth > MOST_NESTED:
            raise self._no(node, "it is nested too deeply", "write it with fewer levels")
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return AllOf(tuple(self.term(value, depth + 1) for value in values))
            case ast.BoolOp(values=values):
                return AnyOf(tuple(self.term(value, depth + 1) for value in values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Not(self.term(operand, depth + 1))
            case ast.Compare(left=left, ops=signs, comparators=rights):
                lefts = [left, *rights[:-1]]
                pairs = [self._comparison(*pair) for pair in zip(lefts, signs, rights, strict=True)]
                return pairs[0] if len(pairs) == 1 else AllOf(tuple(pairs))
            case ast.Name() | ast.Attribute():
                return IsTrue(self._column(node))
        raise self._no(node, f"{_what(node)} is no condition")

    def _comparison(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> Term:
        if isinstance(sign, ast.In | ast.NotIn):
            found = self._is_in(left, right)
            return found if isinstance(sign, ast.In) else Not(found)
        for this, other in ((left, right), (right, left)):
            if isinstance(this, ast.Constant) and this.value is None:
                if not isinstance(sign, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
                    raise self._no(this, "None has no order", "ask `is None` or `is not None`")
                missing = IsMissing(self._column(other))
                return missing if isinstance(sign, ast.Is | ast.Eq) else Not(missing)
        if isinstance(sign, ast.Is | ast.IsNot):
            raise self._no(right, "`is` asks for None only", "use == or !=")
        return self._pair(SIGNS[type(sign)], left, right)

    def _pair(self, sign: str, left: ast.expr, right: ast.expr) -> Term:
        one, other = self._operand(left), self._operand(right)
        if not isinstance(one, Column) and not isinstance(other, Column):
            raise self._no(left, "two constants are compared", "compare a column with one")
        if sign not in ("==", "!=") and FLAG in (kind_of_value(one), kind_of_value(other)):
            raise self._no(left, "True and False have no order", "use == or !=")
        return Comparison(sign, one, other)

    def _is_in(self, left: ast.expr, right: ast.expr) -> Term:
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            raise self._no(right, "`in` needs some constants", "write them in brackets: in ('en', 'de')")
        column = self._column(left)
        for value in right.elts:
            if isinstance(value, ast.Constant) and value.value is None:
                raise self._no(value, "None can't be in the list", "ask `is None` beside it, with or")
            if isinstance(value, ast.Name | ast.Attribute):
                raise self._no(value, "the list holds a column", "use constants only; text needs quotes")
        return AnyOf(tuple(Comparison("==", column, self._operand(value)) for value in right.elts))

    def _column(self, node: ast.expr) -> Column:
        found = self._operand(node)
        if not isinstance(found, Column):
            raise self._no(node, "this must be a column")
        return found

    def _operand(self, node: ast.expr) -> Column | Constant:
        match node:
            case ast.Name(id=name):
                return Column((name,))
            case ast.Attribute(value=ast.Name() | ast.Attribute() as value, attr=name):
                return Column((*self._column(value).path, name))
            case ast.Constant(value=value) if isinstance(value, Constant):
                return self._constant(node, value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if (
                kind_of_value(value) == NUMBER
            ):
                return self._constant(node, -value)
        raise self._no(node, f"{_what(node)} can't be used")

    def _constant(self, node: ast.expr, value: Constant) -> Constant:
        if isinstance(value, str) and not is_unicode(value):
            raise self._no(node, "a lone surrogate is no character", "take it out")
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
            return int(value)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise self._no(node, "a whole number has at most 64 bits", "write a smaller one")
        return value


WHAT = {ast.Call: "a call", ast.Subscript: "an index", ast.BinOp: "arithmetic", ast.Constant: "a constant"}
WHAT |= {ast.Tuple: "a list", ast.List: "a list", ast.JoinedStr: "an f-string", ast.IfExp: "if and else"}


def _what(node: ast.expr) -> str:
    return WHAT.get(type(node), "this")
