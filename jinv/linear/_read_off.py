"""The entries of an operator whose pattern is known, read off from a few products."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Int

from ._sparse import SparseMatrix


class Colouring(eqx.Module):
    """Colours of the columns of a symmetric pattern such that no two columns of one colour have
    an entry in the same row: one product with their sum shows all entries of both.

    Source: A. Curtis, M. Powell and J. Reid, *On the estimation of sparse Jacobian matrices*,
    1974.
    """

    colours: Int[Array, " n"]
    count: int = eqx.field(static=True)

    def __init__(self, csr: Any):
        import scipy.sparse as sp

        ones = sp.csr_array((np.ones(csr.nnz), csr.indices, csr.indptr), shape=csr.shape)
        colours = _colour_columns((ones + sp.eye_array(csr.shape[0])).tocsr())
        self.colours, self.count = jnp.asarray(colours, jnp.int32), int(colours.max()) + 1

    def read_off(self, pattern: SparseMatrix, product: Callable[[Array], Array]) -> SparseMatrix:
        """The matrix of that pattern with this product, in JAX."""
        dtype = pattern.slots.dtype
        sums = lambda colour: product((self.colours == colour).astype(dtype))
        responses = jax.lax.map(sums, jnp.arange(self.count, dtype=jnp.int32))
        rows, columns = pattern.indices()
        return pattern.with_values(responses[self.colours[columns], rows])


def flat_product(operator: lx.AbstractLinearOperator, dtype: Any):
    """The operator's product as a function of flat vectors of `dtype`."""
    structure = operator.in_structure()
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), structure)
    flat, unravel = jax.flatten_util.ravel_pytree(zeros)
    ravel = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]
    return lambda x: ravel(operator.mv(unravel(x.astype(flat.dtype)))).astype(dtype)


def neighbour_max(graph, x):
    """The largest value among a node's neighbours and its own, for a graph with all loops."""
    return np.maximum.reduceat(x[graph.indices], graph.indptr[:-1])


def _colour_columns(graph):
    reach = lambda x: neighbour_max(graph, neighbour_max(graph, x))
    priority = np.random.default_rng(0).permutation(graph.shape[0]) + 1
    colours = np.full(graph.shape[0], -1)
    colour = 0
    while (colours < 0).any():
        left = colours < 0
        while left.any():  # a maximal set of columns that do not meet
            value = np.where(left, priority, 0)
            new = left & (value == reach(value))
            colours[new] = colour
            left = left & ~reach(new)
        colour += 1
    return colours
