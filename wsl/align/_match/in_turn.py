r"""Many models over gauges: each in turn is matched to the mean of the others.

Between balanced models all gauges are isometries, so the agreement

.. math:: J = \sum_{p < q} \langle g_p \theta_p, g_q \theta_q \rangle

as a function of one element is
:math:`\langle \sum_{q \ne p} g_q \theta_q, g_p \theta_p \rangle` plus a
constant: the objective of weight matching to the sum of the others, which the
ascent from the current element never lowers.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, TypeAlias

import jax
import numpy as np

from wsl import tree, types
from wsl.align import _assignment, _blocks, _permutation, _symmetry
from wsl.align._gauges import balanced_pair, compose, elements, views
from wsl.align._match import block_pairs, weight_matching

Model: TypeAlias = dict[str, np.ndarray]
Element: TypeAlias = dict[str, Any]
# Called with the start, the sweep, the agreement and its increase.
Report: TypeAlias = Callable[[int, int, float, float], None]


def match(
  models: Sequence[types.Params],
  *,
  symmetry: _symmetry.Symmetry,
  key: types.PRNGKey,
  starts: int,
  initial: Any,
  leaves: types.Leaves,
  solver: _assignment.Solver,
  max_sweeps: int,
  tolerance: float,
  patience: int,
  gauges: Sequence[str],
  progress: Report | None,
) -> list[Element]:
  """Returns for each model the element that moves it to the first one.

  See ``match_many``. The models are balanced; starts differ in the order in
  which models join the sum.
  """
  chosen = tuple(a for a in symmetry.actions if a.kind in gauges)
  symmetry = dataclasses.replace(symmetry, actions=chosen)
  named = {f'model {p}': model for p, model in enumerate(models)}
  tables = balanced_pair.solve(named, symmetry, leaves, caller='match_many')
  floats = {n: x for n, x in tree.named(models[0]).items() if tree.is_float(x)}
  dtype = tree.wide_dtype(*floats.values())
  frames = [balanced_pair.Frames(symmetry, tables[0], t, dtype) for t in tables]
  inner = _compact(symmetry)
  axes = tuple(axes for axes in inner.axes if axes[0] in floats)
  inner = dataclasses.replace(inner, axes=axes)
  kinds = [k for k in _symmetry.GAUGES if k in gauges or k != 'permutation']
  view = views.of(inner, kinds)
  balanced = [_balanced(m, t, symmetry) for m, t in zip(models, tables)]
  selected = tree.named(tree.select(models[0], leaves))
  counted = {n for n in balanced[0] if selected[n]}

  def aligned(p: int, element: Element) -> Model:
    tables = view.tables(element)
    return {n: _moved(balanced[p][n], n, view, tables) for n in counted}

  def towards(others: Sequence[Model], p: int, start: Any, key: Any) -> Element:
    # The mean, not the sum: it equals the model where all models are copies,
    # and matching measures its end by the distance that is left.
    mean = {n: x / len(others) for n, x in _sum(others).items()}
    return weight_matching.weight_matching(
      balanced[p] | mean,
      balanced[p],
      symmetry=inner,
      key=key,
      initial=start,
      leaves=lambda name, shape: name in counted,
      solver=solver,
      gauges=kinds,
    )

  still = view.element(view.identity())
  best, found = -np.inf, [still] * len(models)
  for start in range(starts):
    run = jax.random.fold_in(key, start)
    if initial == 'center':
      order = np.arange(len(models))
      if start:
        order = np.asarray(jax.random.permutation(run, len(models)))
      current = _grown(order, still, run, aligned, towards)
    elif initial == 'identity':
      current = [still] * len(models)
    else:
      given = zip(frames, initial)
      entered = [balanced_pair.enter(f, dict(g)) for f, g in given]
      current = [view.element(view.tables(g)) for g in entered]
    moved = [aligned(p, g) for p, g in enumerate(current)]
    value = _agreement(moved)
    small = 0
    for sweep in range(max_sweeps):
      gained = 0.0
      for p in range(len(models)):
        others = moved[:p] + moved[p + 1 :]
        turn = jax.random.fold_in(jax.random.fold_in(run, sweep), p)
        element = towards(others, p, current[p], turn)
        rest, after = _sum(others), aligned(p, element)
        more = _inner(rest, after) - _inner(rest, moved[p])
        if more > 0:
          current[p], moved[p] = element, after
          gained += more
      value += gained
      if progress is not None:
        progress(start, sweep, value, gained)
      small = small + 1 if gained <= tolerance * abs(value) else 0
      if small == patience or not gained:
        break
    if value > best:
      best, found = value, current
  return _to_first(found, frames, inner)


def _compact(symmetry: _symmetry.Symmetry) -> _symmetry.Symmetry:
  """Returns the isometries of a symmetry: what is left of balanced models."""
  actions = []
  for action in symmetry.actions:
    if action.kind == 'linear':
      # A orthogonal is its own inverse transpose.
      powers = tuple(p._replace(power=1.0) for p in action.powers)
      action = action._replace(kind='rotation', powers=powers)
    if action.kind != 'scale':
      actions.append(action._replace(unit=action.kind == 'phase'))
  return dataclasses.replace(symmetry, actions=tuple(actions))


def _balanced(
  model: types.Params, tables: Element, symmetry: _symmetry.Symmetry
) -> Model:
  """Returns the balanced model's leaves of floats, in float32 or wider."""
  found: Model = {}
  for name, leaf in tree.named(model).items():
    if tree.is_float(leaf):
      x = np.asarray(tree.read(leaf))
      x, layout = x.astype(tree.wide_dtype(x)), symmetry.layout(name)
      blocks = balanced_pair.apply(
        tables, symmetry, name, _blocks.to_blocks(x, layout)
      )
      found[name] = np.asarray(_blocks.from_blocks(blocks, layout, np))
  return found


def _moved(
  x: np.ndarray, name: str, view: views.View, tables: block_pairs.Tables
) -> np.ndarray:
  """Moves a leaf of a balanced model by permutations and isometries."""
  layout = view.symmetry.layout(name)
  blocks = []
  pairs = zip(_blocks.to_blocks(x, layout), view.names(name))
  for (block, _), names in pairs:
    signs = (1,) * (len(names) - block.ndim)
    whole = block.reshape(block.shape + signs)
    whole = block_pairs.gather(whole, names, tables, view.outer_of)
    blocks.append(whole.reshape(block.shape))
  return np.asarray(_blocks.from_blocks(blocks, layout, np))


def _grown(
  order: np.ndarray,
  still: Element,
  key: types.PRNGKey,
  aligned: Callable[[int, Element], Model],
  towards: Callable[..., Element],
) -> list[Element]:
  """Matches each model to the mean of those before it in an order."""
  found = [still] * len(order)
  moved: list[Model] = []
  for p in map(int, order):
    if moved:
      turn = jax.random.fold_in(key, p)
      found[p] = towards(moved, p, None, turn)
    moved.append(aligned(p, found[p]))
  return found


def _sum(models: Sequence[Model]) -> Model:
  """Adds models."""
  return {n: np.sum([m[n] for m in models], axis=0) for n in models[0]}


def _inner(x: Model, y: Model) -> float:
  """Returns the inner product of two models, in float64."""
  wide = lambda a: a.astype(np.float64).ravel()
  return float(sum(wide(x[n]) @ wide(y[n]) for n in x))


def _agreement(models: Sequence[Model]) -> float:
  """Returns the sum of the inner products of all pairs."""
  total = _sum(models)
  own = sum(_inner(m, m) for m in models)
  return (_inner(total, total) - own) / 2


def _to_first(
  found: Sequence[Element],
  frames: Sequence[balanced_pair.Frames],
  inner: _symmetry.Symmetry,
) -> list[Element]:
  """Composes elements with the inverse of the first, between given models."""
  identity: Element = jax.device_get(_permutation.identity(inner))
  host = [
    {**identity, **{n: np.asarray(x) for n, x in g.items()}} for g in found
  ]
  undo = compose.inverse(host[0], inner, np)
  result = []
  for frame, g in zip(frames, host):
    element = compose.product(g, undo, inner, np)
    result.append(balanced_pair.leave(frame, element))
  names = [action.name for action in frames[0].symmetry.actions]
  still = elements.identity_actions(frames[0].symmetry, names)
  cast = {n: x.astype(frames[0].dtype) for n, x in still.items()}
  return [compose.to_device(identity | cast), *result[1:]]
