"""Walking the jaxpr of a traced function: what every reader of jaxprs shares.

A jaxpr is a list of equations ``outvars = primitive[params] invars``. Three
rooms interpret it: ``align`` propagates axes, ``stats`` propagates views of
weights, ``stitch`` counts products. They differ in the value that they attach
to a variable. The environment, calls, loops and the evaluation of a single
equation are the same and are defined here::

  def visit(k, eqn, values):             # the k-th equation and its operands
    inner = jaxprs.called(eqn)
    if inner is not None:                # jit, remat, custom_vjp ...
      return jaxprs.interpret(inner, values, visit)
    return jaxprs.evaluate(eqn, values)  # or any other meaning

  jaxprs.interpret(program, args, visit)

``wsl/align/_find/rules/__init__.py`` lists what to edit for a new primitive.
"""

from collections.abc import Callable, Sequence
import itertools
from typing import Any, TypeAlias, TypeVar

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from wsl import tree, types

T = TypeVar('T')
Program: TypeAlias = core.Jaxpr | core.ClosedJaxpr
Visit: TypeAlias = Callable[[int, core.JaxprEqn, list[T]], Sequence[T]]

# Primitives whose operands and results are those of an inner jaxpr, and the
# parameter that holds it. Names that JAX has retired stay for old releases.
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

# Primitives with one operand that return its entries in place: only the dtype,
# the precision, a name or the placement on devices changes.
CASTS = frozenset({
  'convert_element_type', 'copy', 'copy_p', 'stop_gradient', 'name',
  'reduce_precision', 'sharding_constraint', 'reshard', 'mesh_cast',
})  # fmt: skip

# Primitives that contract axes of two operands.
PRODUCTS = ('dot_general', 'conv_general_dilated')


def leaf_shapes(
  params: types.Params, *, caller: str
) -> dict[str, tuple[int, ...]]:
  """Returns the shape of every leaf by name.

  Args:
    params: a pytree of arrays or of their shapes.
    caller: the public function to name in the error message.

  Raises:
    ValueError: if a leaf is not an array.

  Example:
    >>> leaf_shapes({'w': jax.ShapeDtypeStruct((2, 3), 'float32')}, caller='f')
    {'w': (2, 3)}
  """
  for name, leaf in tree.named(params).items():
    if not _is_array(leaf):
      raise ValueError(
        f"{caller}: leaf '{name}' of params is a {type(leaf).__name__}, not "
        'an array: pass it to apply_fn in another way (functools.partial)'
      )
  return {name: tuple(x.shape) for name, x in tree.named(params).items()}


def bind_static(
  apply_fn: Callable[..., Any], inputs: Sequence[Any]
) -> tuple[Callable[[types.Params, list[Any]], Any], list[Any]]:
  """Fixes the arguments that are not arrays, such as flags and strings.

  Args:
    apply_fn: a function ``apply_fn(params, *inputs)``.
    inputs: pytrees whose leaves are arrays, shapes or any other object.

  Returns:
    A function ``call(params, arrays)`` and the arrays among the leaves of
    ``inputs``, in tree order.

  Example:
    >>> fn = lambda p, x, train: p * x if train else x
    >>> call, arrays = bind_static(fn, (jax.numpy.ones(2), True))
    >>> len(arrays), call(3.0, arrays).tolist()
    (1, [3.0, 3.0])
  """
  leaves, structure = jax.tree.flatten(tuple(inputs))
  is_array = [*map(_is_array, leaves)]
  arrays = list(itertools.compress(leaves, is_array))

  def call(params: types.Params, arrays: list[Any]) -> Any:
    given = iter(arrays)
    filled = [next(given) if a else x for x, a in zip(leaves, is_array)]
    return apply_fn(params, *jax.tree.unflatten(structure, filled))

  return call, arrays


def trace(
  apply_fn: Callable[..., Any],
  params: types.Params,
  inputs: Sequence[Any],
  *,
  caller: str,
) -> core.ClosedJaxpr:
  """Traces a function from shapes and removes dead equations.

  Args:
    apply_fn: a function ``apply_fn(params, *inputs)`` that returns a pytree of
      arrays.
    params: a pytree of arrays or shapes.
    inputs: further arguments; leaves that are not arrays are constants.
    caller: the public function to name in error messages.

  Returns:
    The jaxpr. Its arguments are the leaves of ``params``, then the arrays of
    ``inputs``.

  Raises:
    ValueError: if the function returns anything but arrays, or if its control
      flow depends on the values of its arguments.

  Example:
    >>> import jax.numpy as jnp
    >>> dead = lambda p, x: (jnp.sin(p), p * x)[1]
    >>> one = jnp.ones(())
    >>> [e.primitive.name for e in trace(dead, one, (one,), caller='f').eqns]
    ['mul']
  """
  call, arrays = bind_static(apply_fn, inputs)

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
          f"{caller}: the function returns '{name}', a "
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
      f'{caller}: the function needs the values of its arguments, not only '
      f'their shapes ({first}): fix what decides with functools.partial, and '
      'use jnp.where or lax.cond in place of Python conditions'
    ) from error
  jaxpr: Any = closed.jaxpr
  alive, _ = partial_eval.dce_jaxpr(
    jaxpr, [True] * len(jaxpr.outvars), instantiate=True
  )
  return core.ClosedJaxpr(alive, closed.consts)


def interpret(
  program: Program,
  args: Sequence[T],
  visit: Visit[T],
  *,
  lift: Callable[[Any], T] = lambda x: x,
) -> list[T]:
  """Runs a jaxpr on values of any kind, equation by equation.

  Args:
    program: a jaxpr, closed if it has constants.
    args: a value for each of its arguments.
    visit: a function ``(k, eqn, values) -> results`` that gives the k-th
      equation its meaning.
    lift: converts constants and literals to values.

  Returns:
    A value for each result of the program.

  Example:
    >>> program = jax.make_jaxpr(lambda x: 2 * x + 1)(1.0)
    >>> depth = lambda k, eqn, values: [max(values) + 1]
    >>> interpret(program, [0], depth, lift=lambda constant: 0)
    [2]
  """
  jaxpr: Any = getattr(program, 'jaxpr', program)
  consts = getattr(program, 'consts', ())
  env: dict[Any, T] = dict(zip(jaxpr.constvars, map(lift, consts)))
  env.update(zip(jaxpr.invars, args))

  def read(var: Any) -> T:
    return lift(var.val) if isinstance(var, core.Literal) else env[var]

  for k, eqn in enumerate(jaxpr.eqns):
    env.update(zip(eqn.outvars, visit(k, eqn, [*map(read, eqn.invars)])))
  return [*map(read, jaxpr.outvars)]


def evaluate(eqn: core.JaxprEqn, values: Sequence[Any]) -> list[Any]:
  """Returns the results of one equation, computed by JAX.

  Args:
    eqn: the equation.
    values: an array for each operand; those of literals are ignored.

  Example:
    >>> eqn = jax.make_jaxpr(lambda x: x * 3.0)(1.0).eqns[0]
    >>> [float(x) for x in evaluate(eqn, [2.0, 3.0])]
    [6.0]
  """
  # A jaxpr of one equation keeps the context of the equation (mesh, compute
  # type), which ``primitive.bind`` would drop.
  given = {
    var: value
    for var, value in zip(eqn.invars, values)
    if not isinstance(var, core.Literal)
  }
  names = ('',) * len(given), ('',) * len(eqn.outvars)
  alone = core.Jaxpr(
    (),
    [*given],
    eqn.outvars,
    [eqn],
    eqn.effects,
    core.DebugInfo('evaluate', eqn.primitive.name, *names),
  )
  return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())


def called(eqn: core.JaxprEqn) -> Program | None:
  """Returns the jaxpr that a call runs on its operands; ``None`` if no call.

  Example:
    >>> program = jax.make_jaxpr(jax.jit(lambda x: x + 1))(1.0)
    >>> [e.primitive.name for e in called(program.eqns[0]).eqns]
    ['add']
  """
  name = eqn.primitive.name
  return eqn.params[CALLS[name]] if name in CALLS else None


def inner(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
  """Returns all jaxprs in an equation's parameters: calls, bodies, branches.

  Example:
    >>> fn = lambda x: jax.lax.cond(x > 0, lambda: x, lambda: -x)
    >>> eqns = jax.make_jaxpr(fn)(1.0).eqns
    >>> [len(inner(e)) for e in eqns if e.primitive.name == 'cond']
    [2]
  """
  return [*core.jaxprs_in_params(eqn.params)]


def split_scan(
  eqn: core.JaxprEqn, operands: Sequence[T]
) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
  """Splits the operands of a scan into constants, carry and scanned arrays.

  Args:
    eqn: the equation of a ``scan``; its body takes ``(*consts, *carry, *x)``
      and returns ``(*carry, *y)``.
    operands: a value for each operand.

  Example:
    >>> step = lambda c, x: (c + x, c * x)
    >>> fn = lambda xs: jax.lax.scan(step, 0.0, xs)
    >>> eqn = jax.make_jaxpr(fn)(jax.numpy.ones(3)).eqns[0]
    >>> split_scan(eqn, ['c', 'xs'])
    ([], ['c'], ['xs'])
  """
  # A scanned array has one axis more than the body's argument. This holds in
  # every release of JAX; the names of the counts in ``params`` have changed.
  body = eqn.params['jaxpr']
  same = lambda var, aval: len(shape_of(var)) == len(aval.shape)
  whole = sum(map(same, eqn.invars, body.in_avals))
  count = sum(map(same, eqn.outvars, body.out_avals))
  start = whole - count
  return operands[:start], operands[start:whole], operands[whole:]


def run_scan(
  eqn: core.JaxprEqn,
  step: Callable[[Any, Any], tuple[Any, Any]],
  carry: Any,
  xs: Any,
) -> tuple[Any, Any]:
  """Scans with another body, in the length and direction of an equation.

  Args:
    eqn: the equation of a ``scan``.
    step: a function ``(carry, x) -> (carry, y)``.
    carry: its first carry, any pytree.
    xs: arrays to scan, any pytree.

  Returns:
    The last carry and the stacked ``y``, as ``jax.lax.scan``.

  Example:
    >>> fn = lambda: jax.lax.scan(lambda c, _: (c + 1, None), 0, length=3)
    >>> eqn = jax.make_jaxpr(fn)().eqns[0]
    >>> int(run_scan(eqn, lambda c, x: (c + 2, None), 0, None)[0])
    6
  """
  options = {k: eqn.params[k] for k in ('length', 'reverse', 'unroll')}
  return jax.lax.scan(step, carry, xs, **options)


def split_while(
  eqn: core.JaxprEqn, operands: Sequence[T]
) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
  """Splits the operands of a while loop: condition, body, carry.

  Args:
    eqn: the equation of a ``while``; ``cond_jaxpr`` takes the first part and
      the carry, ``body_jaxpr`` the second part and the carry.
    operands: a value for each operand.

  Example:
    >>> fn = lambda n: jax.lax.while_loop(lambda c: c < n, lambda c: c + 1, 0)
    >>> eqn = jax.make_jaxpr(fn)(3).eqns[0]
    >>> split_while(eqn, ['n', '0'])
    (['n'], [], ['0'])
  """
  a = eqn.params['cond_nconsts']
  b = a + eqn.params['body_nconsts']
  return operands[:a], operands[a:b], operands[b:]


def shape_of(var: Any) -> tuple[int, ...]:
  """Returns the shape of a variable; a token counts as empty, ``(0,)``.

  Example:
    >>> program = jax.make_jaxpr(jax.lax.sin)(jax.numpy.ones(3))
    >>> shape_of(program.jaxpr.invars[0])
    (3,)
  """
  return tuple(getattr(var.aval, 'shape', (0,)))


def _is_array(x: Any) -> bool:
  return hasattr(x, 'shape') and hasattr(x, 'dtype')
