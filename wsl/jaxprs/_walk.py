"""The environment of a jaxpr, and the meaning of one equation at a time."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from jax.extend import core

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
    >>> import jax
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
    >>> import jax
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
    >>> import jax
    >>> program = jax.make_jaxpr(jax.jit(lambda x: x + 1))(1.0)
    >>> [e.primitive.name for e in called(program.eqns[0]).eqns]
    ['add']
  """
  name = eqn.primitive.name
  return eqn.params[CALLS[name]] if name in CALLS else None


def inner(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
  """Returns all jaxprs in an equation's parameters: calls, bodies, branches.

  Example:
    >>> import jax
    >>> fn = lambda x: jax.lax.cond(x > 0, lambda: x, lambda: -x)
    >>> eqns = jax.make_jaxpr(fn)(1.0).eqns
    >>> [len(inner(e)) for e in eqns if e.primitive.name == 'cond']
    [2]
  """
  return [*core.jaxprs_in_params(eqn.params)]


def shape_of(var: Any) -> tuple[int, ...]:
  """Returns the shape of a variable; a token counts as empty, ``(0,)``.

  Example:
    >>> import jax
    >>> program = jax.make_jaxpr(jax.lax.sin)(jax.numpy.ones(3))
    >>> shape_of(program.jaxpr.invars[0])
    (3,)
  """
  return tuple(getattr(var.aval, 'shape', (0,)))
