"""Training and evaluation on a mesh: where batches and states are.

A batch is sharded as the examples are over their first axis, and a state stays
where it is. XLA partitions the rest of the step, which it can only do well if
it knows both. Traced arrays have no placement: there, XLA decides.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsl import tree, types

# The sharding of each leaf; None for one that is on no mesh.
Places = tuple[jax.sharding.NamedSharding | None, ...]


class Split(NamedTuple):
  """The mesh axes over which examples are sharded.

  Attributes:
    sharding: of one axis of examples; None if they are on one device.
    shards: the number of parts, 1 on one device.
  """

  sharding: jax.sharding.NamedSharding | None
  shards: int


def places(state: types.Tree) -> Places:
  """Returns the sharding of each leaf on a mesh of several devices."""
  return tuple(_place(leaf) for leaf in jax.tree.leaves(state))


def keep(state: types.Tree, where: Places) -> types.Tree:
  """Constrains the leaves of a traced tree to their places."""
  leaves, structure = jax.tree.flatten(state)
  leaves = [
    x if place is None else jax.lax.with_sharding_constraint(x, place)
    for x, place in zip(leaves, where, strict=True)
  ]
  return jax.tree.unflatten(structure, leaves)


def split(data: types.Tree, *, caller: str) -> Split:
  """Returns the mesh axes over which the examples are sharded.

  Args:
    data: examples, every leaf ``[N, ...]``.
    caller: the public function to name in the error message.

  Raises:
    ValueError: naming the leaf that is sharded differently from the first.
  """
  found = {name: _rows(x) for name, x in tree.named(data).items()}
  first = next(iter(found))
  for name, sharding in found.items():
    if sharding != found[first]:
      raise ValueError(
        f"{caller}: the first axis of data leaf '{name}' is sharded "
        f"differently from that of '{first}': shard both alike, by "
        "mesh.shard(data, jax.P('data'), ...)"
      )
  sharding = found[first]
  if sharding is None:
    return Split(None, 1)
  axes = sharding.spec[0]
  axes = axes if isinstance(axes, tuple) else (axes,)
  shards = 1
  for axis in axes:
    shards *= sharding.mesh.shape[axis]
  return Split(sharding, shards)


def take(data: types.Tree, indices: types.Array, where: Split) -> types.Tree:
  """Returns the examples at some indices, sharded as all are."""

  def one(x: types.Array) -> types.Array:
    # XLA (of jax 0.10) aborts at a gather of single numbers from a sharded
    # vector in a loop, by indices of several mapped runs. Two columns of the
    # same numbers are partitioned well.
    if where.sharding is not None and x.size == x.shape[0]:
      return jnp.stack([x, x], -1)[indices][..., 0]
    return x[indices]

  return rows(jax.tree.map(one, data), where)


def rows(batch: types.Tree, where: Split) -> types.Tree:
  """Shards the first axis of a traced batch."""
  if where.sharding is None:
    return batch
  fix = lambda x: jax.lax.with_sharding_constraint(x, where.sharding)
  return jax.tree.map(fix, batch)


def _rows(leaf: Any) -> jax.sharding.NamedSharding | None:
  """Returns the sharding of the first axis alone; None if it has none."""
  place = _place(leaf)
  axes = place.spec[0] if place is not None and len(place.spec) else None
  if place is None or axes is None:
    return None
  return jax.sharding.NamedSharding(
    place.mesh, jax.sharding.PartitionSpec(axes)
  )


def _place(leaf: Any) -> jax.sharding.NamedSharding | None:
  """Returns the sharding of an array on a mesh of several devices."""
  if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
    return None
  place = leaf.sharding
  if not isinstance(place, jax.sharding.NamedSharding) or place.mesh.size == 1:
    return None
  return place
