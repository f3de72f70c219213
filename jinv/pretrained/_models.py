"""The shipped models, ready to use."""

from typing import Any

import jax

from ..linear import (
    DCDM,
    DirectionNet,
    FactorNetwork,
    Multigrid,
    MultigridWeights,
    NeuralFactor,
)
from ._store import load, names, read_record


def multigrid(ndim: int, **options: Any) -> Multigrid:
    """The multigrid cycle with trained weights: in 2-D and 3-D, for every size, geometry and
    coefficient.

    Trained by `scripts/train_multigrid.py` on obstacles, jumps and smooth coefficients; what it
    gains over the untrained cycle is in its record, `read_record("multigrid_2d")["accuracy"]`.

    **Arguments:**

    - `ndim`: the dimension of the grid, 2 or 3.
    - `options`: further arguments of [`jinv.linear.Multigrid`][].

    Raises `ValueError` for another dimension.

    !!! example
        ```python
        >>> import lineax as lx, jax, jinv
        >>> A = jinv.linear.heterogeneous_diffusion(
        ...     jinv.linear.random_coefficient((64, 64), key=jax.random.key(0))
        ... )
        >>> b = jinv.linear.random_source(A, key=jax.random.key(1))
        >>> solver = jinv.linear.PCG(1e-4, 0.0, jinv.pretrained.multigrid(2))
        >>> bool(lx.linear_solve(A, b, solver).stats["num_steps"] < 8)
        True

        ```
    """
    name = _shipped("multigrid", ndim)
    weights = load(name, MultigridWeights(read_record(name)["depth"], trainable=True))
    return Multigrid(weights, **options)


def dcdm(ndim: int, rtol: float, atol: float, **options: Any) -> DCDM:
    """The deep conjugate direction method with trained weights of the published network.

    Trained by `scripts/train_dcdm.py` on the box without obstacles, as published, at the size in
    its record; the accuracy there says what to expect.

    **Arguments:**

    - `ndim`: the dimension of the grid, 2 or 3.
    - `rtol`, `atol`, `options`: arguments of [`jinv.linear.DCDM`][].

    Raises `ValueError` for another dimension.

    !!! example
        ```python
        >>> import lineax as lx, jax, jinv
        >>> A = jinv.linear.poisson((32, 32))
        >>> b = jinv.linear.random_source(A, key=jax.random.key(0))
        >>> solution = lx.linear_solve(A, b, jinv.pretrained.dcdm(2, 1e-3, 0.0))
        >>> bool(solution.stats["num_steps"] < 30)
        True

        ```
    """
    name = _shipped("dcdm", ndim)
    settings = read_record(name)["settings"]
    like = DirectionNet(ndim, settings["channels"], pairs=settings["pairs"], key=jax.random.key(0))
    return DCDM(rtol, atol, load(name, like), **options)


def neural_factor(matrix: Any, *, sweeps: int = 3) -> NeuralFactor:
    """The learned incomplete factorisation with trained weights, for diffusion matrices in 2-D.

    Trained by `scripts/train_neural_factor.py` with three sweeps on coefficients with ratios of
    up to a thousand; see its record for the steps beside other preconditioners. On grids
    [`jinv.linear.Multigrid`][] takes far fewer: this shows what a learned factor can do.

    **Arguments:**

    - `matrix`, `sweeps`: of [`jinv.linear.NeuralFactor`][], which says what it raises.

    !!! example
        ```python
        >>> import lineax as lx, jax, jinv
        >>> k = jinv.linear.random_coefficient((24, 24), key=jax.random.key(0))
        >>> A = jinv.linear.heterogeneous_diffusion(k)
        >>> solver = jinv.linear.PCG(1e-4, 0.0, jinv.pretrained.neural_factor(A))
        >>> b = jinv.linear.random_source(A, key=jax.random.key(1))
        >>> bool(lx.linear_solve(A, b, solver).stats["num_steps"] < 40)
        True

        ```
    """
    network = load("neural_factor", FactorNetwork(key=jax.random.key(0)))
    return NeuralFactor(matrix, network, sweeps=sweeps)


def _shipped(kind: str, ndim: int) -> str:
    name = f"{kind}_{ndim}d"
    if name not in names():
        there = [other for other in names() if other.startswith(kind)]
        raise ValueError(f"ndim must fit shipped weights, {there}; got {ndim}.")
    return name
