"""Work in matvec equivalents, counted in the programs of JAX (see `_work.py`)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal


@dataclasses.dataclass
class Work:
    """Matrix entries that a program touches: once, in each step of its innermost loop of unknown
    length, and in each pass of a loop around that one (which computes the true residual)."""

    once: float = 0.0
    per_step: float = 0.0
    per_pass: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.once + other.once,
            self.per_step + other.per_step,
            self.per_pass + other.per_pass,
        )

    def __mul__(self, times: float) -> "Work":
        return Work(times * self.once, times * self.per_step, times * self.per_pass)


def entries(function: Callable, *arguments: Any) -> Work:
    r"""The matrix entries that `function(*arguments)` touches.

    Every product of two arrays entry by entry (or quotient) touches one matrix entry per entry,
    such as a weight and its neighbour's value. Two entries are touched where a factor is a
    difference, $w (x_j - x_i)$, and in the transpose of that, where a product is subtracted
    from one sum and added to another. So the products of a stencil count the same, whichever
    way they are written. Products of matrices, convolutions, products in BCOO format and fast
    Fourier transforms count their multiplications. Multiples of a vector and inner products
    are not matrix products and count nothing.
    """
    closed = eqx.filter_make_jaxpr(function)(*arguments)[0]
    return _count(closed.jaxpr)


def matvec_equivalents(
    work: Work, product: Work, num_steps: int, steps_per_pass: int | None = None
) -> float:
    """The work of that many steps over that of one product with the system's operator; one pass
    unless it is known after how many steps the next one begins."""
    passes = max(1, math.ceil(num_steps / (steps_per_pass or max(num_steps, 1))))
    total = work.once + num_steps * work.per_step + passes * work.per_pass
    return total / product.once


@dataclasses.dataclass(eq=False)
class _Node:
    """A value of the program: what made it from what, and where it goes."""

    primitive: str
    shape: tuple[int, ...]
    floating: bool = True
    inputs: tuple["_Node", ...] = ()
    uses: list[tuple["_Node", int]] = dataclasses.field(default_factory=list)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


# They hand entries on, so a difference remains one.
_MOVES = {
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "expand_dims",
    "neg",
    "pad",
    "pvary",
    "reshape",
    "rev",
    "slice",
    "squeeze",
    "transpose",
}


def _count(jaxpr: Any) -> Work:
    nodes: list[_Node] = []
    total = _walk(jaxpr, [_input(v) for v in jaxpr.invars], nodes)[1]
    return total + Work(sum(_touched(node) for node in nodes))


def _walk(jaxpr: Any, inputs: list[_Node], nodes: list[_Node]) -> tuple[list[_Node], Work]:
    """The nodes of the results; calls are followed, loops are counted on their own."""
    known: dict[Any, _Node] = {v: _input(v) for v in jaxpr.constvars}
    known.update(zip(jaxpr.invars, inputs, strict=True))
    read = lambda v: _input(v) if isinstance(v, Literal) else known[v]
    total = Work()
    for eqn in jaxpr.eqns:
        name, operands = eqn.primitive.name, [read(v) for v in eqn.invars]
        if name in _CONTROL:
            total += _CONTROL[name](eqn.params)
        elif (inner := _called(eqn)) is not None:
            found, work = _walk(inner, operands, nodes)
            known.update(zip(eqn.outvars, found, strict=True))
            total += work
            continue
        elif name in _COUNTED:
            total += Work(_COUNTED[name](eqn))
        for out in eqn.outvars:
            node = _input(out)
            node.primitive, node.inputs = name, tuple(operands)
            for position, operand in enumerate(operands):
                operand.uses.append((node, position))
            known[out] = node
            nodes.append(node)
    return [read(v) for v in jaxpr.outvars], total


def _called(eqn: Any) -> Any:
    """The program of an equation that only calls it, such as a nested `jit`."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(key)
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(eqn.invars):
            return inner
    return None


def _input(variable: Any) -> _Node:
    aval = variable.aval
    shape, dtype = getattr(aval, "shape", ()), getattr(aval, "dtype", None)
    # Keys of random numbers have a dtype that NumPy does not know.
    floating = dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
    return _Node("", tuple(shape), floating)


def _touched(node: _Node) -> float:
    if node.primitive not in ("mul", "div") or not node.floating or node.size <= 1:
        return 0.0
    factors = node.inputs
    if any(_is_scalar(factor) for factor in factors) or factors[0] is factors[1]:
        return 0.0
    if node.uses and all(use.primitive == "reduce_sum" and use.size == 1 for use, _ in node.uses):
        return 0.0
    difference = any(_is_difference(factor) for factor in factors)
    ends = _ends(node)
    transposed = ("sub", 1) in ends and any(end != ("sub", 1) for end in ends)
    return node.size * (2.0 if difference or transposed else 1.0)


def _is_scalar(node: _Node) -> bool:
    while node.primitive in _MOVES and node.inputs and node.size > 1:
        node = node.inputs[0]
    return node.size <= 1


def _is_difference(node: _Node) -> bool:
    while node.primitive in _MOVES - {"concatenate"} and node.inputs:
        node = node.inputs[0]
    return node.primitive == "sub" and not any(_is_scalar(factor) for factor in node.inputs)


def _ends(node: _Node) -> list[tuple[str, int]]:
    """The sums that a value enters, and as which operand."""
    found = []
    for use, position in node.uses:
        if use.primitive in ("add", "sub", "add_any"):
            found.append((use.primitive, position))
        elif use.primitive in _MOVES and position == 0:
            found += _ends(use)
    return found


def _while(params):
    body = _count(params["body_jaxpr"].jaxpr)
    if not body.per_step:
        return Work(per_step=body.once)
    return Work(per_step=body.per_step, per_pass=body.once + body.per_pass)


def _scan(params):
    return _count(params["jaxpr"].jaxpr) * params["length"]


def _cond(params):
    branches = [_count(branch.jaxpr) for branch in params["branches"]]
    return max(branches, key=lambda work: (work.per_step, work.once))


_CONTROL: dict[str, Callable] = {"while": _while, "scan": _scan, "cond": _cond}


def _dot(eqn):
    out, contracted = eqn.outvars[0].aval, eqn.params["dimension_numbers"][0][0]
    if out.size == 1:
        return 0.0
    return float(out.size * math.prod(eqn.invars[0].aval.shape[a] for a in contracted))


def _convolution(eqn):
    kernel, numbers = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"]
    # The kernel's axes but the one over its outputs are summed over.
    return float(eqn.outvars[0].aval.size * math.prod(kernel) / kernel[numbers.rhs_spec[0]])


def _bcoo(eqn):
    entries, others = eqn.invars[0].aval.size, eqn.invars[-1].aval
    contracted = eqn.params["dimension_numbers"][0][1]
    return float(entries * others.size / math.prod(others.shape[a] for a in contracted))


def _fft(eqn):
    size = max(v.aval.size for v in (*eqn.invars, *eqn.outvars))
    length = math.prod(eqn.params["fft_lengths"])
    real = eqn.params["fft_type"] in (lax.FftType.RFFT, lax.FftType.IRFFT)
    # Half of n log2(n) complex multiplications, of four real ones; half of that for real data.
    return size * math.log2(length) * (1.0 if real else 2.0)


_COUNTED: dict[str, Callable] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "bcoo_dot_general": _bcoo,
    "fft": _fft,
    "triangular_solve": lambda eqn: float(eqn.invars[0].aval.size * eqn.invars[1].aval.shape[-1]),
}
