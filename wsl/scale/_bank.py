"""A bank: task vectors of one base, kept as cheaply as they come."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import deltas as deltas_lib
from wsl import tree, types
from wsl.scale import _base


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class LowRank:
  r"""A task vector's leaf as two factors, ``tensordot(left, right, 1)``.

  In a model that is given to ``bank`` a leaf may be of this kind: it stands for
  the base's leaf plus the product. In a bank both have a leading axis of T.

  Attributes:
    left: ``[..., r]``, the leading axes of the leaf (for a Flax dense kernel
      ``[in, out]``: ``[in, r]``, often called A).
    right: ``[r, ...]``, its other axes (``[r, out]``, often called B; fold the
      adapter's scale into either).
  """

  left: types.Array
  right: types.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Bank:
  """Task vectors of one base; made by ``bank`` or ``as_bank``.

  Attributes:
    leaves: by name, what the T vectors hold: a stack ``[T, ...]``; a
      ``LowRank`` of stacks; or a tuple of T, each an array ``[...]``, a
      ``LowRank``, a leaf on demand, or ``None`` where the vector has no such
      leaf. A name that no vector has is not here: the base's leaf stays.
    checksums: ``[leaves of the base]``, uint32; 0 where the values were not
      looked at.
    names: the T vectors' names.
    specs: (name, shape, dtype) of every leaf of the base.
    ties: (name, first name) of every leaf of the base that is the same array as
      an earlier one: it is composed with it, under the same coefficient.
    structure: the base's structure.
  """

  leaves: dict[str, Any]
  checksums: types.ArrayLike
  names: tuple[str, ...] = dataclasses.field(metadata={'static': True})
  specs: tuple[_base.Spec, ...] = dataclasses.field(metadata={'static': True})
  ties: tuple[tuple[str, str], ...] = dataclasses.field(
    metadata={'static': True}
  )
  structure: Any = dataclasses.field(metadata={'static': True})

  def __len__(self) -> int:
    return len(self.names)


def bank(
  base: types.Params,
  models: Sequence[types.Params],
  *,
  names: Sequence[str] | None = None,
  leaves: types.Leaves | None = None,
  dtype: Any = None,
) -> Bank:
  r"""Takes the task vectors of T models.

  .. math:: \tau_i = \theta_i - \theta_0

  One rule each for what is not a weight: integer leaves are never scaled, the
  base's are kept; running statistics stored as floats are leaves like any
  other, and a learned coefficient may drive a variance below zero, so leave
  them out by ``leaves`` and measure them anew on the composed model.

  Args:
    base: the model that the others were trained from, leaves ``[...]``. A leaf
      that is the same array as another one is tied to it.
    models: T >= 1 models of the base's names. A leaf that is ``None``, or the
      base's own array, is absent from that vector and takes no memory; a
      ``LowRank`` stands for the base's leaf plus a product; leaves on demand
      stay on demand.
    names: what to call the vectors; ``'0'``, ``'1'``, ... by default.
    leaves: which leaves are scaled, a regular expression or a predicate on
      (name, shape); by default all floats.
    dtype: what differences are stored in, by default float32, or the base's
      dtype if that is wider; bfloat16 halves the memory and keeps 8 bits of
      each entry. Nothing is stored wider than by default.

  Returns:
    The bank.

  Raises:
    ValueError: if there is no model, or one does not fit the base, naming the
      leaf.

  Example:
    >>> import jax.numpy as jnp
    >>> base = {'w': jnp.ones(2), 'b': jnp.zeros(1)}
    >>> tuned = {'w': jnp.asarray([1.0, 3.0]), 'b': None}
    >>> vectors = bank(base, [tuned], names=['cars'])
    >>> {name: leaf.tolist() for name, leaf in vectors.leaves.items()}
    {'w': [[0.0, 2.0]]}
  """
  if isinstance(models, dict):
    raise ValueError(
      'bank: the models are a dict, expected a list: give '
      'list(models.values()) and names=list(models)'
    )
  models = list(models)
  names = _names('bank', names, len(models))
  is_vector = lambda x: x is None or isinstance(x, LowRank)
  found = []
  for name, model in zip(names, models):
    tree.check_names(
      f"bank: model '{name}'", model, 'the base', base, is_leaf=is_vector
    )
    found.append(tree.named(model, is_leaf=is_vector))
  stored = {
    leaf: _leaf(leaf, x, [(n, f[leaf]) for n, f in zip(names, found)], dtype)
    for leaf, x in _scaled(base, leaves).items()
  }
  _check_ties(base, found, names)
  return _make(base, stored, names)


def as_bank(
  base: types.Params,
  deltas: types.Deltas,
  *,
  names: Sequence[str] | None = None,
  dtype: Any = None,
) -> Bank:
  """Makes a bank of task vectors that are stacked already.

  AdaMerging++ learns on trimmed vectors: ``as_bank(base, merge.trim(...))``.

  Args:
    base: leaves ``[...]``.
    deltas: leaves ``[T, ...]`` as ``deltas.stack`` gives them, or ``None``.
    names: what to call the vectors; ``'0'``, ``'1'``, ... by default.
    dtype: what to store them in; by default as they are.

  Returns:
    The bank.

  Raises:
    ValueError: if a leaf does not fit the base's.

  Example:
    >>> import jax.numpy as jnp
    >>> as_bank({'w': jnp.ones(2)}, {'w': jnp.ones((3, 2))}).names
    ('0', '1', '2')
  """
  is_none = lambda x: x is None
  tree.check_names(
    'as_bank: the deltas', deltas, 'the base', base, is_leaf=is_none
  )
  stacks = tree.named(deltas)
  count = len(next(iter(stacks.values()))) if stacks else 0
  names = _names('as_bank', names, count)
  stored = {}
  for leaf, x in _scaled(base, None).items():
    stack = stacks.get(leaf)
    if stack is None:
      continue
    wanted = (count, *x.shape)
    if tuple(stack.shape) != wanted:
      raise ValueError(
        f"as_bank: leaf '{leaf}' has shape {tuple(stack.shape)}, expected "
        f'{wanted}: T vectors of the shape of the base'
      )
    stored[leaf] = (
      stack
      if dtype is None
      else tree.apply_kernel(_cast, stack, dtype=tree.Static(np.dtype(dtype)))
    )
  return _make(base, stored, names)


def subset(bank: Bank, names: Sequence[str]) -> Bank:
  """Returns the bank of some of the vectors, in the order given.

  Args:
    bank: T vectors.
    names: which ones, from ``bank.names``.

  Returns:
    A bank of ``len(names)`` vectors.

  Raises:
    ValueError: if there is no vector of a name, or no name.

  Example:
    >>> import jax.numpy as jnp
    >>> models = [{'w': jnp.zeros(2)}, {'w': jnp.ones(2)}]
    >>> both = bank({'w': jnp.zeros(2)}, models, names=['cars', 'pets'])
    >>> subset(both, ['pets']).leaves['w'].tolist()
    [[1.0, 1.0]]
  """
  for name in names:
    if name not in bank.names:
      hint = tree.nearest(name, bank.names)
      raise ValueError(f"subset: no vector '{name}' in the bank{hint}")
  if not names:
    raise ValueError('subset: no names given, at least one is needed')
  index = [bank.names.index(name) for name in names]
  return dataclasses.replace(
    bank,
    leaves={
      name: found
      for name, leaf in bank.leaves.items()
      if (found := _take(leaf, index)) is not None
    },
    names=tuple(names),
  )


def dtype_of(bank: Bank) -> np.dtype:
  """Returns the dtype that coefficients of a bank should have."""
  wide = any(dtype == 'float64' for _, _, dtype in bank.specs)
  return np.dtype(np.float64 if wide else np.float32)


def _take(leaf: Any, index: list[int]) -> Any:
  if isinstance(leaf, tuple):
    rows = tuple(leaf[i] for i in index)
    return None if all(row is None for row in rows) else rows
  at = np.asarray(index)
  return jax.tree.map(lambda x: tree.apply_kernel(_rows, x, index=at), leaf)


def _rows(x: types.Array, *, index: types.Array) -> types.Array:
  return jnp.take(x, index, axis=0)


def _cast(x: types.Array, *, dtype: np.dtype) -> types.Array:
  return x.astype(dtype)


def _make(
  base: types.Params, stored: dict[str, Any], names: tuple[str, ...]
) -> Bank:
  leaves = {name: leaf for name, leaf in stored.items() if leaf is not None}
  if not leaves:
    raise ValueError(
      'bank: no float leaf of the base is in any vector, nothing can be scaled'
    )
  return Bank(
    leaves=leaves,
    checksums=_base.checksums(base),
    names=names,
    specs=_base.specs(base),
    ties=_base.ties(base),
    structure=jax.tree.structure(base),
  )


def _names(
  caller: str, names: Sequence[str] | None, count: int
) -> tuple[str, ...]:
  if not count:
    raise ValueError(f'{caller}: no task vectors, at least one is needed')
  if names is None:
    return tuple(str(i) for i in range(count))
  names = tuple(names)
  if len(names) != count or len(set(names)) != count:
    raise ValueError(
      f'{caller}(names={list(names)}): expected {count} different names, one '
      'for each vector'
    )
  return names


def _scaled(base: types.Params, leaves: types.Leaves | None) -> dict[str, Any]:
  """Returns the leaves of the base that may be scaled; tied ones once."""
  chosen = tree.named(tree.select(base, leaves or (lambda name, shape: True)))
  tied = dict(_base.ties(base))
  return {
    name: x
    for name, x in tree.named(base).items()
    if chosen[name] and name not in tied and _base.is_float(x)
  }


def _leaf(
  leaf: str, base: Any, found: list[tuple[str, Any]], dtype: Any
) -> Any:
  """Returns what T vectors hold of one leaf, or None if it is nothing."""
  rows = [None if x is base else _factors(x) for _, x in found]
  present = [x for x in rows if x is not None]
  if not present:
    return None
  for (name, _), x in zip(found, rows):
    if x is not None:
      _check_row(leaf, base, name, x)
  if tree.on_demand((base, rows)):
    return tuple(_row(leaf, base, x, dtype) for x in rows)
  low = [isinstance(x, LowRank) for x in present]
  if all(low) and len(present) == len(rows):
    return _pad_and_stack(present, dtype)
  if any(low) or len(present) < len(rows):
    return tuple(_row(leaf, base, x, dtype) for x in rows)
  stack = deltas_lib.stack({leaf: base}, [{leaf: x} for x in rows])[leaf]
  return _narrow(stack, dtype)


def _factors(x: Any) -> Any:
  """Reads factors that are on demand: they are small."""
  return jax.tree.map(tree.read, x) if isinstance(x, LowRank) else x


def _row(leaf: str, base: Any, x: Any, dtype: Any) -> Any:
  """Returns one vector's leaf, on demand if the base's or the model's is."""
  if x is None:
    return None
  if isinstance(x, LowRank):
    return jax.tree.map(lambda y: _narrow(y, dtype), x)
  kernel_dtype = tree.Static(_stored(np.dtype(base.dtype), dtype))
  return tree.apply_kernel(_difference, base, x, dtype=kernel_dtype)


def _difference(
  base: types.Array, model: types.Array, *, dtype: np.dtype
) -> types.Array:
  return (tree.wide(model) - tree.wide(base)).astype(dtype)


def _stored(source: np.dtype, dtype: Any) -> np.dtype:
  """Returns the dtype to store in: at most as wide as the difference."""
  wide = source if source.itemsize >= 4 else np.dtype(np.float32)
  dtype = wide if dtype is None else np.dtype(dtype)
  if not jnp.issubdtype(dtype, jnp.inexact):
    raise ValueError(
      f'bank(dtype={dtype}): task vectors are stored in a float dtype, such as '
      'bfloat16'
    )
  return dtype if dtype.itemsize <= wide.itemsize else wide


def _narrow(x: types.Array, dtype: Any) -> types.Array:
  return tree.apply_kernel(
    _cast, x, dtype=tree.Static(_stored(np.dtype(x.dtype), dtype))
  )


def _check_row(leaf: str, base: Any, name: str, x: Any) -> None:
  if isinstance(x, LowRank):
    (*lead, r), (s, *rest) = x.left.shape, x.right.shape
    if r != s or (*lead, *rest) != tuple(base.shape):
      raise ValueError(
        f"bank: model '{name}': leaf '{leaf}' has factors "
        f'{tuple(x.left.shape)} and {tuple(x.right.shape)}, their product must '
        f"have the base's shape {tuple(base.shape)}"
      )
    return
  deltas_lib.check(
    'bank', {'the base': {leaf: base}, f"model '{name}'": {leaf: x}}
  )


def _pad_and_stack(rows: list[LowRank], dtype: Any) -> LowRank:
  """Stacks factors; a smaller rank is filled up with zeros."""
  rank = max(row.right.shape[0] for row in rows)

  def fill(x: types.Array, axis: int) -> types.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, rank - x.shape[axis])
    return jnp.pad(jnp.asarray(x), widths)

  stacked = LowRank(
    jnp.stack([fill(row.left, -1) for row in rows]),
    jnp.stack([fill(row.right, 0) for row in rows]),
  )
  return jax.tree.map(lambda x: _narrow(x, dtype), stacked)


def _check_ties(
  base: types.Params, found: list[dict[str, Any]], names: Sequence[str]
) -> None:
  """Checks that the models have not parted what the base ties."""
  for leaf, first in _base.ties(base):
    for name, model in zip(names, found):
      x, y = model[leaf], model[first]
      known = all(isinstance(v, (jax.Array, np.ndarray)) for v in (x, y))
      if x is y or (known and isinstance(x, jax.core.Tracer)):
        continue
      if not known or not np.array_equal(np.asarray(x), np.asarray(y)):
        raise ValueError(
          f"bank: '{leaf}' and '{first}' are one array in the base, and two in "
          f"model '{name}': copy one of them in the base to untie it"
        )
