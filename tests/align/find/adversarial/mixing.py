"""Mixing over heads, layers and positions, hidden inside other programs.

Units may be permuted in each head only if no operation combines units of
different heads.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.align.find.adversarial import base as adversarial
from tests.align.find.adversarial import structure
from tests.align.find.zoo import base

f = base.factorial
case, hidden = adversarial.case, adversarial.hidden
NONE = ()
L = 3


def _queries(change, order, least=None, **shapes):
  """Changes the queries ``[batch, S, 3, 4]`` of an attention."""
  apply = lambda p, x: structure.attention(p, x, change)
  return case(
    apply, structure.ATTENTION | shapes, order, least=least,
    inputs=structure.SEQUENCE,
  )  # fmt: skip


def _centred(p, q):
  return q - q.mean(2, keepdims=True)


def _twice(change):
  """Applies a change in a scan of two steps."""
  return lambda p, q: jax.lax.scan(
    lambda q, _: (change(p, q), None), q, None, length=2
  )[0]


def _while(change):
  return lambda p, q: jax.lax.while_loop(
    lambda c: c[0] < 2, lambda c: (c[0] + 1, change(p, c[1])), (0, q)
  )[1]


def _sometimes(change):
  return lambda p, q: jax.lax.cond(q.sum() > -1e9, change, lambda p, q: q, p, q)


def _custom(change):
  @jax.custom_vjp
  def call(q):
    return change(None, q)

  call.defvjp(lambda q: (call(q), None), lambda _, slope: (slope,))
  return lambda p, q: call(q)


def _cumulated(p, q):
  return jnp.cumsum(q, 2)


_values = f(2) ** 3
_shared = f(3) * f(4) * _values  # free heads, one order of units of keys
_fixed = f(4) * _values  # the heads are pinned as well

HEADS = {
  'centred_in_remat': _queries(jax.checkpoint(_centred), _shared),
  'centred_in_jit': _queries(jax.jit(_centred), _shared),
  'centred_in_scan': _queries(_twice(_centred), _shared),
  'centred_in_while': _queries(_while(_centred), _shared),
  'centred_in_cond': _queries(_sometimes(_centred), _shared),
  'centred_in_custom_vjp': _queries(_custom(_centred), _shared),
  'cumulated_in_remat': _queries(jax.checkpoint(_cumulated), _fixed),
  'cumulated_in_scan': _queries(_twice(_cumulated), _fixed),
  'cumulated_in_while': _queries(_while(_cumulated), _fixed),
  'cumulated_in_cond': _queries(_sometimes(_cumulated), _fixed),
  'cumulated_in_custom_vjp': _queries(_custom(_cumulated), _fixed),
  'queries_mixed_by_a_map_of_heads': _queries(
    lambda p, q: jnp.einsum('bshd,hg->bsgd', q, p['mix']),
    f(3) * _shared, mix=(3, 3),
  ),
  'queries_mixed_by_a_map_of_units': _queries(
    lambda p, q: jnp.einsum('bshd,de->bshe', q, p['mix']),
    f(4) * _shared, mix=(4, 4),
  ),
  'queries_mixed_by_a_map_of_each_head': _queries(
    lambda p, q: jnp.einsum('bshd,hde->bshe', q, p['mix']),
    f(3) * f(4) ** 3 * f(4) ** 3 * _values, mix=(3, 4, 4),
  ),
  'a_bias_of_units_for_all_heads': _queries(
    lambda p, q: q + p['c'][None, None, None], _shared, c=(4,)
  ),
  'rotated_heads_in_a_loop': _queries(
    _twice(lambda p, q: jnp.roll(q, 1, 2)), f(3) * f(12) * _values, least=1
  ),
  'softmax_over_heads': case(
    lambda p, x: structure.attention(p, x, over=1), structure.ATTENTION,
    f(3) * f(4) ** 3 * _values, inputs=structure.SEQUENCE,
  ),
  # Keys tiled, not repeated: query head h reads key head h modulo 2.
  'tiled_keys': case(
    lambda p, x: structure.grouped(p, x, lambda k: jnp.tile(k, (1, 1, 3, 1))),
    structure.GROUPED, f(2) * f(3) ** 2 * f(4) ** 2 * f(5) ** 2,
    inputs=structure.SEQUENCE,
  ),
  'repeated_keys': case(
    lambda p, x: structure.grouped(p, x, lambda k: jnp.repeat(k, 3, 2)),
    structure.GROUPED, f(2) * f(3) ** 2 * f(4) ** 2 * f(5) ** 2,
    inputs=structure.SEQUENCE,
  ),
  'one_key_for_all': case(
    structure.multi_query,
    {'q': (3, 24), 'k': (3, 4), 'v': (3, 5), 'o': (30, 2)},
    f(6) * f(4) * f(5), inputs=structure.SEQUENCE,
  ),
  'heads_summed_by_unit': hidden(
    lambda p, h: jnp.einsum(
      'bhe,he->be', (h @ p['u']).reshape(-1, 3, 4), p['w']
    ),
    f(6) * f(4) * f(3) ** 4, least=f(6) * f(4) * f(3),
    u=(6, 12), w=(3, 4), b=(4, 2),
  ),
}  # fmt: skip


def _shuffled(p, h):
  y = (h @ p['u']).reshape(-1, 3, 4)
  y = jnp.tanh(jnp.einsum('bgi,gio->bgo', y, p['v']))
  y = jnp.einsum('bgi,gio->bgo', y.mT.reshape(-1, 4, 3), p['w'])
  return jnp.tanh(y).reshape(-1, 8) @ p['c']


def _first_layer_again(p, h):
  step = lambda h, layer: (h + jnp.tanh(h @ layer[0]) @ layer[1], None)
  return jax.lax.scan(step, h, (p['u'], p['v']))[0] + (
    jnp.tanh(h @ p['u'][0]) @ p['c']
  )


def _scanned_units(p, h):
  step = lambda c, unit: (c + unit, jnp.tanh(c))
  return jax.lax.scan(step, jnp.zeros(4, h.dtype), h.T)[1].T


def _transposing_loop(p, h):
  return h @ jax.lax.fori_loop(0, 3, lambda _, m: jnp.tanh(m.T), p['w'])


def _reshaped(p, h):
  one = jnp.tanh(h @ p['w']) @ p['c']
  two = jnp.tanh((h @ p['e']) @ p['w'].reshape(3, 8)) @ p['d']
  return one + two


def _called(p, h):
  shape = jax.ShapeDtypeStruct(h.shape, h.dtype)
  call = lambda h: np.cumsum(h, -1)
  return jax.pure_callback(call, shape, h, vmap_method='sequential')


def _weight_norm(p, h):
  length = jnp.sqrt(jnp.square(p['w']).sum(0, keepdims=True))
  return jnp.tanh(h @ (p['w'] / length * p['g'][None]))


def _masked_blocks(p, h):
  mask = np.kron(np.eye(2), np.ones((3, 3)))
  return jnp.tanh(h @ (p['w'] * jnp.asarray(mask, h.dtype)))


def _with_integers(use, leaf, least):
  found = hidden(use, f(6), least=least)
  params = found.model.params | {'n': leaf}
  return found._replace(model=found.model._replace(params=params))


OTHERS = {
  # Groups of channels, reordered: 3 groups of 4 are read as 4 groups of 3.
  'channel_shuffle': hidden(
    _shuffled, f(6) * f(3) * f(4) ** 3 * f(4) * f(2) ** 4,
    u=(6, 12), v=(3, 4, 4), w=(4, 3, 2), c=(8, 2), b=NONE,
  ),
  'first_layer_read_again': hidden(
    _first_layer_again, f(6) * f(5) ** L, least=f(6) * f(5),
    u=(L, 6, 5), v=(L, 5, 6), c=(5, 6),
  ),
  # Each position has its own map, so its own order of units.
  'locally_connected': case(
    lambda p, x: jnp.einsum(
      'bsn,sno->bo', jnp.tanh(jnp.einsum('bsi,sin->bsn', x, p['a'])), p['b']
    ),
    {'a': (5, 3, 4), 'b': (5, 4, 2)}, f(4) ** 5, inputs=structure.SEQUENCE,
  ),
  'units_scanned': hidden(_scanned_units, 1),
  'units_mapped': hidden(
    lambda p, h: jax.lax.map(jnp.tanh, h.T).T, f(6), least=1
  ),
  'loop_that_transposes': hidden(
    _transposing_loop, f(6) ** 2, least=f(6), w=(6, 6)
  ),
  'reshaped_parameter': hidden(
    _reshaped, f(3) * f(2) * f(4), least=1, w=(6, 4), c=(4, 2), e=(6, 3),
    d=(8, 2), b=NONE,
  ),
  'callback': hidden(_called, 1),
  'one_for_the_bias': hidden(
    lambda p, h: jnp.concatenate([h, jnp.ones((4, 1), h.dtype)], -1),
    f(6), b=(7, 2),
  ),
  'branch_by_a_parameter': hidden(
    lambda p, h: jnp.where(p['c'][0] > 0, h, 2.0 * h) * p['c'][None],
    f(5), least=1, c=(6,),
  ),
  'sum_of_a_parameter': hidden(
    lambda p, h: h * p['w'].sum(), f(6) * f(20), least=f(6) * f(5) * f(4),
    w=(5, 4),
  ),
  'weight_norm': hidden(
    _weight_norm, f(6) * f(4), w=(6, 4), g=(4,), b=(4, 2)
  ),
  'masked_blocks': hidden(
    _masked_blocks, f(3) ** 4 * 2, least=1, w=(6, 6)
  ),
  'parameter_of_indices': _with_integers(
    lambda p, h: h[:, p['n']],
    jnp.asarray([3, 1, 0, 5, 4, 2], jnp.int32),
    1,
  ),
  'parameter_of_a_count': _with_integers(
    lambda p, h: h * p['n'].astype(h.dtype), jnp.asarray(3, jnp.int32), f(6)
  ),
  'parameter_of_truths': _with_integers(
    lambda p, h: jnp.where(p['n'][None], h, -h),
    jnp.asarray([True, False, True, True, False, False]),
    f(6),
  ),
}  # fmt: skip

CASES = HEADS | OTHERS
