"""Parameters of float64 at every door: computed in float64, or refused.

Under the suite's settings all results are float64. Under JAX's defaults a
function either computes on the host in float64, or says in one line that JAX
would narrow the leaf; none narrows it silently.
"""

from collections.abc import Callable
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsl import (
  align,
  deltas,
  landscape,
  merge,
  scale,
  stats,
  stitch,
  train,
  tree,
)

X64 = jax.config.read('jax_enable_x64')
NARROW = 'float64' if X64 else 'float32'  # what JAX makes of float64
WIDTHS = {'l0': (4, 6), 'l1': (6, 6), 'l2': (6, 3)}


def draw(seed: int, dtype: str = 'float64') -> dict[str, Any]:
  """Draws a model of three layers, as numpy arrays."""
  rng = np.random.default_rng(seed)
  layer = lambda shape: {
    'w': (rng.normal(size=shape) / 3).astype(dtype),
    'b': rng.normal(size=shape[1]).astype(dtype),
  }
  return {name: layer(shape) for name, shape in WIDTHS.items()}


def dense(p: Any, x: Any) -> Any:
  return jnp.matmul(x, p['w']) + p['b'][None]


def net(p: Any, x: Any) -> Any:
  for name in WIDTHS:
    x = dense(p[name], x if name == 'l0' else jnp.tanh(x))
  return x


def loss(p: Any, batch: Any, key: Any) -> Any:
  del key
  return jnp.mean(jnp.square(net(p, batch[0]))[:, 0])


A, B, C = (draw(seed) for seed in range(3))
X = np.random.default_rng(3).normal(size=(24, 4))
Y = np.arange(24, dtype=np.int32) % 3
SYMMETRY = align.find_symmetry(net, A, X)
LINEAR = align.find_symmetry(
  lambda p, x: dense(p['l2'], dense(p['l1'], dense(p['l0'], x))), A, X
)
KEY = jax.random.key(0)
GIVEN = {'symmetry': SYMMETRY, 'key': KEY}
ORDER = align.random(SYMMETRY, KEY, gauges=('permutation',))
SGD = optax.sgd(0.1)
BANK = scale.bank(A, [B, C])
COEFS = scale.init(BANK, by='leaf', value=1 / 3)
ONES = jax.tree.map(np.ones_like, A)


def blocks(p: Any) -> stitch.Segmented:
  part = lambda name: lambda p, x: dense(p[name], x)
  return stitch.cut(
    p,
    embed=(part('l0'), '^l0/'),
    blocks=[(part('l1'), '^l1/')],
    head=(part('l2'), '^l2/'),
  )


def trained(p: Any, steps: int = 1) -> Any:
  state = train.start(
    p, optimizer=SGD, aux={'n': np.zeros((), p['l0']['w'].dtype)}
  )
  with_aux = lambda p, aux, batch, key: (loss(p, batch, key), aux)
  return train.advance(
    with_aux,
    state,
    (X, Y),
    optimizer=SGD,
    steps=steps,
    batch_size=8,
    key=KEY,
  )[0].params


def fitted(base: Any) -> Any:
  coefs = scale.init(BANK, by='leaf')
  given = {'optimizer': SGD, 'steps': 2, 'key': KEY}
  return scale.fit(loss, base, BANK, coefs, [(X, Y)], **given).coefs.values


def scanned(base: Any) -> Any:
  layers = {'w': np.stack([base['l1']['w']] * 2)}
  bank = scale.bank(layers, [jax.tree.map(lambda x: 2 * x, layers)])
  block = lambda p, h: jnp.matmul(h, p['w'])
  return scale.scan(block, np.ones((1, 6)), layers, bank, 0.5)


def absorbed(p: Any) -> Any:
  """Absorbs gains b of features that are normalised."""

  def gated(p: Any, x: Any) -> Any:
    x = jnp.matmul(x, p['l0']['w'])
    x = x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True))
    return jnp.matmul(x * p['l0']['b'][None], p['l1']['w'])

  symmetry = align.find_symmetry(gated, p, X)
  found = align.absorb_norms(p, symmetry=symmetry, leaves='l0/b')
  assert found.gains == '^l0/b$'
  gauge = align.identity(symmetry) | found.gauge
  undo = align.invert(gauge, symmetry=symmetry)
  none = align.compose(gauge, undo, symmetry=symmetry)
  for name in found.gauge:
    np.testing.assert_allclose(none[name], 1, 1e-14)
  back = align.permute(found.params, undo, symmetry=symmetry)
  np.testing.assert_allclose(back['l0']['b'], p['l0']['b'], 1e-14)
  return found.params, found.gauge, undo, none


def features(p: Any) -> Any:
  return jax.tree_util.Partial(lambda p, x: [net(p, x)], p)


def repaired(p: Any) -> Any:
  measure = lambda p: stats.moments(net, p, [X])
  end = measure(draw(0, NARROW))
  return align.repair(p, measure=measure, endpoints=[end] * 2)


# Results are float64, or numbers of float64 sums, under either setting.
COMPUTED: dict[str, Callable[..., Any]] = {
  'absorb_norms': lambda: absorbed(A),
  'balance': lambda: align.balance(A, symmetry=LINEAR)[:2],
  'transport': lambda: (
    align.transport(
      A, B, symmetry=SYMMETRY, views={'w$': tree.Matrix(), 'b$': None}
    ).params
  ),
  'box': lambda: scale.box(COEFS, high=0.5).values,
  'line': lambda: (
    scale.line(
      {'start': np.float64(1 / 3), 'end': np.ones(2)},
      like=scale.init(BANK, by='layer', depth=r'l(\d)'),
    ).values
  ),
  'shrinkage': lambda: scale.shrinkage(COEFS, p=2),
  'softmax': lambda: scale.softmax(COEFS).values,
  'agreement': lambda: align.agreement([A, B]),
  'as_bank': lambda: scale.as_bank(A, deltas.stack(A, [B])).leaves,
  'bank': lambda: BANK.leaves,
  'by_depth': lambda: scale.by_depth(
    merge.mean(deltas.stack(A, [B])), depth=r'l(\d)', start=0.5, end=1.0
  ),
  'combine': lambda: scale.combine(BANK, 0.3),
  'compose': lambda: scale.compose(A, BANK, 0.3),
  'init': lambda: scale.init(BANK, by='leaf', value=1 / 3).values,
  'interpolate': lambda: landscape.interpolate(A, B, 0.3),
  'l2_reduction': lambda: landscape.l2_reduction(
    A, B, align.permute(B, ORDER, symmetry=SYMMETRY)
  ),
  'leaf_differences': lambda: [
    x.distance for _, x in stats.leaf_differences(A, B)
  ],
  'leaf_statistics': lambda: [
    x.cosine for _, x in stats.leaf_statistics(deltas.stack(A, [B, C]))
  ],
  'mismatch': lambda: align.mismatch(A, B, symmetry=SYMMETRY),
  'permute': lambda: align.permute(A, ORDER, symmetry=SYMMETRY),
  'singular_alignment': lambda: landscape.singular_alignment(A, B),
  'subset': lambda: scale.subset(BANK, ['0']).leaves,
  'unit_gains': lambda: align.unit_gains(A, B, symmetry=SYMMETRY),
}
OF_LOSS = (lambda p, batch: loss(p, batch, None), A, [(X, Y)])
# One line under JAX's defaults; float64 under the suite's settings.
REFUSED: dict[str, Callable[..., Any]] = {
  'activation_matching': lambda: align.activation_matching(
    A, B, symmetry=SYMMETRY, apply_fn=net, batches=[X]
  ),
  'advance': lambda: trained(A),
  'average': lambda: train.average(
    lambda p, batch: net(p, batch[0]), A, (X, Y), batch_size=8
  ),
  'barrier': lambda: landscape.barrier(
    lambda p: jnp.sum(p['l0']['w']), A, B, points=3
  ),
  'check': lambda: align.check(SYMMETRY, net, A, X, key=KEY).errors,
  'cross_moments': lambda: stats.cross_moments(features(A), features(B), [X]),
  'curve': lambda: landscape.curve(A, B, bends=1),
  'curve_loss': lambda: landscape.curve_loss(loss, A, B)(
    landscape.curve(A, B, bends=1).bends, (X, Y), KEY
  ),
  'hessian_density': lambda: landscape.hessian_density(
    *OF_LOSS, probes=1, steps=2, key=KEY
  ),
  'hessian_top': lambda: landscape.hessian_top(*OF_LOSS, steps=2, key=KEY),
  'hessian_trace': lambda: landscape.hessian_trace(*OF_LOSS, probes=2, key=KEY),
  'plane': lambda: landscape.plane(A, B, C),
  'plane_coordinates': lambda: landscape.plane_coordinates(
    landscape.plane(A, B, C), A
  ),
  'random_plane': lambda: landscape.random_plane(A, key=KEY),
  'evaluate': lambda: train.evaluate(net, A, (X, Y), batch_size=8),
  'find_symmetry': lambda: len(
    align.find_symmetry(net, A, X, certify=KEY).groups
  ),
  'fisher': lambda: stats.fisher(net, A, [X]),
  'fit': lambda: fitted(A),
  'gram': lambda: stats.gram(net, A, [X]),
  'joint_gram': lambda: stats.joint_gram(net, [A, B], [X]),
  'linear_model': lambda: scale.linear_model(net, A)(B, X),
  'linearise': lambda: scale.linearise(net, A)(ONES, X),
  'match_many': lambda: align.match_many([A, B, C], **GIVEN),
  'moments': lambda: stats.moments(net, A, [X]),
  'path': lambda: landscape.path(
    lambda p: jnp.sum(p['l0']['w']), A, B, points=3
  ),
  'pleas': lambda: (
    align.pleas(
      A,
      B,
      symmetry=SYMMETRY,
      separate=0.5,
      grams=stats.joint_gram(net, [draw(0, NARROW), draw(1, NARROW)], [X]),
    ).params
  ),
  'pull_back': lambda: (
    scale.pull_back(BANK, ONES, scale.init(BANK, by='leaf')).values
  ),
  'repair': lambda: repaired(A),
  'repair_in_closed_form': lambda: align.repair_in_closed_form(
    [A, B],
    grams=stats.joint_gram(net, [draw(0, NARROW), draw(1, NARROW)], [X]),
  ),
  'reset_batch_stats': lambda: align.reset_batch_stats(
    lambda s, x: {'m': 0.9 * s['m'] + 0.1 * x.mean(0)},
    {'m': np.ones(4)},
    [X],
  ),
  'scan': lambda: scanned(A),
  'select': lambda: scale.select(BANK, ONES, budget=1).scores,
  'sinkhorn': lambda: align.sinkhorn(A, B, **GIVEN, steps=2),
  'start': lambda: train.start(A, optimizer=SGD).params,
  'straight_through': lambda: align.straight_through(
    A,
    B,
    **GIVEN,
    loss_fn=lambda p, batch: loss(p, batch, None),
    batches=[(X, Y)] * 2,
  ),
  'learned_matching': lambda: align.learned_matching(
    A,
    B,
    **GIVEN,
    loss_fn=lambda p, batch: loss(p, batch, None),
    batches=[(X, Y)],
  ),
  # Every function of stitch takes one of these.
  'Adapter': lambda: stitch.fold(stitch.Adapter(np.eye(3), np.zeros(3))),
  'Basis': lambda: stitch.Basis(np.eye(3), np.eye(3), 1),
  'Segmented': lambda: stitch.apply(blocks(A), X),
}
# Values are of no effect, or no array is returned.
SHAPES = {'cost', 'linear_maps', 'matrix_views', 'partial_cost', 'widths'}
# On the host in the dtype of the leaves; see the planted order below.
TABLES = {'weight_matching', 'merge_many'}
PARAMETERS = {
  *('a', 'b', 'bank', 'base', 'batch_stats', 'delta', 'deltas', 'fixed'),
  *('models', 'moving', 'params', 'state'),
}


@pytest.mark.parametrize('room', [align, landscape, scale, stats, train])
def test_every_function_of_parameters_has_a_row(room: Any) -> None:
  """The rows of stitch are the classes that hold parameters."""
  known = COMPUTED.keys() | REFUSED.keys() | SHAPES | TABLES
  for name, function in vars(room).items():
    if name.startswith('_') or not inspect.isfunction(function):
      continue
    if PARAMETERS & inspect.signature(function).parameters.keys():
      assert name in known, f'add {name} to a table of this file'


def floats(result: Any) -> list[Any]:
  """Returns the floats among the leaves; Python's have 64 bits."""
  arrays = [np.asarray(x) for x in jax.tree.leaves(result)]
  return [x for x in arrays if x.dtype.kind == 'f']


@pytest.mark.parametrize('name', COMPUTED)
@pytest.mark.filterwarnings('error:Explicitly requested dtype')
def test_float64_is_computed_in_float64(name: str) -> None:
  found = floats(COMPUTED[name]())
  assert found
  assert all(x.dtype == np.float64 for x in found)


@pytest.mark.parametrize('name', REFUSED)
def test_float64_is_refused_or_computed_in_float64(name: str) -> None:
  if X64:
    assert all(x.dtype == np.float64 for x in floats(REFUSED[name]()))
    return
  with pytest.raises(ValueError, match=r'float64.*set jax_enable_x64') as error:
    REFUSED[name]()
  message = str(error.value)
  assert '\n' not in message
  assert len(message) <= 200
  inner = {'advance': 'start', 'plane_coordinates': 'plane'}.get(name, name)
  assert message.startswith(f'{inner}: leaf')


def test_matching_by_weights_sees_the_digits_of_float64() -> None:
  """In float32 neighbours of these units would be equal."""
  factor = align.Factor('h', 8)
  symmetry = align.Symmetry((factor,), (('w', (((('h',),)),)),))
  units = {'w': 1 + 4e-8 * np.arange(8.0)}
  order = np.random.default_rng(0).permutation(8)
  moved = {'w': units['w'][order]}
  found = align.weight_matching(units, moved, symmetry=symmetry, key=KEY)
  np.testing.assert_array_equal(moved['w'][found['h']], units['w'])
  first, second = align.merge_many([units, moved], symmetry=symmetry, key=KEY)
  np.testing.assert_array_equal(moved['w'][second['h']], units['w'][first['h']])


def test_transforms_of_coefficients_are_right_to_float64() -> None:
  logits = np.random.default_rng(0).normal(size=(2, 5))
  wanted = np.exp(logits) / np.exp(logits).sum(0)
  np.testing.assert_allclose(
    scale.softmax({'w': logits})['w'], wanted, rtol=1e-14
  )
  norms = np.linalg.norm(logits, axis=0).mean() / 2
  found = scale.shrinkage({'w': logits}, p=2)
  np.testing.assert_allclose(found, norms, rtol=1e-14)
  third = scale.box({'w': logits}, low=1 / 3, high=1 / 3)['w']
  np.testing.assert_array_equal(third, np.full((2, 5), 1 / 3))


def test_untraced_paths_hand_over_float64() -> None:
  seen = []

  def metric(p: Any) -> float:
    seen.append(p['l0']['w'].dtype)
    return float(np.square(p['l0']['w']).sum())

  landscape.path(metric, A, B, points=3, traced=False)
  assert seen == [np.float64] * 3


def test_integers_that_training_returns_are_refused_too() -> None:
  aux = {'batches': np.zeros((), np.int64)}
  if X64:
    state = train.start(A, optimizer=SGD, aux=aux)
    assert state.aux['batches'].dtype == np.int64
    return
  with pytest.raises(ValueError, match=r"'batches' is int64.*cast it to int32"):
    train.start(draw(0, 'float32'), optimizer=SGD, aux=aux)


def test_data_are_cast_as_jax_casts_them() -> None:
  """Inputs, labels and features of float64 are data, not parameters."""
  p = draw(0, NARROW)
  wide = stats.gram(net, p, [X])['l0']['w'].matrix
  exact = X.T @ X / len(X)
  np.testing.assert_allclose(wide[0], exact, rtol=1e-5, atol=1e-6)
  assert wide.dtype == (np.float64 if X64 else np.float32)
