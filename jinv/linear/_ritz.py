"""Right-hand sides for training, made of Ritz vectors."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._checks import check_operator


def ritz_pairs(
    operator: lx.AbstractLinearOperator, num: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, " num"], PyTree[Array]]:
    r"""`num` Ritz values and vectors of a symmetric operator, by Lanczos' method: approximate
    eigenpairs $\theta_i, v_i$ with $\langle v_i, A v_j\rangle = \theta_i \delta_{ij}$.

    The method starts from a random vector in the range, and every new vector is orthogonalised
    twice against all before it: `num` products with the operator and `4 num**2` operations per
    unknown, and `num` vectors of memory. Both ends of the spectrum converge first. Where the
    Krylov space is exhausted, as repeated eigenvalues make it, it goes on from a new random
    vector; with `num` the number of unknowns these are the eigenpairs.

    **Arguments:**

    - `operator`: real and tagged semi-definite.
    - `num`: at least 1, and at most the number of unknowns (or the rank, if that is less).
    - `key`: of the random vectors.

    **Returns:** the values in ascending order, and the vectors, of norm one, in the structure of
    the operator's vectors with a first axis of length `num`.

    Raises `ValueError` for another operator or number.

    Source: C. Lanczos, *An iteration method for the solution of the eigenvalue problem*, 1950.
    Deviation: the full reorthogonalisation, without which copies of eigenvectors appear.

    !!! example
        ```python
        >>> import jax, jinv
        >>> values, vectors = jinv.linear.ritz_pairs(
        ...     jinv.linear.poisson(3), 3, key=jax.random.key(0)
        ... )
        >>> [round(float(value), 3) for value in values], vectors.shape
        ([0.586, 2.0, 3.414], (3, 3))

        ```
    """
    check_operator(operator, "ritz_pairs")
    unknowns = sum(leaf.size for leaf in jax.tree.leaves(operator.in_structure()))
    if not 1 <= num <= unknowns:
        raise ValueError(f"num must be between 1 and the {unknowns} unknowns, got {num}.")
    return _ritz_pairs(lx.linearise(operator), num, key)


@eqx.filter_jit
def _ritz_pairs(operator, num, key):
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), operator.in_structure())
    flat, unravel = jax.flatten_util.ravel_pytree(zeros)
    apply = lambda v: jax.flatten_util.ravel_pytree(operator.mv(unravel(v)))[0]
    exact = jax.lax.Precision.HIGHEST
    tiny = 100 * float(jnp.finfo(flat.dtype).eps)

    def orthogonal(basis, v):
        for _ in range(2):
            v = v - jnp.matmul(jnp.matmul(basis, v, precision=exact), basis, precision=exact)
        return v

    def draw(basis, key):
        # Twice normalised: what is left of a random vector can be a small part of it.
        v = apply(jax.random.normal(key, flat.shape, flat.dtype))
        v = orthogonal(basis, v / jnp.linalg.norm(v))
        v = orthogonal(basis, v / jnp.linalg.norm(v))
        return v / jnp.linalg.norm(v)

    def step(carry, inputs):
        basis, v, size = carry
        i, key = inputs
        basis = basis.at[i].set(v)
        w = apply(v)
        alpha = jnp.vdot(v, w, precision=exact)
        w = orthogonal(basis, w)
        beta = jnp.linalg.norm(w)
        size = jnp.maximum(size, jnp.maximum(jnp.abs(alpha), beta))
        more = beta > tiny * size
        following = jax.lax.cond(
            more,
            lambda: w / jnp.where(more, beta, 1),
            lambda: draw(basis, key),
        )
        return (basis, following, size), (alpha, jnp.where(more, beta, 0))

    first, *keys = jax.random.split(key, num + 1)
    basis = jnp.zeros((num, flat.size), flat.dtype)
    carry = basis, draw(basis, first), jnp.zeros((), flat.dtype)
    (basis, _, _), (alpha, beta) = jax.lax.scan(step, carry, (jnp.arange(num), jnp.stack(keys)))
    tridiagonal = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    values, rotation = jnp.linalg.eigh(tridiagonal)
    return values, jax.vmap(unravel)(jnp.matmul(rotation.T, basis, precision=exact))


class RitzSamples(eqx.Module):
    r"""Random right-hand sides $b = \sum_i c_i v_i$, normalised, for training directions.

    The $c_i$ are independent and normal, with a standard deviation of `weight` for the lower
    part of the spectrum, where solving is hard, and one for the rest. Has the signature of the
    `batches` of `jinv.train.fit`: every call makes new samples. That costs `batch_size` times
    the number of vectors in operations per unknown.

    **Arguments:**

    - `values`, `vectors`: from [`jinv.linear.ritz_pairs`][].
    - `batch_size`: the number of right-hand sides in a call.
    - `theta`: the lower part is half of the vectors and `theta` more; by default a twentieth of
        them, as the published 500 of 10000.
    - `weight`: 9 as published.

    **Returns** (of a call): right-hand sides in the structure of the vectors, along a first axis.

    Raises `ValueError` for numbers that are negative or too small.

    Source: A. Kaneda et al., *A Deep Conjugate Direction Method for Iteratively Solving Linear
    Systems*, 2023, as in the authors' program: values below 1e-8 (here relative to the largest)
    are left out, and the lower part is counted from the first that is not.
    Deviation: new samples for each batch, instead of 20000 that are drawn once.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> A = jinv.linear.poisson((8, 8))
        >>> pairs = jinv.linear.ritz_pairs(A, 32, key=jax.random.key(0))
        >>> batch = jinv.linear.RitzSamples(*pairs, 10)(jax.random.key(1), step=0)
        >>> batch.shape, bool(jnp.allclose(jnp.sum(batch**2, (1, 2)), 1))
        ((10, 8, 8), True)

        ```
    """

    values: Float[Array, " num"]
    vectors: PyTree[Array]
    batch_size: int = eqx.field(static=True)
    theta: int | None = eqx.field(static=True, kw_only=True, default=None)
    weight: float = eqx.field(kw_only=True, default=9.0)

    def __check_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}.")
        if self.theta is not None and self.theta < 0:
            raise ValueError(f"theta must not be negative, got {self.theta}.")

    def __call__(self, key: PRNGKeyArray, step) -> PyTree[Array]:
        num = self.values.size
        kept = self.values > 1e-8 * jnp.max(jnp.abs(self.values))
        low = num // 2 + (num // 20 if self.theta is None else self.theta)
        dtype = self.values.dtype
        weight = jnp.where(jnp.cumsum(kept) <= low, jnp.asarray(self.weight, dtype), 1)
        normal = jax.random.normal(key, (self.batch_size, num), dtype)
        coefficients = jnp.where(kept, weight, 0)[None] * normal
        flat = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])(self.vectors)
        _, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda v: v[0], self.vectors))
        batch = coefficients @ flat
        return jax.vmap(unravel)(batch / jnp.linalg.norm(batch, axis=1, keepdims=True))
