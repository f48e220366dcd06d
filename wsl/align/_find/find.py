"""Finds the permutation symmetries of a function from its jaxpr."""

from collections.abc import Callable, Sequence
import itertools
from typing import Any, NamedTuple, TypeAlias

from jax.extend import core

from wsl import jaxprs, tree, types
from wsl.align import _arguments, _symmetry
from wsl.align._check import certification
from wsl.align._find import (
  axis_facts,
  axis_tree,
  jaxpr_reader,
  known_constants,
  summed_scans,
  write_symmetry,
)
from wsl.align._find.generic import table as generic_table
from wsl.align._find.generic import traits as traits_lib
from wsl.align._gauges import absorb
from wsl.align._gauges.traced import actions as gauge_actions

_ROUNDS = 4  # passes; each may split fused projections once more
Hints: TypeAlias = dict[tuple[str, int], axis_tree.Sizes]


def find_symmetry(
  apply_fn: Callable[..., Any],
  params: types.Params,
  *inputs: Any,
  rules: jaxpr_reader.References | None = None,
  certify: types.PRNGKey | None = None,
  gauges: Sequence[str] = _symmetry.GAUGES,
  ones: types.Leaves | None = None,
) -> _symmetry.Symmetry:
  r"""Finds the maps of a model's parameters that leave its function alone.

  .. math:: f(\pi\theta, x) = f(\theta, x) \quad \text{for all } \theta, x

  for permutations of units, signs, scales, rotations, phases and linear maps.
  The function is traced, and each axis is propagated through each primitive. A
  primitive without a rule pins its operands' axes, so every symmetry returned
  holds exactly. The function may have further symmetries.

  Experts that are selected by rank (``top_k``, ``argmax``, ``argsort``) are
  permuted with their columns of the router, if their indices are only looked up
  and if equal scores have probability zero: ranks of equal scores depend on
  positions. Then the symmetry holds for almost all parameters and inputs.

  Args:
    apply_fn: a function ``apply_fn(params, *inputs)`` of arrays; its results,
      any pytree of arrays, must not change.
    params: all arrays whose axes may be permuted, moments of BatchNorm
      included; shapes suffice (``jax.ShapeDtypeStruct``).
    *inputs: the other arguments; shapes suffice. Leaves that are not arrays,
      such as flags, are passed on unchanged.
    rules: for opaque kernels, a function that computes the same results from
      the same operands with known primitives; the key is the name of the
      primitive or of the jitted function.
    certify: a random key, or ``None``. With a key, pinned axes whose indices
      are selected by rank and looked up, such as those of experts whose scores
      may be equal, are tested: an axis is freed if random permutations of it
      leave the outputs for random parameters unchanged. The inputs must then be
      arrays. This is evidence, not a proof, and covers only code that these
      inputs reach.
    gauges: the kinds of maps to find beside permutations: signs, scales,
      rotations, phases, invertible linear maps. ``('permutation',)`` finds
      permutations only.
    ones: leaves whose entries are all 1, such as the gains of norms after
      ``absorb_norms``, by a regular expression or a predicate. The symmetry is
      that of models with ones there, which rotations then act on.

  Returns:
    The symmetry; ``explain`` writes it as a table.

  Raises:
    ValueError: if params or results are not arrays, or if the control flow of
      the function depends on values.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> def mlp(params, x):
    ...   return jax.nn.relu(x @ params['a']) @ params['b']
    >>> params = {'a': jnp.zeros((2, 5)), 'b': jnp.zeros((5, 3))}
    >>> symmetry = find_symmetry(mlp, params, jnp.zeros((1, 2)))
    >>> symmetry.groups
    (Factor(name='a:1', size=5, pinned='', outer=()),)
    >>> symmetry.leaf['b']
    ((('a:1',),), (('b:1',),))
  """
  _arguments.check_kinds(gauges, 'find_symmetry')
  if ones is not None:
    apply_fn = absorb.with_ones(apply_fn, params, ones)
  found = analyse(
    apply_fn, params, inputs, rules=rules or {}, caller='find_symmetry'
  )
  symmetry = found.symmetry
  if certify is not None:
    tree.check_not_narrowed('find_symmetry', params)
    pairs = [
      tuple(found.names.get(axis_tree.find(x), '') for x in pair)
      for pair in found.facts.suspects
    ]
    suspects = [(a, b) for a, b in pairs if a and b]
    symmetry = certification.certify(
      symmetry, suspects, apply_fn, params, inputs, certify
    )
  if set(gauges) == {'permutation'}:
    return symmetry
  return gauge_actions.find(
    gauges, found.facts, list(tree.named(params)), found.names, symmetry
  )


class Analysis(NamedTuple):
  """A symmetry with the facts that imply it.

  Attributes:
    symmetry: the symmetry.
    names: the name of the factor of each atom.
    facts: the constraints collected from the equations.
    program: the traced function, without dead equations.
  """

  symmetry: _symmetry.Symmetry
  names: dict[axis_tree.Axis, str]
  facts: axis_facts.Facts
  program: core.ClosedJaxpr


def analyse(
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: Sequence[Any],
  *,
  rules: jaxpr_reader.References,
  caller: str,
) -> Analysis:
  """Repeats the pass until the segments of fused axes no longer change.

  A function with scans that add up their steps is analysed in two forms.

  Args:
    apply_fn: a function ``apply_fn(params, *inputs)``.
    params: its parameters, or their shapes.
    inputs: its other arguments.
    rules: replacements for opaque kernels, by name.
    caller: the public function to name in error messages.

  Returns:
    The analysis of the pass with the largest group.
  """
  shapes = jaxprs.leaf_shapes(params, caller=caller)
  program = jaxprs.trace(apply_fn, params, inputs, caller=caller)
  rounds: list[Analysis] = []
  summed = summed_scans.rewrite(program)
  for form in [program] if summed is None else [program, summed]:
    hints: Hints = {}
    for _ in range(_ROUNDS):
      axes, facts = _propagate(form, shapes, hints, rules)
      more = _fused(axes)
      rounds.append(
        Analysis(*write_symmetry.from_axes(axes, facts), facts, form)
      )
      if all(hints.get(key) == widths for key, widths in more.items()):
        break
      hints = {**hints, **more}
  return max(rounds, key=lambda found: found.symmetry.log10_order)


def _propagate(
  program: core.ClosedJaxpr,
  shapes: dict[str, tuple[int, ...]],
  hints: Hints,
  rules: jaxpr_reader.References,
) -> tuple[dict[str, axis_facts.Axes], axis_facts.Facts]:
  """Runs one pass over the program; returns the leaves' axes and the facts."""
  facts = axis_facts.Facts()
  jaxpr: Any = program.jaxpr
  args: list[axis_facts.Axes] = []
  for name in shapes:
    sizes = [
      hints.get((name, i), ((n, ()),)) for i, n in enumerate(shapes[name])
    ]
    args.append(tuple(map(axis_tree.of_sizes, sizes)))
  leaves = dict(zip(shapes, args))
  for var in jaxpr.invars[len(shapes) :]:
    # Inputs are data: permuting them is no symmetry of the parameters.
    args.append(axis_facts.fresh(jaxprs.shape_of(var), 'an axis of the input'))
  ranked = bool(rules) or generic_table.needed(program)
  reader = jaxpr_reader.Reader(facts, rules, ranked=ranked)
  values = facts.number([axis_facts.Value(axes) for axes in args])
  if ranked:
    for k, var in enumerate(jaxpr.invars):
      dtype = getattr(var.aval, 'dtype', bool)
      traits = traits_lib.root(k, jaxprs.shape_of(var), dtype)
      values[k] = values[k]._replace(traits=traits)
  results = reader.read(program, values)
  facts.leaves = values[: len(shapes)]
  facts.fixed = [*values[len(shapes) :], *results]
  for value in results:
    for axis in facts.operand(value):
      axis_tree.pin(axis, 'an axis of the output')
  for axes, constant in facts.constants.values():
    if known_constants.constrain(axes, constant):
      facts.record(axes)
  _pin_unused(leaves, facts)
  return leaves, facts


def _pin_unused(
  leaves: dict[str, axis_facts.Axes], facts: axis_facts.Facts
) -> None:
  """Pins atoms of leaves that no array of the function holds.

  Embeddings of positions beyond the last token affect only longer inputs:
  permuting them is no symmetry of the model.
  """
  seen = [axis for tensor in facts.tensors.values() for axis in tensor.axes]
  seen += [axis for axis, _ in facts.mixed]
  used = {atom for axis in seen for atom in axis_tree.atoms(axis)}
  for axis in itertools.chain(*leaves.values()):
    for atom in axis_tree.atoms(axis):
      if atom not in used:
        axis_tree.pin(atom, axis_tree.UNUSED)


def _fused(leaves: dict[str, axis_facts.Axes]) -> Hints:
  """Returns the parts of fused projections, by leaf and axis.

  These are axes with factors after a sum, such as ``(q + k + v) * units`` or
  ``heads * (q + k + v) * units``. In the next pass they start as sums, so that
  each part has its own factors.
  """
  return {
    (name, i): axis_tree.sizes(axis)
    for name, axes in leaves.items()
    for i, axis in enumerate(axes)
    if axis_tree.shares_factors(axis)
  }
