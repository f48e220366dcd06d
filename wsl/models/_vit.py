"""A vision transformer."""

from flax import linen as nn
import jax.numpy as jnp

from wsl import tree, types
from wsl.models import _experts, _feed_forward, _layers


class ViT(nn.Module):
  r"""A vision transformer with pre-normalisation and no class token.

  .. math:: h \leftarrow h + \mathrm{attention}(\mathrm{norm}(h)), \quad
    h \leftarrow h + \mathrm{mlp}(\mathrm{norm}(h))

  Every linear map has a 2-D kernel, including that of the patches, so that
  merges treat each as one matrix.

  Leaves: ``embedding/kernel`` ``[patch * patch * channels, width]``,
  ``position`` ``[patches, width]``, ``block_0/attention/query/kernel``
  (``key``, ``value``, ``out``), ``block_0/mlp/up/kernel`` (``down``),
  ``block_0/attention_norm/scale``, ``block_0/mlp_norm/scale``, ...,
  ``norm/scale``, ``output/kernel``.

  Attributes:
    outputs: size of the output.
    patch: side of a patch; it divides the image's height and width.
    width: size of a token.
    depth: number of blocks.
    heads: number of attention heads; it divides ``width``, or ``head_size`` is
      given.
    expansion: hidden size of the mlp as a multiple of ``width``.
    pool: ``'flatten'`` or ``'mean'``: how tokens become one vector.
    experts: number of experts of each mlp, see ``MoE``; 0 for one dense mlp.
      Leaves are then ``block_0/mlp/router/kernel`` and
      ``block_0/mlp/experts/up/kernel`` ``[E, width, hidden]``, ...
    top_k: number of experts that a token is routed to.
    capacity: bound on the tokens of an expert, see ``MoE``.
    hidden: hidden size of the mlp of each block, in place of ``expansion``; a
      slice of a model (``surgery.slice``) has such sizes.
    head_size: size of a head; ``None`` for ``width / heads``.

  Example:
    >>> import jax
    >>> model = ViT(outputs=256)
    >>> x = jnp.ones((1, 28, 28, 1))
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
    367168

  Reference:
    Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image
    Recognition at Scale", 2020, arXiv:2010.11929.
  """

  outputs: int
  patch: int = 7
  width: int = 64
  depth: int = 3
  heads: int = 4
  expansion: int = 2
  pool: str = 'flatten'
  experts: int = 0
  top_k: int = 2
  capacity: float | None = None
  hidden: tuple[int, ...] | None = None
  head_size: int | None = None

  @nn.compact
  def __call__(self, x: types.ArrayLike) -> types.Array:
    """Maps ``[batch, height, width, channels]`` to ``[batch, outputs]``."""
    if self.pool not in ('flatten', 'mean'):
      raise ValueError(f"pool='{self.pool}': expected 'flatten' or 'mean'")
    tokens = tokenize(jnp.asarray(x), patch=self.patch)
    h = _layers.Dense(self.width, name='embedding')(tokens)
    init = nn.initializers.normal(0.02)
    position = _layers.parameter(self, 'position', init, h.shape[1:])
    h, position = tree.widen(h, position)
    h = h + position[None]
    for i in range(self.depth):
      h = block(self, i, name=f'block_{i}')(h)
    h = _layers.LayerNorm(name='norm')(h)
    h = pooled(h, pool=self.pool)
    return _layers.Dense(self.outputs, name='output')(h)


def block(model: ViT, i: int, name: str | None = None) -> 'Block':
  """Returns the i-th block of a model."""
  if model.hidden is not None and len(model.hidden) != model.depth:
    raise ValueError(
      f'hidden has {len(model.hidden)} sizes for {model.depth} blocks: give '
      'one for each'
    )
  return Block(
    model.heads,
    model.expansion,
    model.experts,
    model.top_k,
    model.capacity,
    None if model.hidden is None else model.hidden[i],
    model.head_size,
    name=name,
  )


def tokenize(x: types.Array, *, patch: int) -> types.Array:
  """Cuts images ``[batch, h, w, c]`` into ``[batch, patches, patch^2 * c]``."""
  batch, height, width, channels = x.shape
  if height % patch or width % patch:
    raise ValueError(
      f'patch={patch} does not divide the image {height}x{width}: choose '
      f'a divisor of both'
    )
  rows, columns = height // patch, width // patch
  grid = x.reshape(batch, rows, patch, columns, patch, channels)
  return grid.swapaxes(2, 3).reshape(batch, rows * columns, -1)


def pooled(h: types.Array, *, pool: str) -> types.Array:
  """Pools tokens ``[batch, S, width]`` to vectors ``[batch, d]``."""
  return h.mean(1) if pool == 'mean' else h.reshape(h.shape[0], -1)


class Block(nn.Module):
  """Attention and a perceptron, with pre-normalisation and residuals."""

  heads: int
  expansion: int
  experts: int = 0
  top_k: int = 2
  capacity: float | None = None
  hidden: int | None = None
  head_size: int | None = None

  @nn.compact
  def __call__(self, h: types.Array) -> types.Array:
    """Maps tokens ``[batch, S, width]`` to the same shape."""
    normal = _layers.LayerNorm(name='attention_norm')(h)
    attention = Attention(self.heads, self.head_size, name='attention')
    h = h + attention(normal)
    normal = _layers.LayerNorm(name='mlp_norm')(h)
    mlp = _experts.mlp(
      _feed_forward.Perceptron,
      self.hidden or self.expansion * h.shape[-1],
      experts=self.experts,
      top_k=self.top_k,
      capacity=self.capacity,
    )
    return h + mlp(normal)


class Attention(nn.Module):
  """Multi-head self-attention with four kernels, square by default."""

  heads: int
  head_size: int | None = None

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps tokens ``[batch, S, width]`` to the same shape."""
    width = x.shape[-1]
    if self.head_size is None and width % self.heads:
      raise ValueError(
        f'heads={self.heads} does not divide width={width}: choose a divisor'
      )
    inner = self.heads * (self.head_size or width // self.heads)
    query, key, value = (
      _layers.heads(_layers.Dense(inner, name=name)(x), self.heads)
      for name in ('query', 'key', 'value')
    )
    mixed = _layers.attend(query, key, value)
    return _layers.Dense(width, name='out')(mixed)
