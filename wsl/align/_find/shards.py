"""``shard_map`` as ``vmap``: each index of a mesh axis runs the body.

A sharded dimension of size n k is ``[n, k]``: shard and position in the shard.
A body under ``vmap`` with a named axis of size n computes the same, and sums
over shards are sums over an axis.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, TypeAlias

import jax
from jax.extend import core

from wsl import jaxprs
from wsl.align._find import axis_facts

Read: TypeAlias = Callable[
  [jaxprs.Program, axis_facts.Values], list[axis_facts.Value]
]


def shard_map(
  facts: axis_facts.Facts,
  read: Read,
  eqn: core.JaxprEqn,
  args: axis_facts.Values,
) -> list[axis_facts.Value] | None:
  """Reads the body as a function of all shards; ``None`` if it cannot be."""
  try:
    avals: list[Any] = [var.aval for var in eqn.invars]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    program = jax.make_jaxpr(_over_shards(eqn))(*shapes)
  except Exception:  # collectives that vmap does not cover raise many kinds
    return None
  wanted = [jaxprs.shape_of(var) for var in eqn.outvars]
  if [tuple(aval.shape) for aval in program.out_avals] != wanted:
    return None
  return read(program, args)


def _over_shards(eqn: core.JaxprEqn) -> Callable[..., list[Any]]:
  """Returns the function of whole arrays that a ``shard_map`` computes."""
  p = eqn.params
  sizes: dict[str, int] = dict(p['mesh'].shape)
  manual = p.get('manual_axes', p.get('newly_manual_axes', ()))
  names = [name for name in sizes if name in manual]
  ins = [
    _spread(x, len(jaxprs.shape_of(v)))
    for x, v in zip(p['in_specs'], eqn.invars)
  ]
  outs = [
    _spread(x, len(jaxprs.shape_of(v)))
    for x, v in zip(p['out_specs'], eqn.outvars)
  ]

  def apply(*args: Any) -> list[Any]:
    fn: Any = lambda *shards: tuple(_run(p['jaxpr'], shards))
    for k in reversed(range(len(names))):
      fn = jax.vmap(
        fn,
        in_axes=[_place(dims, names, k) for dims in ins],
        out_axes=tuple(_place(dims, names, k) for dims in outs),
        axis_name=names[k],
        axis_size=sizes[names[k]],
      )
    split = [
      x.reshape(_local_shape(x.shape, dims, sizes))
      for x, dims in zip(args, ins)
    ]
    results = fn(*split)
    return [y.reshape(jaxprs.shape_of(v)) for y, v in zip(results, eqn.outvars)]

  return apply


def _local_shape(
  shape: Sequence[int],
  dims: Sequence[tuple[str, ...]],
  sizes: dict[str, int],
) -> list[int]:
  """Returns a shape with the shards of each dimension before its local size."""
  out: list[int] = []
  for n, axes in zip(shape, dims):
    counts = [sizes[a] for a in axes]
    out += [*counts, n // math.prod(counts)]
  return out


def _run(program: jaxprs.Program, args: Sequence[Any]) -> list[Any]:
  """Evaluates a body; which arrays vary over shards is not tracked."""

  def visit(k: int, eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    del k
    name, called = eqn.primitive.name, jaxprs.called(eqn)
    if name == 'psum_invariant':
      return [jax.lax.psum(x, eqn.params['axes']) for x in values]
    if name == 'pvary':
      return values
    if called is not None:
      return _run(called, values)
    return jaxprs.evaluate(eqn, values)

  return jaxprs.interpret(program, args, visit)


def _spread(spec: Any, ndim: int) -> list[tuple[str, ...]]:
  """Returns the mesh axes of each dimension, major to minor."""
  entries = [*spec, *[None] * (ndim - len(spec))]
  return [
    () if e is None else (e,) if isinstance(e, str) else tuple(e)
    for e in entries
  ]


def _place(
  dims: Sequence[tuple[str, ...]], names: Sequence[str], k: int
) -> int | None:
  """Returns the axis of shards k after those before it were mapped."""
  labels: list[str | None] = []
  for axes in dims:
    labels += [*axes, None]
  left = [x for x in labels if x is None or x not in names[:k]]
  return left.index(names[k]) if names[k] in left else None
