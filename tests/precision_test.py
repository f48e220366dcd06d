"""Products of weights and activations have an explicit precision everywhere.

An accelerator multiplies float32 in fewer bits unless a product asks for more,
and a user may lower the default. The functions of the user, here ``mlp``, keep
the precision that they ask for: ``'default'``, which marks them.
"""

from collections.abc import Iterator
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, jaxprs, landscape, merge, scale, stats, stitch, tree
from wsl.align import _soft

HIGHEST = (lax.Precision.HIGHEST,) * 2
USERS = (lax.Precision.DEFAULT,) * 2
T, N, H, M = 3, 12, 6, 2


def normal(*shape, seed=0):
  draw = np.random.default_rng([seed, *shape]).normal(size=shape)
  return jnp.asarray(draw, jnp.float32)


def mlp(p, x):
  h = jax.nn.relu(jnp.matmul(x, p['a'], precision='default') + p['b'][None])
  return jnp.matmul(h, p['c'], precision='default')


def draw(seed):
  shapes = {'a': (4, H), 'b': (H,), 'c': (H, M)}
  return {n: normal(*s, seed=seed) for n, s in shapes.items()}


A, B = draw(1), draw(2)
DELTAS = jax.tree.map(lambda *x: jnp.stack(x), *map(draw, range(T)))
X, Y = normal(N, 4, seed=3), normal(N, 5, seed=4)
GRAMS = tree.stack([stats.gram(mlp, draw(i), [X]) for i in range(T)])
SYMMETRY = align.find_symmetry(mlp, A, X)
KEY = jax.random.key(0)
LABELS = np.arange(N) % M


def products(
  program: jaxprs.Program,
) -> Iterator[Any]:
  """Yields the products of a program and of all programs inside it."""
  jaxpr: Any = getattr(program, 'jaxpr', program)
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in jaxprs.PRODUCTS:
      yield eqn
    for inner in jaxprs.inner(eqn):
      yield from products(inner)


def _two_layers():
  base = {'w': normal(2, 4, 5, seed=7), 'b': normal(2, 5, seed=8)}
  models = [jax.tree.map(lambda x, s=s: s * x, base) for s in (0.5, 2.0)]
  return base, scale.bank(base, models)


def _low_rank():
  """A base of two layers with a bank of low-rank rows."""
  base = {'w': normal(2, 4, 5, seed=7)}
  rows = [
    {'w': scale.LowRank(normal(2, 4, 3, seed=i), normal(3, 5, seed=i))}
    for i in (1, 2)
  ]
  bank = scale.bank(base, rows)
  compose = lambda coefs: scale.compose(base, bank, coefs)
  return compose, (scale.init(bank, by='leaf', value=0.3),)


def _composed(by):
  base, bank = _two_layers()
  coefs = scale.init(bank, by=by, value=0.3, key=KEY)
  return lambda coefs: scale.compose(base, bank, coefs), (coefs,)


def _scanned(coefs):
  base, bank = _two_layers()
  block = lambda p, h: h + p['w'].sum() * p['b'].sum()
  return scale.scan(block, jnp.ones(3, 'float32'), base, bank, coefs)


def _cross(x, y):
  take = lambda z: [z]
  found = stats.cross_moments(
    lambda b: take(b[0]), lambda b: take(b[1]), [(x, y)]
  )
  return found[0, 0]


def _permuted(free):
  doubly = jax.nn.softmax(free)
  return _soft.apply(B, {'a:1': doubly}, symmetry=SYMMETRY)


def _sinkhorn_slope(free):
  loss = lambda f: sum(
    jnp.sum(jnp.square(x - y))
    for x, y in zip(jax.tree.leaves(_permuted(f)), jax.tree.leaves(A))
  )
  return jax.grad(loss)(free)


def _regmean(deltas):
  return merge.regmean(deltas, grams=GRAMS, shrink=0.1)


def _slope(fn):
  """Returns the gradient of the sum of squares of a function's results."""
  total = lambda x: sum(jnp.sum(jnp.square(y)) for y in jax.tree.leaves(fn(x)))
  return jax.grad(total)


# Functions that can be traced, and their arguments.
TRACED = {
  'merge.tsv': (merge.tsv, (DELTAS,)),
  'merge.iso_c': (merge.iso_c, (DELTAS,)),
  'merge.iso_cts': (merge.iso_cts, (DELTAS,)),
  'merge.regmean': (_regmean, (DELTAS,)),
  'merge.tsv, differentiated': (_slope(merge.tsv), (DELTAS,)),
  **{
    f'scale.compose, {by}': _composed(by)
    for by in ('leaf', ('channel', -1), ('random', 4))
  },
  'scale.compose, low rank': _low_rank(),
  'scale.compose, low rank, differentiated': (
    _slope(_low_rank()[0]), _low_rank()[1]
  ),
  'scale.scan': (_scanned, _composed(('channel', 0))[1]),
  'stats.cka': (lambda x, y: stats.cka(_cross(x, y)), (X, Y)),
  'stats.cca': (lambda x, y: stats.cca(_cross(x, y)), (X, Y)),
  'stats.rbf_cka': (stats.rbf_cka, (X, Y)),
  'stats.least_squares': (
    lambda x, y: stats.least_squares(_cross(x, y)), (X, Y)
  ),
  'stitch.fit': (lambda x, y: stitch.fit(x, y), (X, Y)),
  'stitch.fit, low rank': (
    lambda x, y: stitch.fit(x, y, kind='low_rank', rank=2, key=KEY), (X, Y)
  ),
  'stitch.translate': (
    lambda x, y: stitch.translate(x, y).weight, (X, X[:, ::-1])
  ),
  'stitch.relative': (stitch.relative, (X, X[:3])),
  'stitch.orthogonal': (stitch.orthogonal, (normal(4, 4),)),
  'align.sinkhorn: soft permutations': (_permuted, (normal(H, H),)),
  'align.sinkhorn: their gradient': (_sinkhorn_slope, (normal(H, H),)),
  'align.unit_gains': (
    lambda a, b: align.unit_gains(a, b, symmetry=SYMMETRY), (A, B)
  ),
  'align.sinkhorn_project': (
    lambda x: align.sinkhorn_project(x, temperature=1.0, iterations=3),
    (normal(H, H),),
  ),
  'landscape.interpolate': (
    lambda a, b: landscape.interpolate(a, b, 0.3, check_finite=False), (A, B)
  ),
}  # fmt: skip


def _pleas():
  grams = stats.joint_gram(mlp, [A, B], [X])
  return align.pleas(A, B, symmetry=SYMMETRY, separate=0.5, grams=grams).params


def _repair():
  measure = lambda p: stats.moments(mlp, p, [X])
  middle = landscape.interpolate(A, B, 0.5)
  return align.repair(
    middle, measure=measure, endpoints=[measure(A), measure(B)], shift=False
  )


# Functions that compute on the host between their products.
HOST = {
  'align.weight_matching': lambda: align.weight_matching(
    A, B, symmetry=SYMMETRY, key=KEY
  ),
  'align.activation_matching': lambda: align.activation_matching(
    A, B, symmetry=SYMMETRY, apply_fn=mlp, batches=[X]
  ),
  'align.sinkhorn': lambda: align.sinkhorn(
    A, B, symmetry=SYMMETRY, key=KEY, steps=2
  ),
  'align.match_many': lambda: align.match_many(
    [A, B, draw(5)], symmetry=SYMMETRY, key=KEY
  ),
  'align.pleas': _pleas,
  'align.repair': _repair,
  'merge.fisher': lambda: merge.fisher(
    DELTAS,
    fishers=tree.stack([stats.fisher(mlp, draw(i), [X]) for i in range(T)]),
  ),
  'merge.regmean': lambda: merge.regmean(
    DELTAS,
    grams=tree.stack([stats.gram(mlp, draw(i), [X]) for i in range(T)]),
    shrink=0.1,
  ),
  'stats.cross_moments': lambda: _cross(X, Y),
  'stats.joint_gram': lambda: stats.joint_gram(mlp, [A, B], [X]),
  'landscape.singular_alignment': lambda: landscape.singular_alignment(A, B),
}


def _at(precision: Any) -> bool:
  both = precision if isinstance(precision, tuple) else (precision,) * 2
  return both in (HIGHEST, USERS)


@pytest.mark.parametrize('name', TRACED)
def test_products_of_traced_functions_ask_for_the_highest_precision(name):
  fn, args = TRACED[name]
  for eqn in products(jax.make_jaxpr(fn)(*args)):
    assert _at(eqn.params['precision']), eqn


@pytest.fixture
def asked(monkeypatch):
  """Collects the precision of each product that is traced or computed."""
  found = []
  jax.clear_caches()

  def watch(primitive):
    bind = primitive.bind

    def watched(*args, **params):
      found.append(params['precision'])
      return bind(*args, **params)

    monkeypatch.setattr(primitive, 'bind', watched)

  watch(lax.dot_general_p)
  watch(lax.conv_general_dilated_p)
  return found


@pytest.mark.parametrize('name', HOST)
def test_products_on_the_host_ask_for_the_highest_precision(name, asked):
  HOST[name]()
  assert all(map(_at, asked)), asked


def test_the_watch_sees_products(asked):
  jax.jit(jnp.matmul)(X.T, Y)
  assert asked == [None]
  program = jax.make_jaxpr(jax.jit(jnp.matmul))(X.T, Y)
  assert [eqn.params['precision'] for eqn in products(program)] == [None]


@pytest.mark.parametrize('name', [*TRACED, *HOST])
def test_a_lower_default_changes_no_result(name):
  def run():
    jax.clear_caches()
    if name in HOST:
      return HOST[name]()
    fn, args = TRACED[name]
    return jax.jit(fn)(*args)

  wanted = run()
  with jax.default_matmul_precision('bfloat16'):
    found = run()
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
    np.testing.assert_array_equal(x, y)
