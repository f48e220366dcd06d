"""Layers shared by the models.

Flax's own layers cast mixed dtypes or, under strict promotion, refuse them;
these compute in the widest dtype of their operands.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types

EPSILON = 1e-6


def parameter(
  module: nn.Module,
  name: str,
  init: Callable[..., types.Array],
  shape: tuple[int, ...],
) -> types.Array:
  """Declares a parameter, drawn in float32 for any default dtype of JAX."""
  value: types.Array = module.param(name, init, shape, jnp.float32)
  return value


def on_last(vector: types.Array, x: types.Array) -> types.Array:
  """Reshapes a vector to the rank of ``x``, along its last axis."""
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
    x, kernel = tree.widen(x, kernel)
    y = x @ kernel
    if not self.bias:
      return y
    y, bias = tree.widen(
      y, parameter(self, 'bias', nn.initializers.zeros, (self.features,))
    )
    return y + on_last(bias, y)


class LayerNorm(nn.Module):
  r"""Layer normalisation of the last axis, or of groups of channels.

  .. math:: y = \frac{x - \mathrm{mean}(x)}{\sqrt{\mathrm{var}(x) +
    \epsilon}} \odot s + b

  Attributes:
    groups: ``None`` computes moments over the last axis (layer normalisation);
      a number splits the channels into that many groups, and moments are over
      each group and all positions (group normalisation).

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
    x, scale, bias = tree.widen(x, scale, bias)
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
  r"""Normalises each channel by moments over a batch or a data set.

  .. math:: y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \odot s + b

  In training, the moments are those of the batch, over all axes but the last;
  if the collection ``batch_stats`` is mutable, its running ``mean`` and ``var``
  are updated by them. In evaluation, the running moments are used.

  Attributes:
    momentum: weight of the running moment in an update.
    epsilon: added to the variance.

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
    x, scale, bias, mean, var = tree.widen(
      x, scale, bias, *(r.value for r in running)
    )
    if train:
      axes = tuple(range(x.ndim - 1))
      mean, var = jnp.mean(x, axes), jnp.var(x, axes)
      if (
        self.is_mutable_collection('batch_stats') and not self.is_initializing()
      ):
        # The biased variance of the batch, as in Flax; PyTorch's running
        # variance is unbiased (n / (n - 1) times larger).
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
    causal: whether a position attends only to itself and earlier ones.

  Returns:
    ``[batch, S, heads * d]``.

  Reference:
    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.
  """
  length, size = query.shape[1], query.shape[-1]
  scores = jnp.einsum('bqhd,bkhd->bhqk', query, key) / np.sqrt(size).item()
  if causal:
    # -inf before the softmax: masked positions have weight exactly 0. Each row
    # keeps its diagonal, so no row is all -inf.
    seen = jnp.tril(jnp.ones((1, 1, length, length), bool))
    scores = jnp.where(seen, scores, -jnp.inf)
  mixed = jnp.einsum('bhqk,bkhd->bqhd', jax.nn.softmax(scores), value)
  return mixed.reshape(*mixed.shape[:2], -1)
