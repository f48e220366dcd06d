"""The map between the features of two networks."""

import dataclasses

import jax
import jax.numpy as jnp

from wsl import types


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
  r"""An affine map of the last axis, :math:`y = x W + b`.

  Attributes:
    weight: ``[d, e]``.
    bias: ``[e]``.
  """

  weight: types.Array
  bias: types.Array


def apply_adapter(adapter: Adapter, x: types.Array) -> types.Array:
  """Maps features ``[..., d]`` to ``[..., e]``.

  Args:
    adapter: the map.
    x: ``[..., d]``.

  Returns:
    ``[..., e]``.
  """
  y = x @ adapter.weight
  return y + jnp.reshape(adapter.bias, (1,) * (y.ndim - 1) + (-1,))
