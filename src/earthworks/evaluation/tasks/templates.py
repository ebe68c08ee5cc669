"""Jinja templates and expressions of tasks, with bounds on the time and memory of one rendering.

Task files are untrusted. Jinja's sandbox isolates a template but does not stop it from running forever or filling the
memory. Here every rendering has a budget, charged in advance: each loop pass and macro call costs the length of the
template; each filter, operator, comparison, method and printed value costs the size of its input and its output. The
budget grows with the row, so that long documents are not refused.
"""

import math
import re
import string
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from typing import Any

from jinja2 import StrictUndefined, Undefined, nodes, pass_context
from jinja2.environment import Environment
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from earthworks.runs import EarthworksError

BUDGET = 1_000_000  # units of about 0.2 microseconds for one row, plus what the row itself adds
OF_THE_ROW = 64  # additional units per unit of row size
OF_A_CALL = 40  # of a filter, method or macro
OF_AN_ELEMENT = 8  # of a list
CHARACTERS = 8  # of text per unit
DEEPEST = 100  # nested calls
LONGEST = 50_000  # characters of a template
MOST_BITS = 1 << 14  # of an integer: Python prints at most 4,300 digits
WIDEST = 10_000  # width of a formatted value, and number of decimals
# Useless in prompts: they are slow in Python, take quadratic time, or make renderings random.
LEFT_OUT = ("urlize", "xmlattr", "wordwrap", "pprint", "striptags", "random", "filesizeformat")
CONTAINERS = (list, tuple, set, frozenset, Mapping, type({}.keys()), type({}.values()), type({}.items()))
# %s, %5.2f, %(name)s: name, width, decimals
CONVERSION = re.compile(r"%(?:\([^()]*\))?[-#0 +]*(\*|\d*)(?:\.(\*|\d*))?")


class TooMuch(EarthworksError):
    """A template needs more time or memory than a prompt should."""


class Spent(Exception):
    """The budget is used up. Not a ValueError, because Jinja's filters catch those."""


class Budget(threading.local):
    """Remaining rendering budget of this thread."""

    left = 0.0
    depth = 0  # of nested calls
    row: Any = None

    def spend(self, units: float) -> None:
        self.left -= units
        if self.left < 0:
            self.grow()

    def grow(self) -> None:
        """Add the row's share, computed only when needed."""
        row, self.row = self.row, None
        if row is not None:
            missing, self.left = self.left, math.inf
            self.left = missing + OF_THE_ROW * weigh(row)
        if self.left < 0:
            raise Spent


budget = Budget()


def weigh(value: Any, *, anything: bool = False) -> float:
    """Charge a value's size, contents included, and return the amount.

    `anything`: also accept a macro, loop or namespace on its own. Inside lists it would be printed with its contents,
    whose size is unknown.
    """
    if isinstance(value, str | bytes):
        units = 1 + len(value) / CHARACTERS
    elif isinstance(value, int):
        if value.bit_length() > MOST_BITS:
            raise Spent
        units = 1.0
    elif isinstance(value, CONTAINERS):
        units = 1.0 + OF_AN_ELEMENT * len(value)
        budget.spend(units)
        for each in value.items() if isinstance(value, Mapping) else value:
            units += weigh(each)
        return units
    elif isinstance(value, range):
        units = 1.0 + len(value)
    elif anything or isinstance(value, float | None | Undefined):
        units = 1.0
    else:
        raise TypeError(f"a {type(value).__name__} cannot be shown or put into a list")
    budget.spend(units)
    return units


def whole(value: Any) -> Any:
    """Turn an iterator into a list, charging each element as it comes."""
    if not isinstance(value, Iterator):
        return value
    found = []
    for each in value:
        weigh(each)
        found.append(each)
    return found


def pay(name: str, value: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Charge in advance for the output of a filter or method that may be longer than its input."""
    every = [*args, *named.values()]
    numbers = sum(abs(each) for each in every if isinstance(each, int))
    texts = sum(len(each) for each in every if isinstance(each, str | bytes))
    size = len(value) if hasattr(value, "__len__") else 1
    if name in ("center", "ljust", "rjust", "zfill", "batch", "slice", "truncate"):
        budget.spend(numbers / CHARACTERS)
    elif name in (
        "indent",
        "expandtabs",
        "tojson",
    ):  # at every line, tab or element: up to one per character
        breaks = 2 + (value.count("\n") + value.count("\t") if isinstance(value, str) else weigh(value))
        budget.spend(breaks * (numbers + texts) / CHARACTERS)
    elif name == "replace" and len(every) > 1:
        old, new = (each if isinstance(each, str | bytes) else str(each) for each in every[:2])
        text = value if isinstance(value, str | bytes) else str(value)
        times = text.count(old) if type(old) is type(text) else 0  # pyright: ignore[reportArgumentType]
        budget.spend(times * len(new) / CHARACTERS)
    elif name == "join":
        # the list is the value of the filter, but the argument of the method
        between, count = (len(value), sum(map(size_of, every))) if isinstance(value, str | bytes) else (texts, size)
        budget.spend(count * (1 + between) / CHARACTERS)
    elif name == "round" and numbers > WIDEST:
        raise Spent  # 10 ** precision
    elif name == "sum" and any(not isinstance(each, int | float | str) for each in every):
        raise TypeError("sum adds numbers")  # concatenating lists is quadratic
    elif name in ("translate", "to_bytes", "maketrans"):
        raise TypeError(f"{name} is not available in a task's templates")
    elif not isinstance(value, str | bytes):
        budget.spend(size * texts / CHARACTERS)  # the attribute is looked up in every element


def size_of(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def pay_formatting(text: str, largest: float, given: Any) -> None:
    """Charge for `text % given`: each conversion may print the largest argument at the requested width."""
    for found in CONVERSION.finditer(text):
        widths = [each for each in found.groups() if each]
        if "*" in widths or any(len(each) > 5 or int(each) > WIDEST for each in widths):
            raise Spent
        budget.spend(largest + sum(map(int, widths)) / CHARACTERS)


def pay_format(text: str, largest: float) -> None:
    """Charge for `text.format(...)`."""
    for _, name, spec, _ in string.Formatter().parse(text):
        widths = re.findall(r"\d+", spec or "")
        if "{" in (spec or "") or any(len(each) > 5 or int(each) > WIDEST for each in widths):
            raise Spent
        if name is not None:
            budget.spend(largest + sum(map(int, widths)) / CHARACTERS)


def paid(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a Jinja filter or test so that it charges for its arguments and result."""
    # Jinja passes its context or environment first to functions that it has marked; `wraps` keeps the mark.
    before = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

    @wraps(function)
    def wrapper(*args: Any, **named: Any) -> Any:
        budget.spend(OF_A_CALL)
        first, given = args[:before], [whole(each) for each in args[before:]]
        sizes = [weigh(each, anything=name in ("default", "d", "attr")) for each in (*given, *named.values())]
        if given:
            pay(name, given[0], tuple(given[1:]), named)
            if name == "format" and isinstance(given[0], str):
                pay_formatting(given[0], max(sizes), given[1:])
        result = whole(function(*first, *given, **named))
        weigh(result, anything=True)
        return result

    return wrapper


class Paying(ImmutableSandboxedEnvironment):
    """Sandbox that charges the budget. Nothing is computed while a template is compiled."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, optimized=False, finalize=printed)
        self.globals.pop("lipsum")
        self.filters = {name: paid(name, each) for name, each in self.filters.items() if name not in LEFT_OUT}
        self.filters |= {"paid-spent": spent, "paid-value": valued, "paid-joined": joined}
        self.tests = {name: paid(name, each) for name, each in self.tests.items()}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, str) and operator == "%":
            pay_formatting(left, weigh(left) + weigh(right), right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * right > MOST_BITS:
                raise Spent
        elif operator == "*" and isinstance(left, int) != isinstance(right, int):
            times, value = (left, right) if isinstance(left, int) else (right, left)
            budget.spend(weigh(value) * max(1, times) if isinstance(times, int) else 1)
        else:
            weigh(left, anything=True)
            weigh(right, anything=True)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int):
            weigh(result)
        return result

    # names that no argument of a template call can have
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget.spend(OF_A_CALL)
        sizes = [weigh(each, anything=True) for each in (*args, *kwargs.values())]
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja wraps the methods format and format_map
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str | bytes | int | list | tuple | Mapping):
            weigh(owner)
            pay(name, owner, args, kwargs)
            if name in ("format", "format_map") and isinstance(owner, str):
                pay_format(owner, max(sizes, default=1))
        budget.depth += 1
        try:
            if budget.depth > DEEPEST:
                raise Spent
            result = whole(super().call(__context, __obj, *args, **kwargs))
        finally:
            budget.depth -= 1
        weigh(result, anything=True)
        return result

    def _generate(self, source: nodes.Template, *args: Any, **named: Any) -> str:
        """Jinja's hook between parsing and code generation: insert the charges."""
        words = sum(len(each.data) / CHARACTERS for each in source.find_all(nodes.TemplateData))
        once = words + sum(1 for _ in source.find_all(nodes.Expr)) + sum(1 for _ in source.find_all(nodes.Stmt))
        for each in list(source.find_all((nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block))):
            each.body.insert(0, nodes.ExprStmt(filtered(nodes.Const(once), "paid-spent"), lineno=each.lineno))
        return super()._generate(rewritten(source), *args, **named)


def rewritten(node: Any) -> Any:
    """Insert charges around nodes that make or traverse values without a filter, call or operator."""
    for name, child in node.iter_fields():
        if isinstance(child, list):
            setattr(node, name, [rewritten(each) if isinstance(each, nodes.Node) else each for each in child])
        elif isinstance(child, nodes.Node):
            setattr(node, name, rewritten(child))
    if isinstance(node, nodes.Concat):
        return filtered(nodes.List(node.nodes, lineno=node.lineno), "paid-joined")
    if isinstance(node, nodes.Compare | nodes.Operand):
        node.expr = filtered(node.expr, "paid-value")
    elif isinstance(node, nodes.For):
        node.iter = filtered(node.iter, "paid-value")
    loaded = isinstance(node, nodes.Tuple) and node.ctx == "load"  # not a target: `for a, b in`
    sliced = isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    if loaded or sliced or isinstance(node, nodes.List | nodes.Dict):
        return filtered(node, "paid-value")
    return node


def filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno or 1)


def spent(units: float) -> None:
    budget.spend(units)


def valued(value: Any) -> Any:
    """Charge for the value of a loop, comparison, list or slice, and return it."""
    value = whole(value)
    weigh(value, anything=isinstance(value, Undefined))
    return value


def joined(values: list[Any]) -> str:
    """`a ~ b`."""
    weigh(values)
    return "".join(str(each) for each in values)


@pass_context  # a context keeps Jinja from evaluating it at compile time
def printed(context: Context, value: Any) -> Any:
    """Output of `{{ }}`."""
    weigh(value)
    return value


@cache
def environment() -> Environment:
    return Paying()


@cache
def compiled_template(source: str) -> Any:
    return environment().from_string(checked(source))


@cache
def compiled_expression(source: str) -> Any:
    return environment().compile_expression(checked(source), undefined_to_none=False)


def checked(source: str) -> str:
    if len(source) > LONGEST and "{" in source:
        raise TooMuch(f"a template of {len(source):,} characters exceeds the limit of {LONGEST:,}")
    return source


def render(source: str, row: dict[str, Any]) -> str:
    """`render("{{ a }}", {"a": 1})` -> "1". Raises TooMuch, or any error of the template."""
    return bounded(source, row, lambda: compiled_template(source).render(row))


def evaluate(source: str, row: dict[str, Any]) -> Any:
    """`evaluate("[a, b]", row)` -> a Python value."""

    def found() -> Any:
        value = compiled_expression(source)(row)
        if isinstance(value, Undefined):
            str(value)  # raises, naming the field
        return value

    return bounded(source, row, found)


def bounded(source: str, row: dict[str, Any], compute: Callable[[], Any]) -> Any:
    budget.left, budget.row = BUDGET, row
    try:
        return compute()
    except (Spent, MemoryError, RecursionError):
        shown = " ".join(source.split())
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise TooMuch(
            f"the template {shown!r} takes too much time or memory and was stopped: shorten it or preprocess the rows"
        ) from None
