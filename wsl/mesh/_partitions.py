"""How one leaf is sharded by a rule."""

from collections.abc import Sequence
import math
from typing import NamedTuple, TypeAlias

import jax

from wsl import tree
from wsl.mesh import _make

Partition: TypeAlias = jax.sharding.PartitionSpec | str | None


class Placement(NamedTuple):
  """How one leaf is sharded, and the reason."""

  spec: jax.sharding.PartitionSpec
  reason: str


def place(
  label: str,
  shape: tuple[int, ...],
  pattern: str,
  rule: Partition,
  mesh: jax.sharding.Mesh,
) -> Placement:
  """Returns where one leaf is placed by a rule."""
  reason = f"'{pattern}': {text(rule)}" if pattern else text(rule)
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
    if entry is jax.sharding.PartitionSpec.UNCONSTRAINED:
      raise ValueError(f'{label}: axis {axis} is unconstrained: give None')
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
  """Checks that a mesh has axes of these names, each given once."""
  if len(set(names)) < len(names):
    raise ValueError(f'{label}: a mesh axis is given twice in {list(names)}')
  for name in names:
    if name not in mesh.shape:
      known = list(mesh.axis_names)
      hint = tree.nearest(name, known) or f': it has {known}'
      raise ValueError(f"{label}: the mesh has no axis '{name}'{hint}")


def text(rule: Partition) -> str:
  """Writes a rule as in code."""
  if rule is None:
    return 'default'
  is_spec = isinstance(rule, jax.sharding.PartitionSpec)
  return f'P{tuple(rule)}' if is_spec else repr(rule)
