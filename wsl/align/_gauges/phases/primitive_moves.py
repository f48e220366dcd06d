"""The moves of primitives that move entries."""

from collections.abc import Sequence

import numpy as np

from wsl import jaxprs
from wsl.align._find import axis_facts
from wsl.align._find.rules import reshape as reshape_lib
from wsl.align._gauges.phases import moves


def of(
  step: axis_facts.Step, shape: moves.Shape, dims: moves.Dims, index: int = 0
) -> moves.Move | None:
  """Returns the move of a primitive with one operand; None if it is none.

  Args:
    step: the step.
    shape: the shape of the operand.
    dims: its expanded dimensions; of those that a reshape joins all or none.
    index: which result.
  """
  p, name = step.eqn.params, step.name
  if name == 'loop take':
    moved = frozenset(i - 1 for i in dims)
    return moves.Move(shape[1:], moved, lambda x: x[0], ('take',))
  new = jaxprs.shape_of(step.eqn.outvars[index])
  if name in jaxprs.CASTS or name == 'optimization_barrier':
    kind = getattr(p.get('new_dtype'), 'kind', 'f')
    return moves.Move(shape, dims, lambda x: x) if kind in 'fVc' else None
  if name in ('broadcast_in_dim', 'expand_dims', 'squeeze'):
    return moves.placed(shape, _places(step, len(shape)) or (), new, dims)
  if name == 'transpose':
    return moves.transposed(shape, p['permutation'], dims)
  if name == 'reshape':
    return None if p['dimensions'] else moves.reshaped(shape, new, dims)
  if name == 'rev':
    back = slice(None, None, -1)
    return moves.sliced(shape, dims, dict.fromkeys(p['dimensions'], back))
  if name == 'slice':
    steps = p['strides'] or (1,) * len(shape)
    limits = zip(p['start_indices'], p['limit_indices'], steps)
    cuts = {i: slice(*c) for i, c in enumerate(limits)}
    return moves.sliced(shape, dims, cuts)
  if name == 'split':
    start = sum(p['sizes'][:index])
    cut = slice(start, start + p['sizes'][index])
    return moves.sliced(shape, dims, {p['axis']: cut})
  if name == 'tile':
    return moves.tiled(shape, p['reps'], dims)
  if name == 'dynamic_slice':
    part = {i for i, n in enumerate(p['slice_sizes']) if n != shape[i]}
    key = name, step.results[0].number
    return None if part & dims else moves.Move(new, dims, lambda x: x, key)
  if name == 'gather':
    places, taken = _places(step, len(shape)) or (), p['slice_sizes']
    wide = frozenset(i for i in dims if shape[i] > 1)
    if any(places[i] < 0 or taken[i] != shape[i] for i in wide):
      return None
    key = name, step.results[0].number
    return moves.gathered(places, new, wide, key)
  return None


def joined(
  step: axis_facts.Step, shape: moves.Shape, dims: moves.Dims
) -> moves.Dims:
  """Returns the dimensions to expand, since a reshape joins them to others."""
  if step.name != 'reshape':
    return dims
  new = jaxprs.shape_of(step.eqn.outvars[0])
  found = set(dims)
  for before, _ in reshape_lib.independent_groups(shape, new):
    if any(i in dims and shape[i] > 1 for i in before):
      found |= set(before)
  return frozenset(found)


def before(
  step: axis_facts.Step, shape: moves.Shape, dims: moves.Dims
) -> moves.Dims:
  """Returns the operand's dimensions that become given ones of the result.

  Args:
    step: a move.
    shape: the shape of the operand.
    dims: dimensions of the result.
  """
  places = _places(step, len(shape))
  if places is not None:
    return frozenset(i for i, k in enumerate(places) if k in dims)
  if step.name != 'reshape':
    return dims
  new = jaxprs.shape_of(step.eqn.outvars[0])
  found: set[int] = set()
  for old, after in reshape_lib.independent_groups(shape, new):
    if any(k in dims and new[k] > 1 for k in after):
      found |= set(old)
  return frozenset(found)


def _places(step: axis_facts.Step, rank: int) -> Sequence[int] | None:
  """Returns the dimension of the result of each of the operand, -1 for none.

  It is None for primitives that split or join dimensions, or keep all of them.
  """
  p = step.eqn.params
  if step.name == 'broadcast_in_dim':
    return tuple(p['broadcast_dimensions'])
  if step.name == 'transpose':
    return np.argsort(p['permutation']).tolist()
  if step.name == 'expand_dims':
    more = rank + len(p['dimensions'])
    return [k for k in range(more) if k not in p['dimensions']]
  if step.name == 'squeeze':
    kept = [i for i in range(rank) if i not in p['dimensions']]
    return [kept.index(i) if i in kept else -1 for i in range(rank)]
  if step.name == 'gather':
    numbers = p['dimension_numbers']
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    offsets = iter(numbers.offset_dims)
    return [-1 if i in gone else next(offsets) for i in range(rank)]
  return None
