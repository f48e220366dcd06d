"""Views: arrays that hold the entries of one stored weight in another order.

Before its product a weight may be cast, transposed, reshaped from
``[h, w, in, out]`` to ``[h * w * in, out]``, or sliced layer by layer from a
stack. If no entry is lost, repeated or changed, the array is a *view* of the
leaf. Each axis of a view is a sequence of atoms; an atom is a stored axis or a
factor of one. For example, the axis ``h * w * in`` has three atoms.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple, TypeAlias

from jax.extend import core

from wsl import jaxprs


class Atom(NamedTuple):
  """A factor of a stored axis; the sort order is that of storage.

  Attributes:
    axis: the stored axis.
    minus_stride: minus the stride along that axis. A larger stride is a more
      major factor and sorts first.
    size: the number of steps.
  """

  axis: int
  minus_stride: int
  size: int


Atoms: TypeAlias = tuple[Atom, ...]


class View(NamedTuple):
  """An array that holds the entries of one leaf.

  Attributes:
    leaf: the position of the leaf among the leaves of the parameters.
    dims: the atoms of each axis of the array.
    stacked: the atoms of axes that enclosing scans iterate over, each with the
      depth of its scan; the outermost first.
  """

  leaf: int
  dims: tuple[Atoms, ...]
  stacked: tuple[tuple[int, Atoms], ...] = ()


def of_leaf(leaf: int, shape: Sequence[int]) -> View:
  """Returns the view of a leaf as it is stored."""
  return View(leaf, tuple((Atom(i, -1, n),) for i, n in enumerate(shape)))


def flatten(runs: Sequence[Atoms]) -> Atoms:
  """Concatenates sequences of atoms."""
  return tuple(atom for run in runs for atom in run)


def regroup(atoms: Atoms, shape: Sequence[int]) -> tuple[Atoms, ...] | None:
  """Distributes atoms over axes of given sizes, as a reshape does.

  Args:
    atoms: the atoms, slowest first.
    shape: the sizes of the new axes, of the same product.

  Returns:
    The atoms of each new axis, or None if an axis would need a fraction of an
    atom. Axes of size 1 that vanish join a neighbour.
  """
  # Fill each axis from the slowest atom on. An atom of n steps that is too
  # large is split: a major part, and a minor part of n / size steps.
  rest, dims = list(atoms), []
  for size in shape:
    run: list[Atom] = []
    while rest and size % rest[0].size == 0:
      size //= rest[0].size
      run.append(rest.pop(0))
      if size == 1:
        break
    if size > 1:
      if not rest or rest[0].size % size:
        return None
      axis, minus_stride, n = rest[0]
      run.append(Atom(axis, minus_stride * (n // size), size))
      rest[0] = Atom(axis, minus_stride, n // size)
    dims.append(tuple(run))
  if rest and dims:
    dims[-1] += tuple(rest)
  return tuple(dims) if dims and all(a.size == 1 for a in rest) else None


def propagate(view: View, eqn: core.JaxprEqn) -> View | None:
  """Propagates a view through an equation.

  Args:
    view: the view at the equation's only array operand.
    eqn: the equation.

  Returns:
    The view at the result; ``None`` unless the equation casts, copies,
    transposes or reshapes, or inserts or removes axes of size 1.
  """
  name, p = eqn.primitive.name, eqn.params
  shape = jaxprs.shape_of(eqn.outvars[0])
  if name in jaxprs.CASTS:
    return view
  if name == 'transpose':
    return view._replace(dims=tuple(view.dims[i] for i in p['permutation']))
  if name == 'squeeze':
    return _with(view, _squeeze(view.dims, p['dimensions']))
  if name == 'reshape' and p['dimensions'] is None:
    return _with(view, regroup(flatten(view.dims), shape))
  if name == 'broadcast_in_dim':
    kept = dict(zip(p['broadcast_dimensions'], view.dims))
    if math.prod(jaxprs.shape_of(eqn.invars[0])) == math.prod(shape):
      return view._replace(
        dims=tuple(kept.get(i, ()) for i in range(len(shape)))
      )
  return None


def propagate_repeated(view: View, eqn: core.JaxprEqn) -> View | None:
  """Propagates like ``propagate``; entries may also be repeated along axes."""
  if eqn.primitive.name != 'broadcast_in_dim':
    return propagate(view, eqn)
  kept = dict(zip(eqn.params['broadcast_dimensions'], view.dims))
  rank = len(jaxprs.shape_of(eqn.outvars[0]))
  return view._replace(dims=tuple(kept.get(i, ()) for i in range(rank)))


def _with(view: View, dims: tuple[Atoms, ...] | None) -> View | None:
  """Replaces the axes of a view."""
  return None if dims is None else view._replace(dims=dims)


def _squeeze(
  dims: tuple[Atoms, ...], dropped: Sequence[int]
) -> tuple[Atoms, ...] | None:
  """Moves the atoms of dropped axes, all of size 1, to a neighbouring axis."""
  kept: list[Atoms] = []
  loose: Atoms = ()
  for i, run in enumerate(dims):
    if i in dropped:
      loose += run
    else:
      kept.append(loose + run)
      loose = ()
  if not kept:
    return None
  return (*kept[:-1], kept[-1] + loose)
