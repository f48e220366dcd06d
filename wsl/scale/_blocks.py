"""Coefficients with named blocks, and the rules that lay the blocks out."""

from collections.abc import Callable, Sequence
import dataclasses
import re
from typing import Any, NamedTuple
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.scale import _bank, _cells, _depth

_WORDS = ('all', 'task', 'layer', 'leaf', 'head', 'channel', 'random', 'entry')


class Place(NamedTuple):
  """Where a leaf finds its coefficients.

  Attributes:
    block: the name of the block.
    cells: how the leaf's entries share the block's coefficients.
    seed: of random cells.
  """

  block: str
  cells: _cells.Cells = None
  seed: _cells.Seed = _cells.SEEDLESS


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Coefs:
  """Coefficients by block; made by ``init``.

  A pytree of one array for each block, named after it: ``tree.named``,
  ``checkpoint.save`` and optimizers see a dict ``{block: array}``. To restore
  what was saved, give ``checkpoint.load(path, like=init(...))``.

  Attributes:
    values: for each block ``[T]``; ``[]`` where all vectors share one number;
      ``[T, cells...]`` where a leaf is split.
    places: (name, place) of every leaf that is scaled.
  """

  values: dict[str, types.Array]
  places: tuple[tuple[str, Place], ...]

  def __getitem__(self, block: str) -> types.Array:
    return self.values[block]

  def __repr__(self) -> str:
    shapes = {name: list(jnp.shape(x)) for name, x in self.values.items()}
    return f'Coefs({shapes})'

  def tree_flatten_with_keys(self) -> Any:
    """Returns the values with the names of their blocks, and the layout."""
    keys = tuple(self.values)
    children = [(jax.tree_util.DictKey(k), self.values[k]) for k in keys]
    return children, (keys, self.places)

  @classmethod
  def tree_unflatten(cls, layout: Any, children: Any) -> 'Coefs':
    """Puts values back into their layout."""
    keys, places = layout
    return cls(dict(zip(keys, children)), places)


def init(
  bank: _bank.Bank,
  *,
  by: Any,
  value: types.Scalar = 0.0,
  depth: str | None = None,
  key: types.PRNGKey | None = None,
) -> Coefs:
  r"""Lays out blocks, and gives every coefficient the same value.

  A coefficient lambda_ij scales vector i on block j. ``by`` says what a block
  is:

  ====================  ======================================================
  ``'all'``             one number for all vectors and leaves
  ``'task'``            one for each vector (isotropic)
  ``'layer'``           and each layer, as ``depth`` numbers them; leaves
                        outside the layers share the block ``'rest'``
  ``'leaf'``            and each leaf (aTLAS; AdaMerging's layer-wise)
  ``('head', H)``       and each of H runs of the last axis; ``('head', H, a)``
                        of axis a
  ``'channel'``         and each index of the last axis; ``('channel', a)``
  ``('random', K)``     and each of K random cells of entries (aTLAS x K)
  ``'entry'``           and each entry
  a list of rules       ``(regex, block)`` or ``(regex, block, split)``: the
                        first regex found in a leaf's name gives the block's
                        name, in which ``\1`` stands for a group; ``None``
                        stands for the leaf's own name. ``split`` is one of the
                        last four above.
  ====================  ======================================================

  Args:
    bank: the task vectors.
    by: the granularity, see above.
    value: what all coefficients are: 0 gives the base, 1 / T the mean.
    depth: for ``'layer'``, a regular expression with one group that captures
      the number of the layer: ``r'block_(\d+)/'``.
    key: for random cells. An entry's cell depends on the key, the leaf's name
      and the entry's place, so it is the same sharded or not.

  Returns:
    The coefficients, float32, or float64 if the base holds float64.

  Raises:
    ValueError: if a rule is unknown, covers no leaf, or leaves one uncovered;
      if a leaf cannot be split as told; if a key or a depth is missing.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import scale
    >>> base = {'block_0': {'w': jnp.ones((2, 3))}, 'out': jnp.ones(3)}
    >>> vectors = scale.bank(base, [base | {'out': jnp.zeros(3)}] * 2)
    >>> init(vectors, by='leaf')
    Coefs({'out': [2]})

  Reference:
    Zhang et al., "Knowledge Composition using Task Vectors with Learned
    Anisotropic Scaling", 2024, arXiv:2407.02880.

  Differs from the official code, where a random partition leaves biases and
  convolutions at zero, and leaves of one shape share it.
  """
  rules = _rules(bank, by, depth)
  covered = _cover(bank, rules)
  shapes = {name: shape for name, shape, _ in bank.specs}
  places, blocks = [], dict[str, tuple[int, ...]]()
  for name, (block, split) in covered.items():
    cells = _cells.parse('init', split, name, shapes[name])
    places.append((name, Place(block, cells, _seed(cells, name, key))))
    rest = _cells.shape(cells, shapes[name])
    shape = () if by == 'all' else (len(bank), *rest)
    if blocks.setdefault(block, shape) != shape:
      raise ValueError(
        f"init: leaf '{name}' needs coefficients {shape}, others in block "
        f"'{block}' {blocks[block]}: split them alike, or name another block"
      )
  dtype = _bank.dtype_of(bank)
  values = {
    block: jnp.full(shape, value, dtype) for block, shape in blocks.items()
  }
  return Coefs(values, tuple(places))


def expand(coefs: Any, bank: _bank.Bank) -> dict[str, types.Array]:
  """Returns the coefficients of every leaf, ``[T, cells...]``.

  Args:
    coefs: ``Coefs``, or a tree of ``[]`` and ``[T]`` that is a prefix of the
      parameters.
    bank: the task vectors.

  Raises:
    ValueError: if the coefficients do not fit the bank.
  """
  full = lambda x, shape: jnp.broadcast_to(
    x.reshape(x.shape + (1,) * (len(shape) - x.ndim)), shape
  )
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
    x = jnp.asarray(coefs.values[place.block])
    shape = (len(bank), *_cells.shape(place.cells, shapes[name]))
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


def cells_of(coefs: Any, name: str) -> tuple[_cells.Cells, _cells.Seed]:
  """Returns how a leaf's entries share its coefficients."""
  places = dict(coefs.places) if isinstance(coefs, Coefs) else {}
  place = places.get(name, Place(name))
  return place.cells, place.seed


def _of_prefix(coefs: Any, bank: _bank.Bank) -> dict[str, types.Array]:
  names = [name for name, _, _ in bank.specs]
  whole = jax.tree.unflatten(bank.structure, names)
  values = tree.named(tree.broadcast_prefix(coefs, whole))
  found = {name: jnp.asarray(x) for name, x in values.items()}
  for name, x in found.items():
    if x.shape not in ((), (len(bank),)):
      raise ValueError(
        f"compose: coefficient of '{name}' has shape {x.shape}, expected () or "
        f'({len(bank)},), one for each vector'
      )
    if not jnp.issubdtype(x.dtype, jnp.inexact):
      found[name] = x.astype(_bank.dtype_of(bank))
  return found


def _rules(
  bank: _bank.Bank, by: Any, depth: str | None
) -> list[tuple[str, Callable[[str], str], Any]]:
  """Returns (regex, block's name from leaf's name, split)."""
  own = lambda name: name
  if isinstance(by, list):
    return [_rule(rule) for rule in by]
  kind = by if isinstance(by, str) else by[0] if isinstance(by, tuple) else by
  if kind not in _WORDS:
    hint = tree.nearest(str(kind), _WORDS)
    raise ValueError(
      f'init(by={by!r}): no such rule{hint}: expected one of {list(_WORDS)}, '
      'or a list of (regex, block)'
    )
  if kind in ('all', 'task'):
    return [('', lambda name: kind, None)]
  if kind == 'leaf':
    return [('', own, None)]
  if kind != 'layer':
    return [('', own, by)]
  if depth is None:
    raise ValueError(
      "init(by='layer'): depth= is missing, a regular expression that captures "
      r"the layer's number, such as r'block_(\d+)/'"
    )
  layers = {
    name: _depth.layer(f"init(depth='{depth}')", depth, name)
    for name in bank.leaves
  }
  if max(layers.values()) < 0:
    raise ValueError(
      f"init(depth='{depth}'): covers no leaf: the names are {list(layers)[:4]}"
    )
  called = lambda n: f'layer_{n}' if n >= 0 else 'rest'
  return [('', lambda name: called(layers[name]), None)]


def _rule(rule: Any) -> tuple[str, Callable[[str], str], Any]:
  if not isinstance(rule, tuple) or len(rule) not in (2, 3):
    raise ValueError(
      f'init: rule {rule!r}: expected (regex, block) or (regex, block, split)'
    )
  pattern, template, *split = rule
  regex = tree.compiled(pattern)

  def block(name: str) -> str:
    if template is None:
      return name
    match = regex.search(name)
    assert match is not None  # a rule names only what it matches
    try:
      return match.expand(template)
    except (re.error, IndexError) as error:
      raise ValueError(
        f"init: rule ('{pattern}', '{template}'): {error}"
      ) from None

  return pattern, block, split[0] if split else None


def _cover(
  bank: _bank.Bank, rules: Sequence[tuple[str, Callable[[str], str], Any]]
) -> dict[str, tuple[str, Any]]:
  """Returns block and split of each leaf; every rule and leaf must meet."""
  flat = {name: 0 for name in bank.leaves}
  indexed = [(pattern, i) for i, (pattern, _, _) in enumerate(rules)]
  try:
    chosen = tree.named(tree.by_regex(flat, indexed))
  except ValueError as error:
    raise ValueError(f'init: {error}') from None
  return {name: (rules[i][1](name), rules[i][2]) for name, i in chosen.items()}


def _seed(
  cells: _cells.Cells, name: str, key: types.PRNGKey | None
) -> _cells.Seed:
  if not isinstance(cells, _cells.Random):
    return _cells.SEEDLESS
  if key is None:
    raise ValueError('init: a random partition needs key=jax.random.key(...)')
  leaf = jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))
  return tuple(int(word) for word in jax.random.bits(leaf, (2,), np.uint32))
