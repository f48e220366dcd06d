"""Rules for products, convolutions and windows."""

from typing import Any

from jax.extend import core

from wsl import jaxprs
from wsl.align._find import axis_facts, axis_tree, refinement

Results = list[axis_facts.Axes] | None


def dot_general(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Ties the contracted axes and the batch axes of both operands."""
  contract, batch = eqn.params['dimension_numbers']
  x, y = args[0].axes, args[1].axes
  left, right = (*batch[0], *contract[0]), (*batch[1], *contract[1])
  for i, j in zip(left, right):
    refinement.tie(x[i], y[j])
  # sum_u x[h, u] y[h, u]: the order of u may depend on h if both operands pair
  # it, as batch axis or by contracting it too, and on no other axis. ``left``
  # holds these axes, recorded as one array. For the free axes of x and y the
  # product is a reduction.
  facts.record(tuple(x[i] for i in left))
  facts.reduce(x, contract[0])
  facts.reduce(y, contract[1])
  free = [axis for i, axis in enumerate(x) if i not in left]
  free += [axis for i, axis in enumerate(y) if i not in right]
  return [(*(x[i] for i in batch[0]), *free)]


def convolution(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Ties input and output channels; pins the window and moved positions.

  With G feature groups both channel axes are products with the same major
  factor G. A 1 x 1 window with stride 1 keeps the axis of positions.
  """
  p = eqn.params
  spec, groups = p['dimension_numbers'], p['feature_group_count']
  if p['batch_group_count'] != 1:
    return None
  x, kernel = args[0].axes, args[1].axes
  inputs, outputs = x[spec.lhs_spec[1]], kernel[spec.rhs_spec[0]]
  # Channels in are [group, inner], channels out [group, units]; the kernel is
  # [group * units, inner], so inner channels are shared by the groups.
  group = axis_tree.Axis(groups)
  inner = kernel[spec.rhs_spec[1]]
  refinement.tie(inputs, axis_tree.product([group, inner]))
  if groups > 1:
    units = axis_tree.Axis(outputs.size // groups)
    refinement.tie(outputs, axis_tree.product([group, units]))
  # As for a product: the contraction over inner channels and window is a
  # reduction for all other axes, while groups are batch axes of both operands.
  facts.record((inputs,))
  facts.reduce((*x, inner), (len(x), spec.lhs_spec[1]))
  facts.reduce(kernel, (spec.rhs_spec[1], *spec.rhs_spec[2:]))
  shape = jaxprs.shape_of(eqn.outvars[0])
  out: list[Any] = [None] * len(shape)
  out[spec.out_spec[0]] = x[spec.lhs_spec[0]]
  out[spec.out_spec[1]] = outputs
  for k, i in enumerate(spec.out_spec[2:]):
    window, space = kernel[spec.rhs_spec[2 + k]], spec.lhs_spec[2 + k]
    axis_tree.pin(window, 'the window of a convolution')
    # Positions are kept by a window of size 1 that visits each of them once.
    still = window.size == p['window_strides'][k] == p['lhs_dilation'][k] == 1
    if still and tuple(p['padding'][k]) == (0, 0):
      out[i] = x[space]
    else:
      out[i] = facts.pin_moved(x, space, shape[i], 'a convolution along it')
  return [tuple(out)]


def window(
  facts: axis_facts.Facts, eqn: core.JaxprEqn, args: axis_facts.Values
) -> Results:
  """Pins the axes along which windows move; other axes are kept."""
  p, shape = eqn.params, jaxprs.shape_of(eqn.outvars[0])
  count = len(eqn.outvars)
  for arg in args[1:count]:
    for a, b in zip(args[0].axes, arg.axes):
      refinement.tie(a, b)
  out = []
  for i, size in enumerate(shape):
    still = p['window_dimensions'][i] == p['window_strides'][i] == 1
    still &= tuple(p['padding'][i]) == (0, 0)
    still &= p.get('base_dilation', (1,) * len(shape))[i] == 1
    if still:
      out.append(args[0].axes[i])
    else:
      moved = [
        facts.pin_moved(arg.axes, i, size, 'windows move along it')
        for arg in args[:count]
      ]
      out.append(moved[0])
  return [tuple(out)] * count
