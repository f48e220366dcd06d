"""The perceptrons of transformer blocks."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from wsl import types
from wsl.models import _layers


class SwiGLU(nn.Module):
  r"""A gated perceptron.

  .. math:: y = (\mathrm{silu}(x W_g) \odot x W_u) W_d

  Reference:
    Shazeer, "GLU Variants Improve Transformer", 2020, arXiv:2002.05202.
  """

  hidden: int

  @nn.compact
  def __call__(self, x: types.ArrayLike) -> types.Array:
    """Maps ``[..., width]`` to the same shape."""
    gate = _layers.Dense(self.hidden, bias=False, name='gate')(x)
    up = _layers.Dense(self.hidden, bias=False, name='up')(x)
    down = _layers.Dense(jnp.shape(x)[-1], bias=False, name='down')
    return down(jax.nn.silu(gate) * up)


class Perceptron(nn.Module):
  """``down(gelu(up(x)))``, with the exact GELU."""

  hidden: int

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps ``[..., width]`` to the same shape."""
    h = _layers.Dense(self.hidden, name='up')(x)
    h = jax.nn.gelu(h, approximate=False)
    return _layers.Dense(x.shape[-1], name='down')(h)
