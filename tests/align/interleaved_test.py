"""Axes whose parts alternate, ``heads * (a + b)``, in all of their uses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.find import harness, oracle
from wsl import align, stats, surgery
from wsl.align._activations import activation_sites

X = np.random.default_rng(1).normal(size=(8, 3))


def net(p, x):
  """Heads of 3 and 4 units; their number is that of the leaves."""
  y = (x @ p['w'] + p['c'][None]).reshape(len(x), -1, 7)
  a, b = (part.reshape(len(x), -1) for part in (y[..., :3], y[..., 3:]))
  return jnp.tanh(a) @ p['a'] + jnp.sin(b) @ p['b']


def model(seed=0):
  rng = np.random.default_rng(seed)
  shapes = {'a': (6, 2), 'b': (8, 2), 'c': (14,), 'w': (3, 14)}
  return {name: jnp.asarray(rng.normal(size=s)) for name, s in shapes.items()}


@pytest.fixture(scope='module')
def symmetry():
  return align.find_symmetry(net, model(), jnp.asarray(X))


def groups(symmetry):
  """Returns the names of heads and of both parts."""
  (head, first), (_, second) = symmetry.leaf['w'][1]
  return head, first, second


def test_the_axis_of_the_smallest_example(symmetry):
  head, first, second = groups(symmetry)
  assert symmetry.interleaved == (
    align.Interleaved('c', 0, 0, 2, 1),
    align.Interleaved('w', 1, 0, 2, 1),
  )
  assert {g.name: (g.size, g.outer) for g in symmetry.groups} == {
    head: (2, ()),
    first: (3, (head,)),
    second: (4, (head,)),
  }
  # 2! 3!^2 4!^2
  assert np.isclose(symmetry.log10_order, np.log10(2 * 6**2 * 24**2))
  assert f'{head} * ({first} + {second})' in align.explain(symmetry)


def test_consecutive_parts_would_be_wrong(symmetry):
  plain = dataclasses.replace(symmetry, interleaved=())
  key, x = jax.random.key(0), jnp.asarray(X)
  right = align.check(symmetry, net, model(), x, key=key)
  wrong = align.check(plain, net, model(), x, key=key)
  assert right.error < 1e-12
  assert wrong.error > 1e-2


def attend(p, x):
  """Two heads of 2 units for queries and keys, and of 3 for values."""
  y = (x @ p['w']).reshape(*x.shape[:2], 2, 7)
  q, k, v = jnp.split(y, [2, 4], -1)
  scores = jax.nn.softmax(jnp.einsum('bqhd,bkhd->bhqk', q, k))
  y = jnp.einsum('bhqk,bkhd->bqhd', scores, v)
  return y.reshape(*y.shape[:2], -1) @ p['o']


@pytest.fixture(scope='module')
def attention():
  rng = np.random.default_rng(2)
  params = {
    'o': jnp.asarray(rng.normal(size=(6, 5))),
    'w': jnp.asarray(rng.normal(size=(8, 14))),
  }
  x = jnp.asarray(rng.normal(size=(2, 4, 8)))
  return align.find_symmetry(attend, params, x), params, x


def test_maps_of_parts_form_a_group(attention):
  symmetry, params, x = attention
  kinds = [(a.kind, symmetry.action_shape(a.name)) for a in symmetry.actions]
  assert ('linear', (2, 2, 2)) in kinds
  assert ('linear', (2, 3, 3)) in kinds
  g, h = (align.random(symmetry, jax.random.key(i)) for i in (1, 2))
  move = lambda p, x: align.permute(p, x, symmetry=symmetry)
  close = lambda a, b: jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10), a, b
  )
  moved = move(params, g)
  close(attend(moved, x), attend(params, x))
  both = align.compose(g, h, symmetry=symmetry)
  close(move(params, both), move(moved, h))
  close(move(moved, align.invert(g, symmetry=symmetry)), params)


@pytest.mark.parametrize('gauges', [('permutation',), align.GAUGES])
def test_planted_elements_are_undone(attention, gauges):
  symmetry, params, _ = attention
  g = align.random(symmetry, jax.random.key(4), gauges=gauges)
  moving = align.permute(params, g, symmetry=symmetry)
  assert np.abs(moving['w'] - params['w']).max() > 0.1
  found = align.weight_matching(
    params, moving, symmetry=symmetry, key=jax.random.key(0), gauges=gauges
  )
  back = align.permute(moving, found, symmetry=symmetry)
  for name in params:
    np.testing.assert_allclose(back[name], params[name], atol=1e-10)


def test_planted_heads_of_nested_parts_are_undone():
  symmetry = harness.symmetry_of('nested_parts')
  params = harness.build('nested_parts').params
  g = align.random(symmetry, jax.random.key(1), gauges=('permutation',))
  moving = oracle.move(params, g, symmetry)
  key = jax.random.key(3)
  found = align.weight_matching(params, moving, symmetry=symmetry, key=key)
  back = oracle.move(moving, found, symmetry)
  jax.tree.map(np.testing.assert_array_equal, back, params)


def test_separate_heads_of_a_partial_merge(symmetry):
  # Both models are equal, so that the merge computes what they do.
  a, (head, *_) = model(), groups(symmetry)
  grams = stats.joint_gram(net, [a, a], [jnp.asarray(X)])
  merged = align.pleas(
    a, a, symmetry=symmetry, separate={head: 0.5}, grams=grams
  )
  assert merged.params['w'].shape == (3, 21)
  np.testing.assert_allclose(net(merged.params, X), net(a, X), rtol=1e-6)


def test_wider_heads_compute_the_same(symmetry):
  a, (head, *_) = model(), groups(symmetry)
  views = stats.matrix_views(net, a, jnp.asarray(X))
  wide = surgery.widen(a, {head: 5}, symmetry=symmetry, views=views)
  assert wide['w'].shape == (3, 35)
  np.testing.assert_allclose(net(wide, X), net(a, X), rtol=1e-12)


def test_slices_and_masks_of_parts(symmetry):
  a, (head, first, _) = model(), groups(symmetry)
  size = surgery.slice_size(symmetry, widths={head: 1, first: 2})
  cut = surgery.slice(a, size, symmetry=symmetry)
  kept = [0, 1, 3, 4, 5, 6]  # of 3 + 4 units of the first head
  np.testing.assert_array_equal(cut['w'], a['w'][:, kept])
  np.testing.assert_array_equal(cut['a'], a['a'][:2])
  masked = surgery.mask_units(a, size, symmetry=symmetry)
  zero = [i for i in range(14) if i not in kept]
  np.testing.assert_array_equal(masked['w'][:, kept], a['w'][:, kept])
  assert not masked['w'][:, zero].any()
  small = surgery.slice_symmetry(symmetry, size)
  align.check_leaves(small, cut, 'slice')
  gram = stats.gram(net, a, [jnp.asarray(X)])
  found = surgery.activation_importance(a, gram, symmetry=symmetry)
  w, c = np.asarray(a['w']), np.asarray(a['c'])
  y = np.tanh((X @ w + c).reshape(8, 2, 7)[..., :3])
  weights = np.square(a['a']).sum(1).reshape(2, 3)
  np.testing.assert_allclose(found[first], (y**2).mean(0) * weights, 1e-9)


def test_gains_of_units_of_parts(symmetry):
  a, b = model(), model(1)
  head, first, _ = groups(symmetry)
  gains = align.unit_gains(a, b, symmetry=symmetry)
  both = {n: np.asarray(a[n]) * np.asarray(b[n]) for n in a}
  w = both['w'].sum(0).reshape(2, 7) + both['c'].reshape(2, 7)
  read = both['a'].sum(1).reshape(2, 3)
  np.testing.assert_allclose(gains[first], w[:, :3] + read, rtol=1e-12)
  rest = both['b'].sum(1).reshape(2, 4).sum(1)
  np.testing.assert_allclose(gains[head], w.sum(1) + read.sum(1) + rest, 1e-12)


def test_activations_of_alternating_units():
  def apply(p, x):
    y = (x @ p['w']).reshape(len(x), 2, 7)
    parts = [jnp.tanh(y[..., :3]), jnp.sin(y[..., 3:])]
    return jnp.concatenate(parts, -1).reshape(len(x), 14) @ p['o']

  rng = np.random.default_rng(3)
  w = rng.normal(size=(3, 14))
  params = {'o': jnp.asarray(rng.normal(size=(14, 2))), 'w': jnp.asarray(w)}
  symmetry = align.find_symmetry(apply, params, jnp.asarray(X))
  (_, first), (_, second) = symmetry.leaf['w'][1]
  found = activation_sites.activations(symmetry, apply, params, jnp.asarray(X))
  y = (X @ w).reshape(8, 2, 7)
  np.testing.assert_allclose(found[first], np.tanh(y[..., :3]), rtol=1e-12)
  np.testing.assert_allclose(found[second], np.sin(y[..., 3:]), rtol=1e-12)
