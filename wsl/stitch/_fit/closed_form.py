"""Adapters in closed form, from the moments of features."""

import dataclasses

import jax
import jax.numpy as jnp

from wsl import stats, tree, types
from wsl.stitch import _adapter

KINDS = ('affine', 'orthogonal', 'low_rank', 'norm_conv', 'identity')


def fit_moments(
  moments: types.CrossMoments,
  *,
  kind: str = 'affine',
  ridge: float | None = None,
  rank: int = 64,
  alpha: float = 1.0,
  scale: bool = False,
  key: types.PRNGKey | None = None,
) -> _adapter.Adapter:
  r"""Fits an adapter to the moments of two sets of features.

  ==============  ==========================================================
  ``kind``        the adapter
  ==============  ==========================================================
  ``affine``      x W + b of least squares, ``stats.least_squares``
  ``orthogonal``  :math:`W = U V^\top` for :math:`C_{xy} = U S V^\top`: the
                  rotation of the centred features that comes closest to the
                  target's, the narrower ones padded with zeros; b takes mean
                  to mean
  ``low_rank``    ``affine``, then frozen, with a trainable update
                  :math:`\frac{\alpha}{r} A B` that is 0 at first (B = 0)
  ``norm_conv``   a batch normalisation, a linear map and another
                  normalisation, which together are ``affine``; their moments
                  are those of the data, ``settle`` makes them the batch's own
  ``identity``    the features as they are
  ==============  ==========================================================

  Args:
    moments: of the source, x, and the target, y.
    kind: which.
    ridge: of the least squares, ``None`` to have one chosen where needed; the
      adapter reports it.
    rank: r of ``low_rank``.
    alpha: of ``low_rank``.
    scale: whether ``orthogonal`` also has a common factor, that of least
      squares.
    key: for A, which is random; only for ``low_rank``.

  Returns:
    The adapter.

  Raises:
    ValueError: if the kind is unknown, ``low_rank`` has no key, ``identity``
      has different widths, or as ``stats.least_squares``.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stats
    >>> x = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> turned = lambda x: [x @ jnp.asarray([[0.0, 1.0], [-1.0, 0.0]])]
    >>> both = stats.cross_moments(lambda x: [x], turned, [x])
    >>> found = fit_moments(both[0, 0], kind='orthogonal')
    >>> found.weight.round().astype(int).tolist()
    [[0, 1], [-1, 0]]

  Reference:
    Pan et al., "Stitchable Neural Networks", 2023, arXiv:2302.06586
    (``affine``) and "Stitched ViTs are Flexible Vision Backbones", 2023,
    arXiv:2307.00154 (``low_rank``); Bansal et al., "Revisiting Model Stitching
    to Compare Neural Representations", 2021, arXiv:2106.07682 (``norm_conv``);
    Maiorca et al., "Latent Space Translation via Semantic Alignment", 2023,
    arXiv:2311.00664 (``orthogonal``).

  Differs from their code in solving from streamed moments, in one Cholesky
  factorisation, and in giving ``norm_conv`` the solution of least squares as
  its initial value.
  """
  if kind not in KINDS:
    hint = tree.nearest(kind, list(KINDS))
    raise ValueError(
      f"no kind '{kind}' of adapter{hint}: there are {', '.join(KINDS)}"
    )
  if kind == 'affine':
    adapter = _affine(moments, ridge)
  elif kind == 'orthogonal':
    adapter = _orthogonal(moments, scale=scale)
  elif kind == 'low_rank':
    adapter = _low_rank(moments, ridge, rank, alpha, key)
  elif kind == 'norm_conv':
    adapter = _norm_conv(moments, ridge)
  else:
    adapter = _identity(moments)
  return dataclasses.replace(adapter, grid=moments.grid)


def _affine(
  moments: types.CrossMoments, ridge: float | None
) -> _adapter.Adapter:
  found = stats.least_squares(moments, ridge=ridge)
  return _adapter.Adapter(found.weight, found.bias, ridge=found.ridge)


def _orthogonal(
  moments: types.CrossMoments, *, scale: bool
) -> _adapter.Adapter:
  u, _, vt = jnp.linalg.svd(moments.xy, full_matrices=False)
  weight = _product(u, vt)
  if scale:
    gain = jnp.sum(weight * moments.xy)
    power = jnp.sum(weight * _product(moments.xx, weight))
    weight = weight * jnp.where(power > 0, gain / power, 1)
  bias = moments.mean_y - _product(moments.mean_x, weight)
  return _adapter.Adapter(weight=weight, bias=bias)


def _low_rank(
  moments: types.CrossMoments,
  ridge: float | None,
  rank: int,
  alpha: float,
  key: types.PRNGKey | None,
) -> _adapter.Adapter:
  if rank < 1 or key is None:
    raise ValueError(
      f'low_rank with rank={rank} and key={key}: expected rank >= 1 and a key, '
      'its A is random'
    )
  d, m = moments.xy.shape
  dtype = moments.xy.dtype
  bound = d**-0.5
  down = jax.random.uniform(key, (d, rank), dtype, -bound, bound)
  return dataclasses.replace(
    _affine(moments, ridge),
    down=down,
    up=jnp.zeros((rank, m), dtype),
    alpha=alpha,
  )


def _norm_conv(
  moments: types.CrossMoments, ridge: float | None
) -> _adapter.Adapter:
  affine = _affine(moments, ridge)
  assert affine.weight is not None
  d, m = affine.weight.shape
  dtype = affine.weight.dtype
  flat = lambda size: _adapter.Norm(
    jnp.ones(size, dtype), jnp.zeros(size, dtype)
  )
  epsilon = flat(0).epsilon
  deviation = jnp.sqrt(jnp.diagonal(moments.xx) + epsilon)
  weight = deviation[:, None] * affine.weight
  variance = _variance(moments.xx, affine.weight)
  after = dataclasses.replace(
    flat(m), scale=jnp.sqrt(variance + epsilon), offset=moments.mean_y
  )
  adapter = _adapter.Adapter(
    weight=weight,
    bias=jnp.zeros(m, dtype),
    before=flat(d),
    after=after,
    ridge=affine.ridge,
  )
  return settle(adapter, moments)


def _identity(moments: types.CrossMoments) -> _adapter.Adapter:
  d, m = moments.xy.shape
  if d != m:
    raise ValueError(
      f'an identity from width {d} to width {m}: take another kind of adapter'
    )
  return _adapter.Adapter()


def settle(
  adapter: _adapter.Adapter, moments: types.CrossMoments | None
) -> _adapter.Adapter:
  """Sets the moments of an adapter's normalisations.

  While it is trained, a normalisation takes the moments of the batch at hand;
  afterwards, for a network whose outputs do not depend on the batch, those of
  the data. The moments of the second normalisation follow from those of the
  first one's input, so no further pass is needed.

  Args:
    adapter: of kind ``norm_conv``; others come back as they are.
    moments: of its input, x; ``None`` for those of each batch.

  Returns:
    The adapter.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl.stitch import Adapter, Norm
    >>> adapter = Adapter(before=Norm(jnp.ones(1), jnp.zeros(1)))
    >>> both = types.CrossMoments(
    ...   5, jnp.ones(1), jnp.ones(1), jnp.full((1, 1), 4.0), jnp.ones((1, 1)))
    >>> settle(adapter, both).before.variance.tolist()
    [4.0]
  """
  before, after = adapter.before, adapter.after
  if moments is None:
    drop = lambda norm: (
      norm and dataclasses.replace(norm, mean=None, variance=None)
    )
    return dataclasses.replace(adapter, before=drop(before), after=drop(after))
  mean, covariance = moments.mean_x, moments.xx
  if before is not None:
    variance = jnp.diagonal(covariance)
    before = dataclasses.replace(before, mean=mean, variance=variance)
    rate = before.scale * jax.lax.rsqrt(variance + before.epsilon)
    mean, covariance = before.offset, rate[:, None] * covariance * rate[None]
  if after is not None:
    variance = jnp.diagonal(covariance)
    if adapter.weight is not None:
      weight = _adapter.effective_weight(adapter.weight, adapter)
      mean, variance = _product(mean, weight), _variance(covariance, weight)
    if adapter.bias is not None:
      mean = mean + adapter.bias
    after = dataclasses.replace(after, mean=mean, variance=variance)
  return dataclasses.replace(adapter, before=before, after=after)


def _variance(covariance: types.Array, weight: types.Array) -> types.Array:
  """Returns the variances of x W, ``[m]``, from the covariance of x."""
  found = jnp.sum(weight * _product(covariance, weight), 0)
  return jnp.maximum(found, 0)


def _product(x: types.Array, y: types.Array) -> types.Array:
  return jnp.matmul(x, y, precision='highest')
