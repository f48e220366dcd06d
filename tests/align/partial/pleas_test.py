"""PLeaS against literal blocks, direct least squares and its two limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, stats, tree, types

F = align.Factor
WIDTHS = (3, 6, 5, 4)


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@jax.jit
def mlp(params, x):
  for i in range(2):
    x = jax.nn.relu(x @ params[f'w{i}'] + params[f'b{i}'][None])
  return x @ params['w2'] + params['b2'][None]


def draw(seed, widths=WIDTHS):
  params = {}
  for i, (n, m) in enumerate(itertools.pairwise(widths)):
    params[f'b{i}'] = normal(seed + 10 * i, m)
    params[f'w{i}'] = normal(seed + 10 * i + 1, n, m) / np.sqrt(n)
  return params


def one(*names):
  return tuple(((name,),) for name in names)


SYMMETRY = align.Symmetry(
  (F('h0', 6), F('h1', 5), F('y', 4, 'an output'), F('x', 3, 'an input')),
  (
    ('b0', one('h0')),
    ('b1', one('h1')),
    ('b2', one('y')),
    ('w0', one('x', 'h0')),
    ('w1', one('h0', 'h1')),
    ('w2', one('h1', 'y')),
  ),
)
X = normal(0, 60, 3)
HALF = {'h0': 0.5, 'h1': 0.4}


def close(a, b, rtol=1e-9, atol=1e-10):
  np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def run(a, b, separate, **options):
  grams = stats.joint_gram(mlp, [a, b], [X[:40], X[40:]])
  return align.pleas(
    a, b, symmetry=SYMMETRY, separate=separate, grams=grams, **options
  )


# A reference implementation of the definition in NumPy, for the MLP.


def unit_lists(a, b, counts):
  """Returns the (A, B) units of each new axis; None for an absent unit."""
  gains = align.unit_gains(a, b, symmetry=SYMMETRY)
  lists = {'x': [(i, i) for i in range(3)], 'y': [(i, i) for i in range(4)]}
  for name, k in counts.items():
    order = np.argsort(np.asarray(gains[name]), kind='stable')
    separate, kept = sorted(order[:k].tolist()), sorted(order[k:].tolist())
    lists[name] = [(i, i) for i in kept]
    lists[name] += [(i, None) for i in separate]
    lists[name] += [(None, i) for i in separate]
  return lists


def values(units, of_a, of_b):
  """Returns ``[rows, units]``: the mean where both models have the unit."""
  columns = []
  for i, j in units:
    parts = [m[:, k] for m, k in ((of_a, i), (of_b, j)) if k is not None]
    columns.append(np.mean(parts, 0))
  return np.stack(columns, 1)


def start(ins, outs, a, b):
  """Returns W_0 ``[in, out]`` by the blocks of the paper."""
  w = np.zeros((len(ins), len(outs)))
  for p, (i, j) in enumerate(ins):
    for q, (k, m) in enumerate(outs):
      of_a = a[i, k] if i is not None and k is not None else 0
      of_b = b[j, m] if j is not None and m is not None else 0
      w[p, q] = of_a + of_b
      if k is not None and m is not None:
        w[p, q] /= 2
  return w


def solve(z, y, w0, ins, outs, ridge):
  """Solves each output by least squares, on its allowed inputs."""
  w = np.zeros_like(w0)
  for q, (k, m) in enumerate(outs):
    rows = [
      p
      for p, (i, j) in enumerate(ins)
      if (i is not None and k is not None) or (j is not None and m is not None)
    ]
    part = z[:, rows]
    rho = ridge * np.mean(np.square(part))
    system = np.concatenate([part, np.sqrt(len(z) * rho) * np.eye(len(rows))])
    wanted = np.concatenate([y[:, q], np.sqrt(len(z) * rho) * w0[rows, q]])
    w[rows, q] = np.linalg.lstsq(system, wanted, rcond=None)[0]
  return w


def oracle(a, b, counts, ridge):
  lists = unit_lists(a, b, counts)
  a, b = (jax.tree.map(np.asarray, p) for p in (a, b))
  hidden = [(np.asarray(X), np.asarray(X))]
  axes = ['x', 'h0', 'h1', 'y']
  params, first, errors = {}, {}, {}
  for i, (source, target) in enumerate(itertools.pairwise(axes)):
    ins, outs = lists[source], lists[target]
    of_a, of_b = hidden[-1]
    z = values(ins, of_a, of_b)
    products = of_a @ a[f'w{i}'], of_b @ b[f'w{i}']
    y = values(outs, *products)
    w0 = start(ins, outs, a[f'w{i}'], b[f'w{i}'])
    w = w0 if ridge is None else solve(z, y, w0, ins, outs, ridge)
    params[f'w{i}'], first[f'w{i}'] = w, w0
    bias = values(outs, a[f'b{i}'][None], b[f'b{i}'][None])
    params[f'b{i}'] = bias[0]
    errors[f'w{i}'] = [np.square(z @ v - y).sum() for v in (w0, w)]
    hidden.append(
      tuple(
        np.maximum(p + m[f'b{i}'][None], 0) for p, m in zip(products, (a, b))
      )
    )
  return params, first, errors


@pytest.mark.parametrize('ridge', [None, 1e-12, 10.0])
@pytest.mark.parametrize(
  'counts', [{'h0': 0, 'h1': 0}, {'h0': 3, 'h1': 2}, {'h0': 6, 'h1': 0}]
)
def test_blocks_and_direct_least_squares(counts, ridge):
  a, b = draw(1), draw(2)
  separate = {n: k / SYMMETRY.factor[n].size for n, k in counts.items()}
  found = run(a, b, separate, ridge=ridge)
  params, _, errors = oracle(a, b, counts, ridge)
  for name, x in params.items():
    close(found.params[name], x, rtol=1e-6, atol=1e-7)
  assert found.widths == {
    n: SYMMETRY.factor[n].size + counts[n] for n in counts
  }
  for before, after in errors.values():
    assert after <= before * (1 + 1e-12) + 1e-20
  if ridge == 1e-12:  # The control: the refit lowers an error.
    assert errors['w1'][1] < 0.9 * errors['w1'][0] or counts['h0'] == 6


def test_literal_blocks():
  symmetry = align.Symmetry(
    (F('h', 2), F('g', 2)), (('b', one('g')), ('w', one('h', 'g')))
  )
  a = {'b': jnp.asarray([1.0, 2.0]), 'w': jnp.asarray([[1.0, 2.0], [3.0, 4.0]])}
  b = {
    'b': jnp.asarray([5.0, 6.0]),
    'w': jnp.asarray([[10.0, 20.0], [30.0, 40.0]]),
  }
  gram = types.Gram(jnp.eye(4)[None], jnp.asarray(1.0), (0,))
  gains = {'h': jnp.asarray([1.0, 0.0]), 'g': jnp.asarray([0.0, 1.0])}
  found = align.pleas(
    a,
    b,
    symmetry=symmetry,
    separate=0.5,
    grams={'b': None, 'w': gram},
    gains=gains,
    ridge=None,
  ).params
  # Unit 1 of g is merged, unit 0 kept separate; unit 0 of h merged.
  assert found['b'].tolist() == [4, 1, 5]
  assert found['w'].tolist() == [[11, 1, 10], [2, 3, 0], [20, 0, 30]]


def test_everything_separate_computes_both_networks():
  a, b = draw(1), draw(2)
  found = run(a, b, 1.0)
  close(mlp(found.params, X), (mlp(a, X) + mlp(b, X)) / 2)
  assert found.widths == {'h0': 12, 'h1': 10}
  both_heads = run(a, b, 1.0, outputs=['y'])
  both = jnp.concatenate([mlp(a, X), mlp(b, X)], 1)
  close(mlp(both_heads.params, X), both)
  assert both_heads.widths == {'h0': 12, 'h1': 10, 'y': 8}


def test_nothing_separate_without_refit_is_the_average():
  a, b = draw(1), draw(2)
  found = run(a, b, 0.0, ridge=None)
  jax.tree.map(
    close, found.params, jax.tree.map(lambda x, y: (x + y) / 2, a, b)
  )
  near = run(a, b, 0.0, ridge=1e12)
  jax.tree.map(lambda x, y: close(x, y, rtol=1e-6), near.params, found.params)
  far = run(a, b, 0.0, ridge=1e-3)
  assert not np.allclose(far.params['w1'], found.params['w1'], rtol=1e-2)


@pytest.mark.parametrize('separate', [0.0, HALF, 1.0])
def test_merging_a_permuted_copy_is_the_identity_at_any_width(separate):
  a = draw(1)
  g = align.random(SYMMETRY, jax.random.key(3), gauges=('permutation',))
  b = align.permute(a, g, symmetry=SYMMETRY)
  inverse = align.invert(g, symmetry=SYMMETRY)
  aligned = align.permute(b, inverse, symmetry=SYMMETRY)
  close(mlp(run(a, aligned, separate).params, X), mlp(a, X))
  if separate == 0.0:  # The control: without alignment it is not.
    assert not np.allclose(mlp(run(a, b, separate).params, X), mlp(a, X), 0.1)


def test_error_falls_with_width_and_refit():
  a, b = draw(1), draw(2)
  wanted = jnp.concatenate([mlp(a, X), mlp(b, X)], 1)

  def error(separate, ridge):
    found = run(a, b, separate, ridge=ridge, outputs=['y'])
    return float(jnp.square(mlp(found.params, X) - wanted).mean())

  refitted = [error(r, 1e-3) for r in (0.0, HALF, 1.0)]
  assert refitted[0] > refitted[1] > refitted[2]
  assert refitted[2] < 1e-20
  assert refitted[0] < error(0.0, None)


def test_label_spaces_of_different_sizes():
  a, b = draw(1), draw(2, (3, 6, 5, 7))
  trunk = b | {n: a[n] for n in ('b2', 'w2')}  # Only inputs of maps matter.
  grams = stats.joint_gram(mlp, [a, trunk], [X])
  options = {'symmetry': SYMMETRY, 'grams': grams, 'outputs': ['y']}
  found = align.pleas(a, b, separate=1.0, **options)
  both = jnp.concatenate([mlp(a, X), mlp(b, X)], 1)
  close(mlp(found.params, X), both)
  assert found.params['w2'].shape == (10, 11)
  part = align.pleas(a, b, separate=HALF, **options)
  assert part.params['w2'].shape == (7, 11)
  # Without a Gram matrix the rows of the heads are copied.
  less = {'w0': grams['w0'], 'w1': grams['w1'], 'w2': None}
  options['grams'] = less | {f'b{i}': None for i in range(3)}
  copied = align.pleas(a, b, separate=HALF, **options)
  head = np.asarray(copied.params['w2'])
  assert (head[3:5, 4:] == 0).all()
  assert (head[5:, :4] == 0).all()
  assert (head[:3, :4] != 0).all()
  np.testing.assert_array_equal(copied.params['w1'], part.params['w1'])


def convolve(x, kernel, groups):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def first(params, x):
  scale = params['s'][None, None, None]
  return jnp.tanh(convolve(x, params['k'], 1) * scale)


@jax.jit
def conv(params, x):
  """A convolution, a depthwise one, a scale and a flattened dense head."""
  h = first(params, x)
  h = jnp.tanh(convolve(h, params['d'], h.shape[-1]))
  return h.reshape(len(h), -1) @ params['o']


def windows_of(x):
  """Returns the zero-padded windows ``[B * 9, 9]`` of ``[B, 3, 3]``."""
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
  cut = [padded[:, i : i + 3, j : j + 3] for i in range(3) for j in range(3)]
  return np.stack(cut, -1).reshape(-1, 9)


CONV = align.Symmetry(
  (
    F('c', 4),
    F('i', 2, 'an input'),
    F('p', 3, 'space'),
    F('q', 3, 'space'),
    F('p2', 3, 'space'),
    F('q2', 3, 'space'),
    F('u', 3, 'space'),
    F('v', 3, 'space'),
    F('y', 2, 'an output'),
  ),
  (
    ('d', ((('p2',),), (('q2',),), ((),), (('c',),))),
    ('k', one('p', 'q', 'i', 'c')),
    ('o', ((('u', 'v', 'c'),), (('y',),))),
    ('s', one('c')),
  ),
)


def draw_conv(seed):
  shapes = {'d': (3, 3, 1, 4), 'k': (3, 3, 2, 4), 'o': (36, 2), 's': (4,)}
  return {n: normal(seed + i, *s) for i, (n, s) in enumerate(shapes.items())}


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


def test_float32_leaves_and_counters():
  a, b = draw(1), draw(2)
  small = [
    jax.tree.map(lambda x: x.astype('float32'), p) | {'n': jnp.asarray(n)}
    for p, n in ((a, 3), (b, 4))
  ]
  symmetry = align.Symmetry(
    SYMMETRY.factors, (*SYMMETRY.axes[:3], ('n', ()), *SYMMETRY.axes[3:])
  )
  grams = stats.joint_gram(mlp, small, [X.astype('float32')])
  found = align.pleas(*small, symmetry=symmetry, separate=HALF, grams=grams)
  wide = run(a, b, HALF).params
  assert found.params.pop('n') == 3
  for name, x in found.params.items():
    assert x.dtype == 'float32'
    close(x, wide[name], rtol=1e-2, atol=1e-3)


def test_unit_gains_and_mismatch():
  a, b = draw(1), draw(2)
  gains = align.unit_gains(a, b, symmetry=SYMMETRY)
  p = {n: np.asarray(a[n]) * np.asarray(b[n]) for n in a}
  close(gains['h0'], p['b0'] + p['w0'].sum(0) + p['w1'].sum(1))
  close(gains['h1'], p['b1'] + p['w1'].sum(0) + p['w2'].sum(1))
  shares = align.mismatch(a, b, symmetry=SYMMETRY)
  leaves = ('b0', 'w0', 'w1')
  distance = sum(float(jnp.square(a[n] - b[n]).sum()) for n in leaves)
  norms = sum(float(jnp.square(m[n]).sum()) for m in (a, b) for n in leaves)
  close(shares['h0'], distance / norms)
  assert align.mismatch(a, a, symmetry=SYMMETRY) == {'h0': 0.0, 'h1': 0.0}


def test_tables_must_be_named_and_tied_weights_are_refused():
  symmetry = align.Symmetry(
    (F('h', 4), F('v', 5, 'tokens'), F('y', 2, 'out')),
    (('e', one('v', 'h')), ('o', one('h', 'y'))),
  )
  net = lambda p, x: jax.nn.relu(p['e'][x]) @ p['o']
  a, b = ({'e': normal(s, 5, 4), 'o': normal(s + 1, 4, 2)} for s in (1, 5))
  x = jnp.asarray([0, 3, 1, 4, 2])
  options = {
    'symmetry': symmetry,
    'separate': 1.0,
    'grams': stats.joint_gram(net, [a, b], [x]),
  }
  found = align.pleas(a, b, tables='^e$', **options)
  close(net(found.params, x), (net(a, x) + net(b, x)) / 2)
  with pytest.raises(ValueError, match=r"'e' has no Gram .* name it in tables"):
    align.pleas(a, b, **options)
  with pytest.raises(ValueError, match="no leaf matches 'embed'"):
    align.pleas(a, b, tables='embed', **options)
  tied = lambda p, x: jnp.tanh(x @ p['w']) @ p['w'].T
  symmetry = align.Symmetry(
    (F('h', 4), F('x', 3, 'in and out')), (('w', one('x', 'h')),)
  )
  a, b = {'w': normal(1, 3, 4)}, {'w': normal(2, 3, 4)}
  grams = stats.joint_gram(tied, [a, b], [X])
  with pytest.raises(ValueError, match="leaf 'w' has no Gram matrix"):
    align.pleas(a, b, symmetry=symmetry, separate=0.5, grams=grams)


def test_gains_of_leaves_of_other_shapes_are_refused():
  a, b = draw(1), draw(2, (3, 6, 5, 7))
  with pytest.raises(ValueError, match=r"leaf 'b2' has shape \(4,\) in a and"):
    align.unit_gains(a, b, symmetry=SYMMETRY)
  trunk = align.unit_gains(a, b, symmetry=SYMMETRY, leaves='0|1')
  assert trunk['h0'].shape == (6,)


def test_batch_norm_moments_follow_their_units():
  def net(p, x):
    mean, var = p['mean'][None], p['var'][None]
    h = (x @ p['w0'] - mean) * jax.lax.rsqrt(var) * p['scale'][None]
    return jax.nn.relu(h) @ p['w1']

  def of_batch(p, x):
    h = x @ p['w0']
    return {
      'mean': 0.9 * p['mean'] + 0.1 * h.mean(0),
      'var': 0.9 * p['var'] + 0.1 * h.var(0),
    }

  a, b = (
    {
      'mean': normal(s, 5),
      'scale': normal(s + 1, 5),
      'var': 1 + jnp.square(normal(s + 2, 5)),
      'w0': normal(s + 3, 3, 5),
      'w1': normal(s + 4, 5, 2),
    }
    for s in (1, 10)
  )
  symmetry = align.find_symmetry(net, a, X)
  grams = stats.joint_gram(net, [a, b], [X])
  options = {'symmetry': symmetry, 'grams': grams}
  both = align.pleas(a, b, separate=1.0, **options).params
  close(net(both, X), (net(a, X) + net(b, X)) / 2)
  part = align.pleas(a, b, separate=0.4, **options).params
  old = {n: part[n] for n in ('mean', 'var')}
  found = align.reset_batch_stats(lambda s, x: of_batch(part | s, x), old, [X])
  close(found['mean'], np.asarray(X @ part['w0']).mean(0))
  close(found['var'], np.asarray(X @ part['w0']).var(0))
  assert part['var'].shape == (7,)


def test_found_symmetry():
  a, b = draw(1), draw(2)
  symmetry = align.find_symmetry(mlp, a, X)
  grams = stats.joint_gram(mlp, [a, b], [X])
  found = align.pleas(a, b, symmetry=symmetry, separate=1.0, grams=grams)
  close(mlp(found.params, X), (mlp(a, X) + mlp(b, X)) / 2)
  assert sorted(found.widths.values()) == [10, 12]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'separate': 1.5}, "separate=1.5 of group 'h0'"),
    ({'separate': {'hh0': 0.5}}, "no group 'hh0' \\(did you mean 'h0'"),
    ({'separate': {'y': 0.5}}, r"names 'y', which is pinned \(an output\)"),
    ({'outputs': ['h0']}, "outputs names 'h0', which is not a pinned factor"),
    ({'gains': {'h0': jnp.ones(6)}}, "gains of group 'h1' have shape none"),
    (
      {'gains': {'h0': jnp.ones(6), 'h1': jnp.full(5, jnp.nan)}},
      "gains of group 'h1' are not finite",
    ),
    ({'grams': {'w1': jnp.ones((1, 2, 2))}}, "grams holds .* at 'w1'"),
    (
      {'grams': stats.gram(mlp, draw(1), [X])},
      r"Gram matrix of 'w0' has shape \(1, 3, 3\), expected \[..., 6, 6\]",
    ),
    ({'grams': {}}, "'w0' has no Gram matrix, so its input axes are unknown"),
    ({'ridge': 0.0}, "least squares of 'w0' are singular with ridge=0.0"),
  ],
)
def test_bad_arguments_are_named(change, message):
  a, b = draw(1), draw(2)
  rows = X[:2]  # Too few for a regular system.
  options = {
    'symmetry': SYMMETRY,
    'separate': 0.5,
    'grams': stats.joint_gram(mlp, [a, b], [rows]),
  }
  with pytest.raises(ValueError, match=message):
    align.pleas(a, b, **(options | change))


def test_models_of_different_trees_are_named():
  a, b = draw(1), draw(2, (3, 7, 5, 4))
  options = {'symmetry': SYMMETRY, 'separate': 0.5, 'grams': {}}
  with pytest.raises(ValueError, match="pleas: b: leaf 'b0' has shape"):
    align.pleas(a, b, **options)
  del b['b0']
  with pytest.raises(ValueError, match="pleas: b: no leaf 'b0' as in a"):
    align.pleas(a, b, **options)


def test_names_of_grams_need_not_be_complete():
  a, b = draw(1), draw(2)
  grams = tree.named(
    stats.joint_gram(mlp, [a, b], [X]),
    is_leaf=lambda x: isinstance(x, types.Gram),
  )
  del grams['w2']
  found = align.pleas(a, b, symmetry=SYMMETRY, separate=0.0, grams=grams)
  close(found.params['w2'], (a['w2'] + b['w2']) / 2)
