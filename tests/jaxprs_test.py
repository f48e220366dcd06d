"""Interpreting a jaxpr equals running the function it was traced from."""

from collections.abc import Callable, Sequence
import itertools
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import jaxprs

X = jnp.linspace(-1.0, 2.0, 6, dtype=np.float32).reshape(2, 3)
TABLE = np.arange(3, dtype=np.float32)[None]


@jax.custom_vjp
def clipped(x):
  return jnp.clip(x, -0.5, 0.5)


clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (g * jnp.cos(x),))


@jax.custom_jvp
def root(x):
  return jnp.sqrt(jnp.abs(x) + 1)


root.defjvp(lambda x, t: (root(x[0]), t[0] / (2 * root(x[0]))))


def scan(x, *, reverse=False, unroll=1):
  def step(carry, row):
    total, count = carry
    total = jnp.tanh(total + row * TABLE[0]) + x[0]
    return (total, count + 1), (total.sum(), row)

  start = jnp.zeros(3, x.dtype), jnp.asarray(0)
  return jax.lax.scan(step, start, x, reverse=reverse, unroll=unroll)


def loop(x):
  small = lambda state: state[0].sum() < x.max()
  return jax.lax.while_loop(
    small, lambda s: (s[0] + TABLE.sum(), s[1] * x), (jnp.ones(2, x.dtype), x)
  )


FUNCTIONS: dict[str, Callable[..., Any]] = {
  'plain': lambda x: jnp.sin(x) * 2 + TABLE,
  'identity': lambda x: x,
  'constant': lambda x: (x, 3.0, jnp.ones(2)),
  'unused': lambda x: jnp.split(x, 3, 1)[1],
  'jit': jax.jit(lambda x: x @ x.T),
  'nested jit': jax.jit(lambda x: jax.jit(lambda y: jax.jit(jnp.exp)(y))(x)),
  'remat': jax.checkpoint(lambda x: jnp.sin(jnp.cos(x) + TABLE)),
  'custom vjp': lambda x: clipped(clipped(x) + 1),
  'custom jvp': lambda x: root(x) + jax.nn.relu(x),
  'scan': scan,
  'scan in reverse': lambda x: scan(x, reverse=True),
  'unrolled scan': lambda x: scan(x, unroll=2),
  'scan in jit in scan': lambda x: jax.lax.scan(
    lambda c, row: (c + row.sum(), jax.jit(scan)(x + c)[1][0]), 0.0, x
  ),
  'while': loop,
  'cond': lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, lambda y: y * 2, x),
  'switch': lambda x: jax.lax.switch(
    jnp.asarray(2), [jnp.sin, jnp.cos, lambda y: y @ y.T @ y], x
  ),
  'solve': lambda x: jnp.linalg.solve(x @ x.T + jnp.eye(2, dtype=x.dtype), x),
  'random': lambda x: (
    x + jax.random.normal(jax.random.key(0), x.shape, x.dtype)
  ),
}


def run(program: jaxprs.Program, args: Sequence[Any]) -> list[Any]:
  """Evaluates a program, entering calls."""

  def visit(k: int, eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    inner = jaxprs.called(eqn)
    if inner is not None:
      return run(inner, values)
    return jaxprs.evaluate(eqn, values)

  return jaxprs.interpret(program, args, visit)


def primitives(program: jaxprs.Program) -> set[str]:
  """Returns the names of all primitives, at any depth."""
  found = set()
  for eqn in program.eqns:
    found.add(eqn.primitive.name)
    found.update(*map(primitives, jaxprs.inner(eqn)))
  return found


def equation(fn: Callable[..., Any], name: str, *args: Any) -> core.JaxprEqn:
  """Returns the only equation of that primitive in a traced function."""
  eqns = jax.make_jaxpr(fn)(*args).eqns
  (eqn,) = (eqn for eqn in eqns if eqn.primitive.name == name)
  return eqn


@pytest.mark.parametrize('name', FUNCTIONS)
def test_interpreting_equals_running(name: str) -> None:
  fn = FUNCTIONS[name]
  found = run(jax.make_jaxpr(fn)(X), [X])
  wanted = jax.tree.leaves(fn(X))
  assert len(found) == len(wanted)
  for x, y in zip(found, wanted):
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('name', ['jit', 'remat', 'scan', 'cond'])
def test_interpreting_can_be_transformed(name: str) -> None:
  fn = FUNCTIONS[name]
  total = lambda fn: (
    lambda x: sum(y.sum().astype(x.dtype) for y in jax.tree.leaves(fn(x)))
  )
  again = lambda x: run(jax.make_jaxpr(fn)(X), [x])
  stack = jnp.stack([X, X + 1])
  for transform, x in ((jax.grad, X), (jax.vmap, stack)):
    found, wanted = (transform(total(f))(x) for f in (again, fn))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize('name', ['custom jvp', 'custom vjp'])
def test_a_call_evaluated_whole_keeps_its_derivative(name: str) -> None:
  fn = FUNCTIONS[name]
  program = jax.make_jaxpr(fn)(X)
  visit = lambda k, eqn, values: jaxprs.evaluate(eqn, values)
  whole = lambda x: jaxprs.interpret(program, [x], visit)[0].sum()
  found, wanted = jax.grad(whole)(X), jax.grad(lambda x: fn(x).sum())(X)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  entered = jax.grad(lambda x: run(program, [x])[0].sum())(X)
  assert not np.allclose(entered, wanted)  # the rules above are not derivatives


@pytest.mark.parametrize('name', FUNCTIONS)
def test_no_call_is_evaluated_whole(name: str) -> None:
  seen = []

  def visit(k: int, eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    inner = jaxprs.called(eqn)
    if inner is not None:
      return jaxprs.interpret(inner, values, visit)
    seen.append(eqn.primitive.name)
    return jaxprs.evaluate(eqn, values)

  jaxprs.interpret(jax.make_jaxpr(FUNCTIONS[name])(X), [X], visit)
  assert jaxprs.CALLS.keys().isdisjoint(seen)


def test_equations_are_numbered_and_get_their_operands() -> None:
  program = jax.make_jaxpr(lambda x, y: (x + 1) * y)(1.0, 2.0)
  seen = []

  def visit(k: int, eqn: core.JaxprEqn, values: list[str]) -> list[str]:
    seen.append((k, eqn.primitive.name, values))
    return [f'{eqn.primitive.name}({",".join(values)})']

  results = jaxprs.interpret(program, ['x', 'y'], visit, lift=lambda c: 'const')
  assert seen == [(0, 'add', ['x', 'const']), (1, 'mul', ['add(x,const)', 'y'])]
  assert results == ['mul(add(x,const),y)']


def test_constants_and_literals_are_lifted_also_as_results() -> None:
  program = jax.make_jaxpr(lambda x: (x + TABLE, 3.0))(X)
  assert len(program.consts) == 1
  depend = lambda k, eqn, values: [any(values)] * len(eqn.outvars)
  lift = lambda constant: False
  assert jaxprs.interpret(program, [True], depend, lift=lift) == [True, False]
  assert jaxprs.interpret(program, [False], depend, lift=lift) == [False] * 2


@pytest.mark.parametrize(
  ('consts', 'carry', 'xs'), [*itertools.product([0, 2], [0, 1, 3], [0, 2])]
)
def test_operands_of_a_scan_are_split(consts: int, carry: int, xs: int) -> None:
  held = [jnp.full((2, 2), 2.0 + i) for i in range(consts)]
  start = [jnp.full((2, 2), 10.0 + i) for i in range(carry)]
  rows = [jnp.full((4, 2, 2), 20.0 + i) for i in range(xs)]

  def fn(held, start, rows):
    def step(state, x):
      shift = sum(held, jnp.zeros((2, 2))) + sum(x, jnp.zeros((2, 2)))
      return [s + shift for s in state], shift

    return jax.lax.scan(step, start, rows, length=4)

  eqn = equation(fn, 'scan', held, start, rows)
  program = jax.make_jaxpr(fn)(held, start, rows).jaxpr
  values = dict(zip(program.invars, [*held, *start, *rows]))
  groups = jaxprs.split_scan(eqn, eqn.invars)
  found = [[values.get(v) for v in group if v in values] for group in groups]
  assert [len(group) for group in found][1:] == [carry, xs]
  for group, wanted in zip(found, (held, start, rows)):
    assert {float(x.max()) for x in group} == {float(x.max()) for x in wanted}


@pytest.mark.parametrize(('reverse', 'unroll'), [(False, 1), (True, 2)])
def test_a_scan_runs_again_with_its_own_body(
  reverse: bool, unroll: int
) -> None:
  fn = lambda x: scan(x, reverse=reverse, unroll=unroll)
  program = jax.make_jaxpr(fn)(X)

  def visit(k: int, eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    if eqn.primitive.name != 'scan':
      return jaxprs.evaluate(eqn, values)
    consts, carry, xs = jaxprs.split_scan(eqn, values)

    def step(state: list[Any], x: list[Any]) -> tuple[Any, Any]:
      out = run(eqn.params['jaxpr'], [*consts, *state, *x])
      return out[: len(state)], out[len(state) :]

    last, ys = jaxprs.run_scan(eqn, step, carry, xs)
    return [*last, *ys]

  found = jaxprs.interpret(program, [X], visit)
  for x, y in zip(found, jax.tree.leaves(fn(X)), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-6)


def test_operands_of_a_while_loop_are_split() -> None:
  program = jax.make_jaxpr(loop)(X)

  def visit(k: int, eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    if eqn.primitive.name != 'while':
      return jaxprs.evaluate(eqn, values)
    test, body, state = jaxprs.split_while(eqn, values)
    while run(eqn.params['cond_jaxpr'], [*test, *state])[0]:
      state = run(eqn.params['body_jaxpr'], [*body, *state])
    return [*state]

  for x, y in zip(jaxprs.interpret(program, [X], visit), loop(X), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize(
  ('name', 'primitive', 'count'),
  [
    ('jit', 'jit', 1),
    ('scan', 'scan', 1),
    ('while', 'while', 2),
    ('cond', 'cond', 2),
    ('switch', 'cond', 3),
    ('custom vjp', 'custom_vjp_call', 1),
  ],
)
def test_inner_jaxprs_are_found(name: str, primitive: str, count: int) -> None:
  eqns = jax.make_jaxpr(FUNCTIONS[name])(X).eqns
  eqn = next(e for e in eqns if e.primitive.name == primitive)
  assert len(jaxprs.inner(eqn)) == count
  assert all(isinstance(j, core.Jaxpr) for j in jaxprs.inner(eqn))


def test_inner_jaxprs_are_found_at_any_depth() -> None:
  names = primitives(jax.make_jaxpr(FUNCTIONS['scan in jit in scan'])(X))
  assert {'scan', 'jit', 'tanh'} <= names


def test_casts_keep_every_entry_in_place() -> None:
  fn = lambda x: jax.lax.reduce_precision(
    jax.lax.stop_gradient(x.astype(jnp.float16).astype(jnp.float32)), 8, 7
  )
  for eqn in jax.make_jaxpr(fn)(X).eqns:
    assert eqn.primitive.name in jaxprs.CASTS
    (x,) = jaxprs.evaluate(eqn, [X.astype(eqn.invars[0].aval.dtype)])
    np.testing.assert_allclose(x, X, atol=0.01)


def test_shapes_of_variables() -> None:
  eqn = equation(jnp.sin, 'sin', X)
  assert jaxprs.shape_of(eqn.invars[0]) == (2, 3)
  assert jaxprs.shape_of(equation(lambda x: x + 1.0, 'add', X).invars[1]) == ()


def test_tracing_removes_what_results_do_not_need() -> None:
  fn = lambda p, x: (jnp.sin(p['a']), p['a'] + x)[1]
  program = jaxprs.trace(fn, {'a': X, 'b': X}, (X,), caller='f')
  assert [eqn.primitive.name for eqn in program.eqns] == ['add']
  assert len(program.jaxpr.invars) == 3  # arguments stay, used or not


def test_tracing_takes_shapes_keys_and_flags() -> None:
  def fn(params, key, double):
    noise = jax.random.normal(key, (2, 3), params.dtype)
    return params + noise if double == 'yes' else params

  shape, key = jax.ShapeDtypeStruct((2, 3), jnp.float32), jax.random.key(1)
  program = jaxprs.trace(fn, shape, (key, 'yes'), caller='f')
  np.testing.assert_array_equal(run(program, [X, key])[0], fn(X, key, 'yes'))
  assert not jaxprs.trace(fn, shape, (key, 'no'), caller='f').eqns


def test_arguments_that_are_no_arrays_are_fixed() -> None:
  inputs = ({'x': X, 'mode': 'sum'}, 2, None)
  fn = lambda p, batch, power, extra: getattr(jnp, batch['mode'])(
    p * batch['x'] ** power
  )
  call, arrays = jaxprs.bind_static(fn, inputs)
  assert len(arrays) == 1
  assert jnp.isclose(jax.jit(call)(3.0, arrays), 3 * jnp.sum(X**2))


@pytest.mark.parametrize(
  ('fn', 'message'),
  [
    (lambda p, x: p if x.sum() > 0 else x, 'someone: .* needs the values'),
    (lambda p, x: p[: int(x[0, 0])], 'someone: .* needs the values'),
    (lambda p, x: np.asarray(x), 'someone: .* needs the values'),
    (lambda p, x: x[x > 0], 'someone: .* needs the values'),
    (lambda p, x: {'a': 'text'}, "someone: .* returns 'a', a str"),
  ],
)
def test_what_cannot_be_traced_is_refused(
  fn: Callable[..., Any], message: str
) -> None:
  with pytest.raises(ValueError, match=message):
    jaxprs.trace(fn, X, (X,), caller='someone')


def test_leaves_that_are_no_arrays_are_refused() -> None:
  assert jaxprs.leaf_shapes({'a': {'b': X}}, caller='f') == {'a/b': (2, 3)}
  with pytest.raises(ValueError, match="f: leaf 'a' of params is a float"):
    jaxprs.leaf_shapes({'a': 1.0}, caller='f')


def test_an_equation_keeps_its_context() -> None:
  def fn(x):
    with set_xla_metadata(kept='yes'):
      return jnp.sin(x)

  program = jax.make_jaxpr(fn)(X)
  again = jax.jit(lambda x: run(program, [x]))
  assert 'kept = "yes"' in again.lower(X).as_text()
