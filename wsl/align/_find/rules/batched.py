"""Rules for linear algebra on stacks of matrices, and for transforms.

An operation on the last axes of an array, or along given ones, is the same for
each index of all other axes.
"""

from jax.extend import core

from wsl import jaxprs
from wsl.align._find import axis_facts, refinement

Results = list[axis_facts.Axes] | None
DECOMPOSITIONS = (
  'cholesky', 'eig', 'eigh', 'geqrf', 'hessenberg', 'householder_product', 'lu',
  'qr', 'schur', 'svd', 'tridiagonal',
)  # fmt: skip


def fft(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Pins the transformed axes, which are the last ones."""
  x, shape = args[0].axes, jaxprs.shape_of(eqn.outvars[0])
  kept = len(x) - len(eqn.params['fft_lengths'])
  moved = [
    facts.pin_moved(x, i, shape[i], 'fft along it') for i in range(kept, len(x))
  ]
  return [(*x[:kept], *moved)]


def decomposition(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Pins rows and columns; keeps the axes of the stack."""
  reason = f'{eqn.primitive.name} along it'
  x = args[0].axes
  batch = x[:-2]
  for arg in args:
    for a, b in zip(batch, arg.axes):
      refinement.tie(a, b)
    for i in range(len(batch), len(arg.axes)):
      facts.pin_moved(arg.axes, i, arg.axes[i].size, reason)
  shapes = [jaxprs.shape_of(var)[len(batch) :] for var in eqn.outvars]
  return [(*batch, *axis_facts.fresh(shape, reason)) for shape in shapes]


def triangular_solve(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Pins the axes of the triangle; keeps the stack and the right-hand sides."""
  a, b = args[0].axes, args[1].axes
  for x, y in zip(a[:-2], b[:-2]):
    refinement.tie(x, y)
  reason = 'triangular_solve along it'
  for i in (-2, -1):
    facts.pin_moved(a, i, a[i].size, reason)
  i = len(b) - 2 if eqn.params['left_side'] else len(b) - 1
  moved = facts.pin_moved(b, i, b[i].size, reason)
  return [(*b[:i], moved, *b[i + 1 :])]


def ragged_dot(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Multiplies rows by the matrix of their group; pins rows and groups.

  Rows belong to groups by position: the first ``sizes[0]`` to group 0, and so
  on. The other axes are those of a product.
  """
  numbers = eqn.params['ragged_dot_dimension_numbers']
  (cx, cy), (bx, by) = numbers.dot_dimension_numbers
  rows, groups = numbers.lhs_ragged_dimensions, numbers.rhs_group_dimensions
  if len(groups) != 1 or set(rows) & {*cx, *bx}:
    return None
  x, y, sizes = (arg.axes for arg in args[:3])
  for i, j in zip((*bx, *cx), (*by, *cy)):
    refinement.tie(x[i], y[j])
  for axes, dims in ((x, rows), (y, groups), (sizes, range(len(sizes)))):
    for i in dims:
      facts.pin_moved(axes, i, axes[i].size, 'rows of it are grouped in order')
  facts.record(tuple(x[i] for i in (*bx, *cx)))
  facts.reduce(x, cx)
  facts.reduce(y, (*cy, *groups))
  free = [axis for i, axis in enumerate(x) if i not in (*bx, *cx)]
  free += [axis for j, axis in enumerate(y) if j not in (*by, *cy, *groups)]
  return [(*(x[i] for i in bx), *free)]
