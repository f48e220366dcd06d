"""Rules of primitives, tested by the groups of small functions.

The function maps the input by ``a [3, 6]`` to six hidden units, applies the
primitive, and contracts the result with ``b``. Pinned units have no group.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, jaxprs
from wsl.align._find.rules import table

X = jax.ShapeDtypeStruct((2, 3), jnp.float64)


def _shapes(**shapes):
  return {n: jax.ShapeDtypeStruct(s, jnp.float64) for n, s in shapes.items()}


def _found(between, read, **more):
  """Returns the groups (name, size, outer) if ``between`` maps hidden units."""

  def apply(p, x):
    h = between(jnp.tanh(x @ p['a']), p)
    axes = range(1, h.ndim)
    return jnp.tensordot(h, p['b'], (tuple(axes), tuple(range(len(read)))))

  params = _shapes(a=(3, 6), b=(*read, 2), **more)
  symmetry = align.find_symmetry(apply, params, X)
  return [(g.name, g.size, g.outer) for g in symmetry.groups]


ALL = [('a:1', 6, ())]

KEPT = {
  'elementwise': lambda h, p: jnp.exp(h) * h - 1.0,
  'broadcast': lambda h, p: h - h.mean(1, keepdims=True),
  'softmax': lambda h, p: jax.nn.softmax(h),
  'convert': lambda h, p: h.astype(np.float32).astype(np.float64),
  'select': lambda h, p: jnp.where(h > 0, h, 0.0),
  'clamp': lambda h, p: jnp.clip(h, -1.0, 1.0),
  'barrier': lambda h, p: jax.lax.optimization_barrier(h),
  'transpose': lambda h, p: h.T.reshape(6, 1, 2)[:, 0].T,
  'remat': lambda h, p: jax.checkpoint(jnp.sin)(h),
  'constant without change': lambda h, p: h + (jnp.arange(6.0) * 0.0)[None],
  'folded zeros': lambda h, p: h * jnp.cos(jnp.zeros(6))[None],
  'identity gather': lambda h, p: h[:, jnp.arange(6)],
  'batch is sorted': lambda h, p: jnp.sort(h, axis=0),
  'best values': lambda h, p: h * jax.lax.top_k(h, 6)[0].sum(1, keepdims=True),
  'best index is looked up': lambda h, p: (
    h * jnp.take_along_axis(h, jnp.argmax(h, 1)[:, None], axis=1)
  ),
  'batch is summed up': lambda h, p: jnp.cumsum(h, axis=0),
  'while': lambda h, p: jax.lax.while_loop(
    lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, h)
  )[1],
  'cond': lambda h, p: jax.lax.cond(h.sum() > 0, jnp.sin, jnp.cos, h),
  'one hot of the input': lambda h, p: (
    h * jax.nn.one_hot(jnp.zeros(2, int), 6).sum(1, keepdims=True)
  ),
}


@pytest.mark.parametrize('name', KEPT)
def test_units_stay_free(name):
  assert _found(KEPT[name], (6,)) == ALL


PINNED = {
  'cumsum': (lambda h, p: jnp.cumsum(h, 1), 'cumsum along it'),
  'sort': (
    lambda h, p: jnp.argsort(h, 1)[:, :1].astype(float) * h,
    'its indices are used as numbers',
  ),
  'top_k': (
    lambda h, p: jax.lax.top_k(h, 6)[1].astype(float),
    'its indices are used as numbers',
  ),
  'top_k of equal entries': (
    lambda h, p: h * jax.nn.one_hot(jax.lax.top_k(jnp.sign(h), 1)[1][:, 0], 6),
    'top_k along it breaks ties by position, and ties may be common',
  ),
  'argmax of equal entries': (
    lambda h, p: h * jax.nn.one_hot(jnp.argmax(jax.nn.relu(h), 1), 6),
    'argmax along it breaks ties by position, and ties may be common',
  ),
  'argsort of equal entries': (
    lambda h, p: h * jax.nn.one_hot(jnp.argsort(jnp.round(h), 1)[:, 0], 6),
    'sort along it breaks ties by position, and ties may be common',
  ),
  'argmax': (
    lambda h, p: h * jnp.argmax(h, 1)[:, None].astype(float),
    'its indices are used as numbers',
  ),
  'reverse': (lambda h, p: jnp.flip(h, 1) + h, 'reversed along it'),
  'constant': (
    lambda h, p: h * jnp.arange(6.0)[None],
    'a constant that varies along it',
  ),
  'gather': (
    lambda h, p: h[:, (h.sum() > 0).astype(int)][:, None] + h,
    'indexed by position',
  ),
  'no rule': (
    lambda h, p: jax.lax.approx_max_k(h, 6)[0],
    'no rule follows approx_top_k',
  ),
  'fft': (lambda h, p: jnp.real(jnp.fft.fft(h)), 'fft along it'),
  'three into two': (
    lambda h, p: (
      h.reshape(2, 2, 3) + h.reshape(2, 3, 2).swapaxes(1, 2)
    ).reshape(2, 6),
    'a reshape that does not keep its factors',
  ),
}


@pytest.mark.parametrize('name', PINNED)
def test_units_are_pinned_with_a_reason(name):
  between, reason = PINNED[name]

  def apply(p, x):
    return between(jnp.tanh(x @ p['a']), p) @ p['b']

  params = _shapes(a=(3, 6), b=(6, 2))
  symmetry = align.find_symmetry(apply, params, X)
  assert symmetry.groups == ()
  reasons = [f.pinned for f in symmetry.factors if f.name.startswith('a:1')]
  assert reason in reasons


def test_sorting_one_array_keeps_units_free():
  assert _found(lambda h, p: jnp.sort(h, 1), (6,)) == ALL


def test_a_reshape_makes_a_product():
  # Units depend on their block unless all blocks share a parameter.
  split = lambda h, p: h.reshape(2, 2, 3)
  heads = [('a:1.0', 2, ()), ('a:1.1', 3, ('a:1.0',))]
  assert _found(split, (2, 3)) == heads
  shared = lambda h, p: h.reshape(2, 2, 3) * p['s'][None, None]
  # Then the order of blocks may depend on the unit instead.
  assert _found(shared, (2, 3), s=(3,)) == [
    ('a:1.1', 3, ()),
    ('a:1.0', 2, ('a:1.1',)),
  ]


def test_a_sliced_axis_is_a_sum():
  gated = lambda h, p: h[:, :2] * h[:, 2:4] + h[:, 4:]
  assert _found(gated, (2,)) == [('a:1.0', 2, ())]
  partly_sine = lambda h, p: jnp.concatenate([jnp.sin(h[:, :2]), h[:, 2:]], 1)
  assert _found(partly_sine, (6,)) == [('a:1.0', 2, ()), ('a:1.1', 4, ())]


def test_a_concatenated_axis_is_a_sum():
  def more(h, p):
    return jnp.concatenate([h, jnp.tanh(h @ p['c'])], 1)

  assert _found(more, (9,), c=(6, 3)) == [('a:1', 6, ()), ('b:0.1', 3, ())]


def test_padding_adds_a_segment():
  pad = lambda h, p: jnp.pad(h, ((0, 0), (2, 0))) * p['s'][None]
  assert _found(pad, (8,), s=(8,)) == [('a:1', 6, ()), ('b:0.0', 2, ())]


def test_a_strided_slice_keeps_the_order_of_its_steps():
  pairs = lambda h, p: h[:, ::2] * h[:, 1::2]
  assert _found(pairs, (3,)) == [('a:1.0', 3, ())]


def test_known_indices_are_segments():
  swap = lambda h, p: h[:, np.array([3, 4, 5, 0, 1, 2])] * jnp.sin(h)
  assert _found(swap, (6,)) == [('a:1.0', 3, ())]


def test_a_constant_with_two_values_makes_two_segments():
  mask = np.array([1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
  assert _found(lambda h, p: h * mask[None], (6,)) == [
    ('a:1.0', 2, ()),
    ('a:1.1', 4, ()),
  ]


def test_fused_parts_have_separate_units():
  def three(h, p):
    q, k, v = jnp.unstack(h.reshape(2, 3, 2), axis=1)
    return jnp.stack([q * k, v], 1)

  found = _found(three, (2, 2))
  # The two parts that are multiplied share their units, the third does not.
  assert found == [('a:1.0', 2, ())]
  # Concatenated again, each part keeps its own group.
  concatenated = lambda h, p: jnp.concatenate(
    [t for t in jnp.unstack(h.reshape(2, 3, 2), axis=1)], 1
  )
  assert [g[1] for g in _found(concatenated, (6,))] == [2, 2, 2]


def test_known_lookups_select_fused_parts():
  def three(h, p):
    y = h.reshape(2, 1, 3, 2)
    q, k = y[:, :, np.array([0])], y[:, :, np.array([1])]
    v = jax.lax.dynamic_index_in_dim(y, 2, 2)
    return jnp.concatenate([(q * k).sum((2, 3)), v.reshape(2, 2)], 1)

  # Units of q and k, and of v.
  assert [g[1] for g in _found(three, (3,))] == [2, 2]


def test_shared_square_maps_are_quadratic():
  def twice(h, p):
    return jnp.tanh(jnp.tanh(h @ p['w']) @ p['w'])

  assert _found(twice, (6,), w=(6, 6)) == ALL


def test_a_gram_matrix_loses_dependence_on_heads():
  def gram(h, p):
    y = h.reshape(2, 2, 3)
    return jnp.einsum('bhd,bgd->bhg', y, y)

  assert _found(gram, (2, 2)) == [('a:1.0', 2, ()), ('a:1.1', 3, ())]


def test_reduced_heads_do_not_index_units_of_another_operand():
  # The heads of w are reduced; the remaining heads are those of h.
  def apply(p, x):
    h = jnp.tanh(x @ p['a'])
    pairs = h[:, :, None] * jnp.cos(h)[:, None]
    mixed = jnp.einsum('bij,ik->bjk', pairs, p['w'])
    return jnp.sin(mixed).sum((1, 2))

  params = _shapes(a=(3, 2), w=(2, 5))
  symmetry = align.find_symmetry(apply, params, X)
  assert [(g.name, g.outer) for g in symmetry.groups] == [
    ('a:1', ()),
    ('w:1', ()),
  ]


def test_mixing_heads_loses_dependence_on_them():
  for mix in (
    lambda y: y + jnp.cumsum(y, 1),
    lambda y: y + jnp.roll(y, 1, 1),
    lambda y: y * jnp.sort(y, 1),
    lambda y: y + jnp.flip(y, 1),
    lambda y: y - y.mean(1, keepdims=True),
  ):
    found = _found(lambda h, p, mix=mix: mix(h.reshape(2, 2, 3)), (2, 3))
    assert ('a:1.1', 3, ()) in found


def test_scanned_layers_index_their_hidden_units():
  def layers(h, p):
    step = lambda h, w: (h + jnp.tanh(h @ w[0]) @ w[1], None)
    return jax.lax.scan(step, h, (p['u'], p['v']))[0]

  found = _found(layers, (6,), u=(4, 6, 5), v=(4, 5, 6))
  assert found == [('a:1', 6, ()), ('u:2', 5, ('u:0',))]


def test_a_scan_over_time_shares_its_units():
  def steps(h, p):
    step = lambda c, x: (jnp.tanh(c @ p['w'] + x[:, None]), None)
    return jax.lax.scan(step, h, jnp.ones((4, 2)))[0]

  assert _found(steps, (6,), w=(6, 6)) == ALL


def test_groups_of_a_convolution():
  def apply(p, x):
    dims = ('NHWC', 'HWIO', 'NHWC')
    conv = lambda x, w, groups: jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=dims, feature_group_count=groups
    )
    h = jnp.tanh(conv(x, p['a'], 1))
    return conv(jnp.tanh(conv(h, p['g'], 2)), p['b'], 1).sum((1, 2))

  params = _shapes(a=(3, 3, 2, 6), g=(3, 3, 3, 8), b=(1, 1, 8, 2))
  x = jax.ShapeDtypeStruct((1, 5, 5, 2), jnp.float64)
  symmetry = align.find_symmetry(apply, params, x)
  assert [(g.name, g.size, g.outer) for g in symmetry.groups] == [
    ('a:3.0', 2, ()),
    ('a:3.1', 3, ('a:3.0',)),
    ('b:2.1', 4, ('a:3.0',)),
  ]


def test_a_tie_returns_its_second_operand():
  tie = getattr(jax._src.lax.lax, 'tie_p', None)
  if tie is None:
    pytest.skip('this jax has no such primitive')
  found = _found(lambda h, p: tie.bind(jnp.zeros((2, 6)), h), (6,))
  assert found == ALL


def test_every_cast_has_a_rule():
  assert table.RULES.keys() >= jaxprs.CASTS
