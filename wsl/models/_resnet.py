"""A small convolutional residual network."""

import itertools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.models import _layers


class ResNet(nn.Module):
  r"""Strided convolutions, residual blocks, then dense blocks.

  Each width opens a stage: a convolution of stride 2 that changes the width,
  then ``depth`` residual blocks that keep it,

  .. math:: h \leftarrow \mathrm{relu}(h + \mathrm{norm}(\mathrm{conv}(
    \mathrm{relu}(\mathrm{norm}(\mathrm{conv}(h)))))).

  The result is flattened, or averaged over positions, and passed to dense
  blocks ``relu(norm(dense(h)))``, with a residual where the width is constant.
  After a mean over positions, merging methods differed little in accuracy;
  after flattening they differed clearly.

  Leaves: ``block_0/conv/kernel`` ``[h, w, in, out]``, ``block_0/norm/scale``;
  in a residual block ``block_1/conv_0/kernel``, ``block_1/norm_0/scale``, ...;
  ``block_3/dense/kernel``. Blocks are counted through the whole network.

  Attributes:
    outputs: size of the last linear map; ``None`` returns the features of
      the last block, for an encoder with a separate head.
    widths: channels of each stage.
    depth: residual blocks in each stage.
    stem: side of the first kernel; the others are 3 wide.
    dense: sizes of the dense blocks.
    pool: ``'flatten'`` or ``'mean'``.
    groups: ``None`` for layer normalisation over the channels, or the number
      of groups of group normalisation.
    norm: ``'layer'`` for these two, or ``'batch'`` for batch normalisation
      after convolutions, with running moments in the collection
      ``batch_stats``.

  Example:
    >>> model = ResNet(outputs=10)
    >>> x = jnp.ones((1, 28, 28, 1))
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
    515586

  Reference:
    He et al., "Deep Residual Learning for Image Recognition", 2015,
    arXiv:1512.03385.
  """

  outputs: int | None = None
  widths: tuple[int, ...] = (24, 48, 96)
  depth: int = 0
  stem: int = 4
  dense: tuple[int, ...] = (256, 256)
  pool: str = 'flatten'
  groups: int | None = None
  norm: str = 'layer'

  @nn.compact
  def __call__(self, x: types.ArrayLike, *, train: bool = False) -> types.Array:
    """Maps ``[batch, height, width, channels]`` to ``[batch, outputs]``.

    Args:
      x: images.
      train: whether batch normalisation uses the moments of this batch; with
        ``mutable=['batch_stats']`` it then updates the running ones.

    Returns:
      Logits, or features.
    """
    if self.norm not in ('layer', 'batch'):
      raise ValueError(f"norm='{self.norm}': expected 'layer' or 'batch'")
    if self.norm == 'batch' and self.groups is not None:
      raise ValueError(
        f"groups={self.groups} goes with norm='layer', not with 'batch'"
      )
    if self.pool not in ('flatten', 'mean'):
      raise ValueError(f"pool='{self.pool}': expected 'flatten' or 'mean'")
    (h,) = tree.widen(x)
    names = map('block_{}'.format, itertools.count())
    for i, width in enumerate(self.widths):
      side = self.stem if i == 0 else 3
      norm = Norm(self.norm, self.groups, train)
      h = Downsample(width, side, norm, name=next(names))(h)
      for _ in range(self.depth):
        h = Residual(norm, name=next(names))(h)
    h = pooled(h, pool=self.pool)
    for width in self.dense:
      h = DenseBlock(width, name=next(names))(h)
    if self.outputs is None:
      return h
    return _layers.Dense(self.outputs, name='output')(h)


def pooled(h: types.Array, *, pool: str) -> types.Array:
  """Pools features ``[batch, h, w, channels]`` to vectors ``[batch, d]``."""
  if pool == 'mean':
    h = jnp.mean(h, (1, 2))
  return h.reshape(h.shape[0], -1)


class Norm(NamedTuple):
  """Which normalisation follows a convolution."""

  kind: str = 'layer'
  groups: int | None = None
  train: bool = False

  def __call__(self, x: types.Array, *, name: str) -> types.Array:
    """Normalises, by a module of that name in the one that calls."""
    if self.kind == 'batch':
      return _layers.BatchNorm(name=name)(x, train=self.train)
    return _layers.LayerNorm(self.groups, name=name)(x)


class Downsample(nn.Module):
  """``relu(norm(conv(x)))`` with stride 2."""

  features: int
  side: int = 3
  norm: Norm = Norm()

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps ``[batch, h, w, in]`` to ``[batch, ceil(h/2), ceil(w/2), out]``."""
    h = Conv(self.features, self.side, stride=2, name='conv')(x)
    return jax.nn.relu(self.norm(h, name='norm'))


class Residual(nn.Module):
  """Two convolutions whose result is added to the input."""

  norm: Norm = Norm()

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps ``[batch, h, w, channels]`` to the same shape."""
    h = Conv(x.shape[-1], name='conv_0')(x)
    h = jax.nn.relu(self.norm(h, name='norm_0'))
    h = Conv(x.shape[-1], name='conv_1')(h)
    return jax.nn.relu(x + self.norm(h, name='norm_1'))


class DenseBlock(nn.Module):
  """``relu(norm(dense(x)))``, added to ``x`` where the width stays."""

  features: int

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps ``[batch, in]`` to ``[batch, features]``."""
    h = _layers.Dense(self.features, name='dense')(x)
    h = jax.nn.relu(_layers.LayerNorm(name='norm')(h))
    return x + h if x.shape[-1] == self.features else h


class Conv(nn.Module):
  """A convolution with zero padding ('SAME'), as patches times a matrix.

  ``vmap`` over kernels turns ``lax.conv`` into a grouped convolution, which
  is slow on CPU; here it becomes a batched matrix product.

  Attributes:
    features: channels of the output.
    side: height and width of the kernel.
    stride: step between patches.
  """

  features: int
  side: int = 3
  stride: int = 1

  @nn.compact
  def __call__(self, x: types.ArrayLike) -> types.Array:
    """Maps ``[batch, h, w, in]`` to ``[batch, h / stride, ..., features]``."""
    shape = (self.side, self.side, jnp.shape(x)[-1], self.features)
    kernel = _layers.parameter(
      self, 'kernel', nn.initializers.lecun_normal(), shape
    )
    bias = _layers.parameter(
      self, 'bias', nn.initializers.zeros, (self.features,)
    )
    x, kernel, bias = tree.widen(x, kernel, bias)
    parts = patches(x, side=self.side, stride=self.stride)
    y = jnp.einsum('bhwijc,ijco->bhwo', parts, kernel)
    return y + _layers.on_last(bias, y)


def patches(x: types.Array, *, side: int, stride: int) -> types.Array:
  """Cuts square patches, padded with zeros as 'SAME' does.

  Args:
    x: images, ``[batch, h, w, channels]``.
    side: height and width of a patch.
    stride: step between patches.

  Returns:
    ``[batch, ceil(h / stride), ceil(w / stride), side, side, channels]``.
  """
  rows, columns = (-(-n // stride) for n in x.shape[1:3])
  missing = [
    max((count - 1) * stride + side - n, 0)
    for count, n in zip((rows, columns), x.shape[1:3])
  ]
  margins = [(m // 2, m - m // 2) for m in missing]
  padded = jnp.pad(x, [(0, 0), *margins, (0, 0)])
  shifted = [
    padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
    for i in range(side)
    for j in range(side)
  ]
  return jnp.stack([s[:, :rows, :columns] for s in shifted], 3).reshape(
    x.shape[0], rows, columns, side, side, x.shape[-1]
  )
