"""Sharding rules: which mesh axes each leaf is sharded over.

A rule is a regular expression, searched in the name of a leaf, and a partition.
The first rule that matches a leaf applies to it. Every leaf needs a rule, and
every rule a leaf.
"""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from wsl import tree, types
from wsl.mesh import _make

Partition: TypeAlias = jax.sharding.PartitionSpec | str | None
Rules: TypeAlias = Partition | Sequence[tuple[str, Partition]]


class Placement(NamedTuple):
  """How one leaf is sharded, and the reason."""

  spec: jax.sharding.PartitionSpec
  reason: str


def shardings(
  params: types.Params, rules: Rules, mesh: jax.sharding.Mesh
) -> types.Tree:
  """Returns the sharding of each leaf by ordered rules.

  Args:
    params: any pytree of arrays, leaves on demand or ``jax.ShapeDtypeStruct``.
    rules: pairs of a regular expression, searched in the name of a leaf, and a
      partition, in order of precedence; or one partition for all leaves. A
      partition is

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
  return places('shardings', arrays(params), rules, mesh)


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
  params = arrays(params)
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


def arrays(params: types.Params) -> types.Params:
  """Returns the tree with numbers of Python as arrays."""
  return jax.tree.map(
    lambda x: x if hasattr(x, 'shape') else np.asarray(x), params
  )


def _placements(
  function: str, params: types.Params, rules: Rules, mesh: jax.sharding.Mesh
) -> types.Tree:
  """Returns the ``Placement`` of each leaf, after all checks."""
  _make.check(function, mesh)
  ordered: Any = rules
  if rules is None or isinstance(rules, (str, jax.sharding.PartitionSpec)):
    ordered = [('', rules)]
  # A rule whose value is None is a rule, and no empty subtree.
  boxed = [(pattern, (pattern, rule)) for pattern, rule in ordered]
  try:
    chosen = tree.by_regex(params, boxed) if jax.tree.leaves(params) else params
  except ValueError as error:
    raise ValueError(f'{function}: {error}') from None

  def place(name: str, leaf: Any, rule: tuple[str, Partition]) -> Placement:
    label = f"{function}: leaf '{name}' of shape {tuple(leaf.shape)}"
    return _place(label, tuple(leaf.shape), *rule, mesh)

  return tree.map_named(place, params, chosen)


def _place(
  label: str,
  shape: tuple[int, ...],
  pattern: str,
  rule: Partition,
  mesh: jax.sharding.Mesh,
) -> Placement:
  """Returns where one leaf is placed by a rule."""
  reason = f"'{pattern}': {_text(rule)}" if pattern else _text(rule)
  if isinstance(rule, jax.sharding.PartitionSpec):
    _check_spec(label, shape, rule, mesh)
    return Placement(rule, reason)
  if rule is None:
    names = [n for n in mesh.axis_names if n != _make.CANDIDATES]
  else:
    names = [name.strip() for name in rule.split(',')]
  _check_names(label, names, mesh)
  size = math.prod(mesh.shape[name] for name in names)
  axes = [(n, i) for i, n in enumerate(shape) if n and n % size == 0]
  if not axes or not names:
    reason += ', divides no axis' if names else ', no axis but candidates'
    return Placement(jax.sharding.PartitionSpec(), reason)
  entry = names[0] if len(names) == 1 else tuple(names)
  _, axis = max(axes)
  return Placement(jax.sharding.PartitionSpec(*[None] * axis, entry), reason)


def _check_spec(
  label: str,
  shape: tuple[int, ...],
  spec: jax.sharding.PartitionSpec,
  mesh: jax.sharding.Mesh,
) -> None:
  """Checks that a partition fits the shape of its leaf."""
  if len(spec) > len(shape):
    raise ValueError(
      f'{label}: {spec} has {len(spec)} entries: give at most one for each axis'
    )
  for axis, entry in enumerate(spec):
    names = [entry] if isinstance(entry, str) else list(entry or ())
    _check_names(label, names, mesh)
    size = math.prod(mesh.shape[name] for name in names)
    if shape[axis] % size:
      raise ValueError(
        f'{label}: axis {axis} of {shape[axis]} is not divisible by {size}, '
        f'the size of {" x ".join(names)}: shard another axis, or none'
      )


def _check_names(
  label: str, names: Sequence[str], mesh: jax.sharding.Mesh
) -> None:
  """Checks that a mesh has axes of these names."""
  for name in names:
    if name not in mesh.shape:
      known = list(mesh.axis_names)
      hint = tree.nearest(name, known) or f': it has {known}'
      raise ValueError(f"{label}: the mesh has no axis '{name}'{hint}")


def _text(rule: Partition) -> str:
  """Writes a rule as in code."""
  if rule is None:
    return 'default'
  is_spec = isinstance(rule, jax.sharding.PartitionSpec)
  return f'P{tuple(rule)}' if is_spec else repr(rule)


def _is_placement(x: Any) -> bool:
  """Stops at placements, which are tuples."""
  return isinstance(x, Placement)
