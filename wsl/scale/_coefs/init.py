"""Initial coefficients, by granularity."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.scale._bank import banks
from wsl.scale._coefs import block_rules, cell_maps, coef_tree, members


def init(
  bank: banks.Bank,
  *,
  by: Any,
  value: types.Scalar = 0.0,
  depth: str | None = None,
  key: types.PRNGKey | None = None,
) -> coef_tree.Coefs:
  r"""Creates constant coefficients for a partition of the leaves into blocks.

  A coefficient lambda_ij scales vector i on block j. ``by`` defines the blocks:

  ====================  ======================================================
  ``'all'``             one number for all vectors and leaves
  ``'task'``            one for each vector (isotropic)
  ``'layer'``           and each layer, numbered by ``depth``; leaves outside
                        the layers share the block ``'rest'``
  ``'leaf'``            and each leaf (aTLAS; AdaMerging's layer-wise)
  ``('head', H)``       and each of H runs of the last axis; ``('head', H, a)``
                        of axis a
  ``'channel'``         and each index of the last axis; ``('channel', a)``
  ``('random', K)``     and each of K random cells of entries (aTLAS x K)
  ``('masks', m)``      and each of K given cells of entries: m is bool,
                        ``[K, *leaf]``, with each entry in one mask, or the
                        number of each entry's cell, ``[*leaf]``, 0 .. K - 1
  ``'entry'``           and each entry
  a list of rules       ``(regex, block)`` or ``(regex, block, split)``: the
                        first regex found in a leaf's name determines the
                        block's name, a template with groups such as ``\1``;
                        ``None`` is the leaf's own name. ``split`` is one of
                        the last five above.
  ====================  ======================================================

  Args:
    bank: the task vectors.
    by: the granularity, see above.
    value: the value of all coefficients: 0 is the base, 1 / T the mean.
    depth: for ``'layer'``, a regular expression with one group that captures
      the number of the layer: ``r'block_(\d+)/'``.
    key: for random cells. An entry's cell depends on the key, the leaf's name
      and the entry's position, not on the sharding.

  Returns:
    The coefficients, float32, or float64 if the base holds float64.

  Raises:
    ValueError: if a rule is unknown or matches no leaf, a leaf matches no rule
      or cannot be split so, or a key or a depth is missing.

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
  convolutions at zero, and leaves of one shape share it: give its partitions as
  ``'masks'``.
  """
  tree.check_scalars('init', value=value)
  rules = block_rules.parse(bank, by, depth)
  covered = block_rules.cover(bank, rules)
  shapes = {name: shape for name, shape, _ in bank.specs}
  places, blocks = [], dict[str, tuple[int, ...]]()
  for name, (block, split) in covered.items():
    cells, seed = _partition(split, name, shapes[name], key)
    places.append((name, coef_tree.Place(block, cells, seed)))
    rest = cell_maps.shape(cells, shapes[name])
    shape = () if by == 'all' else (len(bank), *rest)
    if blocks.setdefault(block, shape) != shape:
      raise ValueError(
        f"init: leaf '{name}' needs coefficients {shape}, others in block "
        f"'{block}' {blocks[block]}: split them alike, or name another block"
      )
  if tree.is_traced(value):
    tree.check_not_narrowed('init', bank.leaves)
  dtype = banks.dtype_of(bank)
  # Without x64, coefficients of float64 are numpy arrays on the host.
  full: Any = np.full if tree.narrowed(dtype) else jnp.full
  values = {block: full(s, value, dtype) for block, s in blocks.items()}
  return coef_tree.Coefs(values, tuple(places))


def _partition(
  split: Any, name: str, leaf: tuple[int, ...], key: types.PRNGKey | None
) -> tuple[cell_maps.Cells, cell_maps.Seed]:
  """Returns the cells of a leaf, and two words for random ones."""
  if isinstance(split, tuple) and len(split) == 2 and split[0] == 'masks':
    given = members.parse('init', split[1], name, leaf)
    return cell_maps.Given(given.number), given
  cells = cell_maps.parse('init', split, name, leaf)
  if not isinstance(cells, cell_maps.Random):
    return cells, cell_maps.SEEDLESS
  if key is None:
    raise ValueError('init: a random partition needs key=jax.random.key(...)')
  words = jax.random.bits(tree.name_key(key, name), (2,), np.uint32)
  return cells, tuple(int(word) for word in words)
