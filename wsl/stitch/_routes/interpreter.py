"""Runs the route that is encoded in a row of integers.

All routes share one compiled function, in which the row is a traced argument.
The function loops over the pieces of a route and over the blocks of every
network; a conditional on the row's bounds runs or skips each block. A loop with
traced bounds would run fewer steps, but it compiles to a while loop, which has
no reverse-mode derivative. A skipped block costs its predicate only.

The features of different networks and positions differ in shape, and the
carry of a loop has fixed shapes. The carry is therefore a tuple with one slot
for each distinct shape and dtype; a piece reads and writes the slots of its
positions.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from wsl import types
from wsl.stitch import _adapter, _segmented
from wsl.stitch._routes import joints, routing

State: TypeAlias = tuple[types.Array, ...]
Join: TypeAlias = tuple[str, joints.Joint]


class Used(NamedTuple):
  """The networks and adapters that a set of routes uses.

  Attributes:
    models: all networks.
    firsts: networks whose embedding begins a route.
    lasts: networks whose head ends a route.
    joins: adapters with the positions that they connect; a row refers to them
      by index from 1, and 0 is none.
  """

  models: tuple[str, ...]
  firsts: tuple[str, ...]
  lasts: tuple[str, ...]
  joins: tuple[Join, ...]


class Slots(NamedTuple):
  """The assignment of positions to slots of the loop's carry.

  Attributes:
    shapes: shape and dtype of each slot.
    of: for each network, the slot of each of its positions.
  """

  shapes: tuple[jax.ShapeDtypeStruct, ...]
  of: dict[str, tuple[int, ...]]


@functools.partial(jax.jit, static_argnums=0)
def run(
  used: Used, family: routing.Family, row: types.Array, inputs: Any
) -> types.Array:
  """Runs the route of one row; compiled once for a program and its shapes."""
  slots = _slots(used, family, inputs)
  adapters, branch = _join_branches(used, family, slots)
  row = jnp.asarray(row, jnp.int32)

  def embed(name: str, state: State) -> State:
    """Writes the embedding of the inputs by one network."""
    model = family.models[name]
    h = model.embed(model.params['embed'], inputs)
    return _put(state, slots.of[name][0], h)

  def run_piece(state: State, step: types.Array) -> tuple[State, None]:
    """Applies the adapter before a piece, then the blocks of the piece."""
    join, model, start, stop = step
    state = jax.lax.switch(branch[join], adapters, state)
    for i, name in enumerate(used.models):
      state = _blocks(
        family.models[name], slots.of[name], state, (model == i, start, stop)
      )
    return state, None

  def head(name: str, state: State) -> types.Array:
    """Applies the head of one network."""
    model = family.models[name]
    return model.head(model.params['head'], state[slots.of[name][-1]])

  state = tuple(jnp.zeros(s.shape, s.dtype) for s in slots.shapes)
  embeds = [functools.partial(embed, name) for name in used.firsts]
  state = jax.lax.switch(_among(used, used.firsts)[row[0, 1]], embeds, state)
  state, _ = jax.lax.scan(run_piece, state, row)
  heads = [functools.partial(head, name) for name in used.lasts]
  _check_outputs(used, heads, state)
  return jax.lax.switch(_among(used, used.lasts)[row[-1, 1]], heads, state)


def _slots(used: Used, family: routing.Family, inputs: Any) -> Slots:
  """Assigns a slot to each distinct shape and dtype of the features."""
  shapes: dict[Any, int] = {}
  of = {}
  for name in used.models:
    values = jax.eval_shape(_segmented.features, family.models[name], inputs)
    of[name] = tuple(
      shapes.setdefault((x.shape, x.dtype), len(shapes)) for x in values
    )
  return Slots(tuple(jax.ShapeDtypeStruct(*s) for s in shapes), of)


def _join_branches(
  used: Used, family: routing.Family, slots: Slots
) -> tuple[list[Callable[[State], State]], types.Array]:
  """Returns the distinct maps between slots, and the index of each join's.

  Joins with the same adapter and the same slots share a branch, which keeps the
  number of branches small: SN-Net's window stitches reuse one adapter.
  """
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
      routing.check_join(family, name, have, want, place)
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
  """Runs the blocks start <= i < stop of one network, if it is active."""
  active, start, stop = bounds
  blocks = model.params['blocks']
  if isinstance(model.block, tuple):
    for i, fn in enumerate(model.block):
      source, target = (state[slot] for slot in slots[i : i + 2])
      on = active & (start <= i) & (i < stop)
      h = _block_if(on, fn, blocks[i], source, target)
      state = _put(state, slots[i + 1], h)
    return state

  # Stacked blocks keep the shape, so all positions share one slot. The outer
  # conditional skips the scan of a network that is not on this piece.
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
  """Runs a block under a condition; the backward pass recomputes it."""
  # The derivative of a conditional returns the residuals of both branches from
  # the forward pass, zeros for the branch that did not run, and a scan stacks
  # them over all blocks. Recomputation leaves only the block's inputs as
  # residuals. CSE cannot merge the two computations across loop bodies, so its
  # barriers are not needed.
  again = jax.checkpoint(fn, prevent_cse=False)
  return jax.lax.cond(
    on,
    lambda: jnp.asarray(again(params, h), otherwise.dtype),
    lambda: otherwise,
  )


def _put(state: State, slot: int, h: types.Array) -> State:
  """Returns the state with one slot replaced, in the slot's dtype."""
  h = jnp.asarray(h, state[slot].dtype)
  return (*state[:slot], h, *state[slot + 1 :])


def _among(used: Used, names: tuple[str, ...]) -> types.Array:
  """Returns the index of each network in ``names``, 0 if it is missing."""
  return jnp.asarray(
    [names.index(m) if m in names else 0 for m in used.models], jnp.int32
  )


def _check_outputs(
  used: Used, heads: Sequence[Callable[[State], types.Array]], state: State
) -> None:
  """Checks that all heads return one shape and dtype, as a switch requires."""
  outputs = [jax.eval_shape(head, state) for head in heads]
  for name, output in zip(used.lasts, outputs, strict=True):
    if output != outputs[0]:
      raise ValueError(
        f"the head of '{name}' returns {output}, that of '{used.lasts[0]}' "
        f'{outputs[0]}: make a program for the routes of each'
      )
