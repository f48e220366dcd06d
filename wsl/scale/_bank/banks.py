"""A bank: the task vectors of one base in their most compact form."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from wsl import deltas as deltas_lib
from wsl import deprecation, tree, types
from wsl.scale._bank import bank_rows, base_checks, differences


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Bank:
  """Task vectors of one base; made by ``bank`` or ``as_bank``.

  Attributes:
    leaves: by name, the T vectors' entries: a stack ``[T, ...]``; a ``LowRank``
      of stacks; or a tuple of T elements, each an array ``[...]``, a
      ``LowRank``, a leaf on demand, or ``None`` if the vector has no such leaf.
      A leaf that is in no vector is omitted; it remains the base's.
    checksums: ``[leaves of the base]``, uint32; 0 for leaves whose values were
      unknown.
    names: the T vectors' names.
    specs: (name, shape, dtype) of every leaf of the base.
    tied: (name, first name) of every leaf of the base that is the same array as
      an earlier leaf: both are composed as one, with one coefficient.
    structure: the base's tree structure.
  """

  leaves: dict[str, Any]
  checksums: types.ArrayLike
  names: tuple[str, ...] = dataclasses.field(metadata={'static': True})
  specs: tuple[base_checks.Spec, ...] = dataclasses.field(
    metadata={'static': True}
  )
  tied: tuple[tuple[str, str], ...] = dataclasses.field(
    metadata={'static': True}
  )
  structure: Any = dataclasses.field(metadata={'static': True})

  def __len__(self) -> int:
    return len(self.names)

  @property
  def ties(self) -> tuple[tuple[str, str], ...]:
    """Deprecated name of ``tied``."""
    deprecation.warn('Bank.ties', 'Bank.tied')
    return self.tied


def bank(
  base: types.Params,
  models: Sequence[types.Params],
  *,
  names: Sequence[str] | None = None,
  leaves: types.Leaves | None = None,
  dtype: Any = None,
) -> Bank:
  r"""Computes the task vectors of T models.

  .. math:: \tau_i = \theta_i - \theta_0

  Leaves other than weights: integer leaves are never scaled, the base's are
  kept. Running statistics stored as floats are scaled like any leaf, and a
  learned coefficient may make a variance negative: exclude them by ``leaves``
  and recompute them on the composed model.

  Args:
    base: the model that the others were fine-tuned from, leaves ``[...]``.
      Leaves that are the same array are tied.
    models: T >= 1 models of the base's names. A leaf that is ``None``, or the
      base's own array, is absent from that vector and takes no memory; a
      ``LowRank``, or ``adapters.Factors``, denotes the base's leaf plus a
      product; leaves on demand stay on demand.
    names: names of the vectors; ``'0'``, ``'1'``, ... by default.
    leaves: which leaves are scaled, a regular expression or a predicate on
      (name, shape); by default all floats.
    dtype: storage dtype of the differences, at most as wide as the default:
      float32, or the base's dtype if that is wider. bfloat16 halves the memory
      and keeps 8 significant bits.

  Returns:
    The bank.

  Raises:
    ValueError: if there is no model, or a model does not match the base, also
      in integers (see ``tree.check_weights``), naming the leaf.

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
  is_vector = lambda x: (
    x is None or isinstance(x, bank_rows.LowRank) or deltas_lib.is_factors(x)
  )
  labelled = {f"model '{name}'": model for name, model in zip(names, models)}
  for label, model in labelled.items():
    tree.check_names(
      f'bank: {label}', model, 'the base', base, is_leaf=is_vector
    )
  tree.check_weights('bank', {'the base': base} | labelled)
  found = [tree.named(model, is_leaf=is_vector) for model in models]
  stored = {
    leaf: differences.of_leaf(
      leaf, x, [(n, f[leaf]) for n, f in zip(names, found)], dtype
    )
    for leaf, x in _scaled(base, leaves).items()
  }
  _check_tied(base, found, names)
  return _make(base, stored, names)


def as_bank(
  base: types.Params,
  deltas: types.Deltas,
  *,
  names: Sequence[str] | None = None,
  dtype: Any = None,
) -> Bank:
  """Wraps stacked task vectors as a bank.

  AdaMerging++ learns on the entries that TIES would add, trimmed and of the
  elected sign: ``as_bank(base, merge.elect_sign(merge.trim(deltas,
  density=0.2)))``.

  Args:
    base: leaves ``[...]``.
    deltas: leaves ``[T, ...]`` as ``deltas.stack`` gives them, factors of
      ``adapters.stack``, which stay factored, or ``None``.
    names: names of the vectors; ``'0'``, ``'1'``, ... by default.
    dtype: storage dtype; by default unchanged.

  Returns:
    The bank.

  Raises:
    ValueError: if a leaf does not match the base's.

  Example:
    >>> import jax.numpy as jnp
    >>> as_bank({'w': jnp.ones(2)}, {'w': jnp.ones((3, 2))}).names
    ('0', '1', '2')
  """
  deltas_lib.check_stacked('as_bank', deltas)
  is_leaf = lambda x: x is None or deltas_lib.is_factors(x)
  tree.check_names(
    'as_bank: the deltas', deltas, 'the base', base, is_leaf=is_leaf
  )
  stacks = tree.named(deltas, is_leaf=deltas_lib.is_factors)
  arrays = list(tree.named(deltas_lib.placeholders(deltas)).values())
  count = arrays[0].shape[0] if arrays else 0
  names = _names('as_bank', names, count)
  stored = {}
  for leaf, x in _scaled(base, None).items():
    stack = stacks.get(leaf)
    if stack is None:
      continue
    stored[leaf] = differences.of_stack(leaf, x, stack, count, dtype)
  return _make(base, stored, names)


def dtype_of(bank: Bank) -> np.dtype:
  """Returns the dtype that coefficients of a bank should have."""
  wide = any(d in ('float64', 'complex128') for _, _, d in bank.specs)
  return np.dtype(np.float64 if wide else np.float32)


def _make(
  base: types.Params, stored: dict[str, Any], names: tuple[str, ...]
) -> Bank:
  """Builds a bank of the leaves that some vector has."""
  leaves = {name: leaf for name, leaf in stored.items() if leaf is not None}
  if not leaves:
    raise ValueError(
      'bank: no float leaf of the base is in any vector, nothing can be scaled'
    )
  return Bank(
    leaves=leaves,
    checksums=base_checks.checksums(base),
    names=names,
    specs=base_checks.specs(base),
    tied=base_checks.tied_leaves(base),
    structure=jax.tree.structure(base),
  )


def _names(
  caller: str, names: Sequence[str] | None, count: int
) -> tuple[str, ...]:
  """Returns the vectors' names, after checking their number."""
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
  """Returns the leaves of the base to be scaled, without repeated tied ones."""
  chosen = tree.named(tree.select(base, leaves or (lambda name, shape: True)))
  tied = dict(base_checks.tied_leaves(base))
  return {
    name: x
    for name, x in tree.named(base).items()
    if chosen[name] and name not in tied and base_checks.is_float(x)
  }


def _check_tied(
  base: types.Params, found: list[dict[str, Any]], names: Sequence[str]
) -> None:
  """Checks that leaves tied in the base are equal in every model."""
  for leaf, first in base_checks.tied_leaves(base):
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
