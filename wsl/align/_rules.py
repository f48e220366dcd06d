"""The table of rules: what each primitive says about the axes it touches.

A rule gets what is known so far, an equation and its operands, ties and pins
the operands' axes as the primitive demands, and returns the axes of each
result, or ``None`` where it does not apply. What has no rule pins every axis
of every operand and result.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from jax.extend import core

from wsl.align import (
  _rules_elementwise,
  _rules_indexing,
  _rules_linear,
  _rules_shape,
  _trace,
)

Results: TypeAlias = Sequence[_trace.Axes | _trace.Value] | None
Rule: TypeAlias = Callable[
  [_trace.Trace, core.JaxprEqn, Sequence[_trace.Value]], Results
]

RULES: dict[str, Rule] = {
  **dict.fromkeys(
    _rules_elementwise.ELEMENTWISE, _rules_elementwise.elementwise
  ),
  **dict.fromkeys(_rules_elementwise.UNCHANGED, _rules_elementwise.unchanged),
  **dict.fromkeys(_rules_elementwise.REDUCTIONS, _rules_elementwise.reduction),
  **dict.fromkeys(_rules_elementwise.CUMULATIVE, _rules_elementwise.cumulative),
  'argmax': _rules_elementwise.arg_reduction,
  'argmin': _rules_elementwise.arg_reduction,
  'broadcast_in_dim': _rules_shape.broadcast,
  'concatenate': _rules_shape.concatenate,
  'conv_general_dilated': _rules_linear.convolution,
  'dot_general': _rules_linear.dot_general,
  'dynamic_slice': _rules_indexing.dynamic_slice,
  'dynamic_update_slice': _rules_indexing.dynamic_update_slice,
  'expand_dims': _rules_shape.expand_dims,
  'gather': _rules_indexing.gather,
  'iota': _rules_shape.iota,
  'pad': _rules_shape.pad,
  'reduce': _rules_elementwise.any_reduction,
  'reduce_window': _rules_linear.window,
  'reduce_window_max': _rules_linear.window,
  'reduce_window_min': _rules_linear.window,
  'reduce_window_sum': _rules_linear.window,
  'reshape': _rules_shape.reshape,
  'rev': _rules_shape.reverse,
  'scatter': _rules_indexing.scatter,
  'scatter-add': _rules_indexing.scatter,
  'scatter-max': _rules_indexing.scatter,
  'scatter-min': _rules_indexing.scatter,
  'scatter-mul': _rules_indexing.scatter,
  'scatter-sub': _rules_indexing.scatter,
  'scatter_add': _rules_indexing.scatter,
  'scatter_max': _rules_indexing.scatter,
  'scatter_min': _rules_indexing.scatter,
  'scatter_mul': _rules_indexing.scatter,
  'scatter_sub': _rules_indexing.scatter,
  'slice': _rules_shape.slice_,
  'sort': _rules_elementwise.sort,
  'split': _rules_shape.split,
  'squeeze': _rules_shape.squeeze,
  'stack': _rules_shape.stack,
  'tie': _rules_elementwise.second,
  'tile': _rules_shape.tile,
  'top_k': _rules_elementwise.top_k,
  'transpose': _rules_shape.transpose,
  'unstack': _rules_shape.unstack,
}
