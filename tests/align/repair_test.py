"""REPAIR."""

import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, deltas, stats, tree

F = align.Factor


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def mlp(params, x):
  for i in range(2):
    x = jax.nn.relu(x @ params[f'w{i}'] + params[f'b{i}'][None])
  return x @ params['w2'] + params['b2'][None]


def draw(seed, widths=(3, 6, 5, 4)):
  params = {}
  for i, (n, m) in enumerate(itertools.pairwise(widths)):
    params[f'b{i}'] = normal(seed + 10 * i, m)
    params[f'w{i}'] = normal(seed + 10 * i + 1, n, m)
  return params


X = normal(0, 200, 3)


def measure(params):
  return stats.moments(mlp, params, [X[:150], X[150:]])


def middle(a, b):
  return jax.tree.map(lambda x, y: (x + y) / 2, a, b)


def outputs(params):
  """Returns the preactivations of each layer, by NumPy."""
  x, found = np.asarray(X), []
  for i in range(3):
    x = x @ np.asarray(params[f'w{i}']) + np.asarray(params[f'b{i}'])[None]
    found.append(x)
    x = np.maximum(x, 0)
  return found


def test_every_unit_interpolates_the_endpoints_statistics():
  a, b = draw(1), draw(2)
  merged = jax.tree.map(lambda x, y: 0.75 * x + 0.25 * y, a, b)
  fixed = align.repair(
    merged,
    measure=measure,
    endpoints=[measure(a), measure(b)],
    weights=(0.75, 0.25),
    tolerance=1e-9,
  )
  for y, of_a, of_b in zip(outputs(fixed), outputs(a), outputs(b)):
    np.testing.assert_allclose(
      y.mean(0), 0.75 * of_a.mean(0) + 0.25 * of_b.mean(0), rtol=1e-7
    )
    np.testing.assert_allclose(
      y.std(0), 0.75 * of_a.std(0) + 0.25 * of_b.std(0), rtol=1e-7
    )
  # The negative control: before the repair, deviations had collapsed.
  assert (outputs(merged)[0].std(0) < outputs(fixed)[0].std(0)).all()


def test_three_models_interpolate_with_their_weights():
  models, shares = [draw(s) for s in (1, 2, 3)], (0.5, 0.2, 0.3)
  merged = jax.tree.map(
    lambda *x: sum(c * y for c, y in zip(shares, x)), *models
  )
  ends = [measure(m) for m in models]
  fixed = align.repair(
    merged, measure=measure, endpoints=ends, weights=shares, tolerance=1e-9
  )
  for y, *each in zip(outputs(fixed), *map(outputs, models)):
    mean = sum(c * x.mean(0) for c, x in zip(shares, each))
    deviation = sum(c * x.std(0) for c, x in zip(shares, each))
    np.testing.assert_allclose(y.mean(0), mean, rtol=1e-7)
    np.testing.assert_allclose(y.std(0), deviation, rtol=1e-7)


def test_one_pass_against_the_formula():
  a, b = draw(1), draw(2)
  merged = middle(a, b)
  fixed = align.repair(
    merged, measure=measure, endpoints=[measure(a), measure(b)], passes=1
  )
  ys = zip(outputs(merged), outputs(a), outputs(b))
  for i, (y, of_a, of_b) in enumerate(ys):
    mean = (of_a.mean(0) + of_b.mean(0)) / 2
    deviation = (of_a.std(0) + of_b.std(0)) / 2
    gain = np.sqrt((deviation**2 + 1e-5) / (y.var(0) + 1e-5))
    old = np.asarray(merged[f'b{i}'])
    np.testing.assert_allclose(fixed[f'w{i}'], merged[f'w{i}'] * gain[None])
    np.testing.assert_allclose(
      fixed[f'b{i}'], mean + gain * (old - y.mean(0)), rtol=1e-9
    )


def test_k_passes_correct_k_layers_for_any_order_of_leaves():
  a, b = draw(1), draw(2)
  ends = [measure(a), measure(b)]
  for passes in (1, 2, 3):
    fixed = align.repair(
      middle(a, b), measure=measure, endpoints=ends, passes=passes, epsilon=0.0
    )
    ratios = [
      y.std(0) / (of_a.std(0) + of_b.std(0)) * 2
      for y, of_a, of_b in zip(outputs(fixed), outputs(a), outputs(b))
    ]
    right = [bool(np.allclose(r, 1, rtol=1e-9)) for r in ratios]
    assert right == [i < passes for i in range(3)]


def test_rescaling_alone_scales_weights_and_biases():
  a, b = draw(1), draw(2)
  merged, ends = middle(a, b), [measure(a), measure(b)]
  fixed = align.repair(
    merged, measure=measure, endpoints=ends, shift=False, tolerance=1e-9
  )
  for i, y in enumerate(outputs(fixed)):
    of_a, of_b = outputs(a)[i], outputs(b)[i]
    np.testing.assert_allclose(
      y.std(0), (of_a.std(0) + of_b.std(0)) / 2, rtol=1e-7
    )
    gain = fixed[f'b{i}'] / merged[f'b{i}']
    np.testing.assert_allclose(fixed[f'w{i}'], merged[f'w{i}'] * gain[None])


def test_the_merge_with_a_permuted_copy_is_a_fixed_point():
  a = draw(1)
  hidden = [F(f'b{i}:0', n) for i, n in enumerate((6, 5))]
  pins = [F('in', 3, 'an input'), F('out', 4, 'an output')]
  one = lambda name: ((name,),)
  symmetry = align.Symmetry(
    (*hidden, *pins),
    (
      ('b0', (one('b0:0'),)),
      ('b1', (one('b1:0'),)),
      ('b2', (one('out'),)),
      ('w0', (one('in'), one('b0:0'))),
      ('w1', (one('b0:0'), one('b1:0'))),
      ('w2', (one('b1:0'), one('out'))),
    ),
  )
  g = align.random(symmetry, jax.random.key(0), gauges=('permutation',))
  inverse = align.invert(g, symmetry=symmetry)
  b = align.permute(a, g, symmetry=symmetry)
  aligned = align.permute(b, inverse, symmetry=symmetry)
  ends = [measure(a), measure(aligned)]
  fixed = align.repair(middle(a, aligned), measure=measure, endpoints=ends)
  jax.tree.map(np.testing.assert_array_equal, fixed, a)
  # Without alignment the midpoint differs from both, and repair changes it.
  ends = [measure(a), measure(b)]
  fixed = align.repair(middle(a, b), measure=measure, endpoints=ends)
  assert not np.allclose(fixed['w0'], middle(a, b)['w0'])


def test_a_unit_of_zero_variance_is_only_shifted():
  a = draw(1)
  merged = a | {'w0': a['w0'].at[:, 2].set(0)}
  fixed = align.repair(merged, measure=measure, endpoints=[measure(a)])
  assert fixed['w0'][:, 2].tolist() == [0, 0, 0]
  mean = outputs(a)[0].mean(0)[2]
  np.testing.assert_allclose(fixed['b0'][2], mean, rtol=1e-3)
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(fixed))


def test_only_chosen_leaves_change():
  a, b = draw(1), draw(2)
  ends, merged = [measure(a), measure(b)], middle(a, b)
  fixed = align.repair(merged, measure=measure, endpoints=ends, leaves='w0')
  changed = [n for n in a if not np.array_equal(fixed[n], merged[n])]
  assert changed == ['b0', 'w0']


def test_convolutions_keep_their_dtype():
  model = nn.Conv(4, (3, 3))
  x = normal(3, 4, 5, 5, 2).astype('float32')
  a, b = (jax.jit(model.init)(jax.random.key(s), x) for s in (0, 1))
  measure = lambda p: stats.moments(model.apply, p, [x])
  fixed = align.repair(
    middle(a, b), measure=measure, endpoints=[measure(a), measure(b)]
  )
  std = lambda p: np.std(model.apply(p, x), (0, 1, 2))
  np.testing.assert_allclose(std(fixed), (std(a) + std(b)) / 2, rtol=3e-3)
  assert fixed['params']['kernel'].dtype == 'float32'


def without_bias(params, x):
  return jax.nn.relu(x @ params['w0']) @ params['w1'] + params['b1'][None]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'weights': (0.5,)}, r'weights \[0.5\] for 2 endpoints'),
    ({'weights': (0.5, 0.2)}, 'of sum 1'),
    ({'passes': 0}, 'passes=0'),
    ({'epsilon': -1.0}, 'epsilon=-1.0'),
    ({'endpoints': [{}, {}]}, "endpoint 0 has no moments at 'w0'"),
    ({'endpoints': [draw(1), draw(2)]}, "endpoint 0 holds .* at 'b0'"),
    ({'leaves': 'zz'}, "no leaf matches 'zz'"),
  ],
)
def test_bad_arguments_are_named(change, message):
  a, b = draw(1), draw(2)
  arguments = {'endpoints': [measure(a), measure(b)]} | change
  with pytest.raises(ValueError, match=message):
    align.repair(middle(a, b), measure=measure, **arguments)


def test_a_map_without_bias_is_named():
  a = draw(1, (3, 6, 5))
  measure = lambda p: stats.moments(without_bias, p, [X])
  with pytest.raises(ValueError, match="'w0' has no bias to shift"):
    align.repair(a, measure=measure, endpoints=[measure(a)])
  for options in ({'shift': False}, {'leaves': 'w1'}):
    align.repair(a, measure=measure, endpoints=[measure(a)], **options)


def test_endpoints_of_another_width_are_named():
  a, wide = draw(1), draw(1, (3, 7, 5, 4))
  with pytest.raises(ValueError, match=r"endpoint 0 has \(7,\) at 'w0'"):
    align.repair(a, measure=measure, endpoints=[measure(wide)])


def test_repair_of_a_merge_by_deltas():
  a, b = draw(1), draw(2)
  stack = deltas.stack(a, [a, b])
  merged = deltas.apply(a, jax.tree.map(lambda x: x.mean(0), stack))
  ends = [measure(a), measure(b)]
  ours = align.repair(merged, measure=measure, endpoints=ends)
  theirs = align.repair(middle(a, b), measure=measure, endpoints=ends)
  for name, x in tree.named(ours).items():
    np.testing.assert_allclose(x, theirs[name], rtol=1e-9)
