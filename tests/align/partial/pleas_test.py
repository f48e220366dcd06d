"""PLeaS against literal blocks, direct least squares and its two limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.partial.networks import (
  close,
  draw,
  F,
  HALF,
  mlp,
  normal,
  one,
  oracle,
  run,
  SYMMETRY,
  X,
)
from wsl import align, stats, types


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
