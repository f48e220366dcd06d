"""Sharding rules: which mesh axes each leaf is sharded over.

A rule is a regular expression, searched in the name of a leaf, and a partition.
The first rule that matches a leaf applies to it. Every leaf needs a rule, and
every rule a leaf.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any, TypeAlias

import jax
import numpy as np

from wsl import tree, types
from wsl.mesh import _make, _partitions

Rules: TypeAlias = (
  _partitions.Partition
  | Sequence[tuple[str, _partitions.Partition]]
  | Mapping[str, _partitions.Partition]
)


def shardings(
  params: types.Params, rules: Rules, mesh: jax.sharding.Mesh
) -> types.Tree:
  """Returns the sharding of each leaf by ordered rules.

  Args:
    params: any pytree of arrays, leaves on demand or ``jax.ShapeDtypeStruct``.
    rules: pairs of a regular expression, searched in the name of a leaf, and a
      partition, in order of precedence, or a dict of them; or one partition for
      all leaves. A partition is

      * a ``jax.P``, one entry for each axis of the leaf (axes without an entry
        are not sharded);
      * text: the names of mesh axes, separated by commas. They shard the
        largest axis of the leaf that they divide, the last of equal ones; a
        leaf without such an axis is replicated;
      * ``None``, the default rule: all mesh axes but ``candidates``, as text.
        ``jax.P()`` replicates.
    mesh: a mesh of automatic axes, see ``make``.

  Returns:
    A tree of ``jax.sharding.NamedSharding``, for ``shard``,
    ``checkpoint.load(sharding=)`` or ``jax.jit(out_shardings=)``.

  Raises:
    ValueError: naming the leaf without a rule or the rule without a leaf; if a
      partition has an unknown mesh axis, more entries than its leaf has axes,
      or an axis that it does not divide; or if the mesh has explicit axes.

  Example:
    >>> import numpy as np
    >>> from wsl import mesh
    >>> m = mesh.make('model:1')
    >>> params = {'head': np.ones(3), 'body': np.ones((4, 8))}
    >>> rules = [('^head', jax.P()), ('.*', 'model')]
    >>> tuple(mesh.shardings(params, rules, m)['body'].spec)
    (None, 'model')
  """
  return places('shardings', arrays('shardings', params), rules, mesh)


def places(
  function: str, params: types.Params, rules: Rules, mesh: jax.sharding.Mesh
) -> types.Tree:
  """Returns the sharding of each leaf; messages begin with the function."""
  placed = _placements(function, params, rules, mesh)
  return jax.tree.map(
    lambda p: jax.sharding.NamedSharding(mesh, p.spec),
    placed,
    is_leaf=_is_placement,
  )


def explain(params: types.Params, rules: Rules, mesh: jax.sharding.Mesh) -> str:
  """Describes the sharding of each leaf: its partition, rule and bytes.

  Args:
    params: as in ``shardings``.
    rules: as in ``shardings``.
    mesh: a mesh of automatic axes, see ``make``.

  Returns:
    The mesh; a line for each leaf: its name, shape, partition, the bytes on one
    device and in all, and the rule; and the sums.

  Raises:
    ValueError: as ``shardings``.

  Example:
    >>> import numpy as np
    >>> from wsl import mesh
    >>> params = {'n': np.float32(1), 'w': np.ones((4, 8), np.float32)}
    >>> print(mesh.explain(params, [('.*', 'model')], mesh.make('model:1')))
    mesh model:1
    n  ()      replicated       4 of 4      '.*': 'model', divides no axis
    w  (4, 8)  (None, 'model')  128 of 128  '.*': 'model'
    each device has 132 of 132 bytes
  """
  params = arrays('explain', params)
  placed = _placements('explain', params, rules, mesh)
  rows, sums = [], [0, 0]
  leaves = tree.named(params)
  for name, found in tree.named(placed, is_leaf=_is_placement).items():
    shape = tuple(leaves[name].shape)
    shard = jax.sharding.NamedSharding(mesh, found.spec).shard_shape(shape)
    width = jax.dtypes.itemsize_bits(leaves[name].dtype) // 8
    sizes = [width * math.prod(shard), width * math.prod(shape)]
    sums = [total + size for total, size in zip(sums, sizes)]
    spec = str(tuple(found.spec)) if any(found.spec) else 'replicated'
    row = (name, str(shape), spec, f'{sizes[0]} of {sizes[1]}', found.reason)
    rows.append(row)
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]
  total = f'each device has {sums[0]} of {sums[1]} bytes'
  return '\n'.join([f'mesh {_make.describe(mesh)}', *lines, total])


def arrays(function: str, params: types.Params) -> types.Params:
  """Returns the tree with numbers of Python as arrays.

  Raises:
    ValueError: naming a leaf that is no number.
  """

  def array(name: str, leaf: Any) -> Any:
    x = leaf if hasattr(leaf, 'shape') else np.asarray(leaf)
    if isinstance(x.dtype, np.dtype) and x.dtype.kind in 'OSUMm':
      kind = type(leaf).__name__
      raise ValueError(
        f"{function}: leaf '{name}' is a {kind} of {x.dtype}: only numbers are "
        'sharded, leave it out'
      )
    return x

  return tree.map_named(array, params)


def _placements(
  function: str, params: types.Params, rules: Rules, mesh: jax.sharding.Mesh
) -> types.Tree:
  """Returns the ``Placement`` of each leaf, after all checks."""
  _make.check(function, mesh)
  ordered = _pairs(function, rules)
  # A rule whose value is None is a rule, and no empty subtree.
  boxed = [(pattern, (pattern, rule)) for pattern, rule in ordered]
  try:
    chosen = tree.by_regex(params, boxed) if jax.tree.leaves(params) else params
  except ValueError as error:
    raise ValueError(f'{function}: {error}') from None

  def place(
    name: str, leaf: Any, rule: tuple[str, _partitions.Partition]
  ) -> _partitions.Placement:
    label = f"{function}: leaf '{name}' of shape {tuple(leaf.shape)}"
    return _partitions.place(label, tuple(leaf.shape), *rule, mesh)

  return tree.map_named(place, params, chosen)


def _pairs(
  function: str, rules: Any
) -> list[tuple[str, _partitions.Partition]]:
  """Returns rules as pairs of a regular expression and a partition.

  Raises:
    ValueError: naming the first rule that is none.
  """
  kinds = (str, jax.sharding.PartitionSpec, type(None))
  if isinstance(rules, kinds):
    return [('', rules)]
  pairs = rules.items() if isinstance(rules, Mapping) else rules
  try:
    pairs = list(pairs)
  except TypeError:
    pairs = [rules]
  for rule in pairs:
    two = isinstance(rule, (tuple, list)) and len(rule) == 2
    if (
      not two or not isinstance(rule[0], str) or not isinstance(rule[1], kinds)
    ):
      raise ValueError(
        f'{function}: {str(rule)[:60]!r} is no rule: give pairs of a regular '
        "expression and a jax.P, names of mesh axes or None, as in [('embed', "
        "jax.P()), ('.*', 'model')]"
      )
  return pairs


def _is_placement(x: Any) -> bool:
  """Stops at placements, which are tuples."""
  return isinstance(x, _partitions.Placement)
