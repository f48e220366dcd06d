"""Adapters in closed form, from the moments of features."""

import dataclasses

import jax
import jax.numpy as jnp

from wsl import stats, tree, types
from wsl.stitch import _adapter
from wsl.stitch._fit import norm_moments

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
  ``affine``      x W + b by least squares, ``stats.least_squares``
  ``orthogonal``  :math:`W = U V^\top` for :math:`C_{xy} = U S V^\top`: the
                  rotation of the centred features with the least squared
                  error, the narrower side padded with zeros; b maps mean to
                  mean
  ``low_rank``    ``affine`` with a frozen weight, and a trainable update
                  :math:`\frac{\alpha}{r} A B` that starts at 0 (B = 0)
  ``norm_conv``   a batch normalisation, a linear map and a second
                  normalisation, whose composition is ``affine``; the
                  normalisations use the moments of the data,
                  ``set_norm_moments`` switches them to those of each batch
  ``identity``    no parameters: the features unchanged
  ==============  ==========================================================

  Args:
    moments: of the source, x, and the target, y.
    kind: one of the table.
    ridge: rho >= 0 of the least squares, in units of the mean variance of a
      feature; with ``None``, dependent features get the solution of least norm.
      The adapter reports it, as ``stats.least_squares`` does.
    rank: r >= 1, of ``low_rank``.
    alpha: the scale of the update, of ``low_rank``.
    scale: whether ``orthogonal`` multiplies W by the scalar of least squares.
    key: for the random A; required by ``low_rank`` only.

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

  Differs from their code: the systems are solved from streamed moments, by one
  Cholesky factorisation, and ``norm_conv`` starts from the least-squares
  solution instead of a random one.
  """
  return Fitter(kind, ridge, rank, alpha, key, scale)(moments)


@dataclasses.dataclass(frozen=True, eq=False)
class Fitter:
  """A kind of adapter with its hyperparameters, as a function of moments.

  The attributes are the arguments of ``fit_moments``, checked at construction:
  create it before any data are read.
  """

  kind: str
  ridge: float | None
  rank: int
  alpha: float
  key: types.PRNGKey | None
  scale: bool = False

  def __post_init__(self) -> None:
    """Checks the kind, and the hyperparameters that it requires."""
    if self.kind not in KINDS:
      hint = tree.nearest(self.kind, list(KINDS))
      raise ValueError(
        f"no kind '{self.kind}' of adapter{hint}: there are {', '.join(KINDS)}"
      )
    tree.check_scalars('fit', ridge=self.ridge, alpha=self.alpha)
    tree.check_whole('fit', rank=self.rank)
    if self.kind == 'low_rank' and (self.rank < 1 or self.key is None):
      raise ValueError(
        f'low_rank with rank={self.rank} and key={self.key}: expected '
        'rank >= 1 and a key, its A is random'
      )

  def __call__(self, moments: types.CrossMoments) -> _adapter.Adapter:
    """Solves for the adapter of these moments."""
    if self.kind == 'affine':
      adapter = affine(moments, ridge=self.ridge)
    elif self.kind == 'orthogonal':
      adapter = orthogonal(moments, scale=self.scale)
    elif self.kind == 'low_rank':
      assert self.key is not None
      adapter = low_rank(
        moments,
        ridge=self.ridge,
        rank=self.rank,
        alpha=self.alpha,
        key=self.key,
      )
    elif self.kind == 'norm_conv':
      adapter = norm_conv(moments, ridge=self.ridge)
    else:
      adapter = identity(moments)
    return dataclasses.replace(adapter, grid=moments.grid)

  def fold_in(self, *numbers: int) -> 'Fitter':
    """Returns the fitter with numbers folded into its key, for one of many."""
    key = self.key
    for number in numbers:
      key = None if key is None else jax.random.fold_in(key, number)
    return dataclasses.replace(self, key=key)


def affine(
  moments: types.CrossMoments, *, ridge: float | None
) -> _adapter.Adapter:
  """Solves least squares, min_{W, b} E |x W + b - y|^2.

  Both gradients vanish where C_xx W = C_xy and b = E y - (E x) W; the ridge
  adds rho tr(C_xx) / d to the diagonal of C_xx.
  """
  found = stats.least_squares(moments, ridge=ridge)
  return _adapter.Adapter(found.weight, found.bias, ridge=found.ridge)


def orthogonal(moments: types.CrossMoments, *, scale: bool) -> _adapter.Adapter:
  """Solves orthogonal Procrustes from the singular vectors of C_xy."""
  # For centred x, y and an orthogonal W, E |x W - y|^2 is a constant minus
  # 2 tr(W^T C_xy). With C_xy = U S V^T the trace is at most tr(S), reached by
  # W = U V^T (Schoenemann 1966, doi:10.1007/BF02289451). The thin SVD gives
  # the same W as features padded with zeros to one width.
  u, _, vt = jnp.linalg.svd(moments.xy, full_matrices=False)
  weight = tree.matmul(u, vt)
  if scale:
    # min_s E |s x W - y|^2: s = tr(W^T C_xy) / tr(W^T C_xx W).
    gain = jnp.sum(weight * moments.xy)
    power = jnp.sum(weight * tree.matmul(moments.xx, weight))
    weight = weight * jnp.where(power > 0, gain / power, 1)
  bias = moments.mean_y - tree.matmul(moments.mean_x, weight)
  return _adapter.Adapter(weight=weight, bias=bias)


def low_rank(
  moments: types.CrossMoments,
  *,
  ridge: float | None,
  rank: int,
  alpha: float,
  key: types.PRNGKey,
) -> _adapter.Adapter:
  """Adds a trainable low-rank update, 0 at first, to least squares (LoRA).

  Only the update has rank r: W is frozen at full rank, unlike in reduced-rank
  regression.
  """
  d, m = moments.xy.shape
  dtype = moments.xy.dtype
  # B = 0, and A uniform within 1 / sqrt(d), as in the code of LoRA (Hu et al.
  # 2021, arXiv:2106.09685): kaiming_uniform with a = sqrt(5).
  bound = d**-0.5
  down = jax.random.uniform(key, (d, rank), dtype, -bound, bound)
  return dataclasses.replace(
    affine(moments, ridge=ridge),
    down=down,
    up=jnp.zeros((rank, m), dtype),
    alpha=alpha,
  )


def norm_conv(
  moments: types.CrossMoments, *, ridge: float | None
) -> _adapter.Adapter:
  """Splits least squares into a normalisation, a linear map, a normalisation.

  The first normalisation gives (x - E x) / s_x, and the weight diag(s_x) W
  turns it into (x - E x) W. The second divides this by its deviation s_h and,
  with gamma = s_h and beta = E y, returns x W + b.
  """
  solution = affine(moments, ridge=ridge)
  assert solution.weight is not None
  d, m = solution.weight.shape
  dtype = solution.weight.dtype
  before = _adapter.Norm(jnp.ones(d, dtype), jnp.zeros(d, dtype))
  # The deviations include epsilon, as in the normalisations that they cancel.
  deviation = jnp.sqrt(jnp.diagonal(moments.xx) + before.epsilon)
  variance = norm_moments.variances(moments.xx, solution.weight)
  after = _adapter.Norm(jnp.sqrt(variance + before.epsilon), moments.mean_y)
  adapter = _adapter.Adapter(
    weight=deviation[:, None] * solution.weight,
    bias=jnp.zeros(m, dtype),
    before=before,
    after=after,
    ridge=solution.ridge,
  )
  return norm_moments.set_norm_moments(adapter, moments)


def identity(moments: types.CrossMoments) -> _adapter.Adapter:
  """Returns the adapter without parts, if the widths agree."""
  d, m = moments.xy.shape
  if d != m:
    raise ValueError(
      f'an identity from width {d} to width {m}: take another kind of adapter'
    )
  return _adapter.Adapter()
