"""PLeaS of convolutions, heads, scanned layers and fused segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.partial.networks import (
  close,
  CONV,
  conv,
  draw_conv,
  F,
  first,
  normal,
  one,
  windows_of,
)
from wsl import align, stats


@pytest.mark.parametrize('separate', [0.5, 1.0])
def test_convolutions_depthwise_convolutions_and_flattening(separate):
  a, x = draw_conv(1), normal(0, 20, 3, 3, 2)
  g = align.random(CONV, jax.random.key(1), gauges=('permutation',))
  moved = align.permute(a, g, symmetry=CONV)
  close(conv(moved, x), conv(a, x))
  back = align.permute(moved, align.invert(g, symmetry=CONV), symmetry=CONV)
  options = {'symmetry': CONV, 'separate': separate}
  grams = stats.joint_gram(conv, [a, back], [x])
  found = align.pleas(a, back, grams=grams, **options)
  close(conv(found.params, x), conv(a, x))
  b = draw_conv(11)
  grams = stats.joint_gram(conv, [a, b], [x])
  found = align.pleas(a, b, grams=grams, **options, ridge=1e-6)
  assert found.params['d'].shape == (3, 3, 1, 4 + int(4 * separate))
  plain = align.pleas(a, b, grams=grams, **options, ridge=None)
  wanted = (conv(a, x) + conv(b, x)) / 2
  errors = [
    float(jnp.square(conv(p.params, x) - wanted).mean()) for p in (plain, found)
  ]
  if separate == 1.0:
    assert max(errors) < 1e-18
  # The kernel of a merged channel is the least squares fit on its windows.
  found = align.pleas(a, b, grams=grams, **options, ridge=1e-9).params
  gains = align.unit_gains(a, b, symmetry=CONV)['c']
  kept = np.sort(np.argsort(gains)[int(4 * separate) :])
  hidden = [first(p, x) for p in (a, b)]
  for place, c in enumerate(kept):
    windows = [windows_of(np.asarray(h)[..., c]) for h in hidden]
    y = [
      w @ np.asarray(p['d'])[..., 0, c].reshape(9)
      for w, p in zip(windows, (a, b))
    ]
    best = np.linalg.lstsq(
      (windows[0] + windows[1]) / 2, (y[0] + y[1]) / 2, rcond=None
    )[0]
    close(np.asarray(found['d'])[..., 0, place].reshape(9), best, 1e-4, 1e-5)


@jax.jit
def attention(params, x):
  q, k, v = (jnp.einsum('btd,dhk->bhtk', x, params[n]) for n in 'qkv')
  q = q + params['bias'][None, :, None]
  weights = jax.nn.softmax(jnp.einsum('bhtk,bhsk->bhts', q, k))
  heads = jnp.einsum('bhts,bhsk->bthk', weights, v)
  return jnp.einsum('bthk,hkd->btd', heads, params['o'])


ATTENTION = align.Symmetry(
  (
    F('h', 4),
    F('x', 3, 'an input'),
    F('a', 2, outer=('h',)),
    F('c', 2, outer=('h',)),
    F('y', 3, 'an output'),
  ),
  (
    ('bias', one('h', 'a')),
    ('k', one('x', 'h', 'a')),
    ('o', one('h', 'c', 'y')),
    ('q', one('x', 'h', 'a')),
    ('v', one('x', 'h', 'c')),
  ),
)


def test_units_of_a_head_follow_the_head():
  shapes = {'k': (3, 4, 2), 'o': (4, 2, 3), 'q': (3, 4, 2), 'v': (3, 4, 2)}
  shapes = {'bias': (4, 2)} | shapes
  a, b = (
    {n: normal(s + i, *shape) for i, (n, shape) in enumerate(shapes.items())}
    for s in (1, 20)
  )
  x = normal(0, 30, 3, 3)
  grams = stats.joint_gram(attention, [a, b], [x])
  both = align.pleas(a, b, symmetry=ATTENTION, separate=1.0, grams=grams)
  assert both.params['q'].shape == (3, 8, 2)
  assert both.widths == {'h': 8, 'a': 2, 'c': 2}
  mean = (attention(a, x) + attention(b, x)) / 2
  close(attention(both.params, x), mean)
  g = align.random(ATTENTION, jax.random.key(0), gauges=('permutation',))
  moved = align.permute(a, g, symmetry=ATTENTION)
  inverse = align.invert(g, symmetry=ATTENTION)
  back = align.permute(moved, inverse, symmetry=ATTENTION)
  grams = stats.joint_gram(attention, [a, back], [x])
  merged = align.pleas(a, back, symmetry=ATTENTION, separate=0.5, grams=grams)
  close(attention(merged.params, x), attention(a, x))
  with pytest.raises(ValueError, match="group 'a' depends on h"):
    align.pleas(a, b, symmetry=ATTENTION, separate={'a': 0.5}, grams=grams)


@jax.jit
def stack(params, x):
  def layer(x, p):
    return x + jnp.tanh(x @ p['i']) @ p['o'], None

  return jax.lax.scan(layer, x, params)[0]


def test_scanned_layers_separate_different_units():
  symmetry = align.Symmetry(
    (F('l', 3, 'layers'), F('x', 2, 'in'), F('h', 4, outer=('l',))),
    (('i', one('l', 'x', 'h')), ('o', one('l', 'h', 'x'))),
  )
  a, b = (
    {'i': normal(s, 3, 2, 4), 'o': normal(s + 1, 3, 4, 2) / 4} for s in (1, 5)
  )
  x = normal(0, 30, 2)
  g = align.random(symmetry, jax.random.key(0), gauges=('permutation',))
  back = align.permute(
    align.permute(a, g, symmetry=symmetry),
    align.invert(g, symmetry=symmetry),
    symmetry=symmetry,
  )
  grams = stats.joint_gram(stack, [a, back], [x])
  options = {'symmetry': symmetry, 'separate': 0.5}
  same = align.pleas(a, back, grams=grams, **options)
  close(stack(same.params, x), stack(a, x))
  assert same.params['i'].shape == (3, 2, 6)
  grams = stats.joint_gram(stack, [a, b], [x])
  gains = align.unit_gains(a, b, symmetry=symmetry)
  last = [np.sort(np.argsort(g)[:2]).tolist() for g in gains['h']]
  assert len({str(units) for units in last}) > 1
  found = align.pleas(a, b, grams=grams, ridge=None, **options).params
  for layer, units in enumerate(last):
    of_a = np.asarray(a['i'][layer])[:, units]
    np.testing.assert_array_equal(found['i'][layer][:, 2:4], of_a)
  # The refit lowers the error of every layer on its own inputs.
  fitted = align.pleas(a, b, grams=grams, ridge=1e-9, **options).params
  for layer, units in enumerate(last):
    below = [jax.tree.map(lambda w, n=layer: w[:n], p) for p in (a, b)]
    hidden = [stack(p, x) for p in below]
    inner = [np.tanh(h @ p['i'][layer]) for h, p in zip(hidden, (a, b))]
    kept = [i for i in range(4) if i not in units]
    z = np.concatenate(
      [
        (inner[0][:, kept] + inner[1][:, kept]) / 2,
        inner[0][:, units],
        inner[1][:, units],
      ],
      1,
    )
    y = sum(h @ p['o'][layer] for h, p in zip(inner, (a, b))) / 2
    best = np.linalg.lstsq(z, np.asarray(y), rcond=None)[0]
    close(fitted['o'][layer], best, rtol=1e-4, atol=1e-5)


def test_fused_segments_keep_their_order():
  split = lambda h: jnp.split(h, 2, -1)
  net = lambda p, x: jnp.multiply(*split(x @ p['f'])) @ p['o']
  symmetry = align.Symmetry(
    (F('h', 4), F('x', 3, 'in'), F('y', 2, 'out')),
    (('f', (((('x',),)), (('h',), ('h',)))), ('o', one('h', 'y'))),
  )
  a, b = ({'f': normal(s, 3, 8), 'o': normal(s + 1, 4, 2)} for s in (1, 5))
  x = normal(0, 20, 3)
  grams = stats.joint_gram(net, [a, b], [x])
  both = align.pleas(a, b, symmetry=symmetry, separate=1.0, grams=grams)
  close(net(both.params, x), (net(a, x) + net(b, x)) / 2)
  part = align.pleas(a, b, symmetry=symmetry, separate=0.5, grams=grams)
  assert part.params['f'].shape == (3, 12)


def test_recurrent_weights_contain_a_group_twice():
  def rnn(p, x):
    step = lambda h, x: (jnp.tanh(h @ p['w'] + x @ p['u']), None)
    start = jnp.zeros((x.shape[0], p['w'].shape[0]))
    return jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[0] @ p['o']

  symmetry = align.Symmetry(
    (F('h', 4), F('y', 2, 'out'), F('x', 3, 'in')),
    (('o', one('h', 'y')), ('u', one('x', 'h')), ('w', one('h', 'h'))),
  )
  a, b = (
    {'o': normal(s, 4, 2), 'u': normal(s + 1, 3, 4), 'w': normal(s + 2, 4, 4)}
    for s in (1, 5)
  )
  x = normal(0, 9, 5, 3)
  grams = stats.joint_gram(rnn, [a, b], [x])
  both = align.pleas(a, b, symmetry=symmetry, separate=1.0, grams=grams)
  close(rnn(both.params, x), (rnn(a, x) + rnn(b, x)) / 2)
