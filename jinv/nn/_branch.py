"""The interface of branch networks: a feature vector from every layer."""

import abc

import equinox as eqx
from jaxtyping import Array, Float


class AbstractBranch(eqx.Module):
    """A network that gives a feature vector from each of its layers, for one input: what
    [`jinv.nn.MultiONet`][] pairs with the layers of its trunk.

    [`jinv.nn.MLP`][] and [`jinv.nn.ConvEncoder`][] are such networks.

    !!! example
        ```python
        >>> import jax.numpy as jnp, jinv
        >>> class Moments(jinv.nn.AbstractBranch):
        ...     widths = (4, 4)
        ...
        ...     def all_layers(self, u):
        ...         powers = jnp.arange(4.0)
        ...         return [jnp.mean(u[:, None] ** powers[None], 0), jnp.max(u) ** powers]
        >>> [features.shape for features in Moments().all_layers(jnp.ones(9))]
        [(4,), (4,)]

        ```
    """

    @property
    @abc.abstractmethod
    def widths(self) -> tuple[int, ...]:
        """The sizes of the feature vectors, from the first layer to the last."""

    @abc.abstractmethod
    def all_layers(self, u: Float[Array, "..."], /) -> list[Float[Array, "..."]]:
        """The feature vectors of `u`, in that order."""
