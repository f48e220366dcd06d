"""The table of rules, by the name of the primitive.

A rule is a function ``(facts, eqn, args) -> results``. It ties and pins the
axes of the operands ``args``, records mixed indices in ``facts``, and returns
the axes of each result; ``None`` if this form of the primitive is not covered.
Without a rule, all axes of all operands and results are pinned.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from jax.extend import core

from wsl.align._find import axis_facts
from wsl.align._find.rules import (
  batched,
  elementwise,
  indexing,
  linear,
  reshape,
  shape,
)

Results: TypeAlias = Sequence[axis_facts.Axes | axis_facts.Value] | None
Rule: TypeAlias = Callable[
  [axis_facts.Facts, core.JaxprEqn, Sequence[axis_facts.Value]], Results
]

RULES: dict[str, Rule] = {
  **dict.fromkeys(elementwise.ELEMENTWISE, elementwise.elementwise),
  **dict.fromkeys(elementwise.UNCHANGED, elementwise.unchanged),
  **dict.fromkeys(elementwise.REDUCTIONS, elementwise.reduction),
  **dict.fromkeys(elementwise.CUMULATIVE, elementwise.cumulative),
  **dict.fromkeys(elementwise.COLLECTIVES, elementwise.collective),
  **dict.fromkeys(batched.DECOMPOSITIONS, batched.decomposition),
  'argmax': elementwise.arg_reduction,
  'argmin': elementwise.arg_reduction,
  'broadcast_in_dim': shape.broadcast,
  'concatenate': shape.concatenate,
  'conv_general_dilated': linear.convolution,
  'dot_general': linear.dot_general,
  'dynamic_slice': indexing.dynamic_slice,
  'dynamic_update_slice': indexing.dynamic_update_slice,
  'expand_dims': shape.expand_dims,
  'fft': batched.fft,
  'gather': indexing.gather,
  'iota': shape.iota,
  'pad': shape.pad,
  'ragged_dot_general': batched.ragged_dot,
  'reduce': elementwise.any_reduction,
  'reduce_window': linear.window,
  'reduce_window_max': linear.window,
  'reduce_window_min': linear.window,
  'reduce_window_sum': linear.window,
  'reshape': reshape.reshape,
  'rev': shape.reverse,
  'scatter': indexing.scatter,
  'scatter-add': indexing.scatter,
  'scatter-max': indexing.scatter,
  'scatter-min': indexing.scatter,
  'scatter-mul': indexing.scatter,
  'scatter-sub': indexing.scatter,
  'scatter_add': indexing.scatter,
  'scatter_max': indexing.scatter,
  'scatter_min': indexing.scatter,
  'scatter_mul': indexing.scatter,
  'scatter_sub': indexing.scatter,
  'slice': shape.slice_,
  'sort': elementwise.sort,
  'split': shape.split,
  'squeeze': shape.squeeze,
  'stack': shape.stack,
  'tie': elementwise.second,
  'tile': shape.tile,
  'top_k': elementwise.top_k,
  'transpose': shape.transpose,
  'triangular_solve': batched.triangular_solve,
  'unstack': shape.unstack,
}
