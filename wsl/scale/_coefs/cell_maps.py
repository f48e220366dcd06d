"""Cells: groups of entries of one leaf that share a coefficient."""

from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.scale._coefs import members as members_lib


class Axis(NamedTuple):
  """Equal contiguous runs of one axis: channels, heads or stacked layers."""

  axis: int
  number: int


class Random(NamedTuple):
  """Each entry belongs to one of K cells, drawn uniformly at random."""

  number: int


class Given(NamedTuple):
  """Each entry belongs to the one of K cells that the caller assigned it."""

  number: int


class Entries(NamedTuple):
  """Each entry is a cell."""


Cells: TypeAlias = Axis | Random | Given | Entries | None
Seed: TypeAlias = tuple[int, ...] | members_lib.Members
SEEDLESS: Seed = ()


def shape(cells: Cells, leaf: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the shape of one vector's coefficients for a leaf."""
  if cells is None:
    return ()
  return leaf if isinstance(cells, Entries) else (cells.number,)


def spread(
  coef: types.Array,
  cells: Cells,
  members: types.Array | None,
  leaf: tuple[int, ...],
) -> types.Array:
  """Broadcasts coefficients to the entries of a leaf.

  Args:
    coef: one vector's coefficients, of shape ``shape(cells, leaf)``.
    cells: the partition of the entries.
    members: the result of ``draw``.
    leaf: the shape of the leaf.

  Returns:
    A scalar, or an array of the leaf's rank that broadcasts to ``leaf``.
  """
  if cells is None or isinstance(cells, Entries):
    return coef
  if isinstance(cells, (Random, Given)):
    return coef.at[members].get(mode='promise_in_bounds')
  axis = cells.axis % len(leaf)
  run = leaf[axis] // cells.number
  runs = jnp.broadcast_to(coef[:, None], (cells.number, run))
  around = [1] * len(leaf)
  around[axis] = leaf[axis]
  return runs.reshape(around)


def draw(cells: Cells, seed: Any, leaf: tuple[int, ...]) -> types.Array | None:
  """Draws the cell of each entry if cells are random, or returns the given.

  The assignment is recomputed from the seed instead of stored: the word of
  entry i depends on the key and i alone. So it is the same on every device, for
  every sharding, and in every recomputation.

  Args:
    cells: the partition of the entries.
    seed: ``[2]``, uint32, for random cells; the numbers of given ones.
    leaf: the shape of the leaf.

  Returns:
    ``None``, or an array of the leaf's shape, of the smallest unsigned dtype
    that holds K.
  """
  if isinstance(cells, Given):
    return jnp.asarray(seed)
  if not isinstance(cells, Random):
    return None
  # The bias of the modulo is below K / 2^32.
  words = tree.random_bits(jnp.asarray(seed, np.uint32), leaf)
  drawn = words % np.uint32(cells.number)
  size = 8 if cells.number < 2**8 else 16 if cells.number < 2**16 else 32
  return drawn.astype(np.dtype(f'uint{size}'))


def operand(seed: Seed) -> np.ndarray:
  """Returns the array from which ``draw`` reads the cells of the entries."""
  if isinstance(seed, members_lib.Members):
    return seed.cells
  return np.asarray(seed, np.uint32)


def parse(label: str, spec: Any, name: str, leaf: tuple[int, ...]) -> Cells:
  """Parses the user's split of one leaf, and checks that it fits the leaf.

  Args:
    label: prefix of the error messages.
    spec: ``None``, ``'entry'``, ``'channel'``, ``('channel', axis)``,
      ``('head', heads)``, ``('head', heads, axis)``, or ``('random', K)``.
    name: the leaf's name.
    leaf: its shape.

  Raises:
    ValueError: if it is malformed, or does not fit the leaf.
  """
  if spec is None:
    return None
  kind, *numbers = (spec,) if isinstance(spec, str) else spec
  usage = _USAGE.get(kind)
  if usage is None:
    hint = tree.nearest(str(kind), list(_USAGE))
    raise ValueError(
      f"{label}: '{kind}' is no rule for the entries of a leaf{hint}: expected "
      f'one of {list(_USAGE)}'
    )
  form, least, most = usage
  whole = all(isinstance(n, (int, np.integer)) for n in numbers)
  if not (whole and least <= len(numbers) <= most):
    raise ValueError(f"{label}: '{kind}' is written as {form}, got {spec!r}")
  if kind == 'entry':
    return Entries()
  if kind == 'random':
    _check_positive(label, spec, numbers[0])
    return Random(int(numbers[0]))
  if not leaf:
    return None
  axis = int(([*numbers, -1])[0] if kind == 'channel' else [*numbers, -1][1])
  if not -len(leaf) <= axis < len(leaf):
    # A bias has one axis and a kernel more, so a positive axis may not exist.
    raise ValueError(
      f"{label}: {spec!r}: leaf '{name}' of shape {leaf} has no axis {axis}: "
      'give it a rule of its own'
    )
  if kind == 'channel':
    return Axis(axis, leaf[axis])
  _check_positive(label, spec, numbers[0])
  if leaf[axis] % numbers[0]:
    raise ValueError(
      f"{label}: {spec!r}: axis {axis} of leaf '{name}' has {leaf[axis]} "
      f'entries, not a multiple of {numbers[0]}: give it a rule of its own'
    )
  return Axis(axis, int(numbers[0]))


_USAGE = {
  'channel': ("'channel' or ('channel', axis)", 0, 1),
  'head': ("('head', heads) or ('head', heads, axis)", 1, 2),
  'random': ("('random', K)", 1, 1),
  'masks': ("('masks', array)", 1, 1),
  'entry': ("'entry'", 0, 0),
}


def _check_positive(label: str, spec: Any, number: int) -> None:
  """Checks the number of heads or random cells."""
  if number < 1:
    raise ValueError(f'{label}: {spec!r}: expected 1 or more')
