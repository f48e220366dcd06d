"""Reads a jaxpr equation by equation, through calls, loops and branches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
from jax.extend import core
import numpy as np

from wsl.align._find import axis_tree, facts, indices, known_constants, pieces
from wsl.align._find.rules import table

References: TypeAlias = Mapping[str, Callable[..., Any]]

CALLS = {
  'jit': 'jaxpr',
  'pjit': 'jaxpr',
  'closed_call': 'call_jaxpr',
  'core_call': 'call_jaxpr',
  'checkpoint': 'jaxpr',
  'remat': 'jaxpr',
  'remat2': 'jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
  'custom_vjp_call_jaxpr': 'fun_jaxpr',
}
PRODUCTS = ('dot_general', 'conv_general_dilated')
_EMPTY = ('concatenate', 'pad')  # what follows even where an operand is empty
_WRITES = ('addupdate', 'swap')  # what leaves its results in a reference


class Reader:
  """Follows the axes of values through equations.

  Attributes:
    trace: takes what is found.
    references: functions to read in place of primitives or named calls.
  """

  def __init__(self, trace: facts.Trace, references: References) -> None:
    self.trace = trace
    self.references = references
    self._interned: dict[Any, list[known_constants.Constant]] = {}

  def read(
    self,
    program: core.Jaxpr | core.ClosedJaxpr,
    args: Sequence[facts.Value],
  ) -> list[facts.Value]:
    """Returns the results of a program whose arguments are given."""
    jaxpr: Any = getattr(program, 'jaxpr', program)
    consts = getattr(program, 'consts', ())
    env: dict[Any, facts.Value] = {}
    for var, const in zip(jaxpr.constvars, consts):
      env[var] = self._value(
        known_constants.Constant(np.shape(const), value=const)
      )
    env.update(zip(jaxpr.invars, args))

    def get(var: Any) -> facts.Value:
      if not isinstance(var, core.Literal):
        return env[var]
      shape = np.shape(var.val)
      return self._value(known_constants.Constant(shape, value=var.val))

    outside = self.trace.path
    for k, eqn in enumerate(jaxpr.eqns):
      self.trace.path = (*outside, k)
      results = self._equation(eqn, [get(v) for v in eqn.invars])
      for result in results:
        if result.constant is None:
          for axes in result.pieces or (result.axes,):
            self.trace.record(axes)
      env.update(zip(eqn.outvars, results))
    self.trace.path = outside
    return [get(v) for v in jaxpr.outvars]

  def _value(self, constant: known_constants.Constant) -> facts.Value:
    return facts.Value(facts.fresh(constant.shape), constant)

  def _equation(
    self, eqn: core.JaxprEqn, args: list[facts.Value]
  ) -> list[facts.Value]:
    name = eqn.primitive.name
    for key in (name, eqn.params.get('name')):
      if isinstance(key, str) and key in self.references:
        return self.read(self._reference(key, eqn), args)
    if name in CALLS:
      return self.read(eqn.params[CALLS[name]], args)
    if name in ('scan', 'while', 'cond') and _filled(eqn):
      loop = {'scan': self._scan, 'while': self._while, 'cond': self._cond}
      return loop[name](eqn, args)
    constants = self._fold(eqn, args)
    if constants is not None:
      return [self._value(constant) for constant in constants]
    return self._apply(eqn, args)

  def _fold(
    self, eqn: core.JaxprEqn, args: list[facts.Value]
  ) -> list[known_constants.Constant] | None:
    """Returns results that depend on nothing but constants."""
    operands = [arg.constant for arg in args if arg.constant is not None]
    if len(operands) < len(args) or eqn.effects:
      return None
    shapes = [facts.shape_of(v) for v in eqn.outvars]
    if sum(np.prod(s, dtype=float) for s in shapes) > known_constants.LIMIT:
      return None
    make = lambda: [
      known_constants.Constant(shape, eqn=eqn, operands=operands, index=i)
      for i, shape in enumerate(shapes)
    ]
    try:
      key = eqn.primitive, tuple(eqn.params.items()), _keys(args)
      return self._interned.setdefault(key, make())
    except TypeError:  # a parameter that cannot be hashed
      return make()

  def _apply(
    self, eqn: core.JaxprEqn, args: list[facts.Value]
  ) -> list[facts.Value]:
    """Applies the rule of a primitive; without one, pins all it touches."""
    name = eqn.primitive.name
    if all(map(_empty, eqn.outvars)) and name not in _WRITES:
      return [facts.Value(facts.fresh(facts.shape_of(v))) for v in eqn.outvars]
    if name in table.RULES and (_filled(eqn) or name in _EMPTY):
      results: Any = pieces.follow(self.trace, eqn, args)
      if results is None:
        for arg in args:
          self.trace.operand(arg)
        results = table.RULES[name](self.trace, eqn, args)
      if name in PRODUCTS:
        self.trace.products[self.trace.path] = [
          facts.Tensor(arg.axes, self.trace.layers) for arg in args
        ]
      if results is not None:
        values = [
          r if isinstance(r, facts.Value) else facts.Value(r) for r in results
        ]
        if all(map(_fits, values, eqn.outvars)):
          return indices.follow(self.trace, eqn, args, values)
    why = f'no rule follows {name}'
    for arg in args:
      for axis in self.trace.operand(arg):
        axis_tree.pin(axis, why)
    return [
      facts.Value(facts.fresh(facts.shape_of(v), why)) for v in eqn.outvars
    ]

  def _reference(self, key: str, eqn: core.JaxprEqn) -> core.ClosedJaxpr:
    """Traces the function that was given for an opaque primitive."""
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

  def _plain(self, values: Sequence[facts.Value]) -> list[facts.Value]:
    """Forgets that values are constant, as what is carried changes."""
    return [facts.Value(self.trace.operand(value)) for value in values]

  def _tie(self, xs: Sequence[facts.Value], ys: Sequence[facts.Value]) -> None:
    for x, y in zip(xs, ys):
      for a, b in zip(self.trace.operand(x), self.trace.operand(y)):
        axis_tree.tie(a, b)

  def _scan(
    self, eqn: core.JaxprEqn, args: list[facts.Value]
  ) -> list[facts.Value]:
    """Reads the body once, with the scanned axis present in all it holds."""
    body = eqn.params['jaxpr']
    whole, count = whole_and_carry(eqn)
    consts = args[: whole - count]
    carry = self._plain(args[whole - count : whole])
    stacks = self._plain(args[whole:])
    layer = axis_tree.Axis(eqn.params['length'], 'the steps of a scan')
    for value in stacks:
      axis_tree.tie(value.axes[0], layer)
    for value in carry:
      self.trace.record(value.axes)  # the same in all layers
    outside = self.trace.layers
    self.trace.layers = (*outside, layer)
    slices = [facts.Value(value.axes[1:]) for value in stacks]
    results = self.read(body, [*consts, *carry, *slices])
    self._tie(carry, results[:count])
    outs = self._plain(results[count:])
    self.trace.layers = outside
    return [*carry, *(facts.Value((layer, *out.axes)) for out in outs)]

  def _while(
    self, eqn: core.JaxprEqn, args: list[facts.Value]
  ) -> list[facts.Value]:
    p = eqn.params
    a, b = p['cond_nconsts'], p['body_nconsts']
    carry = self._plain(args[a + b :])
    for value in carry:
      self.trace.record(value.axes)
    here = self.trace.path
    self.trace.path = (*here, 0)
    self.read(p['cond_jaxpr'], [*args[:a], *carry])
    self.trace.path = (*here, 1)
    self._tie(carry, self.read(p['body_jaxpr'], [*args[a : a + b], *carry]))
    return carry

  def _cond(
    self, eqn: core.JaxprEqn, args: list[facts.Value]
  ) -> list[facts.Value]:
    self.trace.operand(args[0])
    here, outs = self.trace.path, []
    for k, branch in enumerate(eqn.params['branches']):
      self.trace.path = (*here, k)
      outs.append(self.read(branch, args[1:]))
    for other in outs[1:]:
      self._tie(outs[0], other)
    return self._plain(outs[0])


def whole_and_carry(eqn: core.JaxprEqn) -> tuple[int, int]:
  """Counts what a scan's body sees whole, and what of it is carried."""
  body = eqn.params['jaxpr']
  same = lambda v, aval: len(facts.shape_of(v)) == len(aval.shape)
  whole = sum(map(same, eqn.invars, body.in_avals))
  return whole, sum(map(same, eqn.outvars, body.out_avals))


def _keys(args: Sequence[facts.Value]) -> tuple[Any, ...]:
  """Names constants: small ones by their value, others by identity."""
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
  """Says whether all is arrays, and none of them empty."""
  return not any(map(_empty, [*eqn.invars, *eqn.outvars]))


def _empty(var: Any) -> bool:
  return 0 in facts.shape_of(var)


def _fits(value: facts.Value, var: Any) -> bool:
  return tuple(axis.size for axis in value.axes) == facts.shape_of(var)
