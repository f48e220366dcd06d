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
