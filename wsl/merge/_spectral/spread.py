"""Matrices distributed over the devices of a mesh: each decomposes its part.

An SVD has no parts that several devices could share, so XLA would gather every
matrix on all of them. Matrices of one shape are independent: of a stack ``[T,
B, m, n]`` each device takes B / D whole matrices, by an exchange between pairs
of devices (all-to-all) instead of a gather.
"""

from collections.abc import Callable, Iterator
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from wsl import types

# How the leaves of a stack are sharded; None if they are traced.
Spec: TypeAlias = jax.sharding.PartitionSpec | None


def spread(
  method: Callable[[types.Array], types.Array], x: types.Array, spec: Spec
) -> types.Array:
  """Maps ``[T, B, m, n]`` to ``[..., B, m, n]``, a part of B on each device.

  Args:
    method: a function of stacks, to ``[B, m, n]`` or ``[T, B, m, n]``.
    x: ``[T, B, m, n]``, traced.
    spec: how the leaves are sharded, ``[T, ...]``.
  """
  if devices(x) == 1:
    return method(x)
  mesh: Any = jax.typeof(x).sharding.mesh
  count = x.shape[1]
  missing = -count % devices(x)
  last = jnp.broadcast_to(x[:, -1:], (len(x), missing, *x.shape[2:]))
  x = jnp.concatenate([x, last], 1)
  # XLA moves one group of axes from m, n or T to B by an exchange. It would
  # gather a stack that several of them leave at once.
  free = jax.sharding.PartitionSpec.UNCONSTRAINED
  groups = steps(mesh, spec)
  for group in groups:
    x = place(x, mesh, free, group, free, free)
  x = place(x, mesh, None, groups[-1], None, None)
  found = method(x)
  front: list[Any] = [None] * (found.ndim - 3)
  found = place(found, mesh, *front, groups[-1], None, None)
  # Back to where ``restore`` will place the leaves, by the same exchanges.
  front = [free] * len(front)
  for group in [(), *groups[:-1]][::-1] if spec is not None else ():
    found = place(found, mesh, *front, group or None, free, free)
  return found[..., :count, :, :]


def steps(mesh: Any, spec: Spec) -> list[tuple[str, ...]]:
  """Lists the mesh axes that shard a new axis after each exchange.

  Args:
    mesh: the mesh of a traced array, with several devices.
    spec: how an array is sharded: those axes come first, a group at a time.
  """
  names = [*_automatic(mesh)]
  found: list[tuple[str, ...]] = [()]
  for group in (*_groups(spec), *((name,) for name in names)):
    new = [name for name in group if name in names and name not in found[-1]]
    found += [(*found[-1], *new)] * bool(new)
  return found[1:]


def devices(x: types.Array) -> int:
  """Returns the number of devices over which XLA partitions a traced array."""
  mesh: Any = jax.typeof(x).sharding.mesh
  return math.prod(mesh.shape[name] for name in _automatic(mesh))


def spec_of(x: Any) -> Spec:
  """Returns how an array in memory is sharded over a mesh."""
  if isinstance(x, jax.core.Tracer) or not isinstance(x, jax.Array):
    return None
  where = x.sharding
  return where.spec if isinstance(where, jax.sharding.NamedSharding) else None


def restore(x: types.Array, spec: Spec, rank: int) -> types.Array:
  """Shards a result ``[...]`` or ``[T, ...]`` as leaves ``[T, ...]`` were.

  Args:
    x: the result, traced.
    spec: how the leaves were sharded.
    rank: the number of axes of the leaves.
  """
  mesh: Any = jax.typeof(x).sharding.mesh
  if spec is None or not [*_automatic(mesh)]:
    return x
  return place(x, mesh, *spec[rank - x.ndim :])


def _groups(spec: Spec) -> Iterator[tuple[str, ...]]:
  """Yields the mesh axes that shard one axis of a leaf together."""
  for entry in spec or ():
    if entry is not None:
      yield (entry,) if isinstance(entry, str) else tuple(entry)


def _automatic(mesh: Any) -> Iterator[str]:
  """Yields the axes of a mesh over which XLA partitions."""
  for name, kind in zip(mesh.axis_names, mesh.axis_types):
    if kind == jax.sharding.AxisType.Auto and mesh.shape[name] > 1:
      yield name


def place(x: types.Array, mesh: Any, *entries: Any) -> types.Array:
  """Constrains how a traced array is sharded; without entries, not at all."""
  spec = jax.sharding.PartitionSpec(*entries)
  where = jax.sharding.NamedSharding(mesh, spec)
  return jax.lax.with_sharding_constraint(x, where)
