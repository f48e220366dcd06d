"""Where in a function the units of a group can be watched.

A site is an operand of a product or convolution that holds the group's axis:
what one layer hands to the next, behind its nonlinearity.
"""

from collections.abc import Callable
import itertools
import math
from typing import Any, NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp

from wsl import jaxprs, tree, types
from wsl.align import _symmetry
from wsl.align._find import axis_facts, axis_tree, find
from wsl.align._match import capture


class Site(NamedTuple):
  """An operand, and how to lay it out as ``[rows, *outer sizes, size]``.

  Attributes:
    path: the equation it is an operand of.
    operand: which of its operands.
    window: the part of the array that holds the group.
    sizes: the factors of that part.
    order: the factors' order: rows, other groups, outer factors, the group.
    shape: the sizes of the same four, those of the first two multiplied.
  """

  path: capture.Path
  operand: int
  window: tuple[slice, ...]
  sizes: tuple[int, ...]
  order: tuple[int, ...]
  shape: tuple[int, ...]


def activations(
  symmetry: _symmetry.Symmetry,
  apply_fn: Callable[..., Any],
  params: types.Params,
  *inputs: Any,
) -> dict[str, types.Array]:
  """Returns the activations of the units of each group.

  Of the operands of products and convolutions that depend on the inputs, the
  last that holds the group is taken, one with no other group in it if there
  is one. Over other groups in it, whose order differs from model to model,
  the root of the mean square is taken. The function may be jitted.

  Args:
    symmetry: the symmetry, as ``find_symmetry`` returns it.
    apply_fn: the function that it is the symmetry of.
    params: parameters.
    *inputs: the other arguments, arrays.

  Returns:
    For each group that has a site its activations, ``[rows, *outer sizes,
    size]``, in float32 or wider; rows are examples, positions and steps.
    Groups of which activations occur only in ``while`` and ``cond``, or never
    enter a product, are left out.

  Raises:
    ValueError: if the symmetry is that of another function.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from wsl import align
    >>> mlp = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
    >>> params = {'a': jnp.eye(2), 'b': jnp.ones((2, 3))}
    >>> x = jnp.asarray([[1.0, -1.0]])
    >>> symmetry = align.find_symmetry(mlp, params, x)
    >>> activations(symmetry, mlp, params, x)['a:1'].tolist()
    [[1.0, 0.0]]
  """
  found = find.analyse(apply_fn, params, inputs, rules={})
  for group in symmetry.groups:
    if group.name not in found.symmetry.factor:
      raise ValueError(
        f"activations: the function has no group '{group.name}': give the one "
        'that the symmetry was found for'
      )
  sites = _sites(symmetry, found)
  wanted = {(site.path, site.operand) for site in sites.values()}
  _, arrays = jaxprs.bind_static(apply_fn, inputs)
  args = jax.tree.leaves((params, arrays))
  values = [jnp.asarray(x) for x in args]
  _, seen = capture.watch(found.program, values, wanted)
  return {
    name: _lay_out(seen[site.path, site.operand], site)
    for name, site in sites.items()
  }


def _sites(
  symmetry: _symmetry.Symmetry, found: find.Analysis
) -> dict[str, Site]:
  """Chooses a site for each group."""
  best: dict[str, tuple[bool, Site]] = {}
  for path, operand in _live(found, len(symmetry.axes)):
    axes, layers = found.facts.products[path][operand]
    for group in symmetry.groups:
      site = _site(group, symmetry, found.names, path, operand, layers + axes)
      if site is not None:
        clean = site.shape[1] == 1
        if group.name not in best or clean >= best[group.name][0]:
          best[group.name] = clean, site
  return {g.name: best[g.name][1] for g in symmetry.groups if g.name in best}


def _site(
  group: _symmetry.Factor,
  symmetry: _symmetry.Symmetry,
  names: dict[axis_tree.Axis, str],
  path: capture.Path,
  operand: int,
  axes: axis_facts.Axes,
) -> Site | None:
  """Describes the first block of an array that holds a group once."""
  parts = [_spans(axis) for axis in axes]
  parts = [[p for p in part if p] for part in parts]
  holds = [
    any(names.get(a) == group.name for _, atoms in part for a in atoms)
    for part in parts
  ]
  if sum(holds) != 1:
    return None
  for choice in itertools.product(*parts):
    atoms = [a for _, block in choice for a in block]
    labels = [names.get(a, '') for a in atoms]
    needed = (*group.outer, group.name)
    if any(labels.count(name) != 1 for name in needed):
      continue
    last = [labels.index(name) for name in needed]
    rest = [i for i in range(len(atoms)) if i not in last]
    other = [i for i in rest if labels[i] and not atoms[i].pin_reason]
    rows = [i for i in rest if i not in other]
    window = tuple(span for span, _ in choice)
    sizes = tuple(a.size for a in atoms)
    flat = [math.prod(sizes[i] for i in dims) for dims in (rows, other)]
    shape = (*flat, *(sizes[i] for i in last))
    return Site(path, operand, window, sizes, (*rows, *other, *last), shape)
  return None


def _spans(
  axis: axis_tree.Axis,
) -> list[tuple[slice, tuple[axis_tree.Axis, ...]]]:
  """Returns the segments of an axis that are plain products, with places."""
  out, at = [], 0
  for part in axis_tree.segments(axis):
    factors = axis_tree.factors(part)
    if not any(factor.is_sum for factor in factors):
      out.append((slice(at, at + part.size), tuple(factors)))
    at += part.size
  return out


def _lay_out(x: types.Array, site: Site) -> types.Array:
  x = tree.wide(x[site.window]).reshape(site.sizes).transpose(site.order)
  x = x.reshape(site.shape)
  if site.shape[1] == 1:
    return x[:, 0]
  return jnp.sqrt(jnp.mean(jnp.square(x), axis=1))


def _live(found: find.Analysis, leaves: int) -> list[capture.Key]:
  """Lists the operands of products that depend on the inputs, in order."""
  live: list[capture.Key] = []
  constant = lambda value: False

  def visit(
    path: capture.Path, eqn: core.JaxprEqn, args: list[bool]
  ) -> list[bool]:
    if eqn.primitive.name == 'scan':
      inner = [any(args)] * len(args)
      capture.walk(eqn.params['jaxpr'], inner, visit, path, lift=constant)
    if path in found.facts.products:
      live.extend((path, i) for i, arg in enumerate(args) if arg)
    return [any(args)] * len(eqn.outvars)

  count = len(found.program.jaxpr.invars)
  given = [i >= leaves for i in range(count)]
  capture.walk(found.program, given, visit, lift=constant)
  return live
