"""Loops, branches and stacked layers."""

import jax
import jax.numpy as jnp

from tests.align.find.adversarial import base as adversarial
from tests.align.find.zoo import base

f = base.factorial
case, hidden = adversarial.case, adversarial.hidden
L = 3  # layers


def _scan(body, **options):
  """Scans the stacked layers ``u`` and ``v`` over the units."""

  def use(p, h):
    step = lambda h, layer: (body(h, *layer), None)
    return jax.lax.scan(step, h, (p['u'], p['v']), **options)[0]

  return use


def _block(h, u, v):
  return h + jnp.tanh(h @ u) @ v


_STACK = {'u': (L, 6, 5), 'v': (L, 5, 6)}


def _mixed_before(p, h):
  q = p | {'u': jnp.cumsum(p['u'], 0)}
  return _scan(_block)(q, h)


def _used_outside(p, h):
  return _scan(_block)(p, h) + jnp.tanh(h @ p['u'].sum(0)) @ p['c']


def _outputs(p, h, then):
  def step(h, layer):
    u, v = layer
    y = jnp.tanh(h @ u)
    return h + y @ v, y

  h, ys = jax.lax.scan(step, h, (p['u'], p['v']))
  return h, then(p, ys)


def _read_each(p, h):
  h, y = _outputs(p, h, lambda p, ys: jnp.einsum('lbf,lfo->bo', ys, p['c']))
  return h @ p['b'] + y


def _read_sum(p, h):
  h, y = _outputs(p, h, lambda p, ys: ys.sum(0) @ p['c'])
  return h @ p['b'] + y


def _second(index, reverse=False):
  def use(p, h):
    def read(p, ys):
      step = lambda c, z: (c + z[0] @ z[1], None)
      start = jnp.zeros((4, 2), h.dtype)
      ys = ys[index]
      return jax.lax.scan(
        step, start, (ys, p['c'][: ys.shape[0]]), reverse=reverse
      )[0]

    h, y = _outputs(p, h, read)
    return h @ p['b'] + y

  return use


def _swapped_carry(p, h):
  def step(carry, _):
    one, two = carry
    return (two, jnp.tanh(one @ p['w'])), None

  return jax.lax.scan(step, (h, 2.0 * h), None, length=L)[0][0]


def _unequal_carry(p, h):
  def step(carry, _):
    one, two = carry
    return (jnp.tanh(one @ p['w']), two + one @ p['v']), None

  start = h, jnp.zeros((4, 5), h.dtype)
  return jax.lax.scan(step, start, None, length=L)[0][1]


def _late_pin(p, h):
  # The output reaches the first element of the chain only after two steps.
  def step(carry, _):
    _, two, three = carry
    return (two, three, jnp.cumsum(three, -1)), None

  return jax.lax.scan(step, (h, h, h), None, length=4)[0][0]


def _loop(body, count=3):
  def use(p, h):
    return jax.lax.fori_loop(0, count, lambda i, h: body(p, i, h), h)

  return use


def _settled(p, h):
  going = lambda c: (c[0] < 4) & (jnp.abs(c[1]).max() < 9.0)
  step = lambda c: (c[0] + 1, jnp.cumsum(c[1], -1) * 0.5)
  return jax.lax.while_loop(going, step, (0, h))[1]


def _condition_sees_a_unit(p, h):
  going = lambda c: (c[0] < 4) & (c[1][0, 0] < 0.1)
  step = lambda c: (c[0] + 1, jnp.tanh(c[1] @ p['w']))
  return jax.lax.while_loop(going, step, (0, h))[1]


def _branches(one, two):
  def use(p, h):
    return jax.lax.cond(h.sum() > 0, one, two, p, h) + jax.lax.cond(
      h.sum() > 0, two, one, p, h
    )

  return use


def _switch(p, h):
  branches = [lambda h: h, lambda h: jnp.tanh(h @ p['w']), lambda h: -h]
  return jax.lax.switch(jnp.int32(h.sum()) % 3, branches, h)


def _scan_over_heads(p, h):
  step = lambda y, head: (y + jnp.tanh(h @ head[0]) @ head[1], None)
  return jax.lax.scan(step, jnp.zeros_like(h), (p['u'], p['v']))[0]


def _matrix_power(p, h):
  eye = jnp.eye(6, dtype=h.dtype)
  return h @ jax.lax.fori_loop(0, 3, lambda _, m: m @ p['w'], eye)


def _indexed_layer(p, i, h):
  u, v = (jax.lax.dynamic_index_in_dim(p[n], i, keepdims=False) for n in 'uv')
  return _block(h, u, v)


_free = f(6) * f(5) ** L

CASES = {
  'scan': hidden(_scan(_block), _free, **_STACK),
  'scan_reversed': hidden(_scan(_block, reverse=True), _free, **_STACK),
  'scan_unrolled': hidden(_scan(_block, unroll=2), _free, **_STACK),
  'scan_of_cumulated_units': hidden(
    _scan(lambda h, u, v: _block(jnp.cumsum(h, -1), u, v)), f(5) ** L, **_STACK
  ),
  'scan_of_cumulated_hidden_units': hidden(
    _scan(lambda h, u, v: h + jnp.cumsum(h @ u, -1) @ v), f(6), **_STACK
  ),
  # Layers are mixed before the loop, unit by unit: one order for all layers.
  'layers_cumulated_before': hidden(_mixed_before, f(6) * f(5), **_STACK),
  'layers_reversed_before': hidden(
    lambda p, h: _scan(_block)(p | {'u': p['u'][::-1]}, h),
    f(6) * f(5) ** L, least=1, **_STACK,
  ),
  'layers_summed_outside': hidden(
    _used_outside, f(6) * f(5), c=(5, 6), **_STACK
  ),
  'hidden_units_of_each_layer_read': case(
    lambda p, x: _read_each(p, jnp.tanh(x @ p['a'])),
    {'a': (3, 6), 'b': (6, 2), 'c': (L, 5, 2)} | _STACK, _free,
  ),
  'hidden_units_summed_over_layers': case(
    lambda p, x: _read_sum(p, jnp.tanh(x @ p['a'])),
    {'a': (3, 6), 'b': (6, 2), 'c': (5, 2)} | _STACK, f(6) * f(5),
  ),
  'second_scan': case(
    lambda p, x: _second(slice(None))(p, jnp.tanh(x @ p['a'])),
    {'a': (3, 6), 'b': (6, 2), 'c': (L, 5, 2)} | _STACK, _free,
  ),
  'second_scan_reversed': case(
    lambda p, x: _second(slice(None), True)(p, jnp.tanh(x @ p['a'])),
    {'a': (3, 6), 'b': (6, 2), 'c': (L, 5, 2)} | _STACK, _free,
  ),
  # The second loop reads the layers in another order than the first.
  'second_scan_of_layers_reversed': case(
    lambda p, x: _second(slice(None, None, -1))(p, jnp.tanh(x @ p['a'])),
    {'a': (3, 6), 'b': (6, 2), 'c': (L, 5, 2)} | _STACK, _free, least=f(6),
  ),
  'second_scan_of_later_layers': case(
    lambda p, x: _second(slice(1, None))(p, jnp.tanh(x @ p['a'])),
    {'a': (3, 6), 'b': (6, 2), 'c': (2, 5, 2)} | _STACK, _free, least=f(6),
  ),
  'carry_swapped': hidden(_swapped_carry, f(6), w=(6, 6)),
  'carry_of_two_widths': hidden(
    _unequal_carry, f(6) * f(5), w=(6, 6), v=(6, 5), b=(5, 2)
  ),
  'carry_pinned_late': hidden(_late_pin, 1),
  'carry_rolled': hidden(
    lambda p, h: jax.lax.scan(
      lambda h, _: (jnp.roll(h, 1, -1), None), h, None, length=L
    )[0],
    f(6), least=1,
  ),
  'loop': hidden(
    _loop(lambda p, i, h: jnp.tanh(h @ p['w'])), f(6), w=(6, 6)
  ),
  'loop_of_cumulated_units': hidden(
    _loop(lambda p, i, h: jnp.cumsum(h, -1)), 1
  ),
  'loop_over_units': hidden(
    _loop(lambda p, i, h: h.at[:, i].multiply(2.0)), f(3) ** 2, least=1
  ),
  'loop_over_indexed_layers': hidden(
    _loop(_indexed_layer, L), _free, least=f(6), **_STACK
  ),
  'while_of_cumulated_units': hidden(_settled, 1),
  'condition_sees_a_unit': hidden(
    _condition_sees_a_unit, f(5), least=1, w=(6, 6)
  ),
  'branches': hidden(
    _branches(lambda p, h: h @ p['u'] @ p['v'], lambda p, h: jnp.tanh(h)),
    f(6) * f(5), u=(6, 5), v=(5, 6),
  ),
  'branch_that_reverses': hidden(
    _branches(lambda p, h: h[:, ::-1], lambda p, h: h), 2**6 * f(3), least=1
  ),
  'branch_that_cumulates': hidden(
    _branches(lambda p, h: jnp.cumsum(h, -1), lambda p, h: h), 1
  ),
  'switch': hidden(_switch, f(6), w=(6, 6)),
  'scan_over_heads': hidden(
    _scan_over_heads, f(6) ** 2 * f(L) * f(5) ** L,
    least=f(6) ** 2 * f(5) ** L, **_STACK
  ),
  'matrix_power': hidden(_matrix_power, f(6), least=1, w=(6, 6)),
  'mapped_rows': hidden(
    lambda p, h: jax.lax.map(lambda r: jnp.tanh(r @ p['w']), h), f(6) * f(5),
    w=(6, 5), b=(5, 2),
  ),
}  # fmt: skip
