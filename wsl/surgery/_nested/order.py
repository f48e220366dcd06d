"""The order of units by importance, so that every prefix keeps the best."""

from collections.abc import Mapping, Sequence
import dataclasses

import jax
import numpy as np

from wsl import align, types
from wsl.surgery._nested import size as size_lib


def importance_order(
  importance: Mapping[str, types.ArrayLike],
  *,
  symmetry: align.Symmetry,
  within: Sequence[size_lib.Size] = (),
) -> align.Permutation:
  r"""Returns the permutation that sorts the units of each group.

  .. math:: I_{\pi(1)} \geq I_{\pi(2)} \geq \dots \geq I_{\pi(n)}

  ``align.permute(params, order, symmetry=symmetry)`` computes the same function
  at full width, and its leading units are the most important ones. Equal units
  keep their order; units within a head are sorted in each head.

  Args:
    importance: a table ``[*outer sizes, size]`` for each group to sort, from
      ``weight_importance``, ``gradient_importance``, ``fisher_importance`` or
      ``activation_importance``; groups that are not named keep their order.
    symmetry: the symmetry of the model.
    within: sizes whose slices keep their units: only the units between two
      neighbouring sizes are sorted. With the sizes that were trained before,
      their units keep precedence (Once-for-All), and the functions of their
      slices do not change.

  Returns:
    A permutation.

  Raises:
    ValueError: if a group is unknown, or its table has another shape or is not
      finite.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align, surgery
    >>> h = align.Factor('w:0', 3)
    >>> symmetry = align.Symmetry((h,), (('w', ((('w:0',),),)),))
    >>> importance_order({'w:0': jnp.asarray([1.0, 3.0, 2.0])},
    ...                  symmetry=symmetry)['w:0'].tolist()
    [1, 2, 0]

  Reference:
    Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient
    Deployment", 2019, arXiv:1908.09791.
  """
  groups = {group.name: group for group in symmetry.groups}
  tables = {
    name: np.asarray(table, np.float64) for name, table in importance.items()
  }
  _check(tables, symmetry)
  for size in within:
    size_lib.check(None, size, symmetry, 'importance_order')
  order = align.identity(symmetry)
  for name in groups:  # outer groups first
    if name not in tables:
      continue
    # Tables are indexed by the new outer index: reorder them by the outer
    # groups that are sorted already.
    table = _reordered(tables[name], groups[name], order, symmetry)
    # A slice keeps its units if no unit crosses its end: sort by (band, -I).
    bands = np.zeros(table.shape[-1], int)
    for size in within:
      if name in size.widths:
        bands += np.arange(len(bands)) >= int(size.widths[name])
    bands = np.broadcast_to(bands, table.shape)
    found = np.lexsort((-table, bands), axis=-1)
    order[name] = jax.device_put(found.astype(np.int32))
  return order


def _reordered(
  table: np.ndarray,
  group: align.Factor,
  order: align.Permutation,
  symmetry: align.Symmetry,
) -> np.ndarray:
  """Permutes the outer indices of a table by an order of outer groups.

  A table is a leaf with one axis for each of its factors.
  """
  axes = tuple(((name,),) for name in (*group.outer, group.name))
  names = (*group.outer, group.name)
  factors = tuple(f for f in symmetry.factors if f.name in names)
  alone = dataclasses.replace(
    symmetry, factors=factors, axes=((group.name, axes),)
  )
  given = {
    g.name: order[g.name] for g in alone.groups if g.name != group.name
  } | {group.name: align.identity(alone)[group.name]}
  if len(given) == 1:
    return table
  moved = align.permute({group.name: table}, given, symmetry=alone)
  return np.asarray(moved[group.name])


def _check(tables: dict[str, np.ndarray], symmetry: align.Symmetry) -> None:
  """Checks the names, shapes and values of tables of importance."""
  size_lib.check_groups(tables, symmetry, 'importance_order: importance')
  for name, table in tables.items():
    shape = symmetry.table_shape(name)
    if table.shape != shape:
      raise ValueError(
        f"importance_order: the importance of group '{name}' has shape "
        f'{table.shape}, expected {shape}'
      )
    if not np.isfinite(table).all():
      raise ValueError(
        f"importance_order: the importance of group '{name}' is not finite"
      )
