r"""The k-th largest magnitude of a model, found by counting.

The bits of a non-negative float, read as an integer, are monotone in its value
(see ``passes``). Write n(b) for the number of entries whose bits are at least
b: a decreasing step function of integers. The bits of the k-th largest
magnitude are the largest b with n(b) >= k.

A bracket lo < hi with n(lo) >= k > n(hi) contains that b. Each pass counts n at
four probes inside the bracket and keeps the closest probes on both sides, so
the bracket shrinks until hi = lo + 1, and lo is the answer. The counts are
exact integers: the sample and the interpolation that place the probes affect
the number of passes, never the result.

A sorted sample places the first probes; if it holds all entries, its k-th is
the answer. When few entries are left inside the bracket, one pass collects them
instead. Only the sample and those few entries are sorted, nothing is
concatenated, and counts add over leaves, shards and streams.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.tree import _names, _nodes, _numerics
from wsl.tree._ranks import bits, on_device, search


def kth_magnitude(tree: types.Tree, k: Any) -> Any:
  r"""Returns the k-th largest magnitude of each of T stacked models.

  .. math:: \max \{ m : |\{p : |\tau_{t,p}| \ge m\}| \ge k \}

  Exact, ties included. It takes about three passes over the leaves, which may
  be on demand. In a trace the counts are int32 (int64 under x64).

  Args:
    tree: stacked models, every leaf ``[T, ...]``, of float or complex dtype.
    k: a count from 1 to the number of entries of one model; one number, one for
      each model, ``[T]``, or K for each, ``[K, T]``; may be traced.

  Returns:
    ``[T]`` or ``[K, T]`` magnitudes, in the widest dtype of the leaves.

  Raises:
    ValueError: if k is out of range, there are no entries, the leaves stack
      different numbers of models, or counts do not fit in a trace.

  Example:
    >>> import jax.numpy as jnp
    >>> tree = {'a': jnp.asarray([[1.0, -4.0]]), 'b': jnp.asarray([[3.0]])}
    >>> kth_magnitude(tree, 2).tolist()
    [3.0]
  """
  _nodes.check_no_products('kth_magnitude', tree)
  # Skip empty leaves.
  full = {name: x for name, x in _names.named(tree).items() if x.size}
  leaves, roles = list(full.values()), [_names.role(name) for name in full]
  if not leaves:
    raise ValueError('kth_magnitude: the tree holds no entries')
  models = _check_stacked(full)
  size = sum(leaf.size // models for leaf in leaves)
  _check_k(k, size, models)
  dtype = search.widest([leaf.dtype for leaf in leaves])
  groups = (0,) * len(leaves)
  (found,) = on_device.find(leaves, groups, [k], [size], roles, [dtype])
  return found if np.ndim(k) == 2 else found[0]


def kth_in_leaves(
  leaves: Sequence[Any],
  ks: Sequence[Any],
  *,
  names: Sequence[str] | None = None,
) -> list[Any]:
  """Returns the magnitudes of several ranks in each of several leaves.

  Arrays in a trace, and those of ``tree.on_accelerators``, are searched
  together: each pass serves all leaves, and is compiled once for them.

  Args:
    leaves: stacked leaves of one model, ``[T, ...]``, none of them empty.
    ks: for each leaf K counts for each model, ``[K, T]``.
    names: the names of the leaves: on accelerators those that differ in numbers
      only are searched by one kernel if their shapes agree, and all leaves of
      one shape by default.

  Returns:
    For each leaf ``[K, T]``, in its dtype or float32, the wider one.

  Example:
    >>> import jax.numpy as jnp
    >>> leaf = jnp.asarray([[1.0, -4.0, 3.0]])
    >>> kth_in_leaves([leaf], [jnp.asarray([[1], [2]])])[0].tolist()
    [[4.0], [3.0]]
  """
  if not leaves:
    return []
  sizes = [leaf.size // leaf.shape[0] for leaf in leaves]
  groups = tuple(range(len(leaves)))
  roles = [_names.role(name) for name in names or [''] * len(leaves)]
  dtypes = [
    np.empty(0, _numerics.wide_dtype(leaf.dtype)).real.dtype for leaf in leaves
  ]
  return on_device.find(leaves, groups, ks, sizes, roles, dtypes)


def reaches(x: types.Array, threshold: types.Array) -> types.Array:
  """Marks the entries whose magnitude is at least a threshold.

  It compares bits, as ``kth_magnitude`` does: XLA's comparison of floats treats
  denormal numbers as zeros.

  Args:
    x: one leaf of one model, ``[...]``.
    threshold: ``[]``, in the dtype of ``x`` or a wider one.

  Returns:
    Bools, ``[...]``.

  Example:
    >>> import jax.numpy as jnp
    >>> reaches(jnp.asarray([1.0, -4.0]), jnp.asarray(3.0)).tolist()
    [False, True]
  """
  dtype = bits.integer(threshold.dtype)
  threshold = bits.of(threshold, dtype)
  if jnp.iscomplexobj(x):
    # Two programs may round |z| differently, by a fused multiply and add: a
    # magnitude within 4 units in the last place of the threshold equals it.
    threshold = jnp.maximum(threshold - jnp.asarray(4, dtype), 0)
  return bits.of(x, dtype) >= threshold


def _check_stacked(leaves: dict[str, Any]) -> int:
  """Checks that all leaves stack the same number of models; returns it."""
  first = next(iter(leaves))
  models = tuple(leaves[first].shape[:1])
  for name, x in leaves.items():
    if not x.shape or x.shape[:1] != models:
      raise ValueError(
        f"kth_magnitude: leaf '{name}' has shape {tuple(x.shape)}, '{first}' "
        f'{tuple(leaves[first].shape)}: expected [T, ...] of T models, as '
        'tree.stack gives'
      )
  return int(models[0])


def _check_k(k: Any, size: int, models: int) -> None:
  """Checks the shape of k, and its range if it is known."""
  fits = np.shape(k) in ((), (models,)) or np.shape(k)[1:] == (models,)
  if not fits:
    raise ValueError(
      f'kth_magnitude: k has shape {np.shape(k)}, expected () or ({models},), '
      'one for each model'
    )
  if isinstance(k, jax.core.Tracer):
    return
  if not np.all((np.asarray(k) >= 1) & (np.asarray(k) <= size)):
    raise ValueError(f'kth_magnitude(k={k}): k must lie in 1 .. {size}')
