"""Propagates axes through a jaxpr, including calls, loops and branches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
from jax.extend import core
import numpy as np

from wsl import jaxprs
from wsl.align._find import (
  axis_facts,
  axis_tree,
  known_constants,
  loop_reader,
  pieces,
  shards,
  solves,
)
from wsl.align._find.generic import functions
from wsl.align._find.generic import table as generic_table
from wsl.align._find.generic import traits as traits_lib
from wsl.align._find.indices import apply as indices_apply
from wsl.align._find.indices import suspects
from wsl.align._find.rules import table

References: TypeAlias = Mapping[str, Callable[..., Any]]

_INNER: Mapping[str, Callable[..., list[axis_facts.Value] | None]] = {
  **loop_reader.LOOPS,
  'custom_linear_solve': solves.solve,
  'shard_map': shards.shard_map,
}
_EMPTY = ('concatenate', 'pad')  # have rules for empty operands
_WRITES = ('addupdate', 'swap')  # write into a reference, their real result


class Reader:
  """An abstract interpreter whose values are axes.

  Attributes:
    facts: receives the constraints.
    references: functions to trace in place of primitives or named calls.
    ranked: whether entries are ranked; only then traits of values matter.
  """

  def __init__(
    self,
    facts: axis_facts.Facts,
    references: References,
    *,
    ranked: bool = True,
  ) -> None:
    self.facts = facts
    self.references = references
    self.ranked = ranked
    self._interned: dict[Any, list[known_constants.Constant]] = {}

  def read(
    self,
    program: jaxprs.Program,
    args: Sequence[axis_facts.Value],
  ) -> list[axis_facts.Value]:
    """Interprets a program: records its arrays, returns its results."""
    outside, unread = self.facts.path, solves.only_solve(program)

    def visit(
      k: int, eqn: core.JaxprEqn, values: list[axis_facts.Value]
    ) -> list[axis_facts.Value]:
      self.facts.path = (*outside, k)
      if k in unread:
        return [*map(_unknown, eqn.outvars)]
      results = self._equation(eqn, self.facts.separate(values))
      for result in results:
        if result.constant is None:
          self.facts.record_value(result)
      return results

    results = jaxprs.interpret(program, args, visit, lift=self._constant)
    self.facts.path = outside
    return self.facts.separate(results)

  def _constant(self, value: Any) -> axis_facts.Value:
    """Returns the abstract value of a literal or constant of the program."""
    return self._value(known_constants.Constant(np.shape(value), value=value))

  def _value(self, constant: known_constants.Constant) -> axis_facts.Value:
    """Returns a value with new axes for a constant."""
    axes = axis_facts.fresh(constant.shape)
    value = axis_facts.Value(axes, constant, traits=traits_lib.Traits(0))
    return self.facts.number([value])[0]

  def _equation(
    self, eqn: core.JaxprEqn, args: list[axis_facts.Value]
  ) -> list[axis_facts.Value]:
    """Interprets one equation, as reference, call, loop, constant or rule."""
    name = eqn.primitive.name
    for key in (name, eqn.params.get('name')):
      if isinstance(key, str) and key in self.references:
        return self.read(self._reference(key, eqn), args)
    program = jaxprs.called(eqn)
    if program is not None:
      results = self.read(program, args)
      known = functions.softplus(eqn, [*map(axis_facts.as_operand, args)])
      if known is not None:
        results = [results[0]._replace(traits=known)]
      return results
    if name in _INNER and _filled(eqn):
      found = _INNER[name](self.facts, self.read, eqn, args)
      if found is not None:
        return found
    constants = self._fold(eqn, args)
    if constants is not None:
      return [self._value(constant) for constant in constants]
    results = self.facts.number(self._apply(eqn, args))
    step = axis_facts.Step(name, eqn, tuple(args), tuple(results))
    self.facts.steps.append(step)
    return results

  def _fold(
    self, eqn: core.JaxprEqn, args: list[axis_facts.Value]
  ) -> list[known_constants.Constant] | None:
    """Returns the results if all operands are constant, else ``None``.

    Equal equations of equal operands share their results, so that a mask that
    every layer builds again is evaluated once.
    """
    operands = [arg.constant for arg in args if arg.constant is not None]
    if len(operands) < len(args) or eqn.effects:
      return None
    shapes = [jaxprs.shape_of(v) for v in eqn.outvars]
    if sum(np.prod(s, dtype=float) for s in shapes) > known_constants.LIMIT:
      return None
    make = lambda: [
      known_constants.Constant(shape, eqn=eqn, operands=operands, index=i)
      for i, shape in enumerate(shapes)
    ]
    # The constants themselves are keys of later equations, so equal chains of
    # equations get equal results.
    try:
      key = eqn.primitive, tuple(eqn.params.items()), _keys(args)
      return self._interned.setdefault(key, make())
    except TypeError:  # a parameter that cannot be hashed
      return make()

  def _apply(
    self, eqn: core.JaxprEqn, args: list[axis_facts.Value]
  ) -> list[axis_facts.Value]:
    """Applies the rule of a primitive; without a rule, pins all axes."""
    name = eqn.primitive.name
    if all(map(_empty, eqn.outvars)) and name not in _WRITES:
      return [*map(_unknown, eqn.outvars)]
    filled = _filled(eqn) or name in _EMPTY or _whole_window(eqn)
    if name in table.RULES and filled:
      values = self._results(eqn, args)
      if values is not None and all(map(_fits, values, eqn.outvars)):
        values = suspects.propagate(self.facts, eqn, args, values)
        if not self.ranked:
          return values
        traits = generic_table.propagate(
          eqn, [*map(axis_facts.as_operand, args)]
        )
        return [v._replace(traits=t) for v, t in zip(values, traits)]
    reason = f'no rule follows {name}'
    for arg in args:
      for axis in self.facts.operand(arg):
        axis_tree.pin(axis, reason)
    return [
      axis_facts.Value(axis_facts.fresh(jaxprs.shape_of(v), reason))
      for v in eqn.outvars
    ]

  def _results(
    self, eqn: core.JaxprEqn, args: list[axis_facts.Value]
  ) -> list[axis_facts.Value] | None:
    """Applies the rule for indices, for pieces, or that of the primitive."""
    name = eqn.primitive.name
    results: Any = indices_apply.apply(self.facts, eqn, args)
    if results is None:
      for arg in args:
        axis_facts.escape(arg)
      results = pieces.apply(self.facts, eqn, args)
    if results is None:
      for arg in args:
        self.facts.operand(arg)
      results = table.RULES[name](self.facts, eqn, args)
    if name in jaxprs.PRODUCTS:
      self.facts.products[self.facts.path] = [
        axis_facts.Tensor(arg.axes, self.facts.layers) for arg in args
      ]
    if results is None:
      return None
    return [
      r if isinstance(r, axis_facts.Value) else axis_facts.Value(r)
      for r in results
    ]

  def _reference(self, key: str, eqn: core.JaxprEqn) -> core.ClosedJaxpr:
    """Traces the function that replaces an opaque primitive."""
    avals: list[Any] = [v.aval for v in [*eqn.invars, *eqn.outvars]]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    count = len(eqn.invars)
    program = jax.make_jaxpr(self.references[key])(*shapes[:count])
    wanted = [(a.shape, a.dtype) for a in shapes[count:]]
    found = [(a.shape, a.dtype) for a in program.out_avals]
    if found != wanted:
      raise ValueError(
        f"find_symmetry: rules['{key}'] returns {found}, the primitive "
        f'{wanted}: give a function that computes the same'
      )
    return program


def _keys(args: Sequence[axis_facts.Value]) -> tuple[Any, ...]:
  """Returns hashable keys: of scalars their value, of others the object."""
  keys: list[Any] = []
  for arg in args:
    constant = arg.constant
    if constant is not None and constant.eqn is None and not constant.shape:
      value = np.asarray(constant.value())
      keys.append((value.dtype, value.tobytes()))
    else:
      keys.append(constant)
  return tuple(keys)


def _filled(eqn: core.JaxprEqn) -> bool:
  """Returns True if no operand or result is empty; tokens count as empty."""
  return not any(map(_empty, [*eqn.invars, *eqn.outvars]))


def _whole_window(eqn: core.JaxprEqn) -> bool:
  """Returns True for a window of all entries: its index has no components."""
  if not eqn.primitive.name.startswith(('gather', 'scatter')):
    return False
  shapes = [*map(jaxprs.shape_of, eqn.invars)]
  rest = [*shapes[:1], *shapes[2:], *map(jaxprs.shape_of, eqn.outvars)]
  return shapes[1][-1:] == (0,) and not any(0 in shape for shape in rest)


def _empty(var: Any) -> bool:
  return 0 in jaxprs.shape_of(var)


def _unknown(var: Any) -> axis_facts.Value:
  return axis_facts.Value(axis_facts.fresh(jaxprs.shape_of(var)))


def _fits(value: axis_facts.Value, var: Any) -> bool:
  return tuple(axis.size for axis in value.axes) == jaxprs.shape_of(var)
