"""PLeaS with biases: the joint least squares of weights and biases."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.partial import networks as reference
from wsl import align, stats

F, X = align.Factor, reference.X
close, normal, one = reference.close, reference.normal, reference.one


def oracle(a, b, counts, ridge):
  """Solves weights on centred inputs; an intercept makes up the means."""
  lists = reference.unit_lists(a, b, counts)
  of_a = of_b = np.asarray(X)
  params, errors = {}, {}
  for i, (source, target) in enumerate(
    itertools.pairwise(('x', 'h0', 'h1', 'y'))
  ):
    ins, outs = lists[source], lists[target]
    z = reference.values(ins, of_a, of_b)
    products = [
      h @ np.asarray(m[f'w{i}']) + np.asarray(m[f'b{i}'])[None]
      for h, m in ((of_a, a), (of_b, b))
    ]
    y = reference.values(outs, *products)
    w0 = reference.start(ins, outs, *(np.asarray(m[f'w{i}']) for m in (a, b)))
    w = reference.solve(z - z.mean(0), y - y.mean(0), w0, ins, outs, ridge)
    bias = y.mean(0) - z.mean(0) @ w
    params[f'w{i}'], params[f'b{i}'] = w, bias
    errors[i] = [z, y]
    of_a, of_b = (np.maximum(p, 0) for p in products)
  return params, errors


@pytest.mark.parametrize('ridge', [1e-10, 1e-2])
@pytest.mark.parametrize(
  'counts', [{'h0': 0, 'h1': 0}, {'h0': 3, 'h1': 2}, {'h0': 6, 'h1': 5}]
)
def test_weights_and_biases_are_the_joint_optimum(counts, ridge):
  a, b = reference.draw(1), reference.draw(2)
  separate = {
    n: k / reference.SYMMETRY.factor[n].size for n, k in counts.items()
  }
  fit = lambda **x: reference.run(a, b, separate, ridge=ridge, **x).params
  found, plain = fit(refit_biases=True), fit()
  wanted, data = oracle(a, b, counts, ridge)
  for name, x in wanted.items():
    close(found[name], x, rtol=1e-5, atol=1e-6)
  if ridge < 1e-6:
    for i, (z, y) in data.items():
      error = lambda p, z=z, y=y, i=i: np.square(
        z @ p[f'w{i}'] + p[f'b{i}'][None] - y
      ).sum()
      assert error(found) <= error(plain) * (1 + 1e-9) + 1e-12
    if counts['h0'] == 3:  # the control: the biases change something
      z, y = data[1]
      error = lambda p: np.square(z @ p['w1'] + p['b1'][None] - y).sum()
      assert error(found) < 0.95 * error(plain)


def test_everything_separate_computes_both_networks():
  a, b = reference.draw(1), reference.draw(2)
  found = reference.run(a, b, 1.0, refit_biases=True, ridge=1e-9).params
  mean = (reference.mlp(a, X) + reference.mlp(b, X)) / 2
  close(reference.mlp(found, X), mean, 1e-5, 1e-6)


def test_without_a_refit_biases_are_averaged():
  a, b = reference.draw(1), reference.draw(2)
  fit = lambda **x: reference.run(a, b, 0.5, ridge=None, **x).params
  jax.tree.map(np.testing.assert_array_equal, fit(refit_biases=True), fit())


@jax.jit
def stack(params, x):
  def layer(x, p):
    h = jnp.tanh(x @ p['i'] + p['c'][None])
    return x + (h @ p['o'] + p['b'][None]), None

  return jax.lax.scan(layer, x, params)[0]


def test_scanned_layers_have_a_bias_each():
  symmetry = align.Symmetry(
    (F('l', 3, 'layers'), F('x', 2, 'in'), F('h', 4, outer=('l',))),
    (
      ('b', one('l', 'x')),
      ('c', one('l', 'h')),
      ('i', one('l', 'x', 'h')),
      ('o', one('l', 'h', 'x')),
    ),
  )
  shapes = {'b': (3, 2), 'c': (3, 4), 'i': (3, 2, 4), 'o': (3, 4, 2)}
  a, b = (
    {n: normal(s + i, *x) for i, (n, x) in enumerate(shapes.items())}
    for s in (1, 9)
  )
  x = normal(0, 30, 2)
  grams = stats.joint_gram(stack, [a, b], [x])
  assert (grams['o'].bias, grams['i'].bias) == ('b', 'c')
  found = align.pleas(
    a,
    b,
    symmetry=symmetry,
    separate=0.5,
    grams=grams,
    ridge=1e-9,
    refit_biases=True,
  ).params
  gains = align.unit_gains(a, b, symmetry=symmetry)
  for layer, gain in enumerate(np.asarray(gains['h'])):
    units = sorted(np.argsort(gain)[:2].tolist())
    kept = [i for i in range(4) if i not in units]
    below = [jax.tree.map(lambda w, n=layer: w[:n], p) for p in (a, b)]
    hidden = [
      np.tanh(stack(p, x) @ m['i'][layer] + m['c'][layer][None])
      for p, m in zip(below, (a, b))
    ]
    z = np.concatenate(
      [
        (hidden[0][:, kept] + hidden[1][:, kept]) / 2,
        hidden[0][:, units],
        hidden[1][:, units],
        np.ones((30, 1)),
      ],
      1,
    )
    outputs = [
      h @ np.asarray(m['o'][layer]) + np.asarray(m['b'][layer])[None]
      for h, m in zip(hidden, (a, b))
    ]
    best = np.linalg.lstsq(z, sum(outputs) / 2, rcond=None)[0]
    close(found['o'][layer], best[:-1], rtol=1e-4, atol=1e-5)
    close(found['b'][layer], best[-1], rtol=1e-4, atol=1e-5)


@jax.jit
def conv(params, x):
  h = reference.convolve(
    reference.first(params, x), params['d'], len(params['s'])
  )
  h = h + params['e'][None, None, None]
  return jnp.tanh(h).reshape(len(h), -1) @ params['o']


def test_a_depthwise_convolution_has_the_mean_of_its_target():
  symmetry = align.Symmetry(
    reference.CONV.factors, (*reference.CONV.axes, ('e', one('c')))
  )
  a, b = (reference.draw_conv(s) | {'e': normal(s + 7, 4)} for s in (1, 11))
  x = normal(0, 20, 3, 3, 2)
  grams = stats.joint_gram(conv, [a, b], [x])
  assert grams['d'].bias == 'e'
  options = {'symmetry': symmetry, 'separate': 0.5, 'grams': grams}
  found = align.pleas(a, b, **options, refit_biases=True).params
  gain = np.asarray(align.unit_gains(a, b, symmetry=symmetry)['c'])
  units = sorted(np.argsort(gain)[:2].tolist())
  kept = [i for i in range(4) if i not in units]

  def placed(of_a, of_b):
    both = (of_a[..., kept] + of_b[..., kept]) / 2
    return jnp.concatenate([both, of_a[..., units], of_b[..., units]], -1)

  before = [reference.first(p, x) for p in (a, b)]
  after = [
    reference.convolve(h, p['d'], 4) + p['e'][None, None, None]
    for h, p in zip(before, (a, b))
  ]
  new = reference.convolve(placed(*before), found['d'], 6)
  mean = lambda h: np.asarray(h).mean((0, 1, 2))
  close(mean(new) + np.asarray(found['e']), mean(placed(*after)), 1e-6, 1e-8)


def test_the_joint_statistic_has_means():
  a, b = reference.draw(1), reference.draw(2)
  grams = stats.joint_gram(reference.mlp, [a, b], [X[:40], X[40:]])
  hidden = [np.maximum(X @ p['w0'] + p['b0'][None], 0) for p in (a, b)]
  close(grams['w1'].mean[0], np.concatenate(hidden, 1).mean(0))
  assert grams['w1'].mean.shape == (1, 12)
  assert grams['w1'].matrix.shape == (1, 12, 12)
  assert [grams[f'w{i}'].bias for i in range(3)] == ['b0', 'b1', 'b2']
