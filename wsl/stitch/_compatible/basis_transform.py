"""Basis transformation: new features that contain old ones, by rotations."""

import dataclasses

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch._compatible import rotation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Basis:
  """Parameters of a basis transformation.

  Attributes:
    inner: ``[d, d]``, free parameters of the rotation P of new features. Given
      orthogonal matrices, P and Q themselves, are held with
      ``kind='polar'``.
    outer: ``[d_old, d_old]``, of the rotation Q of the compatible part.
    extra: number t of dimensions taken from the old features.
    scale: norm C of the new features; the old ones have norm 1.
    kind: parametrisation of the rotations, as for ``orthogonal``.
  """

  inner: types.Array
  outer: types.Array
  extra: int = dataclasses.field(metadata={'static': True}, default=32)
  scale: float = dataclasses.field(metadata={'static': True}, default=2.0)
  kind: str = dataclasses.field(metadata={'static': True}, default='cayley')

  def __post_init__(self) -> None:
    tree.check_not_narrowed('Basis', (self.inner, self.outer))


def random_basis(
  key: types.PRNGKey,
  *,
  new: int,
  old: int,
  extra: int = 32,
  scale: float = 2.0,
  kind: str = 'cayley',
) -> Basis:
  """Draws a basis transformation.

  Args:
    key: source of the free parameters, normal with standard deviation
      ``1 / sqrt(width)``: rotations far from the identity.
    new: width d of the new features.
    old: width d_old of the old features, at most ``extra + new``.
    extra: number t of dimensions taken from the old features, 1 .. d_old.
    scale: norm C of the new features; the old ones have norm 1.
    kind: ``'cayley'``, ``'exponential'`` or ``'polar'``, as for ``orthogonal``.

  Returns:
    The parameters, float32.

  Raises:
    ValueError: if a size is out of range.
  """
  tree.check_scalars('random_basis', scale=scale)
  tree.check_whole('random_basis', new=new, old=old, extra=extra)
  rotation.check_kind('random_basis', kind)
  if not 1 <= extra <= old:
    raise ValueError(
      f'random_basis: extra={extra}: expected 1 .. {old}, the width of '
      'old features'
    )
  if old > extra + new:
    raise ValueError(
      f'random_basis: old={old} does not fit into extra + new = '
      f'{extra} + {new}: take extra >= {old - new}'
    )
  inner, outer = (
    jax.random.normal(k, (width, width), jnp.float32) / width**0.5
    for k, width in zip(jax.random.split(key), (new, old))
  )
  return Basis(inner, outer, extra, scale, kind)


def basis_transform(
  basis: Basis, new: types.ArrayLike, old: types.ArrayLike
) -> types.Array:
  r"""Recodes new features so that the leading entries replace old features.

  .. math:: v = [\bar o_{1 \dots t}, \; P (C \bar n)], \quad
    \beta = [Q v_{1 \dots d_\text{old}}, \; v_{d_\text{old}+1 \dots t+d}]

  P and Q are orthogonal and bars mean norm 1. The map from v to beta is an
  isometry, so that no information about n is lost. Compare the first ``d_old``
  entries with a gallery of old features, all entries with a gallery of new
  ones.

  Args:
    basis: the rotations and sizes.
    new: new features n, ``[..., d]``.
    old: the new network's prediction o of the old features, ``[..., d_old]``;
      only the first t entries are used.

  Returns:
    ``[..., t + d]``, of norm ``sqrt(1 + C^2)``.

  Raises:
    ValueError: if a width differs from the basis's.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> found = random_basis(jax.random.key(0), new=4, old=3, extra=2)
    >>> recoded = basis_transform(found, jnp.ones((5, 4)), jnp.ones((5, 3)))
    >>> recoded.shape, round(float(jnp.linalg.norm(recoded[0])) ** 2, 4)
    ((5, 6), 5.0)

  Reference:
    Zhou et al., "BT^2: Backward-compatible Training with Basis
    Transformation", 2022, arXiv:2211.03989.

  As in the official code, the first t entries of o are normalised, not o.
  """
  n, o = jnp.asarray(new), jnp.asarray(old)
  for name, x, matrix in (('new', n, basis.inner), ('old', o, basis.outer)):
    if x.shape[-1:] != matrix.shape[:1] or x.shape[:-1] != n.shape[:-1]:
      raise ValueError(
        f'basis_transform: {name} features are {list(x.shape)}, the basis '
        f'takes [..., {len(matrix)}], one row for each row of the new ones'
      )
  n, o, *free = tree.widen(n, o, basis.inner, basis.outer)
  inner, outer = (rotation.orthogonal(x, kind=basis.kind) for x in free)
  head = tree.unit(o[..., : basis.extra])
  tail = tree.unit(n) * basis.scale
  # Both parts of v have fixed norms, 1 and C, and beta = blockdiag(Q, I) v: the
  # norm is sqrt(1 + C^2), and products of two v are products of their betas.
  v = jnp.concatenate([head, tree.matmul(tail, inner.T)], -1)
  width = len(outer)
  compatible = tree.matmul(v[..., :width], outer.T)
  return jnp.concatenate([compatible, v[..., width:]], -1)
