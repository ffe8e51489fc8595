"""Mutation operators: what a programmer's slip makes of one node of a syntax tree.

Each operator yields, for a node, the source texts that may stand in its place. A node at which an
operator yields nothing is no site of it.
"""

import ast
import copy


def _changed(node, **fields):
    """The source of a copy of ``node`` with other fields."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return ast.unparse(other)


def _called(node):
    """The last name of what a call calls, '' for any other node."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _renamed_call(node, name):
    if isinstance(node.func, ast.Attribute):
        return _changed(node, func=ast.Attribute(node.func.value, name, ast.Load()))
    return _changed(node, func=ast.Name(name))


def _is_number(node):
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _is_minus_one(node):
    minus = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    return minus and _is_number(node.operand) and node.operand.value == 1


def _is_read(node, *names):
    read = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    return read and node.attr in names


def discount_dropped(node, above):
    """A discount (or a weight of steps) becomes 1."""
    if _called(node) in ("discounts", "step_weights"):
        yield f"torch.ones_like({ast.unparse(node)})"
    if _is_read(node, "discount"):
        yield "1.0"
    if isinstance(node, ast.Name) and node.id == "DISCOUNTED":
        yield "Undiscounted()"


def _in_subscript(above):
    """Whether a node with these ancestors, nearest first, is an index."""
    for parent, child in above:
        if isinstance(parent, ast.Subscript):
            return child is parent.slice
        if not isinstance(parent, ast.Tuple | ast.Slice | ast.UnaryOp):
            return False
    return False


def index_shifted(node, above):
    """[..., :-1] for [..., 1:] and the like, and the next index for an index."""
    if isinstance(node, ast.Slice) and (node.lower or node.upper):
        if node.upper is None:
            yield ":-1"
        elif node.lower is None and _is_minus_one(node.upper):
            yield "1:"
        else:
            lower = ast.literal_eval(node.lower) if node.lower else 0
            yield f"{lower + 1}:{ast.unparse(node.upper)} + 1"
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    plain = _is_number(node) and not isinstance(above[0][0], ast.UnaryOp | ast.Slice)
    minus = negative and _is_number(node.operand) and not isinstance(above[0][0], ast.Slice)
    if (plain or minus) and _in_subscript(above):
        yield str(ast.literal_eval(node) + 1)


def stop_gradient(node, above):
    """detach() dropped, or put on log-probabilities that carry the derivative."""
    if _called(node) == "detach":
        yield ast.unparse(node.func.value)
    if _called(node) == "no_grad":
        yield _renamed_call(node, "enable_grad")
    if _is_read(node, "log_probs", "log_policy") and not _is_read(above[0][0], "detach"):
        yield ast.unparse(node) + ".detach()"


def ratio_inverted(node, above):
    """The operands of a difference (of logarithms) or of a quotient, swapped."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.Div):
        yield _changed(node, left=node.right, right=node.left)


def baseline_dropped(node, above):
    """One term of a difference or of a sum left out."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.Add):
        yield ast.unparse(node.left)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield ast.unparse(node.right)


def factor_dropped(node, above):
    """One factor of a product left out, or a divisor, or an exponent."""
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, ast.Mult | ast.Div | ast.Pow | ast.MatMult
    ):
        yield ast.unparse(node.left)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.MatMult):
        yield ast.unparse(node.right)


def sign(node, above):
    """+ for -, - for +, and a minus left out."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield _changed(node, op=ast.Sub() if isinstance(node.op, ast.Add) else ast.Add())
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    if negative and not _is_number(node.operand):
        yield ast.unparse(node.operand)


def sum_shifted(node, above):
    """A running sum (or product) without its last term, steps counted from 1, the wrong axis."""
    if _called(node) in ("cumsum", "cumprod"):
        from_torch = ast.unparse(node.func).startswith("torch.")
        terms = node.args[0] if from_torch else node.func.value
        operation = ast.Sub() if _called(node) == "cumsum" else ast.Div()
        yield ast.unparse(ast.BinOp(node, operation, terms))
    if _called(node) == "arange":
        yield f"1 + {ast.unparse(node)}"
    parent = above[0][0]
    axis = isinstance(parent, ast.keyword) and parent.arg == "dim"
    if _is_minus_one(node) and (axis or isinstance(parent, ast.Call)):
        yield "0"


_OTHER_MEANS = {"sum": "mean", "mean": "sum", "std": "var", "var": "std"}


def mean_for_sum(node, above):
    """Mean for sum, sum for mean, variance for deviation."""
    if _called(node) in _OTHER_MEANS and isinstance(node.func, ast.Attribute):
        yield _renamed_call(node, _OTHER_MEANS[_called(node)])


_OTHER_FILLS = {
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
    "ones": "zeros",
    "zeros": "ones",
}


def constant(node, above):
    """0 and 2 for 1, 1 for 0, 0 and twice as much for another number; zeros for ones."""
    if _called(node) in _OTHER_FILLS:
        yield _renamed_call(node, _OTHER_FILLS[_called(node)])
    parent = above[0][0]
    axis = isinstance(parent, ast.UnaryOp) and _is_minus_one(parent)
    if _is_number(node) and not _in_subscript(above) and not axis:
        kind = type(node.value)
        yield from (repr(kind(v)) for v in ((1,) if node.value == 0 else (0, 2 * node.value)))


_COMPARED = {
    ast.GtE: (ast.Gt, ast.Lt), ast.Gt: (ast.GtE, ast.Lt), ast.LtE: (ast.Lt, ast.Gt),
    ast.Lt: (ast.LtE, ast.Gt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip


def comparison(node, above):
    """An edge put on the other side, and the opposite."""
    if isinstance(node, ast.Compare):
        for place, operation in enumerate(node.ops):
            for other in _COMPARED.get(type(operation), ()):
                yield _changed(node, ops=[*node.ops[:place], other(), *node.ops[place + 1 :]])


_OTHER_EXTREMES = {
    "minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min",
    "amin": "amax", "amax": "amin",
}  # fmt: skip


def extreme_swapped(node, above):
    """Maximum for minimum; a clamp from the other side, from one side, or none."""
    if _called(node) in _OTHER_EXTREMES:
        yield _renamed_call(node, _OTHER_EXTREMES[_called(node)])
    if _called(node) != "clamp":
        return
    yield ast.unparse(node.func.value)
    if len(node.args) == 2:
        low, high = node.args
        yield _changed(node, args=[], keywords=[ast.keyword("min", low)])
        yield _changed(node, args=[], keywords=[ast.keyword("max", high)])
    elif len(node.keywords) == 1:
        (limit,) = node.keywords
        yield _changed(node, keywords=[ast.keyword(_OTHER_EXTREMES[limit.arg], limit.value)])


def condition(node, above):
    """A truth value turned round, `or` for `and`, a condition left out, branches swapped."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield repr(not node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield ast.unparse(node.operand)
    if isinstance(node, ast.BoolOp):
        yield _changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        yield from (ast.unparse(value) for value in node.values)
    if isinstance(node, ast.IfExp):
        yield _changed(node, body=node.orelse, orelse=node.body)
    tested = isinstance(above[0][0], ast.If) and above[0][1] is above[0][0].test
    if tested and not isinstance(node, ast.UnaryOp | ast.Compare):
        yield f"not ({ast.unparse(node)})"
    if _called(node) == "where" and len(node.args) == 3:
        first, then, otherwise = node.args
        yield _changed(node, args=[first, otherwise, then])


def function_dropped(node, above):
    """An exponential, logarithm, square root or the like left out."""
    names = (
        *("exp", "expm1", "log", "log1p", "sqrt", "abs"),
        *("logsumexp", "log_softmax", "softmax", "cumsum", "cumprod", "flip"),
    )
    if _called(node) in names and ast.unparse(node.func).startswith("torch."):
        yield ast.unparse(node.args[0])
    elif _called(node) in names:
        yield ast.unparse(node.func.value)


def choice(node, above):
    """Another member of a choice that the module offers."""
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return
    for kind in above[-1][0].body:
        if isinstance(kind, ast.ClassDef) and kind.name == node.value.id:
            members = _members(kind)
            others = [member for member in members if member != node.attr]
            yield from (f"{kind.name}.{other}" for other in others if node.attr in members)


def _members(kind):
    """The names of an enumeration's members; none of another class."""
    if "Enum" not in [ast.unparse(base) for base in kind.bases]:
        return []
    return [item.targets[0].id for item in kind.body if isinstance(item, ast.Assign)]


OPERATORS = {
    "discount dropped": discount_dropped,
    "index shifted": index_shifted,
    "stop-gradient": stop_gradient,
    "ratio inverted": ratio_inverted,
    "baseline or term dropped": baseline_dropped,
    "factor dropped": factor_dropped,
    "sign": sign,
    "sum or axis shifted": sum_shifted,
    "mean for sum": mean_for_sum,
    "constant": constant,
    "comparison": comparison,
    "minimum for maximum": extreme_swapped,
    "condition": condition,
    "function dropped": function_dropped,
    "another choice": choice,
}
