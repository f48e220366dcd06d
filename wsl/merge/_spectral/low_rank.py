"""Stacks of task vectors whose matrices are stored as factors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.merge import _stack


def is_factors(x: Any) -> bool:
  """Returns True for a leaf in factors."""
  return isinstance(x, deltas_lib.Factors)


def factor(
  function: str,
  deltas: types.Deltas,
  share: float | None,
  rank: int | None,
  matrices: tree.Matrices | None,
  otherwise: str,
  *,
  aligned: bool = False,
) -> types.Deltas:
  """Replaces matrices by factors of their leading singular triplets.

  Args:
    function: the public function, as the user called it.
    deltas: stacked task vectors, every leaf ``[T, ...]``.
    share: the share of the triplets of each matrix that is kept, at least one;
      or None.
    rank: the number of triplets, if there is no share.
    matrices: see ``tree.views``.
    otherwise: see ``tree.views``.
    aligned: whether A and B have equal norms, and those of each model are
      rotated to those of the first. Otherwise B is orthonormal, and the product
      has a derivative wherever that of ``tree.leading`` exists.

  Returns:
    The stack; leaves that are matrices are ``Factors`` with a ``[T, r, in]``
    and b ``[T, out, r]``, in the dtype of the leaf.

  Raises:
    ValueError: as ``tree.views``, or if a matrix is complex.
  """
  views = _stack.views(function, deltas, matrices, otherwise)
  found: dict[str, Any] = {}
  alike: dict[Any, dict[str, Any]] = {}

  def sort(name: str, x: types.Array, view: tree.Matrix | None) -> None:
    if view is None or not view.is_matrix or not x.size:
      found[name] = x
      return
    tree.check_real(function, {name: x}, 'only real matrices are decomposed')
    # In a trace, leaves of one shape are decomposed by one program.
    place = '' if isinstance(x, jax.core.Tracer) else name
    alike.setdefault((tuple(x.shape), x.dtype, view, place), {})[name] = x

  tree.map_named(sort, deltas, views)
  for (shape, _, view, _), leaves in alike.items():
    sizes = view.sizes(shape[1:])
    k = min(rank or 1, *sizes[1:]) if share is None else rank_of(share, sizes)
    hyper = {
      'view': tree.Static(view),
      'k': tree.Static(k),
      'aligned': tree.Static(aligned),
    }
    pairs = _factors_of(list(leaves.values()), **hyper)
    for name, (a, b) in zip(leaves, pairs):
      ones: Any = np.ones(shape[0], tree.wide_dtype(leaves[name]))
      found[name] = deltas_lib.Factors(a, b, ones, shape[1:], view)
  return tree.map_named(lambda name, _: found[name], deltas)


def rank_of(share: float, shape: tuple[int, ...]) -> int:
  """Returns the share of the singular triplets of ``[..., m, n]``, >= 1."""
  # 1e-9: such as (1 / 3) * 9, which may round down.
  return max(int(share * min(shape[-2:]) + 1e-9), 1)


def _factors_of(leaves: list[Any], **hyper: Any) -> list[Any]:
  """Returns A and B of leaves of one shape."""
  if not tree.on_demand(leaves):
    pairs: list[Any] = tree.apply_kernel(_factors, leaves, **hyper)
    return pairs
  # A leaf on demand has one array, so that each factor is an expression.
  (x,) = leaves
  one = lambda side: tree.apply_kernel(_one, x, side=tree.Static(side), **hyper)
  return [(one(0), one(1))]


def _one(x: types.Array, *, side: int, **hyper: Any) -> types.Array:
  """Returns A or B of one leaf."""
  factor: types.Array = _factors([x], **hyper)[0][side]
  return factor


def _factors(
  leaves: list[types.Array], *, view: tree.Matrix, k: int, aligned: bool
) -> list[tuple[types.Array, types.Array]]:
  """Returns A ``[T, B, k, m]`` and B ``[T, B, n, k]`` of each ``[T, ...]``."""
  stacks = [view.split(tree.wide(x), models=1) for x in leaves]
  x = jnp.concatenate(stacks, 1)
  part = tree.leading(x, k)
  if aligned:
    left, right = _aligned(part, x.shape)
  else:
    left, right = tree.matmul(part.u, part.core), part.v
  single = not view.batch and view.groups == 1

  def cut(y: types.Array) -> list[types.Array]:
    parts = jnp.split(y.astype(leaves[0].dtype), len(leaves), 1)
    return [part[:, 0] if single else part for part in parts]

  return list(zip(cut(jnp.matrix_transpose(left)), cut(right)))


def _aligned(
  part: tree.Leading, shape: tuple[int, ...]
) -> tuple[types.Array, types.Array]:
  """Returns factors ``[T, B, m, k]``, ``[T, B, n, k]``, rotated to the first.

  A rotation R_t of both factors of a model leaves their product as it is. The
  minimum of |L_t R_t - L_0|^2 + |M_t R_t - M_0|^2 is at the polar factor of
  L_t^T L_0 + M_t^T M_0 (orthogonal Procrustes). Without it the signs of
  singular vectors, which are arbitrary, would differ between models.
  """
  u, s, vt = tree.triplets(part, shape)
  root = jnp.sqrt(s)[..., None, :]
  left, right = u * root, jnp.matrix_transpose(vt) * root
  t = jnp.matrix_transpose
  cross = tree.matmul(t(left), left[:1]) + tree.matmul(t(right), right[:1])
  # Of LAPACK or its like, whose factors are orthogonal at any rank.
  p, _, qt = jnp.linalg.svd(cross, full_matrices=False)
  turn = tree.matmul(p, qt)
  return tree.matmul(left, turn), tree.matmul(right, turn)
