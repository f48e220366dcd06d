"""Arguments of all rooms: a bad one is named in one line, a good one counts.

``tests/defaults_test.py`` runs this file a second time with JAX's defaults.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import (
  adapters,
  align,
  batches,
  codecs,
  deltas,
  landscape,
  merge,
  scale,
  search,
  stats,
  stitch,
  surgery,
  train,
  tree,
  types,
)

RNG = np.random.default_rng(0)
MATRIX = {'w': RNG.normal(size=(4, 3)).astype(np.float32)}
A, B, C = ({'w': RNG.normal(size=(2, 2)).astype(np.float32)} for _ in range(3))
STACK = {'w': RNG.normal(size=(3, 2, 2)).astype(np.float32)}
PLANE = landscape.Plane(A, B, C)
CURVE = landscape.Curve(A, {'w': B['w'][None]}, C)
ROUTER = merge.Router(jnp.eye(2), jnp.zeros(2))
FACTORS = deltas.Factors(
  jnp.ones((1, 4)), jnp.ones((3, 1)), 1.0, (4, 3), tree.Matrix((0,), (1,))
)
MEAN = merge.running_mean()
UNIT, INPUT = align.Factor('h', 2), align.Factor('x', 2, 'an input')
SCALE = align.Action(
  'scale h',
  'scale',
  'h',
  (align.Power('v', 0, 0, 0, 1.0), align.Power('w', 0, 0, 0, -1.0)),
)
SYMMETRY = align.Symmetry(
  (UNIT, INPUT),
  (
    ('n', ()),
    ('v', ((('h',),), (('x',),))),
    ('w', ((('h',),), (('x',),))),
  ),
  (SCALE,),
)
MODELS = [
  {'n': np.asarray(n), 'v': RNG.normal(size=(2, 2)).astype(np.float32), **p}
  for n, p in ((3, A), (4, B), (5, C))
]


VIEWS = {'v|w': tree.Matrix(rows=(1,), columns=(0,))}
CODED_MODEL = MODELS[0] | {'v': np.ones((2, 2), np.int8)}


def permute(order: Any, **scales: Any) -> Any:
  tables = {'h': order} | {f'{k} h': v for k, v in scales.items()}
  return align.permute(MODELS[0], tables, symmetry=SYMMETRY)


CODES = [{'w': np.asarray([n, 3])} for n in (1, 2)]
FLOAT8 = [
  {
    'q': np.asarray([n, 3.0], jnp.float8_e4m3fn),
    'scale': np.asarray([n], np.float32),
  }
  for n in (1, 2, 3)
]
BRICK = {'w': surgery.BrickSlice(0, np.asarray([1]), 1)}
CODED = dataclasses.replace(FACTORS, a=np.ones((1, 4), int))
ORDER = np.asarray([1, 0])
LOGITS = np.zeros((2, 3, 4), np.float32)

# The call, and what its message says.
BAD: list[tuple[Any, str]] = [
  (lambda: landscape.bezier(CURVE, [0.5]), 'bezier: t has shape (1,)'),
  (lambda: landscape.polygon(CURVE, 1.5), 'polygon: t=1.5, expected'),
  (lambda: landscape.polygon(CURVE, np.nan), 'polygon: t is NaN'),
  (lambda: landscape.plane_point(PLANE, [1.0], 0), 'plane_point: x has shape'),
  (
    lambda: landscape.path(lambda p: p['w'], A, B, points=2.5),
    'path: points=2.5 is a float',
  ),
  (lambda: landscape.heights(np.ones(3), t=0.5), 'heights: t has shape ()'),
  (
    lambda: landscape.heights(np.ones(3), t=[0, 1, 2]),
    'heights: t is 0 .. 2, expected',
  ),
  (lambda: merge.fold(MEAN, STACK, order=[0, 3]), 'fold: order has positions'),
  (lambda: merge.fold(MEAN, STACK, order=[-1, 0]), 'fold: order has positions'),
  (lambda: merge.fold(MEAN, STACK, order=[0.0]), 'fold: order is of float64'),
  (lambda: merge.fold(MEAN, STACK, order=1), 'fold: order is of int64 and'),
  (
    lambda: merge.karcher([A, B], tolerance=-1.0),
    'karcher(tolerance=-1.0): expected numbers >= 0',
  ),
  (lambda: merge.nearswap(A, B, t=-1.0), 'nearswap(t=-1.0): expected'),
  (lambda: merge.emr(STACK, dialect=['paper']), 'expected one of'),
  (lambda: merge.materialize(STACK, 0.5), 'materialize(task=0.5): expected'),
  (
    lambda: merge.route(ROUTER, jnp.ones(2), temperature=0),
    'route(temperature',
  ),
  (lambda: merge.route(ROUTER, jnp.ones(3)), 'route: features has shape (3,)'),
  (lambda: adapters.extract(MATRIX, energy=[0.5]), 'extract: energy has shape'),
  (lambda: adapters.extract(MATRIX, rank=1, dtype=2.5), 'extract(dtype='),
  (lambda: adapters.factorise(MATRIX, ratio='a'), 'factorise: ratio is of'),
  (lambda: deltas.times(FACTORS, [1.0, 2.0]), 'times: number has shape (2,)'),
  (lambda: deltas.apply(A, B, dtype=[1]), 'apply: dtype=list'),
  (lambda: tree.cast(A, None), 'cast: dtype=None'),
  (lambda: codecs.bitstack(MATRIX, rank=1.5), 'bitstack: rank is 1.5'),
  (
    lambda: surgery.magnitude_masks(MATRIX, sparsity=[0.5]),
    'magnitude_masks: sparsity has shape (1,)',
  ),
  (
    lambda: surgery.phase_sparsities(0.5, 2.5),
    'phase_sparsities: phases is 2.5, expected an integer',
  ),
  (
    lambda: jax.jit(lambda n: surgery.stack(4, times=n).depth)(2),
    'stack: times is traced',
  ),
  (
    lambda: surgery.group_experts(np.ones(4), np.eye(4), count=2.5),
    'group_experts: count is 2.5',
  ),
  (
    lambda: surgery.matryoshka_loss(LOGITS, np.zeros(3)),
    'matryoshka_loss: logits (2, 3, 4) need integer labels',
  ),
  (lambda: permute(np.asarray([0, 0])), "permutation of 'h' is no order"),
  (lambda: permute(np.asarray([0, -1])), "permutation of 'h' is no order"),
  (lambda: permute(np.asarray([0.0, 1.0])), "of 'h' is of float64: give ind"),
  (lambda: permute([0, 1]), "permutation of 'h' is a list: give an array"),
  (
    lambda: permute(ORDER, scale=np.asarray([0.0, 1.0])),
    "permutation of 'scale h' holds numbers that are not positive",
  ),
  (
    lambda: permute(ORDER, scale=np.asarray([np.nan, 1.0])),
    "permutation of 'scale h' holds NaN",
  ),
  (
    lambda: permute(ORDER, scale=np.asarray([1j, 1.0])),
    "permute: 'scale h' is complex, and leaf 'v' is float32",
  ),
  (
    lambda: align.permute(
      jax.tree.map(lambda x: x.astype(np.int8), MODELS[0]),
      {'h': ORDER, 'scale h': np.ones(2)},
      symmetry=SYMMETRY,
    ),
    "permute: leaf 'v' is int8, and 'scale h' would be rounded",
  ),
  (
    lambda: align.invert([ORDER], symmetry=SYMMETRY),
    'invert: permutation is a list: give a dict of tables',
  ),
  (
    lambda: align.random(SYMMETRY, jax.random.key(0), gauges=('scales',)),
    "random: gauges has 'scales': expected some of",
  ),
  (
    lambda: align.balance(MODELS[0], symmetry=SYMMETRY, gauges=None),
    'balance: gauges is None: expected a tuple of some of',
  ),
  (
    lambda: jax.jit(lambda p: align.agreement([p, p]))(MODELS[0]),
    "agreement: leaf 'n' is traced, and agreement computes on the host",
  ),
  (
    lambda: align.pleas(
      CODED_MODEL, MODELS[1], symmetry=SYMMETRY, separate=0.5, grams={}
    ),
    "pleas: b: integer leaf 'v' differs from a's: quantised?",
  ),
  (
    lambda: align.partial_cost(*MODELS[:2], symmetry=SYMMETRY, separate=[0.5]),
    'partial_cost: separate has shape (1,)',
  ),
  (
    lambda: align.transport(
      *MODELS[:2], symmetry=SYMMETRY, views=VIEWS, masses=[0.5, 0.5]
    ),
    'transport: masses is a list: give two dicts',
  ),
  (
    lambda: align.learned_matching(
      *MODELS[:2],
      symmetry=SYMMETRY,
      key=jax.random.key(0),
      loss_fn=lambda p, x: 0.0,
      batches=np.ones((2, 2)),
    ),
    'learned_matching: batches is one array of shape (2, 2)',
  ),
  (
    lambda: search.crossover(A, B, split=[1.0], weight=0.5),
    'crossover: split has shape (1,), expected a number',
  ),
  (
    lambda: search.crossover(A, B, split=-1, weight=0.5),
    'crossover: split=-1, expected 0 .. inf',
  ),
  (
    lambda: search.crossover(*CODES, split=1, weight=0.5),
    "crossover: b: integer leaf 'w' differs from a's: quantised?",
  ),
  (
    lambda: landscape.curve(*CODES),
    "curve: b: integer leaf 'w' differs from a's: quantised?",
  ),
  (
    lambda: landscape.plane(*FLOAT8),
    "plane: b: float8_e4m3fn leaf 'q' beside 'scale' differs",
  ),
  (
    lambda: surgery.update_brick(CODES[0], BRICK, {'w': np.ones(1)}),
    "update_brick: values of leaf 'w' are float64, the leaf is int64",
  ),
  (
    lambda: surgery.update_brick(
      {'w': np.ones(2, np.float16)}, BRICK, {'w': np.full(1, 1e5)}
    ),
    "update_brick: leaf 'w' has 1 NaN or infinite value: the values overflow",
  ),
  (
    lambda: surgery.upcycle(
      CODES[0], experts=2, width=2, key=jax.random.key(0), mlps=''
    ),
    "upcycle: leaf 'w' is int64: quantised? dequantise first",
  ),
  (
    lambda: surgery.elastic_kernel(np.ones((3, 3), np.int8), {}, side=3),
    'elastic_kernel: the kernel is int8',
  ),
  (
    lambda: surgery.robust_signatures({'w': np.ones((2, 2), int)}, CODES[0]),
    "robust_signatures: leaf 'w' is int64",
  ),
  (
    lambda: scale.tip_adapter(jnp.eye(2), [1, 0], classes=2, alpha=[1.0, 2.0]),
    'tip_adapter: alpha has shape (2,)',
  ),
  (
    lambda: scale.tip_adapter(jnp.eye(2), [1.0, 0.0], classes=2),
    'tip_adapter: labels are of float',
  ),
  (
    lambda: stitch.class_means(np.ones((2, 2)), [0, -1], classes=2),
    'class_means: labels are not in 0 .. 1',
  ),
  (
    lambda: stitch.fusion_loss(LOGITS[0], np.zeros(3, int), LOGITS[0], share=2),
    'fusion_loss: share=2, expected 0 .. 1',
  ),
  (
    lambda: stitch.fusion_loss(LOGITS[0], np.zeros(3, int), LOGITS[0], mask=1),
    'fusion_loss: mask has shape (), expected (3,)',
  ),
  (
    lambda: stitch.relative(np.ones((3, 4)), np.ones((2, 4)), center=0.5),
    'relative: center has shape (), expected True, False or (4,)',
  ),
  (lambda: stitch.simplex(3, dtype=int), 'simplex: dtype=int64: expected a'),
  (
    lambda: stitch.random_basis(
      jax.random.key(0), new=3, old=2, extra=1, kind=['cayley']
    ),
    "random_basis: no kind '['cayley']' (did you mean 'cayley'?)",
  ),
  (
    lambda: stats.rbf_cka(np.eye(4), np.eye(4), width=[1.0]),
    'rbf_cka: width has shape (1,)',
  ),
  (
    lambda: deltas.apply(A, {'w': 1j * A['w']}),
    "apply: delta leaf 'w' is complex64, the result float32 would drop",
  ),
  (
    lambda: adapters.project(np.ones(4), CODED),
    'project: has factors of int64: quantised? dequantise first',
  ),
  (
    lambda: surgery.widen(
      {'n': np.asarray(3), 'v': np.ones((2, 2), int), 'w': A['w']},
      {'h': 3},
      symmetry=SYMMETRY,
      views={'v|w': tree.Matrix(rows=(0,), columns=(1,))},
    ),
    "widen: leaf 'v' is int64, and copies divide it",
  ),
  (
    lambda: search.fit_surrogate(np.eye(9, 2), np.ones((9, 1)), link='logit'),
    "fit_surrogate: link='logit': expected one of",
  ),
  (
    lambda: search.niche_shares(jnp.ones((2, 2)), exponent=[1.0, 2.0]),
    'niche_shares: exponent has shape (2,)',
  ),
  (lambda: tree.compiled([1]), 'a list is no regular expression: give text'),
  (
    lambda: train.average(lambda p, x: x, A, np.ones(4), batch_size=2.5),
    'average: batch_size is 2.5',
  ),
]


@pytest.mark.parametrize(('call', 'message'), BAD, ids=[m for _, m in BAD])
def test_one_line_names_the_argument(call: Any, message: str) -> None:
  with pytest.raises(ValueError) as error:
    call()
  text = str(error.value)
  assert message in text
  assert '\n' not in text
  assert len(text) <= 200


def test_barriers_are_computed_in_wide_floats() -> None:
  """The chord of counts was rounded to integers, and float16 overflowed."""
  counts = np.asarray([0, 3, 2])
  assert [float(x) for x in landscape.heights(counts)] == [2.0, 2.0]
  half = np.asarray([60000, 65000, 60000], np.float16)
  rise = landscape.heights(half)
  assert [float(x) for x in rise] == [float(half[1]) - float(half[0])] * 2
  assert landscape.heights(counts.astype(np.float64)).above_chord.dtype == (
    np.float64
  )


def test_integers_are_no_directions_and_no_matrices() -> None:
  params = MATRIX | {'codes': np.ones((4, 4), np.int32)}
  found = landscape.random_plane(params, key=jax.random.key(0)).first
  assert found['codes'] is None
  np.testing.assert_allclose(
    np.linalg.norm(found['w'], axis=0),
    np.linalg.norm(params['w'], axis=0),
    rtol=1e-6,
  )
  other = {'w': -params['w'], 'codes': params['codes']}
  alignment = landscape.singular_alignment(params, other)
  assert float(alignment.mean) == pytest.approx(-1, abs=1e-6)
  empty = {'w': np.zeros((0, 3), np.float32)}
  assert float(landscape.singular_alignment(empty, empty).mean) == 0


def test_labels_outside_of_the_classes_give_nan() -> None:
  logits = np.asarray([[0.0, 3.0]] * 3, jnp.bfloat16)
  found = batches.cross_entropy(logits, np.asarray([1, -1, 2]), name='f')
  assert found.dtype == jnp.float32
  wanted = [np.log1p(np.exp(-3.0)), np.nan, np.nan]
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_karcher_without_a_tolerance() -> None:
  """Equal models have no tangent: 0 / 0 was NaN."""
  np.testing.assert_allclose(
    merge.karcher([A, A], tolerance=0.0)['w'], A['w'], rtol=1e-6
  )


def test_projected_integers_are_floats() -> None:
  half = dataclasses.replace(FACTORS, a=jnp.full((1, 4), 0.5))
  found = adapters.project(np.asarray([1, 0, 0, 0]), half)
  np.testing.assert_array_equal(found, [0.5] * 3)


def test_counters_stay_where_gauges_are_matched() -> None:
  """A leaf of integers, such as a count of batches, takes part in no gauge."""
  found = align.match_many(
    MODELS,
    symmetry=SYMMETRY,
    key=jax.random.key(0),
    max_sweeps=1,
    gauges=('permutation', 'scale'),
  )
  moved = align.permute(MODELS[1], found[1], symmetry=SYMMETRY)
  assert moved['n'] == 4
  inner = lambda p: np.sort(np.einsum('hx,hy->hxy', p['v'], p['w']), 0)
  np.testing.assert_allclose(inner(moved), inner(MODELS[1]), rtol=1e-5)


def test_tables_of_narrow_floats_are_composed_in_float32() -> None:
  scale = np.asarray([1.5, 3.0], jnp.bfloat16)
  tables = {'h': ORDER, 'scale h': scale}
  undone = align.invert(tables, symmetry=SYMMETRY)
  assert undone['scale h'].dtype == np.float32
  np.testing.assert_allclose(undone['scale h'], [1 / 3, 1 / 1.5], rtol=1e-6)


def test_children_keep_counters_and_shares_are_wide() -> None:
  a, b = ({'w': x, 'n': np.asarray([2**40])} for x in np.eye(2, dtype='f'))
  child = search.crossover(a, b, split=1, weight=0.0)
  assert child['n'][0] == 2**40
  np.testing.assert_array_equal(child['w'], [1.0, 1.0])
  tiny = [{'w': x['w'] * np.float32(1e-12)} for x in (a, b)]
  middle = search.crossover(*tiny, split=2, weight=0.5)
  # sin(pi / 4) / sin(pi / 2) of each; on a line it would be the half.
  np.testing.assert_allclose(middle['w'], np.sqrt(0.5) * 1e-12, rtol=1e-6)
  shares = search.niche_shares(np.full((2, 1), 60000, np.float16))
  np.testing.assert_allclose(shares, 0.5)


def test_an_empty_leaf_has_no_factors() -> None:
  params = {'e': np.zeros((0, 2), np.float32), 'w': np.ones((4, 4), np.float32)}
  found = adapters.factorise(params, rank=1)
  assert found.params['e'] is params['e']
  assert deltas.is_factors(found.params['w'])


def test_importance_squares_in_float32() -> None:
  """The squares of float16 overflow above 256, and vanish below 2e-4."""
  unit = align.Symmetry((UNIT,), (('v', ((('h',),),)),))
  params = {'v': np.asarray([1000.0, 1e-4], np.float16)}
  found = surgery.fisher_importance(
    params, {'v': np.ones(2, np.float32)}, symmetry=unit
  )
  wanted = np.asarray(params['v'], np.float64) ** 2 / 2
  np.testing.assert_allclose(found['h'], wanted, rtol=1e-6)


def test_the_past_leaves_counters_alone() -> None:
  rule = surgery.merge_past({'n': np.asarray([[1], [2]])}, momentum=0.5)
  now = {'n': np.asarray([4])}
  assert rule.update({'n': np.asarray([1])}, (), now)[0]['n'] == 1


def test_scores_of_complex_weights_are_real() -> None:
  grams = {'w': types.Gram(jnp.eye(2)[None])}
  weight = {'w': np.asarray([[3 + 4j], [1j]], np.complex64)}
  found = surgery.wanda_scores(weight, grams)['w']
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, [[5.0], [1.0]], rtol=1e-6)


def test_float64_is_not_narrowed() -> None:
  with jax.enable_x64(False):
    wide = {'w': np.ones(2)}
    bank = scale.bank(wide, [{'w': np.full(2, 3.0)}])
    np.testing.assert_array_equal(scale.combine(bank, 0.5)['w'], [1.0, 1.0])
    with pytest.raises(ValueError, match="project: leaf 'A' is float64"):
      adapters.project(
        np.ones(4, 'float32'), dataclasses.replace(FACTORS, a=np.ones((1, 4)))
      )
    with pytest.raises(ValueError, match='combine: leaf'):
      jax.jit(lambda c: scale.combine(bank, c))(jnp.asarray(0.5, 'float32'))
