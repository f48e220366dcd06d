"""KnOTS: merges in coordinates of directions that all tasks share."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.merge import _linear, _stack
from wsl.merge._spectral import factor_knots, low_rank


def knots(
  deltas: types.Deltas,
  *,
  method: Callable[[types.Deltas], types.Delta],
  rank: int | None = None,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Delta:
  r"""Merges matrices by their coordinates in joint singular directions.

  .. math:: \begin{bmatrix} \tau_1 \\ \vdots \\ \tau_T \end{bmatrix} =
    U \Sigma V^\top, \qquad z_t = \tau_t V, \qquad
    \tau = \operatorname{merge}(z_1, \dots, z_T) \, V^\top

  for matrices of rows of inputs and columns of outputs. Entries of one
  coordinate are of one direction of the outputs in all tasks, so that methods
  which compare entries, such as TIES, compare what is alike. A linear method
  gives what it gives without coordinates. Vectors are averaged.

  Args:
    deltas: stacked task vectors, every leaf ``[T, ...]``; those of LoRAs dense
      (``checkpoint.load_lora``) or in factors (``adapters.stack``), whose
      products are never computed.
    method: merges the coordinates of all matrices at once, leaves ``[T, B, m,
      k]`` to ``[B, m, k]``: ``lambda z: merge.ties(z, density=0.2)``.
    rank: the most directions k of a matrix; by default ``min(T m, n)``, and
      ``min(T r, n)`` for factors. Methods that keep a share of all entries
      count the coordinates: for dense LoRAs give T times their rank, as others
      are zero.
    matrices: which leaves are matrices, and which of their axes are rows
      (inputs) and columns: any of the forms of ``tree.views``. Weights stored
      as ``[out, in]`` need ``tree.torch``.
    otherwise: as in ``iso_c``.

  Returns:
    The merged task vector, every leaf ``[...]``, a leaf in factors as
    ``deltas.Factors``; the authors choose its scale on validation data.

  Raises:
    ValueError: if ``rank`` is less than 1, the method does not merge, or as
      ``tree.views``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import merge
    >>> tasks = [[[2.0, 2.0], [0.0, 0.0]], [[1.0, -1.0], [0.0, 0.0]]]
    >>> ties = lambda z: merge.ties(z, density=0.25)
    >>> merged = knots({'w': jnp.asarray(tasks)}, method=ties)['w']
    >>> (merged.round(4) + 0.0).tolist()
    [[3.0, 1.0], [0.0, 0.0]]

  Reference:
    Stoica et al., "Model merging with SVD to tie the Knots", 2024,
    arXiv:2410.19735.

  Differs from the official code in the layout, which is ``[out, in]`` there; in
  the tolerance of zero singular values, 1e-5 there and relative to the largest
  here; and in biases and norms, which that code appends to the matrices as
  columns or leaves to the base. It takes B A of LoRAs without their scale, and
  one scale for all tasks.
  """
  _stack.count('knots', deltas)
  whole = rank is None or isinstance(rank, (int, np.integer))
  if not whole or (rank is not None and rank < 1):
    raise ValueError(f'knots(rank={rank}): expected an integer >= 1, or None')
  found: dict[str, Any] = {}
  alike: dict[Any, dict[str, Any]] = {}

  def sort(name: str, x: types.Array, view: tree.Matrix | None) -> None:
    if view is None or not view.is_matrix or not x.size:
      found[name] = tree.apply_kernel(_linear.mean_leaf, x)
      return
    tree.check_real('knots', {name: x}, 'only real matrices are decomposed')
    # In a trace, leaves of one shape are decomposed by one program.
    place = '' if isinstance(x, jax.core.Tracer) else name
    alike.setdefault((x.shape, x.dtype, view, place), {})[name] = x

  named = tree.named(deltas, is_leaf=low_rank.is_factors)
  factors = {k: x for k, x in named.items() if low_rank.is_factors(x)}
  arrays = {k: x for k, x in named.items() if k not in factors}
  if arrays:
    views = _stack.views('knots', arrays, matrices, otherwise)
    tree.map_named(sort, arrays, views)
  parts: dict[str, _Part] = {}
  last = None
  for (_, _, view, _), leaves in alike.items():
    stacks = list(leaves.values())
    if last is not None and tree.is_traced([last, stacks]):
      stacks[0] = tree.apply_kernel(tree.after, stacks[0], last)
    bases = _bases_of(stacks, view=tree.Static(view), rank=tree.Static(rank))
    for name, x, basis in zip(leaves, stacks, bases):
      parts[name] = _Part(x, basis, view)
    last = bases[0]
  planes = {
    name: tree.apply_kernel(
      factor_knots.basis, x.a, x.b, x.scale, rank=tree.Static(rank)
    )
    for name, x in factors.items()
  }
  coordinates = {name: _coordinates_of(part) for name, part in parts.items()}
  for name, x in factors.items():
    coordinates[name] = tree.apply_kernel(
      factor_knots.coordinates, x.a, x.b, x.scale, planes[name]
    )
  for name, y in _merged(method, coordinates).items():
    if name in factors:
      found[name] = factor_knots.restored(y, planes[name], factors[name])
      continue
    view = tree.Static(parts[name].view)
    found[name] = tree.apply_kernel(
      _restored, y, parts[name].basis, parts[name].leaf, view=view
    )
  each = iter([found[name] for name in named])
  return jax.tree.map(lambda _: next(each), deltas, is_leaf=low_rank.is_factors)


class _Part(NamedTuple):
  """A leaf of matrices ``[T, ...]``, its basis ``[B, n, k]`` and its view."""

  leaf: types.Array
  basis: types.Array
  view: tree.Matrix


def _coordinates_of(part: _Part) -> Any:
  """Returns the coordinates of the tasks of one leaf."""
  return tree.apply_kernel(
    _coordinates, part.leaf, part.basis, view=tree.Static(part.view)
  )


def _merged(
  method: Callable[[types.Deltas], types.Delta], coordinates: dict[str, Any]
) -> dict[str, Any]:
  """Merges the coordinates of all matrices.

  Raises:
    ValueError: if the method does not merge.
  """
  if not coordinates:
    return {}
  merged = tree.named(method(coordinates))
  for name, z in coordinates.items():
    if name not in merged or merged[name].shape != z.shape[1:]:
      raise ValueError(
        f"knots: method returned no merge {z.shape[1:]} of leaf '{name}': give "
        'one such as merge.ties, or an edit and merge.sum'
      )
  return merged


def _bases_of(stacks: Sequence[Any], **hyper: Any) -> list[Any]:
  """Returns the bases of leaves of one shape, ``[B, n, k]`` each."""
  if len(stacks) == 1:
    return [tree.apply_kernel(_basis, stacks[0], **hyper)]
  found: list[Any] = tree.apply_kernel(_bases, list(stacks), **hyper)
  return found


def _basis(x: types.Array, **hyper: Any) -> types.Array:
  """Returns the basis of one leaf."""
  return _bases([x], **hyper)[0]


def _bases(
  leaves: list[types.Array], *, view: tree.Matrix, rank: int | None
) -> list[types.Array]:
  """Returns right singular vectors of the joined rows of all tasks."""
  stacks = [view.split(tree.wide(x), models=1) for x in leaves]
  x = jnp.moveaxis(jnp.concatenate(stacks, 1), 0, 1)
  rows = x.reshape(len(x), -1, x.shape[-1])
  _, s, vt = tree.svd(rows)
  # Directions of zero singular values are arbitrary, and have no coordinates.
  real = tree.significant(s, rows.shape, s[..., :1])
  v = jnp.matrix_transpose(vt * real[..., None])[..., :rank]
  return jnp.split(v, len(leaves))


def _coordinates(
  x: types.Array, basis: types.Array, *, view: tree.Matrix
) -> types.Array:
  """Returns the coordinates of each task, ``[T, B, m, k]``."""
  matrices = view.split(tree.wide(x), models=1)
  return tree.matmul(matrices, jnp.broadcast_to(basis, (len(x), *basis.shape)))


def _restored(
  merged: types.Array,
  basis: types.Array,
  x: types.Array,
  *,
  view: tree.Matrix,
) -> types.Array:
  """Returns the leaf of merged coordinates ``[B, m, k]``, in the dtype of x."""
  matrices = tree.matmul(merged, jnp.matrix_transpose(basis))
  return view.join(matrices, x.shape[1:]).astype(x.dtype)
