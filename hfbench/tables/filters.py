"""Filters over the columns of a table, written as a Python expression and never evaluated as one."""

import ast
import difflib
import operator
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import polars as pl

from hfbench.core.errors import UserError
from hfbench.tables.metrics import AXIS_COLUMNS

Columns: TypeAlias = Mapping[str, pl.DataType | type[pl.DataType]]

_EXAMPLE = 'attn_implementation == "sdpa" and batch_size >= 4'
_NUMBER, _TEXT, _TRUTH = "a number", "text", "true or false"
_SPELLINGS = {"true": True, "false": False}  # as YAML and JSON have them, beside Python's
_LARGEST_INTEGER = 2**63
_ORDERINGS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_OPERATORS = "==, !=, <, <=, >, >=, in, not in, and, or, not"


def parse_filter(text: str, columns: Columns | Collection[str]) -> pl.Expr:
    """Return the expression that `text` says, such as `attn_implementation == "sdpa" and batch_size >= 4`.

    `columns` are the names that it may use, with their types; without types, those of the axes are known and other
    columns are compared with anything. There are ==, !=, <, <=, >, >=, in, not in, and, or, not and parentheses; true
    and false are spelt either way. A null equals no value, so that != holds, and has no order: the expression is
    never null. Raises `UserError` for anything else, an unknown name,
    and a comparison of text with a number.
    """
    types = columns if isinstance(columns, Mapping) else {name: AXIS_COLUMNS.get(name, pl.Unknown) for name in columns}
    parser = _Parser(text, types)
    if "\0" in text:  # which Python's versions refuse in different ways
        raise UserError(f"The filter {_shortened(text)} holds null bytes. Write one such as {_EXAMPLE}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text.strip(), mode="eval")
        return parser.condition(tree.body)
    except SyntaxError as error:
        raise UserError(_syntax_sentence(text, error)) from None
    except (RecursionError, MemoryError):  # nested too deeply
        raise UserError(f"The filter {_shortened(text)} cannot be read. Write one such as {_EXAMPLE}.") from None


@dataclass(frozen=True)
class _Operand:
    """A side of a comparison: `kind` is None for a column of which no type is known."""

    expression: pl.Expr
    kind: str | None
    source: str
    is_column: bool


class _Parser:
    def __init__(self, text: str, columns: Columns) -> None:
        self._text = text
        self._columns = columns

    def condition(self, node: ast.expr) -> pl.Expr:
        """Return what is true or false."""
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(value) for value in node.values]
            return pl.all_horizontal(parts) if isinstance(node.op, ast.And) else pl.any_horizontal(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.condition(node.operand)
        if isinstance(node, ast.Compare):
            return self._comparisons(node)
        if isinstance(node, ast.Name) and node.id not in _SPELLINGS:
            operand = self._operand(node)
            if operand.kind in (_TRUTH, None):
                return operand.expression.fill_null(value=False)
            raise self._error(f"{operand.source} is {operand.kind} and no condition", "Compare it with a value")
        raise self._refused(node)

    def _comparisons(self, node: ast.Compare) -> pl.Expr:
        """Return all of a chain, as in 1 <= batch_size < 8."""
        sides = [node.left, *node.comparators]
        parts = [self._comparison(left, op, right) for left, op, right in zip(sides, node.ops, sides[1:], strict=False)]
        return pl.all_horizontal(parts)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pl.Expr:
        if isinstance(op, ast.In | ast.NotIn):
            found = self._membership(self._operand(left), right)
            return ~found if isinstance(op, ast.NotIn) else found
        one, other = self._operand(left), self._operand(right)
        self._check_comparable(one, other)
        if isinstance(op, ast.Eq):
            return one.expression.eq_missing(other.expression)
        if isinstance(op, ast.NotEq):
            return one.expression.ne_missing(other.expression)
        ordering = _ORDERINGS.get(type(op))
        if ordering is None:
            raise self._error("`is` compares no values", "Write == or !=")
        if _TRUTH in (one.kind, other.kind):
            raise self._error(f"{one.source} and {other.source} have no order", "Write == or !=")
        result: pl.Expr = ordering(one.expression, other.expression).fill_null(value=False)
        return result

    def _membership(self, operand: _Operand, values: ast.expr) -> pl.Expr:
        if not isinstance(values, ast.List | ast.Tuple | ast.Set):
            raise self._error("`in` is followed by a list", 'Write it as dtype in ["bfloat16", "float16"]')
        members = [self._operand(value) for value in values.elts]
        for member in members:
            if member.is_column:
                raise self._error(f"a list holds values, not columns such as {member.source}", "Text stands in quotes")
            self._check_comparable(operand, member)
        if not members:
            return pl.lit(value=False)
        return pl.any_horizontal([operand.expression.eq_missing(member.expression) for member in members])

    def _check_comparable(self, one: _Operand, other: _Operand) -> None:
        if not (one.is_column or other.is_column):
            raise self._error(f"{one.source} and {other.source} are both values", "Compare a column with a value")
        if None in (one.kind, other.kind) or one.kind == other.kind:
            return
        column, value = (one, other) if one.is_column else (other, one)
        raise self._error(
            f"{column.source} is {column.kind}, and {value.source} is {value.kind}", _remedy(str(column.kind))
        )

    def _operand(self, node: ast.expr) -> _Operand:
        source = ast.unparse(node)
        if isinstance(node, ast.Name):
            if node.id in self._columns:
                return self._column(node.id)
            if node.id in _SPELLINGS:
                return _Operand(pl.lit(_SPELLINGS[node.id]), _TRUTH, source, is_column=False)
            raise self._unknown(node.id)
        is_negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        constant = node.operand if isinstance(node, ast.UnaryOp) and is_negative else node
        if not isinstance(constant, ast.Constant):
            raise self._refused(node)
        value = constant.value
        if isinstance(value, bool | str) and not is_negative:
            return _Operand(pl.lit(value), _TEXT if isinstance(value, str) else _TRUTH, source, is_column=False)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_INTEGER:
            return _Operand(pl.lit(-value if is_negative else value), _NUMBER, source, is_column=False)
        raise self._error(f"{_shortened(source)} is no value", "Give a number, text in quotes, true or false")

    def _column(self, name: str) -> _Operand:
        dtype, expression = self._columns[name], pl.col(name)
        if dtype == pl.Enum or dtype == pl.Categorical:
            # As text: an enumeration refuses to be compared with a word that it lacks.
            return _Operand(expression.cast(pl.String), _TEXT, name, is_column=True)
        if dtype == pl.Unknown:
            return _Operand(expression, None, name, is_column=True)
        if dtype == pl.Boolean or dtype == pl.String:
            return _Operand(expression, _TRUTH if dtype == pl.Boolean else _TEXT, name, is_column=True)
        if dtype.is_numeric():
            return _Operand(expression, _NUMBER, name, is_column=True)
        raise self._error(f"{name} holds neither text nor numbers", f"Use one of: {', '.join(self._columns)}")

    def _unknown(self, name: str) -> UserError:
        close = difflib.get_close_matches(name, self._columns, n=1)
        if close:
            return self._error(f"there is no {name}", f"Did you mean {close[0]}?")
        known = ", ".join(self._columns)
        return self._error(f'there is no {name}; text stands in quotes, as "{name}"', f"Known are: {known}")

    def _refused(self, node: ast.expr) -> UserError:
        part = _shortened(ast.unparse(node))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            return self._error(f"{part} is no comparison", "Write `and` for &, `or` for |")
        return self._error(f"{part} is no comparison", f"Compare columns with values by {_OPERATORS}")

    def _error(self, what: str, remedy: str) -> UserError:
        return UserError(f"The filter {_shortened(self._text)}: {what}. {remedy}{'' if remedy.endswith('?') else '.'}")


def _remedy(kind: str) -> str:
    return {_NUMBER: "Write a number without quotes", _TEXT: "Write text in quotes"}.get(kind, "Write true or false")


def _syntax_sentence(text: str, error: SyntaxError) -> str:
    if not text.strip():
        return f"The filter is empty. Write one such as {_EXAMPLE}."
    assigns = "=" in text.replace("==", "").replace("!=", "").replace("<=", "").replace(">=", "")
    hint = "Two values are compared by ==" if assigns else f"Write one such as {_EXAMPLE}"
    where = f" at character {error.offset}" if error.offset else ""
    return f"The filter {_shortened(text)} is no expression: {error.msg}{where}. {hint}."


def _shortened(text: str, most: int = 120) -> str:
    line = " ".join(text.split())
    return f"`{line if len(line) <= most else line[:most] + '…'}`"
