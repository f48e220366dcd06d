"""Transport between widths: planted copies, brute force, and POT's numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.match import weight_matching_test as examples
from wsl import align, stats, tree
from wsl.align._transport import couplings, scaling

F = align.Factor
VECTORS = {'.*': None}  # no leaf contracts a group
MLP_VIEWS = {'^w': tree.Matrix(rows=(0,), columns=(1,))}
ATTENTION_VIEWS = {
  '^[qkv]$': tree.Matrix(rows=(0,), columns=(1,)),
  '^o$': tree.Matrix(rows=(0,), columns=(1,)),
}


def _mlp(sizes, seed):
  rng = np.random.default_rng(seed)
  params = {}
  for i, (n, m) in enumerate(itertools.pairwise(sizes)):
    params |= {f'w{i}': rng.normal(size=(n, m)), f'b{i}': rng.normal(size=m)}
  return params


def _apply(params, x):
  last = len(params) // 2 - 1
  params = {n: np.asarray(x) for n, x in params.items()}
  for i in range(last):
    x = np.tanh(x @ params[f'w{i}'] + params[f'b{i}'])
  return x @ params[f'w{last}'] + params[f'b{last}']


def _copy_units(params, copies, seed):
  """Widens hidden layers: unit i occurs copies[layer][i] times, shuffled.

  Weights out are split in random shares. Returns the shares too.
  """
  rng = np.random.default_rng(seed)
  wide, shares = dict(params), []
  for i, counts in enumerate(copies):
    source = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    share = rng.uniform(0.5, 1.5, len(source))
    share /= np.bincount(source, share)[source]
    wide |= {f'w{i}': wide[f'w{i}'][:, source], f'b{i}': wide[f'b{i}'][source]}
    wide[f'w{i + 1}'] = wide[f'w{i + 1}'][source] * share[:, None]
    shares.append(share)
  return wide, shares


SMALL, WIDE = (5, 4, 3, 2), (5, 7, 6, 2)
COPIES = ((3, 1, 1, 2), (1, 4, 1))
PAIR = {'symmetry': examples._mlp(SMALL), 'other': examples._mlp(WIDE)}
BACK = {'symmetry': examples._mlp(WIDE), 'other': examples._mlp(SMALL)}


def _gap(first, second):
  return max(float(np.abs(first[n] - second[n]).max()) for n in first)


@pytest.mark.parametrize('seed', range(4))
def test_copies_are_merged_and_weights_out_are_summed(seed):
  small = _mlp(SMALL, seed)
  wide, _ = _copy_units(small, COPIES, seed)
  found = align.transport(small, wide, views=MLP_VIEWS, **PAIR)
  assert _gap(small, found.params) < 1e-12
  assert found.distances[-1] < 1e-24
  # Each wide unit has one partner, and each small one as many as copies.
  for (name, table), counts in zip(sorted(found.maps.items()), COPIES):
    assert name in ('h1', 'h2')
    assert sorted(np.count_nonzero(table, 1)) == sorted(counts)
    assert (np.count_nonzero(table, 0) == 1).all()


@pytest.mark.parametrize('seed', range(3))
def test_a_small_model_becomes_a_wide_one_of_the_same_function(seed):
  small, wide = _mlp(SMALL, seed), _mlp(WIDE, seed + 10)  # unrelated
  found = align.transport(wide, small, views=MLP_VIEWS, **BACK)
  x = np.random.default_rng(seed).normal(size=(9, 5))
  np.testing.assert_allclose(
    _apply(found.params, x), _apply(small, x), atol=1e-12
  )
  for table in found.maps.values():
    np.testing.assert_array_equal(np.asarray(table).sum(1), 1)
    assert (np.asarray(table).sum(0) >= 1).all()
  # Without the division the copies' weights out would add up.
  wrong = align.transport(wide, small, views={'^w': None}, **BACK)
  assert np.abs(_apply(wrong.params, x) - _apply(small, x)).max() > 0.1


def test_exact_masses_of_copies_are_found_by_a_linear_program():
  small = _mlp(SMALL, 0)
  wide, shares = _copy_units(small, COPIES, 0)
  masses = {'h1': np.ones(4), 'h2': np.ones(3)}, dict(zip(('h1', 'h2'), shares))
  settings = {'views': MLP_VIEWS, 'marginals': 'both'} | PAIR
  found = align.transport(small, wide, masses=masses, **settings)
  assert _gap(small, found.params) < 1e-9
  # With equal masses units have to be split, and the function changes.
  split = align.transport(small, wide, **settings)
  assert _gap(small, split.params) > 0.1
  for name, table in split.maps.items():
    n, m = table.shape
    np.testing.assert_allclose(np.asarray(table).sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(np.asarray(table).sum(0), n / m, atol=1e-12)
    assert name in masses[0]


def _matching(fixed, moving, symmetry):
  """Returns the permutation of weight matching, and the squared distance."""
  visits = []
  found = align.weight_matching(
    fixed,
    moving,
    symmetry=symmetry,
    key=jax.random.key(0),
    progress=visits.append,
  )
  norms = sum(np.square(x).sum() for p in (fixed, moving) for x in p.values())
  return found, norms - 2 * visits[-1].objective


def test_equal_widths_give_a_permutation():
  symmetry = examples._mlp()
  sizes = [symmetry.factor[n].size for n in ('in', 'h1', 'h2', 'out')]
  fixed = _mlp(sizes, 0)
  moving, _ = _copy_units(fixed, [[1] * n for n in sizes[1:3]], 0)
  moving = {
    n: x + 0.1 * np.random.default_rng(1).normal(size=x.shape)
    for n, x in moving.items()
  }
  found = align.transport(fixed, moving, symmetry=symmetry, views=MLP_VIEWS)
  matched, distance = _matching(fixed, moving, symmetry)
  for name, table in found.maps.items():
    wanted = np.eye(table.shape[0])[np.asarray(matched[name])]
    np.testing.assert_array_equal(table, wanted)
  np.testing.assert_allclose(found.distances[-1], distance, rtol=1e-10)
  soft = align.transport(
    fixed, moving, symmetry=symmetry, views=MLP_VIEWS, marginals='both'
  )
  for name, table in soft.maps.items():
    np.testing.assert_array_equal(table, found.maps[name])


@pytest.mark.parametrize('name', ['attention', 'stack', 'chain', 'group_norm'])
def test_unrelated_models_of_equal_widths_are_matched_as_by_weights(name):
  """One move, or independent ones, solve these: no other local optimum."""
  symmetry = examples.SYMMETRIES[name]
  fixed, moving = _drawn(symmetry, 0), _drawn(symmetry, 1)
  found = align.transport(fixed, moving, symmetry=symmetry, views=VECTORS)
  matched, distance = _matching(fixed, moving, symmetry)
  np.testing.assert_allclose(found.distances[-1], distance, rtol=1e-10)
  for group in symmetry.groups:
    free = [o for o in group.outer if not symmetry.factor[o].pinned]
    table, order = found.maps[group.name], np.asarray(matched[group.name])
    if free and len(group.outer) == 1:  # heads: the pairs (u, sigma(u))
      outer = np.asarray(matched[free[0]])
      table = np.asarray(table)[np.arange(len(outer)), outer]
    if len(free) < 2 and table.ndim == order.ndim + 1:
      np.testing.assert_array_equal(table, np.eye(group.size)[order])


SOFT = [
  {},
  {'marginals': 'both'},
  {'regularisation': 0.05},
  {'regularisation': 0.05, 'unbalanced': 0.5},
]


@pytest.mark.parametrize('settings', SOFT)
@pytest.mark.parametrize('name', ['attention', 'gqa', 'heads_rnn', 'shared'])
def test_the_distance_never_rises_and_is_that_of_the_result(name, settings):
  symmetry = examples.SYMMETRIES[name]
  other = _resized(
    symmetry, {1: 1, 2: 3, 3: 2, 4: 5, 5: 4, 6: 9, 7: 8, 8: 7, 10: 4}
  )
  fixed, moving = _drawn(symmetry, 0), _drawn(other, 1)
  found = align.transport(
    fixed, moving, symmetry=symmetry, other=other, views=VECTORS, **settings
  )
  gaps = [
    np.square(fixed[n] - np.asarray(found.params[n])).sum() for n in fixed
  ]
  assert (np.diff(found.distances) <= 0).all()
  np.testing.assert_allclose(found.distances[-1], np.sum(gaps), rtol=1e-12)


def _resized(symmetry, sizes):
  factors = tuple(
    f if f.pinned else f._replace(size=sizes[f.size]) for f in symmetry.factors
  )
  return align.Symmetry(factors, symmetry.axes)


def _drawn(symmetry, seed):
  rng = np.random.default_rng(seed)
  params = {}
  for name, _ in symmetry.axes:
    widths = [
      sum(int(np.prod([f.size for f in segment])) for segment in axis)
      for axis in symmetry.plan(name)
    ]
    params[name] = rng.normal(size=widths)
  return params


def _attention(heads, units, vo):
  axis = examples._axis
  return align.Symmetry(
    (
      examples._fixed(3, 'x'),
      F('h', heads),
      F('qk', units, outer=('h',)),
      F('vo', vo, outer=('h',)),
    ),
    (
      ('k', (axis('x'), axis('h', 'qk'))),
      ('o', (axis('h', 'vo'), axis('x'))),
      ('q', (axis('x'), axis('h', 'qk'))),
      ('v', (axis('x'), axis('h', 'vo'))),
    ),
  )


def _semi_permutations(n, m):
  """All one-hot matrices [n, m], or [m, n] transposed, without empty lines."""
  if n < m:
    return [t.T for t in _semi_permutations(m, n)]
  maps = itertools.product(range(m), repeat=n)
  return [np.eye(m)[[*s]] for s in maps if len({*s}) == m]


def test_heads_and_their_units_are_the_best_of_all():
  """Enumerates all semi-permutations of units in all pairs of heads."""
  a, b = (2, 2, 3), (3, 3, 2)
  symmetry, other = _attention(*a), _attention(*b)
  fixed, moving = _drawn(symmetry, 0), _drawn(other, 1)
  found = align.transport(
    fixed, moving, symmetry=symmetry, other=other, views=ATTENTION_VIEWS
  )
  cut = lambda p, n, s, axis: (
    np.moveaxis(p[n].reshape((3, *s) if axis else (*s, 3)), 0, -1)
    if axis
    else p[n].reshape((*s, 3))
  )
  parts = {'q': 1, 'k': 1, 'v': 1, 'o': 0}
  values = np.zeros((2, 3))
  best = {'qk': {}, 'vo': {}}
  for i, j in itertools.product(range(2), range(3)):
    for group, leaves, n, m in (('qk', 'qk', 2, 3), ('vo', 'vo', 3, 2)):
      cost = np.zeros((n, m))
      for leaf in leaves:
        x = cut(fixed, leaf, (2, n), parts[leaf])[i]
        y = cut(moving, leaf, (3, m), parts[leaf])[j]
        # Weights out of a head and of its units are taken per mass.
        y = y if parts[leaf] else y * 3 / 2 * m / n
        cost += np.square(x[:, None] - y[None]).sum(-1)
      options = [
        (np.sum(t * cost) * (1 if n >= m else n / m), k)
        for k, t in enumerate(_semi_permutations(n, m))
      ]
      value, k = min(options)
      values[i, j] += value
      best[group][i, j] = _semi_permutations(n, m)[k] * (1 if n >= m else n / m)
  head = min(_semi_permutations(2, 3), key=lambda t: np.sum(t * values))
  np.testing.assert_allclose(found.maps['h'], head * 2 / 3)
  for group, pairs in best.items():
    for (i, j), wanted in pairs.items():
      np.testing.assert_allclose(found.maps[group][i, j], wanted)
  # The carried output map sums over both heads and units.
  o = moving['o'].reshape(3, 2, 3)
  divide = np.einsum('ij,ijuv->iujv', head, np.asarray(found.maps['vo']))
  divide /= divide.sum((0, 1))
  wanted = np.einsum('iujv,jvx->iux', divide, o).reshape(6, 3)
  np.testing.assert_allclose(found.params['o'], wanted, atol=1e-12)


def _scores(params, x):
  """Attention scores of heads of any size, without a temperature."""
  q, k = (jnp.einsum('sx,xhu->shu', x, params[n]) for n in 'qk')
  return jnp.einsum('shu,thu->hst', q, k).sum(0)


def test_units_of_queries_and_keys_are_divided_in_one_of_them():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(4, 3)))
  draw = lambda h, u: {n: jnp.asarray(rng.normal(size=(3, h, u))) for n in 'qk'}
  small, wide = draw(2, 2), draw(2, 5)
  find = lambda p: align.find_symmetry(_scores, p, x)
  views = stats.matrix_views(_scores, wide, x)
  found = align.transport(
    wide, small, symmetry=find(wide), other=find(small), views=views
  )
  wanted = np.asarray(_scores(small, x))
  np.testing.assert_allclose(_scores(found.params, x), wanted, atol=1e-12)


# POT 0.9.7: ot.emd, ot.sinkhorn(.05, 'sinkhorn_log') and
# ot.unbalanced.sinkhorn_unbalanced(.05, .3, reg_type='kl') of masses / 3, times
# 3; all until convergence.
COST = [
  [0.625, 0.897, 0.776, 0.225],
  [0.3, 0.874, 0.005, 0.821],
  [0.797, 0.468, 0.303, 0.278],
]
ROWS, COLUMNS = np.asarray([0.5, 1, 1.5]), np.asarray([1.2, 0.3, 0.9, 0.6])
EXACT = [[0.2, 0, 0, 0.3], [1, 0, 0, 0], [0, 0.3, 0.9, 0.3]]
BALANCED = [
  [0.3122652010120436, 8.888279799298355e-06, 8.900616007897684e-06]
  + [0.1877170100921493],
  [0.8242609980608451, 5.587534382396356e-08, 0.17573894110542435]
  + [4.958387148816103e-09],
  [0.06347380092711168, 0.2999910558448567, 0.7242521582785677]
  + [0.41228298494946347],
]
UNBALANCED = [
  [0.024151276267772814, 6.428544570332696e-06, 4.431052174922474e-06]
  + [0.2152780735435154],
  [0.4164778320181107, 2.640132922353761e-07, 0.5715647628619437]
  + [3.7149010117464174e-08],
  [0.003172611724152539, 0.14021974426605882, 0.23301427046916756]
  + [0.3055607056283752],
]


def test_transport_problems_have_the_solutions_of_pot():
  cost = np.stack([COST, np.flip(COST)])
  rows, columns = (
    np.stack([ROWS, ROWS[::-1]]),
    np.stack([COLUMNS, COLUMNS[::-1]]),
  )
  exact = couplings.exact(cost, rows, columns, align.assign_scipy)
  soft = scaling.entropic(cost, rows, columns, epsilon=0.05)
  free = scaling.entropic(cost, rows, columns, epsilon=0.05, strength=0.3)
  for found, wanted in ((exact, EXACT), (soft, BALANCED), (free, UNBALANCED)):
    np.testing.assert_allclose(found[0], wanted, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found[1], np.flip(found[0]), rtol=1e-9)


@pytest.mark.parametrize(('n', 'm'), [(4, 6), (6, 4), (3, 5), (5, 5)])
def test_copies_of_units_solve_the_linear_program(n, m):
  from scipy import optimize

  cost = np.random.default_rng(n).normal(size=(2, n, m))
  rows, columns = np.ones((2, n)), np.full((2, m), n / m)
  found = couplings.exact(cost, rows, columns, align.assign_scipy)
  np.testing.assert_allclose(found.sum(-1), rows)
  np.testing.assert_allclose(found.sum(-2), columns)
  equations = np.concatenate(
    [np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))]
  )
  masses = np.concatenate([rows[0], columns[0]])
  for c, t in zip(cost, found):
    best = optimize.linprog(c.ravel(), A_eq=equations, b_eq=masses)
    np.testing.assert_allclose(np.sum(c * t), best.fun, atol=1e-10)


@pytest.mark.parametrize(('n', 'm'), [(4, 2), (2, 4), (3, 3), (4, 1)])
def test_semi_permutations_are_the_best_of_all(n, m):
  cost = np.random.default_rng(n).normal(size=(n, m))
  found = couplings.semi_permutation(
    cost, np.ones(n), np.full(m, n / m), align.assign_scipy
  )
  best = min(_semi_permutations(n, m), key=lambda t: np.sum(t * cost))
  np.testing.assert_array_equal(found, best * (1 if n >= m else n / m))


def test_groups_without_selected_leaves_keep_their_order():
  small = _mlp(SMALL, 0)
  wide, _ = _copy_units(small, COPIES, 0)
  found = align.transport(
    small, wide, views=MLP_VIEWS, leaves='^[wb]0$', **PAIR
  )
  np.testing.assert_allclose(found.params['w0'], small['w0'], atol=1e-12)
  wanted = np.equal.outer(np.arange(3), np.arange(6) % 3) / 2
  np.testing.assert_array_equal(found.maps['h2'], wanted)


def test_an_integer_ratio_of_widths_keeps_the_moments_of_units():
  """All units have equally many copies: normalised units are the same."""
  widths = (5, 4, 2), (5, 8, 2)
  small, wide = (_mlp(sizes, i) for i, sizes in enumerate(widths))
  symmetries = [examples._mlp(sizes) for sizes in widths]

  def apply(params, x):
    h = x @ np.asarray(params['w0']) + np.asarray(params['b0'])
    h = (h - h.mean(1, keepdims=True)) / h.std(1, keepdims=True)
    return np.tanh(h) @ np.asarray(params['w1'])

  found = align.transport(
    wide,
    small,
    symmetry=symmetries[1],
    other=symmetries[0],
    views=MLP_VIEWS,
    marginals='both',
  )
  x = np.random.default_rng(0).normal(size=(9, 5))
  np.testing.assert_allclose(
    apply(found.params, x), apply(small, x), atol=1e-12
  )
  np.testing.assert_array_equal(np.count_nonzero(found.maps['h1'], 0), 2)


def test_unbalanced_transport_drops_a_unit_without_partner():
  small = _mlp((5, 4, 2), 0)
  moving = {n: x.copy() for n, x in small.items()}
  strange = {'w0': np.full((5, 1), 4.0), 'b0': np.full(1, -9.0)}
  moving = {
    'w0': np.concatenate([small['w0'], strange['w0']], 1),
    'b0': np.concatenate([small['b0'], strange['b0']]),
    'w1': np.concatenate([small['w1'], np.full((1, 2), 5.0)]),
    'b1': small['b1'],
  }
  settings = {
    'symmetry': examples._mlp((5, 4, 2)),
    'other': examples._mlp((5, 5, 2)),
    'views': MLP_VIEWS,
    'regularisation': 0.002,
  }
  free = align.transport(small, moving, unbalanced=0.05, **settings)
  mass = np.asarray(free.maps['h1']).sum(0)
  assert mass[4] < 1e-6 < 0.5 < mass[:4].min()
  assert np.abs(np.asarray(free.params['w0']) - small['w0']).max() < 1e-6
  bound = align.transport(small, moving, **settings)
  assert np.asarray(bound.maps['h1']).sum(0)[4] > 0.7


def test_arithmetic_is_wide_and_dtypes_are_kept():
  small = _mlp(SMALL, 0)
  wide, _ = _copy_units(small, COPIES, 0)
  half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), wide)
  half |= {'b1': jnp.asarray(wide['b1'], jnp.float32)}
  symmetries = {
    key: align.Symmetry(s.factors, (*s.axes, ('step', ())))
    for key, s in PAIR.items()
  }
  step = {'step': np.int32(3)}
  fixed = jax.tree.map(lambda x: x.astype(np.float32), small) | step
  found = align.transport(fixed, half | step, views=MLP_VIEWS, **symmetries)
  assert found.params['w0'].dtype == jnp.bfloat16
  assert found.params['b1'].dtype == np.float32
  assert found.params['step'] == 3
  assert all(x.dtype == np.float32 for x in found.maps.values())
  gap = np.abs(np.asarray(found.params['w1'], np.float32) - small['w1']).max()
  assert gap < 0.02


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'regularisation': -1.0}, 'regularisation=-1.0, expected >= 0'),
    (
      {'unbalanced': 0.0, 'regularisation': 0.1},
      'unbalanced=0.0, expected > 0',
    ),
    ({'unbalanced': 1.0}, 'needs regularisation > 0'),
    ({'marginals': 'one'}, "marginals='one', expected one of"),
    ({'marginals': 'semi', 'regularisation': 0.1}, 'semi-permutations are'),
    ({'max_sweeps': 0}, 'max_sweeps=0, expected at least 1'),
    ({'masses': ({'h3': np.ones(3)}, {})}, "a group 'h3'"),
    ({'masses': ({'h2': np.ones(4)}, {})}, "masses of group 'h2' of shape"),
    ({'masses': ({'h2': -np.ones(3)}, {})}, "masses of group 'h2'"),
    ({'views': {}}, "leaf 'w0' has no rule in views="),
    ({'other': examples._mlp((5, 7, 6, 3))}, "moving: leaf 'b2' has shape"),
    ({'symmetry': examples._mlp((5, 4, 3, 2, 2))}, 'transport: fixed'),
  ],
)
def test_mistakes_are_named(settings, message):
  settings = {'views': MLP_VIEWS} | PAIR | settings
  with pytest.raises(ValueError, match=message) as error:
    align.transport(_mlp(SMALL, 0), _mlp(WIDE, 1), **settings)
  assert len(str(error.value)) <= 200


def test_models_of_different_inputs_or_architectures_are_refused():
  other = examples._mlp((6, 7, 6, 2))
  settings = {'symmetry': PAIR['symmetry'], 'views': MLP_VIEWS}
  with pytest.raises(ValueError, match="'in' has 5 entries in fixed and 6"):
    align.transport(
      _mlp(SMALL, 0), _mlp((6, 7, 6, 2), 1), other=other, **settings
    )
  wide = PAIR['other']
  pinned = tuple(
    f._replace(pinned='odd') if f.name == 'h1' else f for f in wide.factors
  )
  with pytest.raises(ValueError, match="factor 'h1' is a group, or depends on"):
    align.transport(
      _mlp(SMALL, 0),
      _mlp(WIDE, 1),
      other=align.Symmetry(pinned, wide.axes),
      **settings,
    )
  swapped = align.Symmetry(
    wide.factors,
    tuple((n, (a[0][::-1],) if n == 'b0' else a) for n, a in wide.axes),
  )
  fused = align.Symmetry(
    swapped.factors,
    tuple((n, ((('h1',),),)) if n == 'b1' else (n, a) for n, a in wide.axes),
  )
  moving = _mlp(WIDE, 1) | {'b1': np.ones(7)}
  with pytest.raises(ValueError, match="axes of leaf 'b1' have other factors"):
    align.transport(_mlp(SMALL, 0), moving, other=fused, **settings)
  broken = _mlp(WIDE, 1)
  broken['w1'][0, 0] = np.nan
  with pytest.raises(ValueError, match="moving: leaf 'w1' has NaN"):
    align.transport(_mlp(SMALL, 0), broken, other=wide, **settings)
