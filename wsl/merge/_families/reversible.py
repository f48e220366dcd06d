"""Reversible merging (RMM): few basis vectors from which each task returns."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types
from wsl.merge import _checks, _stack
from wsl.merge._spectral import low_rank


class Basis(NamedTuple):
  """T vectors of r entries for each of n units, by a mean and p directions.

  Attributes:
    mean: ``[G, n, r]``.
    vectors: orthonormal directions, ``[G, n, p, r]``.
    coefs: the coordinates of each task, ``[T, G, n, p]``.
  """

  mean: types.Array
  vectors: types.Array
  coefs: types.Array


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('a', 'b'),
  meta_fields=('shape', 'view'),
)
@dataclasses.dataclass(frozen=True)
class Reversible:
  """One leaf of T low-rank task vectors, in a basis that they share.

  Attributes:
    a: of the columns of A, one for each input.
    b: of the rows of B, one for each output; they contain the scale.
    shape: the shape of the leaf.
    view: the leaf as matrices, as in ``deltas.Factors``.
  """

  a: Basis
  b: Basis
  shape: tuple[int, ...]
  view: tree.Matrix


def rmm(
  deltas: types.Deltas,
  *,
  basis: int,
  rank: int | None = None,
  matrices: tree.Matrices | None = None,
  otherwise: str = 'refuse',
) -> types.Tree:
  r"""Stores T low-rank task vectors in a basis from which each is restored.

  With :math:`\tau_t = B_t A_t`, for each input i separately, and for the rows
  of B in the same way:

  .. math:: X = [a_{1,i} \dots a_{T,i}] \in R^{r \times T}, \qquad
    X - \mu 1^\top = U \Sigma V^\top, \qquad
    \hat a_{t,i} = \mu + U_p c_t, \quad c = \Sigma_p V_p^\top

  which minimises :math:`\sum_t |a_{t,i} - \hat a_{t,i}|^2`. Its size relative
  to that of T factors is :math:`(p (r + T) + r) / (r T)`, and it is exact for
  :math:`p \ge \min(r, T - 1)`.

  Args:
    deltas: T task vectors: ``adapters.stack`` of LoRAs, or stacked arrays,
      every leaf ``[T, ...]``.
    basis: p >= 0, the number of directions for each input and output; 0 keeps
      the mean of the factors.
    rank: r >= 1 of arrays that are matrices, which are decomposed into factors
      of equal norms, rotated to those of the first model. None if all matrices
      are in factors.
    matrices: which arrays are matrices, as in ``tsv``.
    otherwise: as in ``iso_c``; ``'mean'`` keeps such leaves.

  Returns:
    A family: a tree with ``Reversible`` leaves; other leaves are ``[T, ...]``.
    ``materialize(family, task)`` gives the task vector of one task.

  Raises:
    ValueError: if ``basis`` or ``rank`` is out of range, an array is a matrix
      and there is no rank, or as ``tree.views``, naming the leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import merge
    >>> tasks = [[[2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]]
    >>> family = rmm({'w': jnp.asarray(tasks)}, basis=1, rank=1)
    >>> (merge.materialize(family, 1)['w'].round(4) + 0.0).tolist()
    [[0.0, 0.0], [0.0, 3.0]]

  Reference:
    Alipour and Amiri, "Towards Reversible Model Merging For Low-rank Weights",
    2025, arXiv:2510.14163.

  No official code was found. How a matrix is split into factors is a choice
  made here. Factors are determined up to :math:`B R, R^{-1} A`, and the error
  depends on R: those of LoRAs are taken as they are, those of matrices are
  rotated, since the signs of singular vectors are arbitrary.
  """
  _checks.integer('rmm', 'basis', basis, least=0)
  if rank is not None:
    _checks.integer('rmm', 'rank', rank, least=1)
  _stack.count('rmm', deltas)
  arrays = jax.tree.map(
    lambda x: None if low_rank.is_factors(x) else x,
    deltas,
    is_leaf=low_rank.is_factors,
  )
  if rank is None:
    _check_no_matrix(arrays, matrices, otherwise)
  elif jax.tree.leaves(arrays):
    arrays = low_rank.factor(
      'rmm', arrays, None, rank, matrices, otherwise, aligned=True
    )

  is_leaf = low_rank.is_factors
  mixed = jax.tree.map(
    lambda x, y: x if y is None else y, deltas, arrays, is_leaf=is_leaf
  )
  found = tree.named(mixed, is_leaf=is_leaf)
  alike: dict[Any, dict[str, Any]] = {}
  for name, x in found.items():
    if is_leaf(x):
      # In a trace, leaves of one shape are decomposed by one program.
      place = '' if isinstance(x.a, jax.core.Tracer) else name
      kind = (x.a.shape, x.a.dtype, x.b.shape, x.b.dtype, place)
      alike.setdefault(kind, {})[name] = x
  last: Any = None
  for leaves in alike.values():
    done = _reversible(leaves, basis, last)
    last = next(iter(done.values())).b.vectors
    found |= done
  each = iter([found[name] for name in found])
  return jax.tree.map(lambda _: next(each), deltas, is_leaf=is_leaf)


def _check_no_matrix(
  arrays: types.Tree, matrices: tree.Matrices | None, otherwise: str
) -> None:
  """Checks that no array is a matrix, which would need a rank."""
  if not jax.tree.leaves(arrays):
    return
  views = _stack.views('rmm', arrays, matrices, otherwise)
  is_view = lambda x: x is None or isinstance(x, tree.Matrix)
  for name, view in tree.named(views, is_leaf=is_view).items():
    if view is not None and view.is_matrix:
      raise ValueError(
        f"rmm: leaf '{name}' is a matrix: give rank=, or factors of LoRAs by "
        'adapters.stack'
      )


def _reversible(
  leaves: dict[str, Any], basis: int, last: Any
) -> dict[str, Reversible]:
  """Returns leaves of stacked factors of one shape in shared bases.

  Decompositions of one trace follow each other: the first one follows ``last``.
  """
  some = list(leaves.values())
  rows, columns = [x.a for x in some], [x.b for x in some]
  traced = isinstance(rows[0], jax.core.Tracer)
  if traced and last is not None:
    rows[0] = tree.after(rows[0], last)
  a = _bases_of(rows, [], basis=basis, swap=True)
  if traced:
    columns[0] = tree.after(columns[0], a[0].vectors)
  scales = [x.scale for x in some]
  b = _bases_of(columns, scales, basis=basis, swap=False)
  return {
    name: Reversible(p, q, tuple(x.shape), x.view)
    for (name, x), p, q in zip(leaves.items(), a, b)
  }


def _bases_of(
  ys: list[Any], scales: list[Any], *, basis: int, swap: bool
) -> list[Basis]:
  """Returns the bases of leaves: at once, or each field on demand."""
  hyper = {'basis': tree.Static(basis), 'swap': tree.Static(swap)}
  if not tree.on_demand([ys, scales]):
    found: list[Basis] = tree.apply_kernel(_bases, ys, scales, **hyper)
    return found
  fields = [
    tree.apply_kernel(_field, *ys, *scales, index=tree.Static(i), **hyper)
    for i in range(len(Basis._fields))
  ]
  return [Basis(*fields)]


def _field(
  y: types.Array, *scales: types.Array, index: int, **hyper: Any
) -> types.Array:
  """Returns one field of the basis of one leaf."""
  field: types.Array = _bases([y], list(scales), **hyper)[0][index]
  return field


def _bases(
  ys: list[types.Array],
  scales: list[types.Array],
  *,
  basis: int,
  swap: bool,
) -> list[Basis]:
  """Finds the p directions that represent the vectors of T tasks best.

  By Eckart and Young the error of rank p is least for the leading singular
  vectors; the mean is free, and least squares puts the plane through it.
  """
  stacks = [tree.wide(y) for y in ys]
  if scales:
    stacks = [
      x * _stack.expand_rank(scale.astype(x.dtype), x)
      for x, scale in zip(stacks, scales)
    ]
  stacks = [x[:, None] if x.ndim == 3 else x for x in stacks]
  x = jnp.concatenate(stacks, 1)
  x = jnp.matrix_transpose(x) if swap else x  # [T, G, n, r]
  mean = jnp.mean(x, 0)
  centred = jnp.moveaxis(x - mean[None], 0, -2)  # [G, n, T, r]
  u, s, vt = tree.svd(centred)
  p = min(basis, s.shape[-1])
  s = s * tree.significant(s, centred.shape, s[..., :1])
  coefs = jnp.moveaxis((u * s[..., None, :])[..., :p], -2, 0)
  cut = lambda v, axis: jnp.split(v.astype(ys[0].dtype), len(ys), axis)
  fields = zip(cut(mean, 0), cut(vt[..., :p, :], 0), cut(coefs, 1))
  return [Basis(*of_leaf) for of_leaf in fields]


def restore(part: Basis, coefs: types.Array) -> types.Array:
  """Returns the vectors ``[T, G, n, r]`` of coordinates ``[T, G, n, p]``."""
  mean, vectors, coefs = (tree.wide(x) for x in (*part[:2], coefs))
  spread = jnp.einsum('tgnp,gnpr->tgnr', coefs, vectors, precision='highest')
  return mean[None] + spread
