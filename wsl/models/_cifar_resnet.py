"""Residual networks for CIFAR-10."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.models import _layers

EPSILON = 1e-5


class CifarResNet(nn.Module):
  r"""The residual network of He et al. for images of 32x32.

  A convolution, three stages of ``(depth - 2) / 6`` blocks, the mean over
  positions, and a linear map. A block is

  .. math:: h \leftarrow \mathrm{relu}(\mathrm{short}(h) +
    \mathrm{norm}(\mathrm{conv}(\mathrm{relu}(\mathrm{norm}(\mathrm{conv}(
    h))))))

  with convolutions of 3x3 without bias and batch normalisation. The first
  block of the second and of the third stage halves the image and widens it.
  Its shortcut has no parameters (option A): every second row and column,
  between channels of zeros.

  Leaves: ``stem/conv/kernel`` ``[h, w, in, out]``, ``stem/norm/scale``,
  ``block_0/conv_0/kernel``, ``block_0/norm_0/scale``,
  ``block_0/conv_1/kernel``, ``block_0/norm_1/scale``, ...,
  ``output/kernel``. Blocks are counted through the whole network; running
  moments are the collection ``batch_stats``.

  Attributes:
    depth: layers with weights, ``6 n + 2``: 8, 20, 32, 44, 56, ...
    outputs: size of the output.
    widths: channels of the three stages, none smaller than the one before.

  Example:
    >>> model = CifarResNet(depth=20)
    >>> x = jnp.ones((1, 32, 32, 3))
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))
    269722

  Reference:
    He et al., "Deep Residual Learning for Image Recognition", 2015,
    arXiv:1512.03385, section 4.2.
  """

  depth: int = 20
  outputs: int = 10
  widths: tuple[int, int, int] = (16, 32, 64)

  @nn.compact
  def __call__(self, x: types.ArrayLike, *, train: bool = False) -> types.Array:
    """Maps ``[batch, height, width, channels]`` to ``[batch, outputs]``.

    Args:
      x: images.
      train: whether batch normalisation uses the moments of this batch; with
        ``mutable=['batch_stats']`` it then updates the running ones.

    Returns:
      Logits.
    """
    h = Stem(self.widths[0], name='stem')(x, train=train)
    for i, (features, stride) in enumerate(plan(self.depth, self.widths)):
      h = Block(features, stride, name=f'block_{i}')(h, train=train)
    return _layers.Dense(self.outputs, name='output')(pool(h))


def plan(depth: int, widths: tuple[int, int, int]) -> list[tuple[int, int]]:
  """Returns channels and stride of each block."""
  if depth < 8 or depth % 6 != 2:
    raise ValueError(
      f'depth={depth}: expected 6 n + 2, as 8, 20, 32, 44, 56 and 110'
    )
  count = depth // 6
  return [
    (width, 2 if stage and not place else 1)
    for stage, width in enumerate(widths)
    for place in range(count)
  ]


class Stem(nn.Module):
  """``relu(norm(conv(x)))``."""

  features: int

  @nn.compact
  def __call__(self, x: types.ArrayLike, *, train: bool = False) -> types.Array:
    """Maps ``[batch, h, w, channels]`` to ``[batch, h, w, features]``."""
    (h,) = tree.widen(x)
    h = Convolution(self.features, name='conv')(h)
    return jax.nn.relu(norm('norm')(h, train=train))


class Block(nn.Module):
  """Two convolutions whose result is added to the shortcut."""

  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: types.Array, *, train: bool = False) -> types.Array:
    """Maps ``[batch, h, w, in]`` to ``[batch, h / stride, ..., features]``."""
    h = Convolution(self.features, self.stride, name='conv_0')(x)
    h = jax.nn.relu(norm('norm_0')(h, train=train))
    h = Convolution(self.features, name='conv_1')(h)
    h = norm('norm_1')(h, train=train)
    short = shortcut(x, features=self.features, stride=self.stride)
    return jax.nn.relu(h + short)


class Convolution(nn.Module):
  """A 3x3 convolution without bias, padded by 1 on each side as in PyTorch.

  On an even size, ``'SAME'`` with stride 2 pads only the right and the bottom,
  which shifts the patches by one pixel.
  """

  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps ``[batch, h, w, in]`` to ``[batch, h / stride, ..., features]``."""
    shape = (3, 3, x.shape[-1], self.features)
    init = nn.initializers.he_normal()
    kernel = _layers.parameter(self, 'kernel', init, shape)
    x, kernel = tree.widen(x, kernel)
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (self.stride, self.stride),
      [(1, 1), (1, 1)],
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


def norm(name: str) -> _layers.BatchNorm:
  """Returns batch normalisation with PyTorch's epsilon."""
  return _layers.BatchNorm(epsilon=EPSILON, name=name)


def shortcut(x: types.Array, *, features: int, stride: int) -> types.Array:
  """Takes every ``stride``-th row and column, between channels of zeros.

  Args:
    x: ``[batch, h, w, channels]``.
    features: channels of the result; half of the zeros come first.
    stride: step between positions.

  Returns:
    ``[batch, ceil(h / stride), ceil(w / stride), features]``.
  """
  new = features - x.shape[-1]
  if new < 0:
    raise ValueError(
      f'a shortcut cannot narrow {x.shape[-1]} channels to {features}: give '
      'widths that do not fall'
    )
  x = x[:, ::stride, ::stride]
  return jnp.pad(x, [(0, 0)] * 3 + [(new // 2, new - new // 2)])


def pool(h: types.Array) -> types.Array:
  """Averages ``[batch, h, w, channels]`` over positions."""
  return jnp.mean(h, (1, 2))
