"""Activation sites: where in a function the units of a group can be observed.

A site is an operand of a product or convolution that has the group's axis: the
output of one layer after its nonlinearity, the input of the next.
"""

from collections.abc import Callable, Sequence
import itertools
import math
from typing import Any, NamedTuple, TypeAlias

from jax.extend import core
import jax.numpy as jnp
import numpy as np

from wsl import tree, types
from wsl.align import _blocks, _symmetry
from wsl.align._activations import capture
from wsl.align._find import axis_facts, axis_tree, find

Places: TypeAlias = slice | tuple[int, ...]


class Site(NamedTuple):
  """An operand, and its layout as ``[rows, *outer sizes, size]``.

  Attributes:
    path: the path of the equation.
    operand: the index of the operand in the equation.
    window: the places on each axis of the array that hold the group.
    sizes: the sizes of the factors of this window.
    order: the transposition to rows, other groups, outer factors, the group.
    shape: the sizes in this order, with all rows in one axis and all other
      groups in one axis.
  """

  path: capture.Path
  operand: int
  window: tuple[Places, ...]
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

  Among the operands of products and convolutions that depend on the inputs, the
  site of a group is the last one that has the group's axis, and no other group
  if possible. Other groups of an operand, whose order differs between models,
  are reduced to the root mean square. The function may be jitted.

  Args:
    symmetry: the symmetry that ``find_symmetry`` returns.
    apply_fn: the function ``(params, *inputs)`` for which it was found.
    params: parameters.
    *inputs: the other arguments, arrays.

  Returns:
    For each group that has a site its activations, ``[rows, *outer sizes,
    size]``, in float32 or wider; rows are examples, positions and steps.
    Groups whose activations enter no product, or only products within ``while``
    and ``cond``, are omitted.

  Raises:
    ValueError: if the symmetry belongs to another function.

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
  found = analyse(symmetry, apply_fn, params, inputs)
  sites = choose(symmetry, found)
  wanted = {(site.path, site.operand) for site in sites.values()}
  operands = capture.observe(found.program, apply_fn, params, inputs, wanted)
  return {
    name: to_rows(operands[site.path, site.operand], site)
    for name, site in sites.items()
  }


def analyse(
  symmetry: _symmetry.Symmetry,
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: tuple[Any, ...],
) -> find.Analysis:
  """Returns the analysis of a function that has the groups of a symmetry.

  Raises:
    ValueError: if the function lacks one of them.
  """
  found = find.analyse(
    apply_fn, params, inputs, rules={}, caller='activation_matching'
  )
  for group in symmetry.groups:
    if group.name not in found.symmetry.factor:
      raise ValueError(
        f"activations: the function has no group '{group.name}': pass the "
        'function for which the symmetry was found'
      )
  return found


def groups_in(
  axes: Sequence[axis_tree.Axis],
  found: find.Analysis,
  symmetry: _symmetry.Symmetry,
) -> list[str]:
  """Returns the groups of a symmetry that occur in some axes."""
  atoms = [atom for axis in axes for atom in axis_tree.atoms(axis)]
  free = {group.name for group in symmetry.groups}
  names = (found.names.get(axis_tree.find(atom), '') for atom in atoms)
  return [name for name in names if name in free]


def choose(
  symmetry: _symmetry.Symmetry,
  found: find.Analysis,
  moved: frozenset[str] = frozenset(),
) -> dict[str, Site]:
  """Chooses a site for each group, the last one without other groups.

  Args:
    symmetry: the symmetry.
    found: the analysis of the function.
    moved: names of factors along which the other axes of a site may not extend.
  """
  best: dict[str, tuple[bool, Site]] = {}
  for path, operand in _input_dependent(found, len(symmetry.axes)):
    axes, layers = found.facts.products[path][operand]
    for group in symmetry.groups:
      site = _site_in(
        group, symmetry, found.names, path, operand, layers + axes, moved
      )
      if site is not None:
        clean = site.shape[1] == 1
        if group.name not in best or clean >= best[group.name][0]:
          best[group.name] = clean, site
  return {g.name: best[g.name][1] for g in symmetry.groups if g.name in best}


def _site_in(
  group: _symmetry.Factor,
  symmetry: _symmetry.Symmetry,
  names: dict[axis_tree.Axis, str],
  path: capture.Path,
  operand: int,
  axes: axis_facts.Axes,
  moved: frozenset[str],
) -> Site | None:
  """Returns the site of a group in one operand, or ``None``.

  The site is the first block of the array, one segment of each axis, that has
  the group and all its outer factors exactly once.
  """
  segments = [_product_segments(axis) for axis in axes]
  has_group = [
    any(names.get(a) == group.name for _, atoms in choices for a in atoms)
    for choices in segments
  ]
  if sum(has_group) != 1:
    return None
  for choice in itertools.product(*segments):
    atoms = [a for _, block in choice for a in block]
    labels = [names.get(a, '') for a in atoms]
    needed = (*group.outer, group.name)
    if any(labels.count(name) != 1 for name in needed):
      continue
    # Axes that are neither the group's nor another group's are rows: examples,
    # positions, steps, and pinned factors.
    last = [labels.index(name) for name in needed]
    rest = [i for i in range(len(atoms)) if i not in last]
    if any(labels[i] in moved for i in rest):
      continue
    other = [i for i in rest if labels[i] and not atoms[i].pin_reason]
    rows = [i for i in rest if i not in other]
    window = tuple(span for span, _ in choice)
    sizes = tuple(a.size for a in atoms)
    flat = [math.prod(sizes[i] for i in dims) for dims in (rows, other)]
    shape = (*flat, *(sizes[i] for i in last))
    return Site(path, operand, window, sizes, (*rows, *other, *last), shape)
  return None


def _product_segments(
  axis: axis_tree.Axis,
) -> list[tuple[Places, tuple[axis_tree.Axis, ...]]]:
  """Returns places and factors of the segments of an axis."""
  out: list[tuple[Places, tuple[axis_tree.Axis, ...]]] = []
  start = 0
  for part in axis_tree.written(axis, expand=False):
    stop = start + part.size
    if not part.parts:
      out.append((slice(start, stop), part.factors))
    else:  # segments that alternate
      places = np.arange(start, stop)
      for own, factors in _blocks.to_blocks(places, ((part,),)):
        out.append((tuple(own.ravel().tolist()), factors))
    start = stop
  return out


def to_rows(x: types.Array, site: Site) -> types.Array:
  """Extracts a group's activations ``[rows, *outer sizes, size]``."""
  for i, places in enumerate(site.window):
    chosen = places if isinstance(places, slice) else np.asarray(places)
    x = x[(slice(None),) * i + (chosen,)]
  x = tree.wide(x).reshape(site.sizes).transpose(site.order)
  x = x.reshape(site.shape)
  if site.shape[1] == 1:
    return x[:, 0]
  # A mean over the other groups' units does not depend on their order.
  return jnp.sqrt(jnp.mean(jnp.square(x), axis=1))


def _input_dependent(found: find.Analysis, leaves: int) -> list[capture.Key]:
  """Lists the operands of products that depend on the inputs, in order."""
  operands: list[capture.Key] = []
  constant = lambda value: False

  def visit(
    path: capture.Path, eqn: core.JaxprEqn, depends: list[bool]
  ) -> list[bool]:
    """Propagates the dependence through an equation, to all its results."""
    if eqn.primitive.name == 'scan':
      # A dependent operand reaches the others through the carry.
      inner = [any(depends)] * len(depends)
      capture.walk(eqn.params['jaxpr'], inner, visit, path, lift=constant)
    if path in found.facts.products:
      operands.extend((path, i) for i, d in enumerate(depends) if d)
    return [any(depends)] * len(eqn.outvars)

  count = len(found.program.jaxpr.invars)
  given = [i >= leaves for i in range(count)]
  capture.walk(found.program, given, visit, lift=constant)
  return operands
