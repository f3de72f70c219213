"""The shipped neural operators."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..nn import FNO, ConvEncoder, Dirichlet, MultiONet, OnGrid, deeponet, mgno
from ..train import Normalised
from ._store import load, read_record


_OPERATORS = ("mgno", "fno", "multionet")


def operator(name: str = "mgno") -> Dirichlet:
    r"""A trained operator of Darcy flow in a medium of two phases: $a \mapsto u$ with
    $-\nabla\cdot(a\nabla u) = 1$ in the unit square, $u = 0$ on its boundary.

    Trained by `scripts/train_operators.py` on 1000 samples of [`jinv.pde.darcy_two_phase`][]
    ($a$ is 12 or 3) on 64 x 64 nodes, boundary included. `read_record("operator_mgno")` has
    the errors on 100 samples that were kept back.

    - `"mgno"`: the multigrid operator, [`jinv.nn.mgno`][].
    - `"fno"`: the Fourier operator, [`jinv.nn.FNO`][], with four times the weights.
    - `"multionet"`: [`jinv.nn.MultiONet`][] with the published convolutional encoder.

    **Arguments:**

    - `name`: as above.

    **Returns:** a module that maps values of $a$ at the nodes to those of $u$: the network with the
    scales of its data ([`jinv.train.Normalised`][]) in a [`jinv.nn.Dirichlet`][], so that $u$ is
    exactly zero on the boundary. It takes any grid, the multigrid operator from 32 nodes a side
    on; what it is worth far from 64 x 64 is in notebook 06.

    Raises `ValueError` for another name.

    !!! example
        ```python
        >>> import jax, jinv
        >>> data = jinv.pde.darcy_two_phase(1, 127, key=jax.random.key(7), stride=2, progress=False)
        >>> model = jinv.pretrained.operator("mgno")
        >>> bool(jinv.train.relative_l2(model(data.inputs[0]), data.outputs[0]) < 0.1)
        True

        ```
    """
    if name not in _OPERATORS:
        raise ValueError(f"`name` must be one of {_OPERATORS}, got {name!r}")
    settings = read_record(f"operator_{name}")["network"]
    network = eqx.filter_eval_shape(darcy_network, name, **settings, key=jax.random.key(0))
    scales = jnp.arange(2.0)  # as the others, in place of which the stored ones come
    return load(f"operator_{name}", Dirichlet(Normalised(network, scales, scales)))


def darcy_network(kind: str, *, key: PRNGKeyArray, **settings: Any) -> eqx.Module:
    """A fresh network for functions on the unit square, by the settings in the records."""
    if kind == "mgno":
        return mgno(residual=False, **settings, key=key)
    if kind == "fno":
        return FNO(1, 1, **settings, key=key)
    widths, (of_encoder, of_model) = settings["widths"], jax.random.split(key)
    encoder = ConvEncoder((29, 29), (1, 64, 128), widths[:1], kernel=5, key=of_encoder)
    make = MultiONet if kind == "multionet" else deeponet
    options: dict[str, Any] = {"branch_activation": "silu_id", "trunk_activation": "silu_sin"}
    options |= {"weighting": "per_layer"} if kind == "multionet" else {}
    branch, trunk = [widths[0], *widths], [2, *widths]
    model = make(branch, trunk, encoder=encoder, **options, key=of_model)
    return OnGrid(model, (29, 29))
