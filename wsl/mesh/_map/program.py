"""The compiled program of a function mapped over a mesh axis.

The function is traced once for one candidate. Arrays that it closes over, which
``jax.jit`` would embed as constants, are operands of the program: they keep
their sharding over the other mesh axes, and are in memory once.

Each device has consecutive candidates, and ``start`` is the first of a batch
among them. A call may evaluate several batches in turn, in a loop of the
program: to call the program of a small model takes longer than to run it. The
mapped axis is manual (``shard_map``) and the others automatic: XLA partitions
the function over them as it does elsewhere.
"""

import dataclasses
import math
import types as methods
from typing import Any
import weakref

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.mesh import _place
from wsl.mesh._map import evaluate as evaluate_lib

# Programs by function: they are released when the function is.
_PROGRAMS: Any = weakref.WeakKeyDictionary()
# The bytes of the results of one call on one device.
_RESULT_BYTES = 1 << 22


@dataclasses.dataclass
class Program:
  """A mapped function.

  Attributes:
    run: ``run(constants, bound, candidates, start, count)``, lists of arrays
      and two numbers, returns the flat results of ``count`` batches of each
      device, the first of ``[D, most * batch, ...]``.
    constants: the arrays that the function closes over.
    structure: the tree of the results.
    most: the most batches of one call.
    pace: the seconds that a batch took in the last call; ``None`` before it.
  """

  run: Any
  constants: list[Any]
  structure: Any
  most: int
  pace: float | None = None


def find(
  fn: jax.tree_util.Partial,
  candidates: types.Tree,
  mesh: jax.sharding.Mesh,
  axis: str,
  batch: int,
) -> Program:
  """Returns the program of a function, compiled once for each shape."""
  leaves, structure = jax.tree.flatten((fn.args, fn.keywords, candidates))
  settings = (
    jax.config.read('jax_enable_x64'),
    jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
  )
  # A bound method is a new object at each access; its instance is not.
  owner: Any = fn.func
  function: Any = None
  if isinstance(owner, methods.MethodType):
    owner, function = owner.__self__, owner.__func__
  shapes = [(x.shape, x.dtype) for x in map(jax.typeof, leaves)]
  key = (function, structure, *shapes, *settings, mesh, axis, batch)
  try:
    programs = _PROGRAMS.setdefault(owner, {})
  except TypeError:  # an object without a hash or without weak references
    programs = {}
  if key not in programs:
    programs[key] = _compile(fn, candidates, mesh, axis, batch)
  return programs[key]


def on_mesh(x: Any, mesh: jax.sharding.Mesh) -> Any:
  """Replicates an array, unless it is on the devices of the mesh."""
  devices = x.sharding.device_set if isinstance(x, jax.Array) else set()
  if devices == set(mesh.devices.flat):
    return x
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return _place.put(jnp.asarray(x), everywhere)


def _compile(
  fn: jax.tree_util.Partial,
  candidates: types.Tree,
  mesh: jax.sharding.Mesh,
  axis: str,
  batch: int,
) -> Program:
  """Traces a function of one candidate, and maps its program."""
  func, bound = fn.func, (fn.args, fn.keywords)
  if hasattr(func, 'lower') and hasattr(func, '__wrapped__'):
    func = func.__wrapped__  # jax.jit would keep its arrays as constants
  whole, each = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(axis)

  # Traced outside of the mapped region: there, an array that the function
  # closes over would have axes of another type. It is an operand instead.
  first = jax.eval_shape(lambda x: jax.tree.map(lambda y: y[0], x), candidates)
  trace = jax.make_jaxpr(
    lambda bound, candidate: func(*bound[0], candidate, **bound[1]),
    return_shape=True,
  )
  closed, results = trace(bound, first)

  share = jax.tree.leaves(candidates)[0].shape[0] // mesh.shape[axis]
  most = _most_batches(closed.out_avals, batch, share)

  def on_device(
    constants: list[Any],
    bound: list[Any],
    candidates: list[Any],
    start: Any,
    count: Any,
  ) -> list[Any]:
    """Evaluates batches of the candidates of one device."""

    def evaluate(candidate: list[Any]) -> list[Any]:
      return evaluate_lib.evaluate(closed.jaxpr, constants, *bound, *candidate)

    def one(first: Any) -> list[Any]:
      if batch == 1:
        take = lambda x: jax.lax.dynamic_index_in_dim(x, first, 0, False)
        found = evaluate([*map(take, candidates)])
        return [jnp.asarray(y)[None] for y in found]
      cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, batch)
      return jax.vmap(evaluate)([*map(cut, candidates)])

    def step(i: Any, rows: list[Any]) -> list[Any]:
      # The last batch begins earlier, so that it is as large as the others.
      new = one(jnp.minimum(start + i * np.int32(batch), share - batch))
      at = i * np.int32(batch)
      put = lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, at, 0)
      return [put(x, y.astype(x.dtype)) for x, y in zip(rows, new)]

    if most == 1:
      return one(jnp.minimum(start, share - batch))
    empty = [
      jnp.zeros((most * batch, *y.shape), y.dtype) for y in closed.out_avals
    ]
    return list(jax.lax.fori_loop(np.int32(0), count, step, empty))

  # Automatic axes need no types of variation, which loops of user functions
  # would have to state.
  mapped = jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=(whole, whole, each, whole, whole),
    out_specs=each,
    axis_names={axis},
    check_vma=False,
  )
  constants = [on_mesh(x, mesh) for x in closed.consts]
  structure = jax.tree.structure(results)
  return Program(jax.jit(mapped), constants, structure, most)


def _most_batches(results: Any, batch: int, share: int) -> int:
  """Returns the most batches of one call, by the size of their results."""
  extended = lambda y: jax.dtypes.issubdtype(y.dtype, jax.dtypes.extended)
  if any(map(extended, results)):
    return 1
  size = sum(math.prod(y.shape) * y.dtype.itemsize for y in results)
  fitting = _RESULT_BYTES // max(size * batch, 1)
  return max(min(math.ceil(share / batch), fitting), 1)
