"""Learned incomplete factorisation: a graph network predicts a triangular factor."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ._preconditioner import AbstractPreconditioner, AbstractSymmetricPositive
from ._read_off import Colouring, flat_product
from ._sparse import SparseMatrix, to_scipy


class FactorNetwork(eqx.Module):
    """A graph network on the lower triangle of a matrix, for [`jinv.linear.NeuralFactor`][].

    Unknowns are nodes, entries below the diagonal directed edges; both carry `width` numbers,
    which `rounds` rounds of messages update. It sees the matrix scaled to unit diagonal, so
    that neither units nor the size of the matrix matter. It starts with corrections of zero.

    **Arguments:**

    - `width`: the numbers of a node or an edge.
    - `rounds`: how far a node sees.
    - `key`: for the weights.

    !!! example
        ```python
        >>> import jax, jinv
        >>> network = jinv.linear.FactorNetwork(8, 2, key=jax.random.key(0))

        ```
    """

    encode_node: eqx.nn.Linear
    encode_edge: eqx.nn.Linear
    update_edge: tuple[eqx.nn.MLP, ...]
    update_node: tuple[eqx.nn.MLP, ...]
    decode_node: eqx.nn.Linear
    decode_edge: eqx.nn.Linear

    def __init__(self, width: int = 16, rounds: int = 3, *, key: PRNGKeyArray):
        if width < 1 or rounds < 0:
            raise ValueError(f"width must be positive and rounds not negative: {width}, {rounds}.")
        keys = iter(jax.random.split(key, 2 * rounds + 2))
        update = lambda: eqx.nn.MLP(3 * width, width, width, 1, key=next(keys))
        self.encode_node = eqx.nn.Linear(3, width, key=next(keys))
        self.encode_edge = eqx.nn.Linear(2, width, key=next(keys))
        self.update_edge = tuple(update() for _ in range(rounds))
        self.update_node = tuple(update() for _ in range(rounds))
        zero = eqx.nn.Linear(width, 1, key=key)
        self.decode_node = self.decode_edge = jax.tree.map(jnp.zeros_like, zero)

    def __call__(
        self,
        nodes: Float[Array, "n 3"],
        edges: Float[Array, "e 2"],
        rows: Int[Array, " e"],
        columns: Int[Array, " e"],
    ) -> tuple[Float[Array, " n"], Float[Array, " e"]]:
        """One number in (-1, 1) for every node and every edge."""
        into = lambda x, place: jax.ops.segment_sum(x, place, len(nodes))
        h, e = jax.vmap(self.encode_node)(nodes), jax.vmap(self.encode_edge)(edges)
        for edge, node in zip(self.update_edge, self.update_node, strict=True):
            e = e + jax.vmap(edge)(jnp.concatenate([e, h[rows], h[columns]], axis=1))
            h = h + jax.vmap(node)(jnp.concatenate([h, into(e, rows), into(e, columns)], axis=1))
        out = jax.vmap(self.decode_node)(h), jax.vmap(self.decode_edge)(e)
        return jnp.tanh(out[0][:, 0]), jnp.tanh(out[1][:, 0])


class NeuralFactor(AbstractPreconditioner):
    r"""A learned incomplete Cholesky factorisation, $A \approx L L^T$ on the pattern of $A$, with
    $L^{-1}$ replaced by `sweeps` Jacobi sweeps: $M^{-1} = T^T T$ with
    $T = \sum_{j \le k} (-\Delta^{-1} N)^j \Delta^{-1} \approx L^{-1}$, $L = \Delta + N$.

    For families of similar sparse matrices for which no multigrid works; with a diffusion
    operator, multigrid takes far fewer steps. Positive definite whatever the weights are, as
    $\Delta$ is positive and $N$ strictly triangular. An application costs `sweeps` products,
    the factorisation that of the network, in every solve, in JAX.

    The factor is $l_{ij} = s_{ij} e^{\varepsilon_{ij}} / \sqrt{d_j}$ and
    $l_{ii} = \sqrt{d_i e^{\gamma_i}}$ for the matrix $s$ scaled to unit diagonal, with the pivots
    $d_i = 1 - \sum_{j < i} s_{ij}^2 / d_j$ and the network's corrections $\varepsilon, \gamma$.
    Without corrections that is the incomplete factorisation DIC, for five- and seven-point
    stencils IC(0). Train through [`jinv.linear.convergence_loss`][] or
    [`jinv.linear.factor_loss`][]; `scripts/train_neural_factor.py` does.

    **Arguments:**

    - `matrix`: one of the matrices (anything that [`jinv.linear.to_scipy`][] takes), for its
        pattern, which must be symmetric; the values are those of the operator of each solve.
    - `network`: a [`jinv.linear.FactorNetwork`][]; or `None` for no corrections.
    - `sweeps`: Jacobi sweeps, `k`. After as many as the longest chain of dependences (the grid's
        diameter) they are exact.

    Raises `ValueError` for a matrix whose pattern is not symmetric and for negative `sweeps`;
    in `init` for an operator of another size.

    Source: Y. Li, P. Y. Chen, T. Du and W. Matusik, *Learning Preconditioners for Conjugate
    Gradient PDE Solvers*, 2023. Deviations, with their measured reasons (2-D diffusion, 24 x 24
    cells, two CPU cores): the triangular solves, which are chains of some hundred small steps
    in JAX and take a hundred times as long as a product, are replaced by sweeps (H. Anzt, E.
    Chow and J. Dongarra, *Iterative sparse triangular solves for preconditioning*, 2015); a
    factorised inverse $G^T G$ would be simpler, but no network can beat the closed form of
    Kolotilina and Yeremin on that pattern (31 steps; three sweeps take 21, trained 17). The
    network predicts corrections of a classical factorisation, not the factor, so that training
    starts at that one.

    !!! example
        ```python
        >>> import jax.numpy as jnp, lineax as lx, jinv
        >>> A = jinv.linear.poisson((32, 32))
        >>> solver = jinv.linear.PCG(1e-4, 0.0, jinv.linear.NeuralFactor(A))
        >>> solution = lx.linear_solve(A, jnp.ones((32, 32)), solver)
        >>> bool(solution.stats["num_steps"] < 30)
        True

        ```
    """

    network: FactorNetwork | None
    pattern: SparseMatrix
    colouring: Colouring
    lower: SparseMatrix
    upper: SparseMatrix
    below: Int[Array, " e"]
    mirror: Int[Array, " e"]
    sweeps: int = eqx.field(static=True)

    def __init__(self, matrix: Any, network: FactorNetwork | None = None, *, sweeps: int = 3):
        import scipy.sparse as sp

        if sweeps < 0:
            raise ValueError(f"sweeps must not be negative, got {sweeps}.")
        csr = to_scipy(matrix)
        ids = np.arange(1, csr.nnz + 1)
        placed = sp.csr_array((ids, csr.indices, csr.indptr), shape=csr.shape)
        # The number of every entry below the diagonal, and again in the order of the transpose.
        below: Any = sp.tril(placed, -1, format="csr")
        above: Any = below.T.tocsr()
        if sp.triu(placed, 1).nnz != below.nnz or ((placed != 0) != (placed.T != 0)).nnz:
            raise ValueError("matrix must have a symmetric pattern.")
        make = lambda entries: SparseMatrix(entries.astype(csr.dtype))
        self.network, self.sweeps = network, sweeps
        self.pattern, self.colouring = SparseMatrix(csr), Colouring(csr)
        self.lower, self.upper = make(below), make(above)
        self.below = jnp.asarray(below.data - 1, jnp.int32)
        self.mirror = jnp.asarray(np.searchsorted(below.data, above.data), jnp.int32)
        self.sweeps = sweeps

    def init(self, operator):
        return self.factor(operator)

    def factor(self, operator: lx.AbstractLinearOperator) -> "Factor":
        """The factor for the values of `operator`."""
        structure = operator.in_structure()
        unknowns = sum(leaf.size for leaf in jax.tree.leaves(structure))
        if unknowns != self.pattern.shape[0]:
            raise ValueError(
                f"NeuralFactor was set up for {self.pattern.shape[0]} unknowns, got an operator "
                f"of {unknowns}."
            )
        product = flat_product(operator, self.pattern.slots.dtype)
        matrix = self.colouring.read_off(self.pattern, product)
        diagonal = matrix.diagonal()
        root = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
        rows, columns = self.lower.indices()
        s = matrix.values[self.below] / (root[rows] * root[columns])
        squares = self.lower.with_values(s**2)
        pivots = _pivots(squares)
        edges, scale = s / jnp.sqrt(pivots[columns]), jnp.sqrt(pivots)
        if self.network is not None:
            others = self.upper.with_values((s**2)[self.mirror]).mv(jnp.ones_like(pivots))
            nodes = jnp.stack([pivots, squares.mv(jnp.ones_like(pivots)), others], axis=1)
            changes = self.network(nodes, jnp.stack([s, edges], axis=1), rows, columns)
            scale, edges = scale * jnp.exp(changes[0] / 2), edges * jnp.exp(changes[1])
        upper = self.upper.with_values(edges[self.mirror])
        lower = self.lower.with_values(edges)
        return Factor(lower, upper, scale, root, self.sweeps, structure)


def _pivots(squares):
    """The pivots of DIC by fixed-point sweeps, which fall monotonically towards them."""
    sweep = lambda _, d: jnp.maximum(1 - squares.mv(1 / d), 0.05)
    start = jnp.ones(squares.shape[0], squares.slots.dtype)
    return jax.lax.fori_loop(0, 12, sweep, start)


class Factor(AbstractSymmetricPositive):
    """$T^T T$ with $T$ close to the inverse of $L = D (\\Delta + N)$."""

    lower: SparseMatrix
    upper: SparseMatrix
    scale: Float[Array, " n"]
    root: Float[Array, " n"]
    sweeps: int = eqx.field(static=True)
    structure: PyTree[jax.ShapeDtypeStruct] = eqx.field(static=True)

    def mv(self, vector):
        flat, unravel = jax.flatten_util.ravel_pytree(vector)
        x = self._sweep(self.lower, flat.astype(self.scale.dtype) / self.root)
        return unravel((self._sweep(self.upper, x) / self.root).astype(flat.dtype))

    def _sweep(self, triangle, b):
        body = lambda _, x: (b - triangle.mv(x)) / self.scale
        return jax.lax.fori_loop(0, self.sweeps, body, b / self.scale)

    def product(self, vector: PyTree[Array]) -> PyTree[Array]:
        """$L L^T x$."""
        flat, unravel = jax.flatten_util.ravel_pytree(vector)
        x = flat.astype(self.scale.dtype) * self.root
        x = self.scale * x + self.upper.mv(x)
        x = self.scale * x + self.lower.mv(x)
        return unravel((x * self.root).astype(flat.dtype))

    def in_structure(self):
        return self.structure


def factor_loss(
    preconditioner: NeuralFactor, operator: lx.AbstractLinearOperator, value: PyTree[Array]
) -> Float[Array, ""]:
    r"""$\|L L^T x - b\|^2 / \|b\|^2$ for a solution $x$ of $A x = b$: how the factor does on what
    solvers meet, weighted towards small eigenvalues where right-hand sides are rough.

    The published loss. It does not see the sweeps; [`jinv.linear.convergence_loss`][] does, and
    needs no solutions.

    **Arguments:**

    - `preconditioner`: with the network to train.
    - `operator`, `value`: one system and its solution.

    Source: as [`jinv.linear.NeuralFactor`][], equation 5. Deviation: relative to $b$.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> A = jinv.linear.poisson((16, 16))
        >>> loss = jinv.linear.factor_loss(jinv.linear.NeuralFactor(A), A, jnp.ones((16, 16)))

        ```
    """
    ravel = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]
    b = ravel(operator.mv(value))
    error = ravel(preconditioner.factor(operator).product(value)) - b
    return jnp.sum(error**2) / jnp.sum(b**2)
