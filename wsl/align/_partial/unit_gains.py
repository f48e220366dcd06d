"""Similarity of the matched units of two aligned models."""

from collections.abc import Callable, Sequence
import itertools

import jax.numpy as jnp

from wsl import tree, types
from wsl.align import _arguments, _blocks, _symmetry
from wsl.align._partial import separate_units


def unit_gains(
  a: types.Params,
  b: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  leaves: types.Leaves = _arguments.default_leaves,
) -> dict[str, types.Array]:
  r"""Returns the similarity of each unit to its match in another model.

  .. math:: c_i = \sum_{W \ni i} \langle W^A_i, W^B_i \rangle

  over the slices of all leaves that belong to unit i: the diagonal of the gain
  matrix of ``weight_matching``.

  Args:
    a: a model.
    b: a model aligned to a.
    symmetry: their symmetry.
    leaves: which leaves count, a regular expression or a predicate; by default
      all but running statistics of normalisation.

  Returns:
    For each group an array ``[*outer sizes, size]``, float32 or wider.

  Raises:
    ValueError: if a model does not fit the symmetry, or a chosen leaf has
      different shapes in a and b.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 2)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> a, b = {'a': jnp.asarray([1.0, 2.0])}, {'a': jnp.asarray([3.0, -1.0])}
    >>> unit_gains(a, b, symmetry=symmetry)['a:0'].tolist()
    [3.0, -2.0]
  """
  tree.check_names('unit_gains: b', b, 'a', a)
  _arguments.check_leaves(symmetry, tree.named(a), 'unit_gains: a')
  chosen, of_b = tree.named(tree.select(a, leaves)), tree.named(b)
  for name, x in tree.named(a).items():
    if chosen[name] and x.shape != of_b[name].shape:
      raise ValueError(
        f"unit_gains: leaf '{name}' has shape {x.shape} in a and "
        f'{of_b[name].shape} in b: leave it out of leaves'
      )
  parts: dict[str, list[types.Array]] = {g.name: [] for g in symmetry.groups}
  for name, x in tree.named(a).items():
    if chosen[name] and jnp.issubdtype(x.dtype, jnp.inexact):
      layout = symmetry.layout(name)
      # One leaf at a time, if the models are on demand.
      y = tree.read(of_b[name])
      for group, gain in _leaf_gains(tree.read(x), y, layout=layout):
        parts[group].append(gain)
  return {
    name: sum(found[1:], found[0])
    if found
    else jnp.zeros(symmetry.table_shape(name))
    for name, found in parts.items()
  }


def mismatch(
  a: types.Params,
  b: types.Params,
  *,
  symmetry: _symmetry.Symmetry,
  leaves: types.Leaves = _arguments.default_leaves,
) -> dict[str, float]:
  r"""Returns the relative squared distance of each group of two models.

  .. math:: w_g = \frac{\sum_{W \ni g} \| W^A - W^B \|^2}
    {\sum_{W \ni g} \| W^A \|^2 + \| W^B \|^2}

  It is 0 for copies and 1 for unrelated weights: a cheap estimate, for
  ``widths``, of the gain from keeping a group separate.

  Args:
    a: a model.
    b: a model aligned to a.
    symmetry: their symmetry.
    leaves: which leaves count, as in ``unit_gains``.

  Returns:
    A number for each group; 0 for a group whose weights are all zero.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import align
    >>> hidden = align.Factor('a:0', 2)
    >>> symmetry = align.Symmetry((hidden,), (('a', ((('a:0',),),)),))
    >>> a, b = {'a': jnp.asarray([1.0, 0.0])}, {'a': jnp.asarray([0.0, 1.0])}
    >>> mismatch(a, b, symmetry=symmetry)
    {'a:0': 1.0}
  """
  # |A - B|^2 = |A|^2 + |B|^2 - 2 <A, B>, and all three are sums of unit gains.
  ab, aa, bb = (
    unit_gains(x, y, symmetry=symmetry, leaves=leaves)
    for x, y in ((a, b), (a, a), (b, b))
  )
  sums = {g: [float(t[g].sum()) for t in (ab, aa, bb)] for g in ab}
  return {
    g: 1 - 2 * cross / (one + two) if one + two > 0 else 0.0
    for g, (cross, one, two) in sums.items()
  }


def comparable_leaves(
  symmetry: _symmetry.Symmetry, outputs: Sequence[str]
) -> Callable[[str, tuple[int, ...]], bool]:
  """Returns a predicate for the leaves with the same meaning in both models.

  Args:
    symmetry: a symmetry.
    outputs: factors whose entries have different meanings in the two models.
  """
  excluded = separate_units.leaves_with_factors(symmetry, outputs)

  def leaves(name: str, shape: tuple[int, ...]) -> bool:
    return name not in excluded and _arguments.default_leaves(name, shape)

  return leaves


def _leaf_gains(
  x: types.Array, y: types.Array, *, layout: _blocks.Layout
) -> list[tuple[str, types.Array]]:
  """Returns the gains of a leaf for each occurrence of a group in a block."""
  # In the order of blocks and factors of _sums_per_unit.
  names = [
    factor.name
    for segments in itertools.product(
      *(_blocks.flatten(parts)[0] for parts in layout)
    )
    for segment in segments
    for factor in segment
    if not factor.pinned
  ]
  sums = tree.apply_kernel(_sums_per_unit, x, y, layout=tree.Static(layout))
  return list(zip(names, sums))


def _sums_per_unit(
  x: types.Array, y: types.Array, *, layout: _blocks.Layout
) -> list[types.Array]:
  """Returns the sums of Re(conj(x) y) over the slice of each unit."""
  return [
    _sum_to_factor(block, factors, i)
    for block, factors in _blocks.to_blocks(
      tree.inner(tree.wide(x), tree.wide(y)), layout
    )
    for i, factor in enumerate(factors)
    if not factor.pinned
  ]


def _sum_to_factor(
  block: types.Array, factors: _blocks.Factors, i: int
) -> types.Array:
  """Sums a block over all axes except a factor and its outer factors."""
  # A gain has the axes of a permutation table, [*outer, factor].
  names = [factor.name for factor in factors]
  places = [*map(names.index, factors[i].outer), i]
  rest = [axis for axis in range(block.ndim) if axis not in places]
  order = [sorted(places).index(place) for place in places]
  return jnp.transpose(block.sum(rest), order)
