"""Evaluation of a traced program in the mapped region of a mesh."""

from typing import Any

import jax


def evaluate(jaxpr: Any, constants: list[Any], *arguments: Any) -> list[Any]:
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
      found = evaluate(inner.jaxpr, inner.consts, *given)
    else:
      params = eqn.primitive.get_bind_params(params)
      found = eqn.primitive.bind(*given, **params)
    several = eqn.primitive.multiple_results
    values.update(zip(eqn.outvars, found if several else [found]))
  return [*map(read, jaxpr.outvars)]


def _on_mesh(x: Any, mesh: jax.sharding.AbstractMesh, seen: Any) -> Any:
  """Returns parameters of an operation with a mesh of the same axes in them.

  Programs without a mesh remain the same objects, as JAX lowers each once. The
  others, such as the body of a loop, are traced again: their values have types.
  """
  if id(x) in seen:
    return seen[id(x)][1]
  new, recur = x, lambda y: _on_mesh(y, mesh, seen)
  if hasattr(x, 'eqns'):
    inner = getattr(x, 'jaxpr', x)  # of a closed one; itself since JAX 0.12
    params = [recur(e.params) for e in inner.eqns]
    changed = any(a is not e.params for a, e in zip(params, inner.eqns))
    variables = (*inner.constvars, *inner.invars)
    if changed or any(_differs(v, mesh) for v in variables):
      eqns = [e.replace(params=a) for a, e in zip(params, inner.eqns)]
      closed = hasattr(x, 'jaxpr')
      new = _traced(x) if closed else inner.replace(eqns=eqns)
  elif isinstance(x, dict):
    found = {key: recur(y) for key, y in x.items()}
    new = found if any(found[key] is not x[key] for key in x) else x
  elif type(x) in (tuple, list):
    parts = [recur(y) for y in x]
    new = type(x)(parts) if any(a is not b for a, b in zip(parts, x)) else x
  elif isinstance(x, jax.sharding.NamedSharding) and _is_other(x.mesh, mesh):
    new = jax.sharding.NamedSharding(mesh, x.spec)
  seen[id(x)] = x, new  # with x, so that its id is not given again
  return new


def _traced(closed: Any) -> Any:
  """Traces a program again, with types of the mesh of this region."""
  shapes = [
    jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=v.aval.weak_type)
    for v in closed.jaxpr.invars
  ]
  again = lambda *given: evaluate(closed.jaxpr, closed.consts, *given)
  return jax.make_jaxpr(again)(*shapes)


def _differs(variable: Any, mesh: jax.sharding.AbstractMesh) -> bool:
  """Returns whether the type of a variable has the other mesh."""
  sharding = getattr(variable.aval, 'sharding', None)
  return _is_other(getattr(sharding, 'mesh', None), mesh)


def _is_other(found: Any, mesh: jax.sharding.AbstractMesh) -> bool:
  """Returns whether a mesh has the same axes, of other types."""
  abstract = isinstance(found, jax.sharding.AbstractMesh)
  return abstract and found.axis_names == mesh.axis_names and found != mesh
