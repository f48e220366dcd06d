"""One compiled function for all routes of a family."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wsl import types
from wsl.stitch import _adapter, _joints, _route, _segmented

State = tuple[types.Array, ...]
Join = tuple[str, _joints.Joint]


def program(
  family: _route.Family, routes: Sequence[_route.Route]
) -> tuple[
  Callable[[_route.Family, types.Array, Any], types.Array], np.ndarray
]:
  """Returns one function for many routes, which compiles once.

  A route is a row of integers, a traced argument: what is not on it is skipped
  by a conditional. Stacked blocks are a scan whose bounds the row gives, tuples
  of blocks are unrolled. It is differentiable in reverse, towards the family
  and the inputs, so that a loss may draw its route from a key; the gradient
  computes each block a second time instead of keeping what is inside it.
  Features have the dtype that their network has when it runs by itself.

  Run several rows by ``jax.lax.map`` or a Python loop: under ``vmap`` over rows
  a conditional computes both sides, on values that may be zeros.

  Args:
    family: networks and adapters; only its structure is used. The networks on
      the routes take the same inputs, and those that end a route give outputs
      of one shape.
    routes: R routes of at most K pieces.

  Returns:
    ``apply_fn(family, row, inputs)``, equal by value, and the rows
    ``[R, K, 4]``, int32.

  Raises:
    ValueError: as ``check_route``; for shapes, when ``apply_fn`` is traced.

  Example:
    >>> import jax.numpy as jnp
    >>> from wsl import stitch
    >>> def same(params, h):
    ...   return h
    >>> def scale(params, h):
    ...   return h * params
    >>> models = {}
    >>> for name, blocks in {'a': [2.0, 3.0], 'b': [5.0, 7.0]}.items():
    ...   params = {'embed': {}, 'blocks': jnp.asarray(blocks), 'head': {}}
    ...   models[name] = stitch.Segmented(params, same, scale, same)
    >>> family = stitch.Family(models, {})
    >>> routes = [
    ...   stitch.Route((stitch.Piece(x, 0, 1), stitch.Piece(y, 1, 2)), ('',))
    ...   for x in 'ab' for y in 'ab']
    >>> apply_fn, rows = program(family, routes)
    >>> [float(apply_fn(family, row, jnp.ones(()))) for row in rows]
    [6.0, 14.0, 15.0, 35.0]
  """
  if not routes:
    raise ValueError('program: no routes given, at least one is needed')
  for route in routes:
    _route.check_cover(family, route)
  joins: dict[Join, int] = {}
  for route in routes:
    for join in zip(route.adapters, _joints.joints(route), strict=True):
      joins.setdefault(join, len(joins) + 1)
  names = {p.model: None for route in routes for p in route.pieces}
  used = Program(
    tuple(names),
    tuple(dict.fromkeys(route.pieces[0].model for route in routes)),
    tuple(dict.fromkeys(route.pieces[-1].model for route in routes)),
    tuple(joins),
  )
  hops = max(len(route.pieces) for route in routes)
  rows = [_row(route, used.models, joins, hops) for route in routes]
  return used, np.asarray(rows, np.int32)


@dataclasses.dataclass(frozen=True)
class Program:
  """What some routes use; as a function, it runs one row.

  Attributes:
    models: the networks.
    firsts: those whose embedding begins a route.
    lasts: those whose head ends one.
    joins: adapters and the positions between which they stand; a row counts
      them from 1, and 0 is none.
  """

  models: tuple[str, ...]
  firsts: tuple[str, ...]
  lasts: tuple[str, ...]
  joins: tuple[Join, ...]

  def __call__(
    self, family: _route.Family, row: types.ArrayLike, inputs: Any
  ) -> types.Array:
    """Runs the route of one row ``[K, 4]``."""
    return run(self, family, row, inputs)


def _row(
  route: _route.Route,
  models: tuple[str, ...],
  joins: dict[Join, int],
  hops: int,
) -> list[tuple[int, int, int, int]]:
  """Returns (join, model, start, stop) of each piece, then empty pieces."""
  taken = zip(route.adapters, _joints.joints(route), strict=True)
  before = [0, *(joins[join] for join in taken)]
  row = [
    (join, models.index(name), start, stop)
    for join, (name, start, stop) in zip(before, route.pieces, strict=True)
  ]
  return row + [(0, row[-1][1], 0, 0)] * (hops - len(row))


class Slots(NamedTuple):
  """Where values of each shape are kept while a route runs.

  Attributes:
    shapes: one for each slot.
    of: for each network, the slots of its positions.
  """

  shapes: tuple[jax.ShapeDtypeStruct, ...]
  of: dict[str, tuple[int, ...]]


@functools.partial(jax.jit, static_argnums=0)
def run(
  used: Program, family: _route.Family, row: types.Array, inputs: Any
) -> types.Array:
  """Runs the route of one row; compiled once for a program and its shapes."""
  slots = _slots(used, family, inputs)
  adapters, branch = _join_branches(used, family, slots)
  row = jnp.asarray(row, jnp.int32)

  def embed(name: str, state: State) -> State:
    model = family.models[name]
    h = model.embed(model.params['embed'], inputs)
    return _put(state, slots.of[name][0], h)

  def hop(state: State, step: types.Array) -> tuple[State, None]:
    join, model, start, stop = step
    state = jax.lax.switch(branch[join], adapters, state)
    for i, name in enumerate(used.models):
      state = _blocks(
        family.models[name], slots.of[name], state, (model == i, start, stop)
      )
    return state, None

  def head(name: str, state: State) -> types.Array:
    model = family.models[name]
    return model.head(model.params['head'], state[slots.of[name][-1]])

  state = tuple(jnp.zeros(s.shape, s.dtype) for s in slots.shapes)
  embeds = [functools.partial(embed, name) for name in used.firsts]
  state = jax.lax.switch(_among(used, used.firsts)[row[0, 1]], embeds, state)
  state, _ = jax.lax.scan(hop, state, row)
  heads = [functools.partial(head, name) for name in used.lasts]
  _check_outputs(used, heads, state)
  return jax.lax.switch(_among(used, used.lasts)[row[-1, 1]], heads, state)


def _slots(used: Program, family: _route.Family, inputs: Any) -> Slots:
  shapes: dict[Any, int] = {}
  of = {}
  for name in used.models:
    values = jax.eval_shape(_segmented.features, family.models[name], inputs)
    of[name] = tuple(
      shapes.setdefault((x.shape, x.dtype), len(shapes)) for x in values
    )
  return Slots(tuple(jax.ShapeDtypeStruct(*s) for s in shapes), of)


def _join_branches(
  used: Program, family: _route.Family, slots: Slots
) -> tuple[list[Callable[[State], State]], types.Array]:
  """Returns the different maps between slots, and the map of each join."""
  found: dict[tuple[str, int, int], int] = {}
  branch = [0]
  for name, joint in used.joins:
    source = slots.of[joint.source][joint.stop]
    target = slots.of[joint.target][joint.start]
    key = (name, source, target)
    if key not in found:
      have, want = slots.shapes[source], slots.shapes[target]
      place = (
        f"'{joint.source}' at {joint.stop} to '{joint.target}' at {joint.start}"
      )
      _route.check_join(family, name, have, want, place)
    branch.append(found.setdefault(key, len(found) + 1))

  def join(name: str, source: int, target: int, state: State) -> State:
    h = state[source]
    if name:
      h = _adapter.apply_adapter(family.adapters[name], h)
    return _put(state, target, h)

  maps = [functools.partial(join, *key) for key in found]
  return [lambda state: state, *maps], jnp.asarray(branch, jnp.int32)


def _blocks(
  model: _segmented.Segmented,
  slots: tuple[int, ...],
  state: State,
  bounds: tuple[types.Array, types.Array, types.Array],
) -> State:
  """Runs the blocks of one network that are within the bounds."""
  active, start, stop = bounds
  blocks = model.params['blocks']
  if isinstance(model.block, tuple):
    for i, fn in enumerate(model.block):
      source, target = (state[slot] for slot in slots[i : i + 2])
      on = active & (start <= i) & (i < stop)
      h = _block_if(on, fn, blocks[i], source, target)
      state = _put(state, slots[i + 1], h)
    return state

  fn = model.block

  def one(h: types.Array, step: Any) -> tuple[types.Array, None]:
    i, params = step
    return _block_if((start <= i) & (i < stop), fn, params, h, h), None

  def scan(h: types.Array) -> types.Array:
    steps = jnp.arange(model.depth, dtype=jnp.int32), blocks
    return jax.lax.scan(one, h, steps)[0]

  h = jax.lax.cond(active, scan, lambda h: h, state[slots[0]])
  return _put(state, slots[0], h)


def _block_if(
  on: types.Array,
  fn: _segmented.PartFn,
  params: types.Params,
  h: types.Array,
  otherwise: types.Array,
) -> types.Array:
  # A conditional keeps for the gradient what either side computed, as zeros
  # where it did not run: computing a block again costs far less.
  again = jax.checkpoint(fn, prevent_cse=False)
  return jax.lax.cond(
    on,
    lambda: jnp.asarray(again(params, h), otherwise.dtype),
    lambda: otherwise,
  )


def _put(state: State, slot: int, h: types.Array) -> State:
  h = jnp.asarray(h, state[slot].dtype)
  return (*state[:slot], h, *state[slot + 1 :])


def _among(used: Program, names: tuple[str, ...]) -> types.Array:
  """Returns the place of each network in ``names``, 0 for one that is not."""
  return jnp.asarray(
    [names.index(m) if m in names else 0 for m in used.models], jnp.int32
  )


def _check_outputs(
  used: Program, heads: Sequence[Callable[[State], types.Array]], state: State
) -> None:
  outputs = [jax.eval_shape(head, state) for head in heads]
  for name, output in zip(used.lasts, outputs, strict=True):
    if output != outputs[0]:
      raise ValueError(
        f"the head of '{name}' gives {output}, that of '{used.lasts[0]}' "
        f'{outputs[0]}: make a program for the routes of each'
      )
