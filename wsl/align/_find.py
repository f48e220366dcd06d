"""Finds the permutation symmetries of a function by reading its jaxpr."""

from collections.abc import Callable, Sequence
import itertools
import math
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from wsl import tree, types
from wsl.align import (
  _axes,
  _certify,
  _constants,
  _depend,
  _inputs,
  _read,
  _symmetry,
  _trace,
)

_ROUNDS = 4
_UNROLL = 256  # segments that an axis may have where pinned factors lead
_ONES = 'its parts are used one by one'
Hints: TypeAlias = dict[tuple[str, int], list[int]]


def find_symmetry(
  apply_fn: Callable[..., Any],
  params: types.Params,
  *inputs: Any,
  rules: _read.References | None = None,
  certify: types.PRNGKey | None = None,
) -> _symmetry.Symmetry:
  r"""Finds the permutations of a model's units that leave its function alone.

  .. math:: f(\pi\theta, x) = f(\theta, x) \quad \text{for all } \theta, x

  The function is traced and each axis is followed through each operation. No
  specification of the architecture is needed. What an unknown operation
  touches stays where it is, so that what is found holds; more symmetries may
  exist than are found.

  Args:
    apply_fn: a function ``apply_fn(params, *inputs)`` of arrays; its results,
      any tree of arrays, are what must not change.
    params: all arrays whose axes may be permuted, moments of BatchNorm
      included; their shapes suffice (``jax.ShapeDtypeStruct``).
    *inputs: the other arguments; shapes suffice. What is no array, as a
      flag, is handed on as it is.
    rules: for opaque kernels, by the name of the primitive or of the jitted
      function, a function of the same operands that computes the same with
      primitives that are known.
    certify: a random key; with it, what had to be pinned is also tried on
      random parameters, and freed where several random permutations leave the
      output alone, as those of experts that a router picks by their rank.
      This is evidence and no proof. Inputs must be arrays then.

  Returns:
    The symmetry; ``explain`` writes it as a table.

  Raises:
    ValueError: if params or results are not arrays, or if the function needs
      values to be traced.

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
  found = analyse(apply_fn, params, inputs, rules=rules or {})
  if certify is None:
    return found.symmetry
  pairs = [
    tuple(found.names.get(_axes.find(x), '') for x in pair)
    for pair in found.trace.suspects
  ]
  suspects = [(a, b) for a, b in pairs if a and b and a != b]
  return _certify.certify(
    found.symmetry, suspects, apply_fn, params, inputs, certify
  )


class Analysis(NamedTuple):
  """A symmetry and what it was read from.

  Attributes:
    symmetry: what was found.
    names: the factors' names by atom.
    trace: all that was noted.
    program: the function, without what its results do not need.
  """

  symmetry: _symmetry.Symmetry
  names: dict[_axes.Axis, str]
  trace: _trace.Trace
  program: core.ClosedJaxpr


def analyse(
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: Sequence[Any],
  *,
  rules: _read.References,
) -> Analysis:
  """Reads a function until no more segments show, and keeps the best."""
  shapes = {name: _shape(name, x) for name, x in tree.named(params).items()}
  program, used = _program(apply_fn, params, inputs)
  hints: Hints = {}
  rounds: list[Analysis] = []
  for _ in range(_ROUNDS):
    leaves, trace = _follow(program, used, shapes, hints, rules)
    more = _fused(leaves)
    rounds.append(Analysis(*_assemble(leaves, trace), trace, program))
    if all(hints.get(key) == widths for key, widths in more.items()):
      break
    hints = {**hints, **more}
  return max(rounds, key=lambda found: found.symmetry.log10_order)


def _shape(name: str, leaf: Any) -> tuple[int, ...]:
  if not hasattr(leaf, 'shape') or not hasattr(leaf, 'dtype'):
    raise ValueError(
      f"find_symmetry: leaf '{name}' of params is a {type(leaf).__name__}, not "
      'an array: pass it to apply_fn in another way (functools.partial)'
    )
  return tuple(leaf.shape)


def _program(
  apply_fn: Callable[..., Any], params: types.Params, inputs: Sequence[Any]
) -> tuple[core.ClosedJaxpr, list[bool]]:
  """Traces the function; also says which leaves and inputs it uses."""
  call, arrays = _inputs.split(apply_fn, inputs)

  def abstract(x: Any) -> Any:
    dtype = x.dtype
    if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
      dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jax.ShapeDtypeStruct(x.shape, dtype)

  def checked(*args: Any) -> Any:
    out = call(*args)
    for name, leaf in tree.named(out).items():
      if not hasattr(leaf, 'shape') and not isinstance(leaf, (int, float)):
        raise ValueError(
          f"find_symmetry: the function returns '{name}', a "
          f'{type(leaf).__name__}: return arrays only'
        )
    return out

  args = jax.tree.map(abstract, (params, arrays))
  try:
    closed = jax.make_jaxpr(checked)(*args)
  except (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
  ) as error:
    first = str(error).strip().splitlines()[0]
    raise ValueError(
      'find_symmetry: the function needs the values of its arguments, not only '
      f'their shapes ({first}): fix what decides with functools.partial, and '
      'use jnp.where or lax.cond in place of Python conditions'
    ) from error
  jaxpr: Any = closed.jaxpr
  alive, _ = partial_eval.dce_jaxpr(
    jaxpr, [True] * len(jaxpr.outvars), instantiate=True
  )
  return core.ClosedJaxpr(alive, closed.consts), _used(alive)


def _used(jaxpr: Any) -> list[bool]:
  read = [*itertools.chain(*(eqn.invars for eqn in jaxpr.eqns))]
  live = {v for v in [*read, *jaxpr.outvars] if not isinstance(v, core.Literal)}
  return [v in live for v in jaxpr.invars]


def _follow(
  program: core.ClosedJaxpr,
  used: Sequence[bool],
  shapes: dict[str, tuple[int, ...]],
  hints: Hints,
  rules: _read.References,
) -> tuple[dict[str, _trace.Axes], _trace.Trace]:
  """Reads the program; returns the axes of its leaves and what was found."""
  trace = _trace.Trace()
  jaxpr: Any = program.jaxpr
  args: list[_trace.Axes] = []
  for name, is_used in zip(shapes, used):
    why = '' if is_used else 'the function does not use it'
    widths = [hints.get((name, i), [n]) for i, n in enumerate(shapes[name])]
    args.append(
      tuple(_axes.total([_axes.Axis(n, why) for n in w]) for w in widths)
    )
  leaves = dict(zip(shapes, args))
  for var in jaxpr.invars[len(shapes) :]:
    args.append(_trace.fresh(_trace.shape_of(var), 'an axis of the input'))
  reader = _read.Reader(trace, rules)
  results = reader.read(program, [_trace.Value(axes) for axes in args])
  for value in results:
    for axis in trace.operand(value):
      _axes.pin(axis, 'an axis of the output')
  for axes, constant in trace.constants.values():
    _constants.constrain(axes, constant)
  return leaves, trace


def _fused(leaves: dict[str, _trace.Axes]) -> Hints:
  """Finds axes whose major factor is a sum: fused projections.

  Their parts may have factors of their own, if that is known from the start.
  """
  found: Hints = {}
  for name, axes in leaves.items():
    for i, axis in enumerate(axes):
      factors = _axes.factors(axis)
      if len(factors) > 1 and factors[0].is_sum:
        found[name, i] = [part.size for part in _axes.segments(axis)]
  return found


def _assemble(
  leaves: dict[str, _trace.Axes], trace: _trace.Trace
) -> tuple[_symmetry.Symmetry, dict[_axes.Axis, str]]:
  """Writes what was found as factors and axes with names."""
  changed = True
  while changed:
    changed = any([_flatten(axis) for axes in leaves.values() for axis in axes])
  written = {n: [_write(axis) for axis in axes] for n, axes in leaves.items()}
  outer = _depend.outer(list(written.values()), trace)
  names: dict[_axes.Axis, str] = {}
  for name, rows in written.items():
    for i, blocks in enumerate(rows):
      atoms = list(itertools.chain(*blocks))
      for k, atom in enumerate(atoms):
        place = f'{name}:{i}' if len(atoms) == 1 else f'{name}:{i}.{k}'
        names.setdefault(atom, place)
  factors = tuple(
    _symmetry.Factor(
      name, atom.size, atom.why, tuple(names[a] for a in outer.get(atom, ()))
    )
    for atom, name in names.items()
  )
  label = lambda block: tuple(names[atom] for atom in block)
  labels = tuple(
    (name, tuple(tuple(map(label, blocks)) for blocks in rows))
    for name, rows in written.items()
  )
  return _symmetry.Symmetry(factors, labels), names


def _flatten(axis: _axes.Axis) -> bool:
  """Brings an axis closer to a sum of products of atoms, if it is none.

  A sum inside a product, as of queries and keys inside each head, is made a
  product, where its parts can be tied, or pinned.
  """
  parts = _axes.segments(axis)
  if len(parts) > 1 and all(part.size == 1 for part in parts):
    _pin_whole(axis, _ONES)
    return True
  for part in parts:
    inner = _inner_sum(part)
    if inner is not None:
      pieces = _axes.segments(inner)
      sizes = [piece.size for piece in pieces]
      if set(sizes) == {1}:
        _pin_whole(inner, _ONES)
      elif _axes.split(inner, inner.size // math.gcd(*sizes)) is None:
        _pin_whole(inner, 'parts inside a product that cannot be told apart')
      return True
  return False


def _inner_sum(part: _axes.Axis) -> _axes.Axis | None:
  """Returns a sum inside a product, if it cannot be written as segments."""
  factors = _axes.factors(part)
  at = next((i for i, factor in enumerate(factors) if factor.is_sum), None)
  if at is None:
    return None
  before, pieces = factors[:at], _axes.segments(factors[at])
  unrolled = math.prod(factor.size for factor in before) * len(pieces)
  if not all(map(_axes.pinned, before)) or unrolled > _UNROLL:
    return factors[at]
  inner = (_inner_sum(_axes.product([p, *factors[at + 1 :]])) for p in pieces)
  return next((x for x in inner if x is not None), None)


def _write(axis: _axes.Axis) -> list[tuple[_axes.Axis, ...]]:
  """Writes an axis as segments; pinned factors of sums index by index."""
  out: list[tuple[_axes.Axis, ...]] = []
  for part in _axes.segments(axis):
    factors = _axes.factors(part)
    at = next((i for i, factor in enumerate(factors) if factor.is_sum), None)
    if at is None:
      out.append(tuple(factors))
      continue
    inner = _write(_axes.product(factors[at:]))
    out += inner * math.prod(factor.size for factor in factors[:at])
  return out


def _pin_whole(axis: _axes.Axis, why: str) -> None:
  """Makes an axis one pinned atom."""
  reasons = [atom.why for atom in _axes.atoms(axis) if atom.why]
  axis = _axes.find(axis)
  _axes.pin(axis, why)
  axis.parts, axis.is_sum = (), False
  axis.why = reasons[0] if reasons else why
