"""The map between the features of two networks."""

import dataclasses

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch import _anchors, _relative, _resize


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Norm:
  r"""A batch normalisation of the last axis.

  .. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

  Attributes:
    scale: gamma, ``[d]``.
    offset: beta, ``[d]``.
    mean: mu, ``[d]``; ``None`` for the mean of each batch, over all axes but
      the last.
    variance: sigma^2, ``[d]``; ``None`` for the variance of each batch.
    epsilon: avoids a division by zero for constant features.
  """

  scale: types.Array
  offset: types.Array
  mean: types.Array | None = None
  variance: types.Array | None = None
  epsilon: float = dataclasses.field(metadata={'static': True}, default=1e-5)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
  r"""A map of the last axis; every part is optional.

  .. math:: y = \nu' \big( \nu(r(x)) \,
    (W + \tfrac{\alpha}{r} A B) + b \big)

  The leaves are parameters except those that ``trainable`` excludes: W if A
  and B are present, the moments of normalisations, anchors, and ``ridge``.

  Attributes:
    weight: W ``[d, m]``; ``None`` for the identity.
    bias: b ``[m]``.
    down: A ``[d, r]``; freezes W.
    up: B ``[r, m]``.
    before: nu, a normalisation of the input.
    after: nu', a normalisation of the output.
    anchors: k anchors; r(x) is then the cosine of x with each, ``[k]``, and d
      equals k.
    ridge: ``[]``, a report: the ridge with which W was solved, as a share of
      the mean variance, see ``stats.LeastSquares``. ``apply_adapter`` ignores
      it.
    alpha: scale of the low-rank update.
    grid: sizes of the axes between the first and the last; the input is
      resized to it. ``None`` keeps those of the input.
  """

  weight: types.Array | None = None
  bias: types.Array | None = None
  down: types.Array | None = None
  up: types.Array | None = None
  before: Norm | None = None
  after: Norm | None = None
  anchors: _anchors.Anchors | None = None
  ridge: types.Array | None = None
  alpha: float = dataclasses.field(metadata={'static': True}, default=1.0)
  grid: tuple[int, ...] | None = dataclasses.field(
    metadata={'static': True}, default=None
  )

  def __post_init__(self) -> None:
    given = {'weight': self.weight, 'bias': self.bias}
    tree.check_not_narrowed('Adapter', given)
    tree.check_real('Adapter', given, 'only maps of real features are defined')


def apply_adapter(adapter: Adapter, x: types.Array) -> types.Array:
  """Maps features of one network to those of another.

  Args:
    adapter: the map.
    x: ``[B, ..., d]``.

  Returns:
    ``[B, ..., m]`` in the dtype of x, computed in float32 or wider; the middle
    axes are ``adapter.grid``, if given.

  Example:
    >>> import jax.numpy as jnp
    >>> twice = Adapter(weight=2 * jnp.eye(3), bias=jnp.ones(3))
    >>> apply_adapter(twice, jnp.ones((1, 3))).tolist()
    [[3.0, 3.0, 3.0]]
  """
  dtype = x.dtype
  wide = tree.wide_dtype(*jax.tree.leaves((adapter, x)))
  h, adapter = jax.tree.map(lambda v: v.astype(wide), (x, adapter))
  if adapter.grid is not None:
    h = _resize.resize(h, adapter.grid)
  if adapter.anchors is not None:
    h = _relative.relative(h, jax.lax.stop_gradient(adapter.anchors))
  if adapter.before is not None:
    h = _normalize(adapter.before, h)
  if adapter.weight is not None:
    h = tree.matmul(h, effective_weight(adapter.weight, adapter))
  if adapter.bias is not None:
    h = h + jnp.expand_dims(adapter.bias, range(h.ndim - 1))
  if adapter.after is not None:
    h = _normalize(adapter.after, h)
  return h.astype(dtype)


def effective_weight(weight: types.Array, adapter: Adapter) -> types.Array:
  """Returns the weight with its low-rank update, ``[d, m]``.

  Args:
    weight: W of the adapter, which is not ``None``.
    adapter: the adapter; gives A, B and alpha.

  Returns:
    W, or W + (alpha / r) A B with the gradient of W stopped.
  """
  if adapter.down is None or adapter.up is None:
    return weight
  update = tree.matmul(adapter.down, adapter.up)
  rate = adapter.alpha / adapter.down.shape[1]
  return jax.lax.stop_gradient(weight) + rate * update


def trainable(adapter: Adapter) -> Adapter:
  """Returns the mask of trainable leaves, for example for ``optax.masked``.

  ``apply_adapter`` stops the gradients of the other leaves, but weight decay
  would still change them.

  Args:
    adapter: the adapter.

  Returns:
    A tree of booleans with the structure of the adapter.

  Example:
    >>> import jax.numpy as jnp
    >>> one = jnp.ones((1, 1))
    >>> trainable(Adapter(weight=one)).weight
    True
    >>> trainable(Adapter(weight=one, down=one, up=one)).weight
    False
  """
  free = jax.tree.map(lambda _: True, adapter)
  fixed = lambda norm: (
    norm
    and dataclasses.replace(
      norm,
      mean=None if norm.mean is None else False,
      variance=None if norm.variance is None else False,
    )
  )
  return dataclasses.replace(
    free,
    weight=None if adapter.weight is None else adapter.down is None,
    before=fixed(free.before),
    after=fixed(free.after),
    anchors=jax.tree.map(lambda _: False, adapter.anchors),
    ridge=None if adapter.ridge is None else False,
  )


def fold(adapter: Adapter) -> Adapter:
  r"""Folds the parts of a trained adapter into a weight and a bias.

  .. math:: W' = \mathrm{diag}(s) (W + \tfrac{\alpha}{r} A B) \,
    \mathrm{diag}(s'), \quad s = \gamma / \sqrt{\sigma^2 + \epsilon}

  Args:
    adapter: has a weight, and fixed moments in its normalisations
      (``set_norm_moments``).

  Returns:
    An equal map with fewer products, all leaves of which are trainable.

  Raises:
    ValueError: if it has no weight, or uses the moments of each batch.

  Example:
    >>> one = jnp.ones((1, 1))
    >>> low_rank = Adapter(one, down=one, up=one, alpha=2.0)
    >>> fold(low_rank).weight.tolist(), fold(low_rank).bias.tolist()
    ([[3.0]], [0.0])
  """
  if adapter.weight is None:
    raise ValueError('fold: an adapter without a weight has nothing to fold')
  weight = effective_weight(adapter.weight, adapter)
  bias = jnp.zeros(weight.shape[1:], weight.dtype)
  if adapter.bias is not None:
    bias = adapter.bias
  # (x * rate + shift) W + b = x (diag(rate) W) + (shift W + b), and
  # (x W + b) * rate + shift = x (W diag(rate)) + (b * rate + shift).
  if adapter.before is not None:
    rate, shift = _affine(adapter.before)
    bias = bias + tree.matmul(shift, weight)
    weight = rate[:, None] * weight
  if adapter.after is not None:
    rate, shift = _affine(adapter.after)
    weight, bias = weight * rate[None], bias * rate + shift
  return Adapter(
    weight,
    bias,
    anchors=adapter.anchors,
    ridge=adapter.ridge,
    grid=adapter.grid,
  )


def _normalize(norm: Norm, x: types.Array) -> types.Array:
  """Normalises the last axis; gradients of given moments are stopped."""
  axes = tuple(range(x.ndim - 1))
  mean, variance = jax.lax.stop_gradient((norm.mean, norm.variance))
  if mean is None or variance is None:
    mean, variance = jnp.mean(x, axes), jnp.var(x, axes)
  rate = norm.scale * jax.lax.rsqrt(variance + norm.epsilon)
  mean, rate, offset = (
    jnp.expand_dims(v, axes) for v in (mean, rate, norm.offset)
  )
  return (x - mean) * rate + offset


def _affine(norm: Norm) -> tuple[types.Array, types.Array]:
  """Writes a normalisation as x * rate + shift; returns rate and shift."""
  if norm.mean is None or norm.variance is None:
    raise ValueError(
      "fold: a normalisation by each batch's moments is not one affine map: "
      'fix them with set_norm_moments first'
    )
  rate = norm.scale * jax.lax.rsqrt(norm.variance + norm.epsilon)
  return rate, norm.offset - norm.mean * rate
