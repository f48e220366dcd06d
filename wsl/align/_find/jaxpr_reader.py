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
  indices,
  known_constants,
  pieces,
)
from wsl.align._find.rules import table

References: TypeAlias = Mapping[str, Callable[..., Any]]

_EMPTY = ('concatenate', 'pad')  # have rules for empty operands
_WRITES = ('addupdate', 'swap')  # write into a reference, their real result


class Reader:
  """An abstract interpreter whose values are axes.

  Attributes:
    facts: receives the constraints.
    references: functions to trace in place of primitives or named calls.
  """

  def __init__(self, facts: axis_facts.Facts, references: References) -> None:
    self.facts = facts
    self.references = references
    self._interned: dict[Any, list[known_constants.Constant]] = {}

  def read(
    self,
    program: jaxprs.Program,
    args: Sequence[axis_facts.Value],
  ) -> list[axis_facts.Value]:
    """Interprets a program: records its arrays, returns its results."""
    outside = self.facts.path

    def visit(
      k: int, eqn: core.JaxprEqn, values: list[axis_facts.Value]
    ) -> list[axis_facts.Value]:
      self.facts.path = (*outside, k)
      results = self._equation(eqn, values)
      for result in results:
        if result.constant is None:
          for axes in result.pieces or (result.axes,):
            self.facts.record(axes)
      return results

    results = jaxprs.interpret(program, args, visit, lift=self._constant)
    self.facts.path = outside
    return results

  def _constant(self, value: Any) -> axis_facts.Value:
    """Returns the abstract value of a literal or constant of the program."""
    constant = known_constants.Constant(np.shape(value), value=value)
    return self._value(constant)

  def _value(self, constant: known_constants.Constant) -> axis_facts.Value:
    """Returns a value with new axes for a constant."""
    return axis_facts.Value(axis_facts.fresh(constant.shape), constant)

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
      return self.read(program, args)
    if name in ('scan', 'while', 'cond') and _filled(eqn):
      loop = {'scan': self._scan, 'while': self._while, 'cond': self._cond}
      return loop[name](eqn, args)
    constants = self._fold(eqn, args)
    if constants is not None:
      return [self._value(constant) for constant in constants]
    return self._apply(eqn, args)

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
      return [
        axis_facts.Value(axis_facts.fresh(jaxprs.shape_of(v)))
        for v in eqn.outvars
      ]
    if name in table.RULES and (_filled(eqn) or name in _EMPTY):
      results: Any = pieces.apply(self.facts, eqn, args)
      if results is None:
        for arg in args:
          self.facts.operand(arg)
        results = table.RULES[name](self.facts, eqn, args)
      if name in jaxprs.PRODUCTS:
        self.facts.products[self.facts.path] = [
          axis_facts.Tensor(arg.axes, self.facts.layers) for arg in args
        ]
      if results is not None:
        values = [
          r if isinstance(r, axis_facts.Value) else axis_facts.Value(r)
          for r in results
        ]
        if all(map(_fits, values, eqn.outvars)):
          return indices.propagate(self.facts, eqn, args, values)
    reason = f'no rule follows {name}'
    for arg in args:
      for axis in self.facts.operand(arg):
        axis_tree.pin(axis, reason)
    return [
      axis_facts.Value(axis_facts.fresh(jaxprs.shape_of(v), reason))
      for v in eqn.outvars
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

  def _plain(
    self, values: Sequence[axis_facts.Value]
  ) -> list[axis_facts.Value]:
    """Drops constants and pieces: a carry changes from step to step."""
    return [axis_facts.Value(self.facts.operand(value)) for value in values]

  def _tie(
    self, xs: Sequence[axis_facts.Value], ys: Sequence[axis_facts.Value]
  ) -> None:
    """Ties the axes of two lists of values."""
    for x, y in zip(xs, ys):
      for a, b in zip(self.facts.operand(x), self.facts.operand(y)):
        axis_tree.tie(a, b)

  def _scan(
    self, eqn: core.JaxprEqn, args: list[axis_facts.Value]
  ) -> list[axis_facts.Value]:
    """Interprets the body once; the scanned axis is part of its arrays.

    The carry is the exception: it is one array for all steps, so its axes
    cannot be permuted differently in each step. Its result is tied to it.
    """
    consts, carry, stacks = map(list, jaxprs.split_scan(eqn, args))
    carry, stacks = self._plain(carry), self._plain(stacks)
    count = len(carry)
    layer = axis_tree.Axis(eqn.params['length'], 'the steps of a scan')
    for value in stacks:
      axis_tree.tie(value.axes[0], layer)
    for value in carry:
      self.facts.record(value.axes)  # before the layer: shared by all steps
    outside = self.facts.layers
    self.facts.layers = (*outside, layer)
    slices = [axis_facts.Value(value.axes[1:]) for value in stacks]
    results = self.read(eqn.params['jaxpr'], [*consts, *carry, *slices])
    self._tie(carry, results[:count])
    outs = self._plain(results[count:])
    self.facts.layers = outside
    return [*carry, *(axis_facts.Value((layer, *out.axes)) for out in outs)]

  def _while(
    self, eqn: core.JaxprEqn, args: list[axis_facts.Value]
  ) -> list[axis_facts.Value]:
    """Interprets condition and body once; the carry is tied to its result."""
    p = eqn.params
    test, body, carry = map(list, jaxprs.split_while(eqn, args))
    carry = self._plain(carry)
    for value in carry:
      self.facts.record(value.axes)
    here = self.facts.path
    self.facts.path = (*here, 0)
    self.read(p['cond_jaxpr'], [*test, *carry])
    self.facts.path = (*here, 1)
    self._tie(carry, self.read(p['body_jaxpr'], [*body, *carry]))
    return carry

  def _cond(
    self, eqn: core.JaxprEqn, args: list[axis_facts.Value]
  ) -> list[axis_facts.Value]:
    """Interprets all branches; their results are tied to each other."""
    self.facts.operand(args[0])
    here, outs = self.facts.path, []
    for k, branch in enumerate(eqn.params['branches']):
      self.facts.path = (*here, k)
      outs.append(self.read(branch, args[1:]))
    for other in outs[1:]:
      self._tie(outs[0], other)
    return self._plain(outs[0])


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


def _empty(var: Any) -> bool:
  return 0 in jaxprs.shape_of(var)


def _fits(value: axis_facts.Value, var: Any) -> bool:
  return tuple(axis.size for axis in value.axes) == jaxprs.shape_of(var)
