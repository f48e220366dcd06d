"""Orthogonal Adaptation: frozen bases of LoRAs that do not interfere."""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.adapters import _checks, _leaves

_KINDS = ('disjoint', 'subset', 'gaussian')


def orthogonal_bases(
  params: types.Params,
  *,
  rank: int,
  tasks: Sequence[int],
  key: types.PRNGKey,
  kind: str = 'disjoint',
  leaves: types.Leaves = '',
  matrices: tree.Matrices | None = None,
) -> types.Deltas:
  r"""Draws LoRAs whose frozen A are orthogonal between tasks, and B is zero.

  .. math:: \tau_t = B_t A_t, \qquad A_t A_u^\top = 0 \quad (t \ne u)

  Only B is trained. An input in the span of the rows of A_t then has a response
  of task t alone, so that the exact sum of all task vectors keeps every
  adapter: :math:`(\sum_u B_u A_u) A_t^\top = B_t` for orthonormal rows. The
  basis of a task depends on the key, the name of the leaf and the number of the
  task, so that each party draws its own, and shares no more than the key.

  Args:
    params: the model, in memory, on demand or ``jax.ShapeDtypeStruct``; only
      shapes are read.
    rank: r >= 1.
    tasks: the numbers of T different tasks, 0 or more: ``[3]`` or ``range(8)``.
    key: the random key that all parties share.
    kind: how A is drawn, for n inputs:

      - ``'disjoint'``: task t takes the columns t r .. (t + 1) r of a random
        orthogonal matrix; there are n / r tasks at most.
      - ``'subset'``: r random columns of that matrix, as in the paper: any
        number of tasks, of which two have r^2 / n columns in common on average.
      - ``'gaussian'``: entries of variance 1 / n; the mean square of
        :math:`|A_t A_u^\top|` is r^2 / n.

    leaves: the leaves that are adapted, by a regular expression or a predicate
      on (name, shape). All matrices by default.
    matrices: as in ``tree.views``; leaves that are no matrices are left out.

  Returns:
    A dict by leaf name of ``Factors`` with a ``[T, r, in]``, b ``[T, out, r]``
    of zeros and scale ``[T]`` of ones. ``jax.tree.map(lambda x: x[0], bases)``
    is the LoRA of the first task.

  Raises:
    ValueError: if the inputs of a leaf have no room for a task, a number is out
      of range, or no leaf is a matrix.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> params = {'w': jnp.zeros((6, 4))}
    >>> bases = orthogonal_bases(
    ...   params, rank=2, tasks=range(3), key=jax.random.key(0))
    >>> bases['w'].a.shape, bases['w'].b.shape
    ((3, 2, 6), (3, 4, 2))

  Reference:
    Po et al., "Orthogonal Adaptation for Modular Customization of Diffusion
    Models", 2023, arXiv:2312.02432.

  No official code was found: a reconstruction. The paper draws random subsets,
  whose tasks may share columns; ``'disjoint'`` assigns consecutive columns.
  """
  _check(rank, tasks, kind)
  numbers = [int(t) for t in tasks]
  views = _leaves.matrices('orthogonal_bases', params, leaves, matrices)
  found: dict[str, Any] = {}
  last_a = jnp.zeros(0)
  for name, (leaf, view) in views.items():
    groups, n, out = view.sizes(leaf.shape)
    last = max(numbers)
    if (kind == 'disjoint' and (last + 1) * rank > n) or rank > n:
      raise ValueError(
        f"orthogonal_bases: leaf '{name}' has {n} inputs, room for "
        f'{n // rank} tasks of rank {rank}, not for task {last}: lower rank=, '
        "or take kind='subset'"
      )
    dtype = jax.dtypes.canonicalize_dtype(tree.wide_dtype(leaf.dtype))
    own = jax.random.split(tree.name_key(key, name), groups)
    places = jnp.asarray(numbers, jnp.int32)
    a = _rows(own, places, last_a, last, rank, n, kind, dtype)
    last_a = a
    b = jnp.zeros((len(numbers), groups, out, rank), dtype)
    if not view.batch and view.groups == 1:
      a, b = a[:, 0], b[:, 0]
    scale = jnp.ones(len(numbers), dtype)
    found[name] = deltas_lib.Factors(a, b, scale, tuple(leaf.shape), view)
  return found


def _check(rank: int, tasks: Sequence[int], kind: str) -> None:
  """Checks the arguments of ``orthogonal_bases``."""
  _checks.whole('orthogonal_bases', rank=rank)
  right = [isinstance(t, (int, np.integer)) and t >= 0 for t in tasks]
  if not right or not all(right) or len(set(tasks)) < len(tasks):
    raise ValueError(
      f'orthogonal_bases(tasks={[*tasks][:8]}): expected different numbers, '
      'integers of 0 or more'
    )
  if kind not in _KINDS:
    hint = tree.nearest(str(kind), _KINDS)
    raise ValueError(
      f'orthogonal_bases(kind={kind!r}): expected one of {_KINDS}{hint}'
    )


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6, 7))
def _rows(
  keys: types.PRNGKey,
  tasks: types.Array,
  before: types.Array,
  last: int,
  rank: int,
  n: int,
  kind: str,
  dtype: Any,
) -> types.Array:
  """Returns the bases of tasks for each of G keys, ``[T, G, r, n]``.

  ``before`` is the result for another leaf; those of a trace follow each other.
  """
  of_key = lambda key: _rows_of(key, tasks, before, last, rank, n, kind, dtype)
  return jax.vmap(of_key, out_axes=1)(keys)


def _rows_of(
  key: types.PRNGKey,
  tasks: types.Array,
  before: types.Array,
  last: int,
  rank: int,
  n: int,
  kind: str,
  dtype: Any,
) -> types.Array:
  """Returns the bases of tasks, ``[T, r, n]``."""

  def of_block(number: types.Array) -> types.Array:
    own = jax.random.fold_in(key, number)
    return jax.random.normal(own, (rank, n), dtype)

  if kind == 'gaussian':
    return jax.vmap(of_block)(tasks) / np.sqrt(n).astype(dtype)
  # The first columns of Q depend on the first columns of the matrix alone: a
  # basis does not depend on tasks of higher numbers.
  blocks = last + 1 if kind == 'disjoint' else -(-n // rank)
  draws = jax.vmap(of_block)(jnp.arange(blocks, dtype=jnp.int32))
  columns = draws.reshape(-1, n)[:n].T
  q, r = jnp.linalg.qr(tree.after(columns, before))
  # Signs by which R has a positive diagonal make Q unique, and uniform.
  q = (q * jnp.sign(jnp.diagonal(r))[None]).T
  if kind == 'disjoint':
    return q.reshape(blocks, rank, n)[tasks]

  def subset(number: types.Array) -> types.Array:
    own = jax.random.fold_in(key, n + number)
    return q[jax.random.permutation(own, n)[:rank]]

  return jax.vmap(subset)(tasks)


def overlap(deltas: types.Deltas) -> dict[str, types.Array]:
  r"""Measures how much the inputs of LoRAs have in common.

  .. math:: o_{tu} = |Q_t^\top Q_u|_F^2 / \min(r_t, r_u)

  with orthonormal Q_t of the span of the rows of A_t: 0 if those of two LoRAs
  are orthogonal, 1 if one span contains the other, r / n on average for random
  ones.

  Args:
    deltas: ``adapters.stack`` of T LoRAs.

  Returns:
    ``[T, T]`` by the name of the leaf, the mean over its matrices. A LoRA whose
    A is zero has no overlap.

  Raises:
    ValueError: if no leaf is in factors, or one is no stack.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import adapters, tree
    >>> view = tree.Matrix(rows=(0,), columns=(1,))
    >>> one = lambda *a: {'w': adapters.Factors(
    ...   jnp.asarray([a]), jnp.ones((1, 1)), 1.0, (2, 1), view)}
    >>> pool = adapters.stack([one(1.0, 0.0), one(0.0, 2.0), one(3.0, 3.0)])
    >>> overlap(pool)['w'].round(4).tolist()
    [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.5, 0.5, 1.0]]

  Reference:
    Björck and Golub, "Numerical methods for computing angles between linear
    subspaces", 1973.
  """
  is_factors = deltas_lib.is_factors
  found: dict[str, types.Array] = {}
  before = jnp.zeros(0)
  for name, x in tree.named(deltas, is_leaf=is_factors).items():
    if is_factors(x):
      if not x.stacked:
        raise ValueError(
          f"overlap: leaf '{name}' is of one LoRA: give adapters.stack of them"
        )
      tree.check_real('overlap', {name: x.a}, 'only real spans are compared')
      found[name] = tree.read(tree.apply_kernel(_overlap, x.a, before))
      before = found[name]
  if not found:
    raise ValueError('overlap: no leaf is in factors: give adapters.stack')
  return found


def _overlap(a: types.Array, before: types.Array) -> types.Array:
  """Returns the overlap of the row spans of ``[T, ..., r, in]``."""
  a = tree.after(tree.wide(a), before)
  a = a if a.ndim == 4 else a[:, None]
  _, s, vt = jnp.linalg.svd(a, full_matrices=False)
  # Directions of zero singular values are arbitrary.
  real = tree.significant(s, a.shape, s[..., :1]).astype(a.dtype)
  bases = vt * real[..., None]
  inner = jnp.einsum('tgrn,ugsn->gturs', bases, bases, precision='highest')
  ranks = jnp.sum(real, -1)  # [T, G]
  least = jnp.minimum(ranks[:, None], ranks[None])
  common = jnp.sum(jnp.square(inner), (-2, -1))
  return jnp.mean(tree.safe_divide(common, jnp.moveaxis(least, -1, 0)), 0)
