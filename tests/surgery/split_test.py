"""Experts cut from a perceptron: together they are the perceptron."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, models, surgery, tree

WIDTH, HIDDEN, N = 4, 12, 5
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(N, WIDTH)))


def draw(**shapes):
  return {n: jnp.asarray(RNG.normal(size=s)) for n, s in shapes.items()}


def gated(p, x):
  """SwiGLU with fused gate and up, in the layout of PyTorch."""
  gate, up = jnp.split(x @ p['gate_up'].T, 2, axis=-1)
  return (jax.nn.silu(gate) * up) @ p['down'].T


def biased(p, x):
  h = jax.nn.gelu(x @ p['up'] + p['up_bias'][None])
  return h @ p['down'] + p['down_bias'][None]


CASES = {
  'gated': (gated, draw(gate_up=(2 * HIDDEN, WIDTH), down=(WIDTH, HIDDEN))),
  'biased': (
    biased,
    draw(
      up=(WIDTH, HIDDEN), up_bias=(HIDDEN,), down=(HIDDEN, WIDTH),
      down_bias=(WIDTH,),
    ),
  ),
}  # fmt: skip
SYMMETRY = {n: align.find_symmetry(f, p, X) for n, (f, p) in CASES.items()}


APPLY = jax.jit(surgery.apply_experts, static_argnums=0)


@pytest.mark.parametrize(
  ('name', 'cut'),
  [('gated', 'clusters'), ('biased', 'random'), ('biased', 'shared')],
)
def test_all_experts_are_the_perceptron(name, cut):
  fn, p = CASES[name]
  symmetry, shared = SYMMETRY[name], ()
  if cut == 'clusters':
    features = surgery.unit_features(p, symmetry=symmetry)
    index = surgery.balanced_clusters(
      features, clusters=3, key=jax.random.key(0)
    )
  else:
    key = jax.random.key(1)
    index = np.asarray(surgery.random_clusters(HIDDEN, clusters=3, key=key))
    assert sorted(index.ravel()) == list(range(HIDDEN))
    if cut == 'shared':
      shared, index = index[0], index[1:]
  experts = surgery.split_units(p, index, symmetry=symmetry, shared=shared)
  gates = jnp.ones((N, len(index)))
  y = APPLY(fn, experts, gates, X)
  np.testing.assert_allclose(y, fn(p, X), rtol=1e-12, atol=1e-13)
  # One expert less is another function.
  less = APPLY(fn, experts, gates.at[:, 0].set(0), X)
  assert np.abs(less - y).max() > 0.1


def test_an_expert_is_the_perceptron_with_other_units_masked():
  fn, p = CASES['gated']
  index = np.arange(HIDDEN).reshape(3, 4)
  experts = surgery.split_units(p, index, symmetry=SYMMETRY['gated'])
  gates = models.top_k_gates(X[:, :3], top_k=1, normalise=True)
  y = APPLY(fn, experts, gates, X)
  h = np.asarray(X @ p['gate_up'].T)
  a, b = h[:, :HIDDEN], h[:, HIDDEN:]
  mask = np.repeat(np.asarray(gates), 4, axis=1)
  wanted = (a / (1 + np.exp(-a)) * b * mask) @ np.asarray(p['down']).T
  np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-13)


def test_leaves_on_demand_and_narrow_ones_are_split():
  p = CASES['biased'][1]
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), p)
  symmetry = SYMMETRY['biased']
  index = np.arange(HIDDEN).reshape(2, 6)
  lazy = surgery.split_units(tree.defer(narrow), index, symmetry=symmetry)
  assert all(tree.on_demand(x) for x in jax.tree.leaves(lazy))
  now = surgery.split_units(narrow, index, symmetry=symmetry)
  for x, y in zip(jax.tree.leaves(tree.read(lazy)), jax.tree.leaves(now)):
    assert x.dtype == jnp.bfloat16
    np.testing.assert_array_equal(x, y)


def test_clusters_are_the_best_of_few_points():
  x = np.random.default_rng(3).normal(size=(6, 2))
  cost = lambda rows: np.square(x[rows] - x[rows].mean(0)).sum()
  splits = [
    ([0, *rest], [i for i in range(1, 6) if i not in rest])
    for rest in itertools.combinations(range(1, 6), 2)
  ]
  best = min(cost(a) + cost(b) for a, b in map(lambda s: map(list, s), splits))
  found = surgery.balanced_clusters(
    x, clusters=2, key=jax.random.key(0), starts=8
  )
  np.testing.assert_allclose(sum(map(cost, found)), best)


def test_clusters_are_balanced_where_the_points_are_not():
  x = np.concatenate([np.zeros((7, 1)), np.full((5, 1), 10.0)])
  x += np.arange(12)[:, None] / 100
  found = surgery.balanced_clusters(x, clusters=2, key=jax.random.key(0))
  near, far = sorted(found.tolist())
  assert near == [0, 1, 2, 3, 4, 5]
  assert far == [6, 7, 8, 9, 10, 11]


def test_planted_clusters_are_found_and_routed():
  rng = np.random.default_rng(5)
  centres = 3 * np.eye(WIDTH)[:3]
  labels = rng.permutation(np.repeat(np.arange(3), 4))
  units = centres[labels] + 0.1 * rng.normal(size=(HIDDEN, WIDTH))
  found = surgery.balanced_clusters(
    units, clusters=3, key=jax.random.key(0), starts=4
  )
  assert all(len(set(labels[row])) == 1 for row in found)
  router = surgery.center_router(units, found)
  x = centres + 0.1 * rng.normal(size=(3, WIDTH))
  chosen = np.argmax(x @ np.asarray(router), -1)
  assert [labels[found[e][0]] for e in chosen] == [0, 1, 2]


def test_bad_arguments_are_named():
  fn, p = CASES['gated']
  symmetry = SYMMETRY['gated']
  split = lambda index, **more: surgery.split_units(
    p, index, symmetry=symmetry, **more
  )
  key = jax.random.key(0)
  for call, message in (
    (lambda: split([0, 1]), r'index has shape \(2,\): expected \[E, m\]'),
    (lambda: split([[0, 12]]), r'index is 0 \.\. 12, expected 0 \.\. 11'),
    (lambda: split([[1, 1]]), 'an index occurs twice'),
    (lambda: split([[0.5]]), 'expected integers'),
    (lambda: split([[0]], group='no'), "group='no': choose one of"),
    (
      lambda: surgery.split_units(
        {**p, 'down': p['down'][:, 1:]}, [[0]], symmetry=symmetry
      ),
      r"leaf 'down' has shape \(4, 11\)",
    ),
    (
      lambda: surgery.balanced_clusters(np.ones((12, 2)), clusters=5, key=key),
      'clusters=5 does not divide 12 units: choose a divisor',
    ),
    (
      lambda: surgery.random_clusters(12, clusters=7, key=key),
      'clusters=7 does not divide 12 units: choose a divisor',
    ),
    (
      lambda: surgery.balanced_clusters(np.ones(12), clusters=2, key=key),
      r'features have shape \(12,\)',
    ),
    (
      lambda: surgery.apply_experts(fn, split([[0], [1]]), jnp.ones((N, 3)), X),
      r'gates have shape \(5, 3\), expected \(5, 2\)',
    ),
  ):
    with pytest.raises(ValueError, match=message) as error:
      call()
    assert '\n' not in str(error.value)
    assert len(str(error.value)) <= 200
