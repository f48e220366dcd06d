"""A multilayer perceptron."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from wsl import types
from wsl.models import _layers


class MLP(nn.Module):
  r"""Dense blocks and a last linear map.

  .. math:: h_{l+1} = \mathrm{relu}(\mathrm{norm}(h_l W_l + b_l)), \quad
    y = h_L W + b

  Leaves: ``block_0/dense/kernel``, ``block_0/norm/scale``, ...,
  ``output/kernel``.

  Attributes:
    widths: size of each hidden layer.
    outputs: size of the output.
    norm: whether the blocks have layer normalisation.

  Example:
    >>> model = MLP(widths=(8, 8), outputs=3)
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 4, 4)))['params']
    >>> model.apply({'params': params}, jnp.ones((5, 4, 4))).shape
    (5, 3)
  """

  widths: tuple[int, ...]
  outputs: int
  norm: bool = True

  @nn.compact
  def __call__(self, x: types.ArrayLike) -> types.Array:
    """Maps ``[batch, ...]`` to ``[batch, outputs]``."""
    h = jnp.reshape(x, (jnp.shape(x)[0], -1))
    for i, width in enumerate(self.widths):
      h = Block(width, self.norm, name=f'block_{i}')(h)
    return _layers.Dense(self.outputs, name='output')(h)


class Block(nn.Module):
  """A linear map, a normalisation, a ReLU."""

  features: int
  norm: bool = True

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps ``[..., in]`` to ``[..., features]``."""
    h = _layers.Dense(self.features, name='dense')(x)
    if self.norm:
      h = _layers.LayerNorm(name='norm')(h)
    return jax.nn.relu(h)
