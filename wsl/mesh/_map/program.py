"""The compiled program of a function mapped over a mesh axis.

The function is traced once for one candidate. Arrays that it closes over, which
``jax.jit`` would embed as constants, are operands of the program: they keep
their sharding over the other mesh axes, and are in memory once.

Each device has consecutive candidates, and ``start`` is the first of a batch
among them. The mapped axis is manual (``shard_map``) and the others automatic:
XLA partitions the function over them as it does elsewhere.
"""

import types as methods
from typing import Any, NamedTuple
import weakref

import jax
import jax.numpy as jnp

from wsl import types
from wsl.mesh import _place

# Programs by function: they are released when the function is.
_PROGRAMS: Any = weakref.WeakKeyDictionary()


class Program(NamedTuple):
  """A mapped function.

  Attributes:
    run: ``run(constants, bound, candidates, start)``, lists of arrays, returns
      the flat results of a batch of each device, ``[D * batch, ...]``.
    constants: the arrays that the function closes over.
    structure: the tree of the results.
  """

  run: Any
  constants: list[Any]
  structure: Any


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

  def on_device(
    constants: list[Any], bound: list[Any], candidates: list[Any], start: Any
  ) -> list[Any]:
    """Evaluates a batch of the candidates of one device."""

    def evaluate(candidate: list[Any]) -> list[Any]:
      return _evaluate(closed.jaxpr, constants, *bound, *candidate)

    if batch == 1:
      take = lambda x: jax.lax.dynamic_index_in_dim(x, start, 0, False)
      found = evaluate([*map(take, candidates)])
      return [jnp.asarray(y)[None] for y in found]
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, batch)
    return jax.vmap(evaluate)([*map(cut, candidates)])

  # Automatic axes need no types of variation, which loops of user functions
  # would have to state.
  mapped = jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=(whole, whole, each, whole),
    out_specs=each,
    axis_names={axis},
    check_vma=False,
  )
  constants = [on_mesh(x, mesh) for x in closed.consts]
  return Program(jax.jit(mapped), constants, jax.tree.structure(results))


def _evaluate(jaxpr: Any, constants: list[Any], *arguments: Any) -> list[Any]:
  """Evaluates a traced program where its mesh has axes of other types.

  JAX notes the mesh of a closed-over array in the context and the parameters of
  operations, and ``jax.core.eval_jaxpr`` would restore it.
  """
  mesh = jax.sharding.get_abstract_mesh()
  seen: dict[int, Any] = {}
  values = dict(
    zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments])
  )
  read = lambda x: x.val if hasattr(x, 'val') else values[x]
  for eqn in jaxpr.eqns:
    given, params = map(read, eqn.invars), _on_mesh(eqn.params, mesh, seen)
    if eqn.primitive.name == 'jit' and params is not eqn.params:
      inner = params['jaxpr']  # inlined: its types have the other mesh
      found = _evaluate(inner.jaxpr, inner.consts, *given)
    else:
      params = eqn.primitive.get_bind_params(params)
      found = eqn.primitive.bind(*given, **params)
    several = eqn.primitive.multiple_results
    values.update(zip(eqn.outvars, found if several else [found]))
  return [*map(read, jaxpr.outvars)]


def _on_mesh(x: Any, mesh: jax.sharding.AbstractMesh, seen: Any) -> Any:
  """Returns parameters of an operation with a mesh of the same axes in them.

  Programs without a mesh remain the same objects, as JAX lowers each once.
  """
  if id(x) in seen:
    return seen[id(x)][1]
  new, recur = x, lambda y: _on_mesh(y, mesh, seen)
  if hasattr(x, 'jaxpr'):
    inner = recur(x.jaxpr)
    new = x if inner is x.jaxpr else x.replace(jaxpr=inner)
  elif hasattr(x, 'eqns'):
    params = [recur(e.params) for e in x.eqns]
    if any(a is not e.params for a, e in zip(params, x.eqns)):
      eqns = [e.replace(params=a) for a, e in zip(params, x.eqns)]
      new = x.replace(eqns=eqns)
  elif isinstance(x, dict):
    found = {key: recur(y) for key, y in x.items()}
    new = found if any(found[key] is not x[key] for key in x) else x
  elif type(x) in (tuple, list):
    parts = [recur(y) for y in x]
    new = type(x)(parts) if any(a is not b for a, b in zip(parts, x)) else x
  elif isinstance(x, jax.sharding.NamedSharding):
    abstract = isinstance(x.mesh, jax.sharding.AbstractMesh)
    if abstract and x.mesh.axis_names == mesh.axis_names:
      new = jax.sharding.NamedSharding(mesh, x.spec)
  seen[id(x)] = x, new  # with x, so that its id is not given again
  return new
