"""Moving parameters onto a mesh, from it, and to where others are."""

from typing import Any

import jax
import numpy as np

from wsl import tree, types
from wsl.mesh import _rules


def shard(
  params: types.Params, rules: _rules.Rules, mesh: jax.sharding.Mesh
) -> types.Params:
  """Shards each leaf over a mesh by ordered rules.

  Leaves on demand are read one after the other. A checkpoint that is larger
  than the host is loaded by ``checkpoint.load(sharding=mesh.shardings(...))``.

  Args:
    params: any pytree of arrays. In a run of several processes, every process
      has the whole arrays, with the same values.
    rules: pairs of a regular expression and a partition, or one partition; see
      ``shardings``. ``None`` shards the largest axis of each leaf that the mesh
      divides.
    mesh: a mesh of automatic axes, see ``make``.

  Returns:
    The same tree of ``jax.Array``. Leaves of 64 bits stay on the host where
    ``jax_enable_x64`` is off: JAX would narrow them.

  Raises:
    ValueError: as ``shardings``.

  Example:
    >>> from wsl import mesh
    >>> params = mesh.shard({'w': np.ones((4, 8), np.float32)}, 'model',
    ...                     mesh.make('model:1'))
    >>> tuple(params['w'].sharding.spec)
    (None, 'model')
  """
  params = _rules.arrays('shard', params)
  wanted = _rules.places('shard', params, rules, mesh)
  return jax.tree.map(lambda x, s: put(tree.read(x), s), params, wanted)


def like(params: types.Params, other: types.Params) -> types.Params:
  """Places each leaf where the leaf of the same name in another tree is.

  Args:
    params: any pytree of arrays.
    other: a tree with the same leaves, or leaves that lack the first axes of
      those of ``params``: a stack of models is sharded as one model is, and its
      first axis is not sharded.

  Returns:
    The leaves of ``params``, sharded as those of ``other``; numpy arrays where
    ``other`` has them.

  Raises:
    ValueError: naming the first leaf that only one of them has, or that does
      not have the shape of the other one.

  Example:
    >>> from wsl import mesh
    >>> base = mesh.shard({'w': np.ones((4, 8), np.float32)}, 'model',
    ...                   mesh.make('model:1'))
    >>> stack = mesh.like({'w': np.ones((3, 4, 8), np.float32)}, base)
    >>> tuple(stack['w'].sharding.spec)
    (None, None, 'model')
  """
  other = tree.conform('like: other', other, 'params', params)

  def move(name: str, x: Any, place: Any) -> Any:
    more = len(x.shape) - len(place.shape)
    if more < 0 or tuple(x.shape[more:]) != tuple(place.shape):
      raise ValueError(
        f"like: leaf '{name}' has shape {tuple(x.shape)}, in other "
        f'{tuple(place.shape)}: give the same leaves, or a stack of them'
      )
    x = tree.read(x)
    if not isinstance(place, jax.Array):
      return gather(x)
    where = place.sharding
    if more and isinstance(where, jax.sharding.NamedSharding):
      spec = jax.sharding.PartitionSpec(*[None] * more, *where.spec)
      where = jax.sharding.NamedSharding(where.mesh, spec)
    return put(x, where)

  return tree.map_named(move, params, other)


def gather(params: types.Params) -> types.Params:
  """Returns every leaf as a numpy array on the host.

  In a run of several processes all of them call it, and each has the whole
  model.

  Args:
    params: any pytree of arrays, sharded or not, in memory or on demand.

  Returns:
    The same tree of numpy arrays, in the dtypes of the leaves.

  Example:
    >>> from wsl import mesh
    >>> m = mesh.make('model:1')
    >>> mesh.gather(mesh.shard({'w': np.arange(2.0)}, 'model', m))
    {'w': array([0., 1.])}
  """
  return jax.tree.map(to_host, params)


def to_host(leaf: Any) -> np.ndarray:
  """Returns a leaf as a numpy array, whatever its devices."""
  x = tree.read(leaf)
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    from jax.experimental import multihost_utils

    x = multihost_utils.process_allgather(x, tiled=True)
  return np.asarray(x)


def put(x: Any, where: jax.sharding.Sharding) -> Any:
  """Places an array, of which every process has all values or its shards.

  An array that JAX would narrow stays on the host.
  """
  if tree.narrowed(x.dtype):
    return x
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    words = put(jax.random.key_data(x), where)
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
  local = not isinstance(x, jax.Array) or x.is_fully_addressable
  if local and not where.is_fully_addressable:
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, where, lambda i: host[i])
  return jax.device_put(x, where)
