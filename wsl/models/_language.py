"""A decoder-only language model."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.models import _experts, _feed_forward, _layers


class LanguageModel(nn.Module):
  r"""A causal transformer with RMSNorm, rotary positions and SwiGLU.

  .. math:: h \leftarrow h + \mathrm{attention}(\mathrm{norm}(h)), \quad
    h \leftarrow h + \mathrm{mlp}(\mathrm{norm}(h))

  Linear maps have 2-D kernels and no biases.

  Leaves: ``embedding/table`` ``[vocabulary, width]``,
  ``block_0/attention/query/kernel`` (``key``, ``value``, ``out``),
  ``block_0/mlp/gate/kernel`` (``up``, ``down``),
  ``block_0/attention_norm/scale``, ``block_0/mlp_norm/scale``, ...,
  ``norm/scale`` and, where untied, ``output/kernel``.

  Attributes:
    vocabulary: number of tokens.
    width: size of a token's vector.
    depth: number of blocks.
    heads: query heads; they divide ``width`` into parts of even size.
    groups: key and value heads, each shared by ``heads / groups`` query
      heads; ``None`` gives each query head its own.
    hidden: hidden size of the mlp.
    tied: whether the embedding table is also the output map.
    wavelength: base of the rotary frequencies.
    experts: number of experts of each mlp, see ``MoE``; 0 for one dense mlp.
      Leaves are then ``block_0/mlp/router/kernel`` and
      ``block_0/mlp/experts/gate/kernel`` ``[E, width, hidden]``, ...
    top_k: number of experts that a token is routed to.
    capacity: bound on the tokens of an expert, see ``MoE``.

  Example:
    >>> model = LanguageModel(vocabulary=256)
    >>> tokens = jnp.zeros((2, 16), jnp.int32)
    >>> logits, variables = jax.eval_shape(
    ...   model.init_with_output, jax.random.key(0), tokens)
    >>> logits.shape, sorted(variables['params'])
    ((2, 16, 256), ['block_0', 'block_1', 'embedding', 'norm'])

  Reference:
    Touvron et al., "LLaMA: Open and Efficient Foundation Language Models",
    2023, arXiv:2302.13971; grouped heads: Ainslie et al., "GQA: Training
    Generalized Multi-Query Transformer Models from Multi-Head Checkpoints",
    2023, arXiv:2305.13245.
  """

  vocabulary: int
  width: int = 64
  depth: int = 2
  heads: int = 4
  groups: int | None = None
  hidden: int = 176
  tied: bool = True
  wavelength: float = 10000.0
  experts: int = 0
  top_k: int = 2
  capacity: float | None = None

  @nn.compact
  def __call__(self, tokens: types.ArrayLike) -> types.Array:
    """Maps tokens ``[batch, S]`` to logits ``[batch, S, vocabulary]``."""
    if not jnp.issubdtype(jnp.result_type(tokens), jnp.integer):
      raise ValueError(
        f'tokens are {jnp.result_type(tokens)}: expected integers [batch, S]'
      )
    embedding = Embedding(self.vocabulary, self.width, name='embedding')
    h = embedding(jnp.asarray(tokens))
    for i in range(self.depth):
      h = Block(
        self.heads,
        self.heads if self.groups is None else self.groups,
        self.hidden,
        self.wavelength,
        self.experts,
        self.top_k,
        self.capacity,
        name=f'block_{i}',
      )(h)
    h = RMSNorm(name='norm')(h)
    if self.tied:
      return embedding.attend(h)
    return _layers.Dense(self.vocabulary, bias=False, name='output')(h)


class Embedding(nn.Module):
  """One vector for each token, and its use as the output map."""

  vocabulary: int
  width: int

  def setup(self) -> None:
    """Declares the table ``[vocabulary, width]``."""
    init = nn.initializers.normal(self.width**-0.5)
    shape = (self.vocabulary, self.width)
    self.table = _layers.parameter(self, 'table', init, shape)

  def __call__(self, tokens: types.Array) -> types.Array:
    """Maps ``[batch, S]`` to ``[batch, S, width]``."""
    (table,) = tree.widen(self.table)
    return table[tokens]

  def attend(self, h: types.Array) -> types.Array:
    """Maps ``[batch, S, width]`` to ``[batch, S, vocabulary]``."""
    h, table = tree.widen(h, self.table)
    return h @ table.T


class Block(nn.Module):
  """Attention and SwiGLU, each with pre-normalisation and a residual."""

  heads: int
  groups: int
  hidden: int
  wavelength: float
  experts: int = 0
  top_k: int = 2
  capacity: float | None = None

  @nn.compact
  def __call__(self, h: types.Array) -> types.Array:
    """Maps ``[batch, S, width]`` to the same shape."""
    normal = RMSNorm(name='attention_norm')(h)
    h = h + Attention(
      self.heads, self.groups, self.wavelength, name='attention'
    )(normal)
    normal = RMSNorm(name='mlp_norm')(h)
    mlp = _experts.mlp(
      _feed_forward.SwiGLU,
      self.hidden,
      experts=self.experts,
      top_k=self.top_k,
      capacity=self.capacity,
    )
    return h + mlp(normal)


class RMSNorm(nn.Module):
  r"""Scales by the root mean square.

  .. math:: y = x \odot s / \sqrt{\mathrm{mean}(x^2) + \epsilon}

  Reference:
    Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019,
    arXiv:1910.07467.
  """

  @nn.compact
  def __call__(self, x: types.ArrayLike) -> types.Array:
    """Maps ``[..., width]`` to the same shape."""
    init = nn.initializers.ones
    scale = _layers.parameter(self, 'scale', init, jnp.shape(x)[-1:])
    x, scale = tree.widen(x, scale)
    square = jnp.mean(jnp.square(x), -1, keepdims=True)
    normal = x * jax.lax.rsqrt(square + _layers.EPSILON)
    return normal * _layers.on_last(scale, x)


class Attention(nn.Module):
  """Causal self-attention with rotary positions and grouped heads."""

  heads: int
  groups: int
  wavelength: float = 10000.0

  @nn.compact
  def __call__(self, x: types.Array) -> types.Array:
    """Maps ``[batch, S, width]`` to the same shape."""
    width = x.shape[-1]
    if width % (2 * self.heads) or self.heads % self.groups:
      raise ValueError(
        f'width={width}, heads={self.heads}, groups={self.groups}: heads must '
        f'divide width into even parts and groups must divide heads'
      )
    size = width // self.heads
    counts = {'query': self.heads, 'key': self.groups, 'value': self.groups}
    query, key, value = (
      _layers.heads(_layers.Dense(n * size, bias=False, name=name)(x), n)
      for name, n in counts.items()
    )
    query = rotate(query, wavelength=self.wavelength)
    key = rotate(key, wavelength=self.wavelength)
    # Query heads g * shared .. (g + 1) * shared - 1 use key and value head g.
    shared = self.heads // self.groups
    key, value = (jnp.repeat(k, shared, axis=2) for k in (key, value))
    mixed = _layers.attend(query, key, value, causal=True)
    return _layers.Dense(width, bias=False, name='out')(mixed)


def rotate(
  x: types.Array, *, start: int = 0, wavelength: float = 10000.0
) -> types.Array:
  r"""Rotates each pair of features by an angle proportional to the position.

  Features i and i + d/2 are a pair (the layout of Hugging Face's LLaMA; the
  paper pairs 2i and 2i + 1), rotated by :math:`p \, w^{-2i/d}` at position p.

  Args:
    x: ``[batch, S, heads, d]`` with an even d.
    start: position of the first token.
    wavelength: the base w.

  Returns:
    The rotated features, same shape.

  Reference:
    Su et al., "RoFormer: Enhanced Transformer with Rotary Position
    Embedding", 2021, arXiv:2104.09864.
  """
  length, size = x.shape[1], x.shape[-1]
  pairs = jnp.arange(size // 2, dtype=x.dtype)
  position = jnp.arange(start, start + length, dtype=x.dtype)
  angle = position[:, None] * wavelength ** (-2.0 / size * pairs)[None]
  cos, sin = (f(angle)[None, :, None] for f in (jnp.cos, jnp.sin))
  # Rotations compose, R_p^T R_q = R_{q - p}: the score of a query at p and a
  # key at q depends on q - p alone.
  a, b = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
