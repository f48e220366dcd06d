"""Basis transformation: new features that contain old ones, by rotations."""

import dataclasses

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.stitch._compatible import orthogonal


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Basis:
  """Two learnable rotations and the sizes of a basis transformation.

  Attributes:
    inner: ``[d, d]``, free parameters of the rotation P of new features.
    outer: ``[d_old, d_old]``, of the rotation Q of the compatible part.
    extra: how many dimensions t the old features add.
    scale: norm of the new features beside the old ones, which have norm 1.
    kind: how the rotations are made, as for ``orthogonal``.
  """

  inner: types.Array
  outer: types.Array
  extra: int = dataclasses.field(metadata={'static': True}, default=32)
  scale: float = dataclasses.field(metadata={'static': True}, default=2.0)
  kind: str = dataclasses.field(metadata={'static': True}, default='cayley')


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
    old: width d_old of the old features.
    extra: dimensions t that are added, ``1 <= t <= old``; the old width fits
      into ``t + new``.
    scale: norm of the new features beside the old ones.
    kind: ``'cayley'`` or ``'exponential'``.

  Returns:
    The basis, float32.

  Raises:
    ValueError: naming the size that does not fit.
  """
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
  r"""Recodes new features so that their first part stands for old features.

  .. math:: v = [\bar o_{1 \dots t}, \; P (C \bar n)], \quad
    \beta = [Q v_{1 \dots d_\text{old}}, \; v_{d_\text{old}+1 \dots t+d}]

  P and Q are rotations, bars mean norm 1. No step loses anything of the new
  features: angles and distances among v and among its recoding are the same.
  The first ``d_old`` entries are compared to a gallery of old features, all of
  them to a gallery of new ones.

  Args:
    basis: the rotations and sizes.
    new: new features n, ``[..., d]``.
    old: old features o as the new network predicts them, ``[..., d_old]``;
      only the first t count.

  Returns:
    ``[..., t + d]``, of norm ``sqrt(1 + C^2)``.

  Raises:
    ValueError: if a width is not the basis's.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> found = random_basis(jax.random.key(0), new=4, old=3, extra=2)
    >>> recoded = basis_transform(found, jnp.ones((5, 4)), jnp.ones((5, 3)))
    >>> recoded.shape, round(float(jnp.linalg.norm(recoded[0])) ** 2, 4)
    ((5, 6), 5.0)

  Reference:
    Zhou et al., "BT^2: Backward-compatible Training with Basis
    Transformation", 2022, arXiv:2211.03989. As in the official code, the t
    entries of o are cut off first and normalised then.
  """
  n, o = jnp.asarray(new), jnp.asarray(old)
  for name, x, matrix in (('new', n, basis.inner), ('old', o, basis.outer)):
    if x.shape[-1:] != matrix.shape[:1] or x.shape[:-1] != n.shape[:-1]:
      raise ValueError(
        f'basis_transform: {name} features are {list(x.shape)}, the basis '
        f'takes [..., {len(matrix)}], one row for each row of the new ones'
      )
  n, o, *free = tree.widen(n, o, basis.inner, basis.outer)
  inner, outer = (orthogonal.orthogonal(x, kind=basis.kind) for x in free)
  few = tree.unit(o[..., : basis.extra])
  many = tree.unit(n) * basis.scale
  v = jnp.concatenate([few, _rotate(inner, many)], -1)
  width = len(outer)
  return jnp.concatenate([_rotate(outer, v[..., :width]), v[..., width:]], -1)


def _rotate(matrix: types.Array, x: types.Array) -> types.Array:
  return jnp.matmul(x, matrix.T, precision='highest')
