"""Coefficients by block, and the map from leaves to blocks."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.scale._bank import banks
from wsl.scale._coefs import cell_maps


class Place(NamedTuple):
  """The block of a leaf, and the cells of its entries.

  Attributes:
    block: the block's name.
    cells: the partition of the leaf's entries among the block's coefficients.
    seed: the seed of random cells, or the numbers of given cells.
  """

  block: str
  cells: cell_maps.Cells = None
  seed: cell_maps.Seed = cell_maps.SEEDLESS


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Coefs:
  """Coefficients by block; made by ``init``.

  As a pytree it is a dict ``{block: array}`` for ``tree.named``,
  ``checkpoint.save`` and optimizers. Restore saved coefficients by
  ``checkpoint.load(path, like=init(...))``.

  Attributes:
    values: for each block ``[T]``; ``[]`` if all vectors share one number;
      ``[T, cells...]`` if the leaf is split into cells.
    places: (name, place) of every scaled leaf.
  """

  values: dict[str, types.Array]
  places: tuple[tuple[str, Place], ...]

  def __getitem__(self, block: str) -> types.Array:
    return self.values[block]

  def __repr__(self) -> str:
    shapes = {name: list(jnp.shape(x)) for name, x in self.values.items()}
    return f'Coefs({shapes})'

  def tree_flatten_with_keys(self) -> Any:
    """Returns the values with their block names, and the static layout."""
    keys = tuple(self.values)
    children = [(jax.tree_util.DictKey(k), self.values[k]) for k in keys]
    return children, (keys, self.places)

  @classmethod
  def tree_unflatten(cls, layout: Any, children: Any) -> 'Coefs':
    """Rebuilds the coefficients from values and layout."""
    keys, places = layout
    return cls(dict(zip(keys, children)), places)


def expand(coefs: Any, bank: banks.Bank) -> dict[str, types.Array]:
  """Returns the coefficients of every leaf, ``[T, cells...]``.

  Args:
    coefs: ``Coefs``, or a tree of ``[]`` and ``[T]`` that is a prefix of the
      parameters.
    bank: the task vectors.

  Raises:
    ValueError: if the coefficients do not fit the bank.
  """

  def full(x: Any, shape: tuple[int, ...]) -> Any:
    xp = jnp if isinstance(x, jax.Array) else np
    x = x.reshape(x.shape + (1,) * (len(shape) - x.ndim))
    return xp.broadcast_to(x, shape)

  if not isinstance(coefs, Coefs):
    return {
      name: full(x, (len(bank),))
      for name, x in _of_prefix(coefs, bank).items()
      if name in bank.leaves
    }
  shapes = {name: shape for name, shape, _ in bank.specs}
  by_leaf = {}
  for name, place in coefs.places:
    if name not in shapes:
      raise ValueError(
        f"compose: coefficients for '{name}', which the bank's base does not "
        f'have{tree.nearest(name, list(shapes))}: init them on this bank'
      )
    x = _operand(coefs.values[place.block], bank)
    shape = (len(bank), *cell_maps.shape(place.cells, shapes[name]))
    if x.shape not in ((), shape):
      raise ValueError(
        f"compose: block '{place.block}' has shape {x.shape}, leaf '{name}' "
        f'needs {shape}: init the coefficients on this bank of {len(bank)}'
      )
    by_leaf[name] = full(x, shape)
  for name in bank.leaves:
    if name not in by_leaf:
      raise ValueError(
        f"compose: no coefficient for leaf '{name}': init them on this bank"
      )
  return by_leaf


def cells_of(coefs: Any, name: str) -> tuple[cell_maps.Cells, np.ndarray]:
  """Returns the cells of a leaf, and the operand of ``cell_maps.draw``."""
  places = dict(coefs.places) if isinstance(coefs, Coefs) else {}
  place = places.get(name, Place(name))
  return place.cells, cell_maps.operand(place.seed)


def _of_prefix(coefs: Any, bank: banks.Bank) -> dict[str, types.Array]:
  """Broadcasts a prefix tree of coefficients to every leaf of the base."""
  names = [name for name, _, _ in bank.specs]
  whole = jax.tree.unflatten(bank.structure, names)
  values = tree.named(tree.broadcast_prefix(coefs, whole))
  found = {name: _operand(x, bank) for name, x in values.items()}
  for name, x in found.items():
    if x.shape not in ((), (len(bank),)):
      raise ValueError(
        f"compose: coefficient of '{name}' has shape {x.shape}, expected () or "
        f'({len(bank)},), one for each vector'
      )
    if not jnp.issubdtype(x.dtype, jnp.inexact):
      found[name] = x.astype(banks.dtype_of(bank))
  return found


def _operand(x: Any, bank: banks.Bank) -> Any:
  """Returns a coefficient as an array, which JAX has not narrowed."""
  dtype = banks.dtype_of(bank)
  if isinstance(x, jax.Array) or not tree.narrowed(dtype):
    return jnp.asarray(x)
  x = np.asarray(x)
  return x if tree.is_float(x) else x.astype(dtype)
