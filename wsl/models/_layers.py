"""The layers that all models share.

Flax's own would cast or, under strict promotion, refuse mixed dtypes; these
compute in the widest dtype they see.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from wsl import types

EPSILON = 1e-6


def widen(*arrays: types.ArrayLike) -> list[types.Array]:
  """Casts to the widest of float32 and the arrays' own float dtypes.

  Args:
    *arrays: arrays of any shapes; integers count as float32.

  Returns:
    The arrays, all of one dtype.

  Example:
    >>> half, byte = jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.uint8)
    >>> [str(x.dtype) for x in widen(half, byte)]
    ['float32', 'float32']
  """
  dtypes = [jnp.result_type(x) for x in arrays]
  floats = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]
  widest = max([np.dtype('float32'), *floats], key=lambda d: d.itemsize)
  return [jnp.asarray(x, widest) for x in arrays]


def parameter(
  module: nn.Module,
  name: str,
  init: Callable[..., types.Array],
  shape: tuple[int, ...],
) -> types.Array:
  """Declares a parameter, drawn in float32 whatever JAX's default is."""
  value: types.Array = module.param(name, init, shape, jnp.float32)
  return value


def on_last(vector: types.Array, x: types.Array) -> types.Array:
  """Gives a vector the rank of ``x``, along its last axis."""
  return vector.reshape((1,) * (x.ndim - 1) + (-1,))


class Dense(nn.Module):
  """A linear map of the last axis, ``x W + b``.

  Attributes:
    features: size of the output.
    bias: whether ``b`` is added.
  """

  features: int
  bias: bool = True

  @nn.compact
  def __call__(self, x: types.ArrayLike) -> types.Array:
    """Maps ``[..., in]`` to ``[..., features]``; the kernel is 2-D."""
    shape = (jnp.shape(x)[-1], self.features)
    kernel = parameter(self, 'kernel', nn.initializers.lecun_normal(), shape)
    x, kernel = widen(x, kernel)
    y = x @ kernel
    if not self.bias:
      return y
    y, bias = widen(
      y, parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    )
    return y + on_last(bias, y)


class LayerNorm(nn.Module):
  r"""Layer normalisation of the last axis, or of groups of channels.

  .. math:: y = \frac{x - \mathrm{mean}(x)}{\sqrt{\mathrm{var}(x) +
    \epsilon}} \odot s + b

  Attributes:
    groups: ``None`` takes the moments over the last axis (layer
      normalisation); a number splits the channels into so many groups and
      takes them over each group and all positions (group normalisation).

  Reference:
    Ba et al., "Layer Normalization", 2016, arXiv:1607.06450; Wu & He, "Group
    Normalization", 2018, arXiv:1803.08494.
  """

  groups: int | None = None

  @nn.compact
  def __call__(self, x: types.ArrayLike) -> types.Array:
    """Normalises ``[batch, ..., features]``."""
    features = jnp.shape(x)[-1]
    scale = parameter(self, 'scale', nn.initializers.ones, (features,))
    bias = parameter(self, 'bias', nn.initializers.zeros, (features,))
    x, scale, bias = widen(x, scale, bias)
    grouped, axes = x, (-1,)
    if self.groups is not None:
      if features % self.groups:
        raise ValueError(
          f'groups={self.groups} does not divide {features} channels: choose '
          f'a divisor'
        )
      grouped = x.reshape(*x.shape[:-1], self.groups, -1)
      axes = (*range(1, x.ndim - 1), x.ndim)
    centred = grouped - jnp.mean(grouped, axes, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axes, keepdims=True)
    normal = (centred * jax.lax.rsqrt(variance + EPSILON)).reshape(x.shape)
    return normal * on_last(scale, x) + on_last(bias, x)


class BatchNorm(nn.Module):
  r"""Normalisation of each channel, by moments over a data set.

  .. math:: y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \odot s + b

  In training the moments are the batch's, over all axes but the last. They are
  also averaged into the running ``mean`` and ``var`` of the collection
  ``batch_stats`` where that is mutable, and those are used otherwise.

  Attributes:
    momentum: what a running moment keeps of itself at each step.
    epsilon: what is added to a variance.

  Reference:
    Ioffe & Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.
  """

  momentum: float = 0.9
  epsilon: float = EPSILON

  @nn.compact
  def __call__(self, x: types.ArrayLike, *, train: bool = False) -> types.Array:
    """Normalises ``[batch, ..., features]``."""
    shape = (jnp.shape(x)[-1],)
    scale = parameter(self, 'scale', nn.initializers.ones, shape)
    bias = parameter(self, 'bias', nn.initializers.zeros, shape)
    running = [
      self.variable('batch_stats', name, init, shape, jnp.float32)
      for name, init in (('mean', jnp.zeros), ('var', jnp.ones))
    ]
    x, scale, bias, mean, var = widen(
      x, scale, bias, *(r.value for r in running)
    )
    if train:
      axes = tuple(range(x.ndim - 1))
      mean, var = jnp.mean(x, axes), jnp.var(x, axes)
      if (
        self.is_mutable_collection('batch_stats') and not self.is_initializing()
      ):
        for r, now in zip(running, (mean, var)):
          old = jnp.asarray(r.value, now.dtype)
          new = self.momentum * old + (1 - self.momentum) * now
          r.value = new.astype(r.value.dtype)
    spread = jax.lax.rsqrt(var + self.epsilon)
    normal = (x - on_last(mean, x)) * on_last(spread, x)
    return normal * on_last(scale, x) + on_last(bias, x)


def heads(x: types.Array, count: int) -> types.Array:
  """Splits ``[..., S, count * d]`` into heads ``[..., S, count, d]``."""
  return x.reshape(*x.shape[:-1], count, -1)


def attend(
  query: types.Array,
  key: types.Array,
  value: types.Array,
  *,
  causal: bool = False,
) -> types.Array:
  r"""Scaled dot-product attention.

  .. math:: \mathrm{softmax}(Q K^\top / \sqrt{d}) V

  Args:
    query: ``[batch, S, heads, d]``.
    key: ``[batch, S, heads, d]``.
    value: ``[batch, S, heads, d]``.
    causal: whether a position sees only itself and those before it.

  Returns:
    ``[batch, S, heads * d]``.

  Reference:
    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.
  """
  length, size = query.shape[1], query.shape[-1]
  scores = jnp.einsum('bqhd,bkhd->bhqk', query, key) / np.sqrt(size).item()
  if causal:
    seen = jnp.tril(jnp.ones((1, 1, length, length), bool))
    scores = jnp.where(seen, scores, -jnp.inf)
  mixed = jnp.einsum('bhqk,bkhd->bqhd', jax.nn.softmax(scores), value)
  return mixed.reshape(*mixed.shape[:2], -1)
