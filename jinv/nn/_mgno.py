"""The multigrid neural operator."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import equinox as eqx
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ._channels import (
    at_least_one,
    at_most_3d,
    gelu,
    num_weights,
    with_channels,
    without_channels,
)
from ._grids import Boundary
from ._multigrid import Maker, MultigridConvolution, Norm, Pointwise
from ._potential import in_dtype


Published = Literal["darcy", "darcy_smooth", "pipe", "navier_stokes", "helmholtz"]


class MgNO(eqx.Module):
    r"""The multigrid neural operator: layers $v \leftarrow \sigma(W v + L v + b)$ with a
    [`jinv.nn.MultigridConvolution`][] $W$, pointwise $L$ and the exact GELU $\sigma$, and a linear
    head. Made by [`jinv.nn.mgno`][] and [`jinv.nn.published_mgno`][].

    It is called with function values on a regular grid, channels last, or without that axis for
    one channel, and returns such values; batches are `jax.vmap`. Raises `ValueError` for other
    channels, and for grids too small for the number of levels.

    **Attributes:**

    - `ndim`: the number of axes of the grid.
    - `num_weights`: how many numbers are trained.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> smoothing = [(1, 0), (2, 0)]
        >>> model = jinv.nn.mgno(channels=8, smoothing=smoothing, key=jax.random.key(0))
        >>> jax.vmap(model)(jnp.ones((3, 17, 12))).shape
        (3, 17, 12)

        ```

    ??? cite "Source"
        He, Liu, Xu, MgNO: efficient parameterization of linear operators via multigrid, 2024.
    """

    layers: tuple[MultigridConvolution, ...]
    pointwise: tuple[Pointwise, ...] | None
    norms: tuple[Norm, ...] | None
    head: Pointwise | MultigridConvolution
    in_channels: int = eqx.field(static=True)
    # As a step in time: what is learned is the change.
    adds_input: bool = eqx.field(static=True, default=False)

    def __call__(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        self = in_dtype(self, u.dtype)
        u = with_channels(u, self.in_channels, self.ndim)
        # A mirror at the outermost point needs a second one.
        least = 2 ** (len(self.layers[0].levels) - 1) + (self.layers[0].boundary == "reflect")
        if min(u.shape[:-1]) < least:
            raise ValueError(
                f"`u` must have at least {least} points along each axis for so many levels, got "
                f"{u.shape[:-1]}"
            )
        v = u
        for index, layer in enumerate(self.layers):
            moved = layer(v)
            if self.pointwise is not None:
                moved = moved + self.pointwise[index](v)
            if self.norms is not None:
                moved = self.norms[index](moved)
            v = gelu(moved)
        v = self.head(v)
        return without_channels(v + u if self.adds_input else v)

    @property
    def ndim(self) -> int:
        return self.layers[0].levels[0].before[0].s.weight.ndim - 2

    @property
    def num_weights(self) -> int:
        return num_weights(self)


def mgno(
    in_channels: int = 1,
    out_channels: int = 1,
    *,
    channels: int = 24,
    num_layers: int = 4,
    smoothing: Sequence[tuple[int, int]] = ((1, 0),) * 5 + ((2, 0),),
    boundary: Boundary = "zero",
    ndim: int = 2,
    residual: bool = True,
    key: PRNGKeyArray,
) -> MgNO:
    r"""A multigrid neural operator for any grid, in one, two or three dimensions.

    `published_mgno` makes the authors' models exactly as they behave. This one corrects them: the
    *residual* is restricted, as the paper says; the boundary condition holds in all
    convolutions, transfers included; coarse grids lie symmetrically in the fine ones, so that
    reflected data give reflected results with reflected weights; and nothing fixes the grid.

    The kernels have a fixed width in pixels: on a finer grid the same weights are another operator,
    and the number of levels should grow with the logarithm of the size.

    **Arguments:**

    - `in_channels`, `out_channels`, `channels`: of the input, the output and the layers.
    - `num_layers`: of the network.
    - `smoothing`: for each level, from fine to coarse, the numbers of smoothing steps before
        and after the coarser ones.
    - `boundary`: `"zero"` (Dirichlet), `"symmetric"` or `"reflect"` (Neumann, with the mirror
        between points or at the outermost one), `"circular"` (periodic).
    - `ndim`: of the grid.
    - `residual`: whether the residual is restricted.
    - `key`: for the initial weights, uniform in $\pm 1/\sqrt n$ for $n$ inputs of a map.

    **Raises:** `ValueError` for numbers below 1, a level without a step before or the coarsest with
    one after, an unknown boundary, or an `ndim` that is not 1, 2 or 3.

    !!! example
        ```python
        >>> import jax, jax.numpy as jnp, jinv
        >>> options = {"channels": 8, "smoothing": [(1, 1), (2, 0)], "boundary": "circular"}
        >>> model = jinv.nn.mgno(3, 2, ndim=1, **options, key=jax.random.key(0))
        >>> model(jnp.ones((50, 3))).shape
        (50, 2)

        ```

    ??? cite "Source"
        He, Liu, Xu, MgNO: efficient parameterization of linear operators via multigrid, 2024.
        Deviations: see above. Restrictions have 3 weights per axis as in the paper, averaged over
        the two cells that become one where the number of cells is even.
    """
    at_least_one(in_channels=in_channels, out_channels=out_channels)
    at_least_one(channels=channels, num_layers=num_layers)
    at_most_3d(ndim)
    smoothing = tuple((int(first), int(then)) for first, then in smoothing)
    if not smoothing or any(first < 1 or then < 0 for first, then in smoothing):
        raise ValueError(
            f"`smoothing` must be pairs with at least one step before, got {smoothing}"
        )
    if smoothing[-1][1]:
        raise ValueError(f"`smoothing` must end with a pair (n, 0), got {smoothing}")
    if boundary not in get_args(Boundary):
        raise ValueError(f"`boundary` must be one of {get_args(Boundary)}, got {boundary!r}")
    options: dict[str, Any] = {"smoothing": smoothing, "boundary": boundary}
    options |= {"transfer": "nested", "residual": residual}
    make, widths = Maker(ndim, key), [in_channels] + [channels] * (num_layers - 1)
    return MgNO(
        layers=tuple(make.cycle("", channels, width, **options) for width in widths),
        pointwise=tuple(make.pointwise("", width, channels, bias=True) for width in widths),
        norms=None,
        head=make.pointwise("", channels, out_channels),
        in_channels=in_channels,
    )


def published_mgno(
    name: Published,
    *,
    size: int | None = None,
    channels: int | None = None,
    num_layers: int | None = None,
    key: PRNGKeyArray,
) -> MgNO:
    r"""The authors' model for one of their tasks, exactly as their code behaves: what is restricted
    is $f$ and not the residual, transposed convolutions see zeros outside whatever the boundary
    condition is, and coarse grids begin at the first point of the fine ones.

    | name | grid | layers | weights |
    |---|---|---|---|
    | `"darcy"` (rough and multiscale) | multiples of 32 | 4 of 24 channels | 572,661 |
    | `"darcy_smooth"` | 211 x 211 | 5 of 24 | 678,093 |
    | `"pipe"` (2 channels) | multiples of 16 | 5 of 24 | 783,876 |
    | `"navier_stokes"` (circular, input added, normalised) | 64 x 64 | 5 of 32 | 2,885,194 |
    | `"helmholtz"` (reflect, channels grow, normalised) | 101 x 101 | 4 of 20 | 5,351,806 |

    **Arguments:**

    - `name`: of the task.
    - `size`, `channels`, `num_layers`: in place of those; the size of the square grid matters for
        `"darcy_smooth"`, `"navier_stokes"` and `"helmholtz"` only.
    - `key`: for the initial weights; [`jinv.nn.mgno_from_torch`][] takes the authors'.

    **Raises:** `ValueError` for another name.

    !!! example
        ```python
        >>> import jax, jinv
        >>> jinv.nn.published_mgno("darcy", key=jax.random.key(0)).num_weights
        572661

        ```

    ??? cite "Source"
        The code of He, Liu, Xu, MgNO, 2024. The paper's model for Helmholtz has 7.58 million
        weights, that of the code's command these. In it the first $A$ is there and never used.
    """
    return _published(Maker(2, key), name, size, channels, num_layers)


def mgno_from_torch(
    name: Published, arrays: Mapping[str, ArrayLike], *, size: int | None = None
) -> MgNO:
    r"""The model of [`jinv.nn.published_mgno`][] with the weights of the authors' PyTorch model.

    In PyTorch: `np.savez("weights.npz", **{k: v.cpu().numpy() for k, v in
    model.state_dict().items()})`. Kernels of convolutions, `(out, in, 3, 3)` there, are
    `(3, 3, in, out)` here, those of transposed ones, `(in, out, k, k)`, are `(k, k, out, in)`.

    **Arguments:**

    - `name`: of the task.
    - `arrays`: a state dict, or what `numpy.load` returns.
    - `size`: of the grid for `"darcy_smooth"`, if another than published.

    **Raises:** `ValueError` for another name, and for arrays that are missing, too many, or of
    another shape than the model's, by their names.

    !!! example
        ```python
        >>> import jinv
        >>> jinv.nn.mgno_from_torch("darcy", {})
        Traceback (most recent call last):
            ...
        ValueError: `arrays` must have conv_list.0.layer0.0.S.weight, which is missing

        ```
    """
    first = "conv_list.0.layer0.0.S.weight"
    if first not in arrays:
        raise ValueError(f"`arrays` must have {first}, which is missing")
    channels = np.shape(arrays[first])[0]
    num_layers = sum(key.endswith(".layer0.0.S.weight") for key in arrays)
    num_layers -= "last_layer.layer0.0.S.weight" in arrays
    norms = [np.shape(arrays[k])[-1] for k in arrays if "norm_layer_list.0.weight" in k]
    make = Maker(2, arrays=arrays)
    model = _published(make, name, norms[0] if norms else size, channels, num_layers)
    if unused := sorted(set(arrays) - make.used):
        raise ValueError(f"`arrays` must be those of {name!r}, which has no {', '.join(unused)}")
    return model


def _published(make, name, size, channels, num_layers):
    if name not in get_args(Published):
        raise ValueError(f"`name` must be one of {get_args(Published)}, got {name!r}")
    once, widths = (1, 0), {"navier_stokes": 32, "helmholtz": 20}
    channels = widths.get(name, 24) if channels is None else channels
    num_layers = (4 if name in ("darcy", "helmholtz") else 5) if num_layers is None else num_layers
    inputs, head = (2 if name == "pipe" else 1), "linear"
    options: dict[str, Any] = {"boundary": "zero", "transfer": "published"}
    options["smoothing"] = (once,) * 5 + ((2, 0),)
    if name == "darcy_smooth":
        options["grid"] = 211 if size is None else size
    elif name == "pipe":
        options["smoothing"] = (once,) * 4 + ((1, 1), (2, 0))
    elif name == "navier_stokes":
        head = "last_layer"
        options |= {"smoothing": (once,) * 3 + ((2, 0),) * 2, "boundary": "circular"}
        options |= {"bias": True, "grid": 64 if size is None else size, "normalised": True}
    elif name == "helmholtz":
        options |= {"smoothing": (once,) * 4 + ((2, 0),), "boundary": "reflect", "bias": True}
        options |= {"transfer": "valid", "grows": True, "grid": 101 if size is None else size}
    inner = [inputs] + [channels] * (num_layers - 1)
    pointwise = norms = None
    if "bias" not in options:
        pointwise = tuple(
            make.pointwise(f"linear_list.{i}", f, channels, bias=True) for i, f in enumerate(inner)
        )
    if name == "helmholtz":
        grid = options["grid"]
        norms = tuple(make.norm(f"norm_layer_list.{i}", grid, channels) for i in range(num_layers))
        last = make.cycle("last_layer", 1, channels, **options)
    else:
        last = make.pointwise(head, channels, 1)
    layers = [make.cycle(f"conv_list.{i}", channels, f, **options) for i, f in enumerate(inner)]
    return MgNO(
        layers=tuple(layers),
        pointwise=pointwise,
        norms=norms,
        head=last,
        in_channels=inputs,
        adds_input=name == "navier_stokes",
    )
