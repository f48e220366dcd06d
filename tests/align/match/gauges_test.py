"""Weight matching over signs, scales, rotations and linear maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.align.gauges import networks as models
from wsl import align, tree
from wsl import models as language
from wsl.align._check import check, on_host

KEY = jax.random.key(0)


def host(params, dtype=np.float64):
  return {n: np.asarray(x, dtype) for n, x in models.values(params).items()}


def element(symmetry, seed, gauges=align.GAUGES):
  """Draws an element on the host: nothing is compiled."""
  g = {
    group.name: np.random.default_rng(seed).permuted(
      np.broadcast_to(
        np.arange(group.size), symmetry.table_shape(group.name)
      ).astype(np.int32),
      axis=-1,
    )
    for group in symmetry.groups
  }
  if 'permutation' not in gauges:
    g = align.identity(symmetry)
  actions = check._actions(symmetry, jax.random.key(seed))
  kind = lambda name: symmetry.action[name].kind
  return g | {n: x for n, x in actions.items() if kind(n) in gauges}


def move(params, g, symmetry):
  return on_host.permute(params, g, symmetry)


def distance(a, b):
  square = lambda x: float(np.square(np.asarray(x, np.float64)).sum())
  gap = sum(square(np.asarray(a[n], np.float64) - b[n]) for n in a)
  return np.sqrt(gap / sum(square(a[n]) for n in a))


# Linear units that depend on each other have no balanced form.
DEPENDENT = {'identity', 'fused'}
PLANTED = [n for n in models.BY_HAND if n not in DEPENDENT]


@pytest.mark.parametrize('name', PLANTED)
def test_a_planted_element_is_undone(name):
  (apply, params, *inputs), *_ = models.BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, *inputs)
  fixed = host(params)
  kinds = dict.fromkeys(action.kind for action in symmetry.actions)
  for gauges in [align.GAUGES, *((kind,) for kind in kinds)]:
    moving = move(fixed, element(symmetry, 1, gauges), symmetry)
    visits = []
    found = align.weight_matching(
      fixed,
      moving,
      symmetry=symmetry,
      key=KEY,
      gauges=gauges,
      progress=visits.append,
    )
    assert distance(fixed, move(moving, found, symmetry)) < 1e-12
    gains = [visit.gained for visit in visits]
    assert min(gains, default=0) >= 0
    if gauges == align.GAUGES:
      # Without the actions the planted element is not undone.
      found = align.weight_matching(fixed, moving, symmetry=symmetry, key=KEY)
      assert not kinds or distance(fixed, move(moving, found, symmetry)) > 0.1


@pytest.mark.parametrize('name', ['attention', 'reglu', 'rms stream'])
def test_a_planted_element_is_undone_in_float32(name):
  (apply, params, *inputs), *_ = models.BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, *inputs)
  fixed = host(params, np.float32)
  moving = move(fixed, element(symmetry, 2), symmetry)
  found = align.weight_matching(
    fixed, moving, symmetry=symmetry, key=KEY, gauges=align.GAUGES
  )
  assert {x.dtype for x in found.values()} <= {
    np.dtype(np.float32),
    np.dtype(np.int32),
  }
  assert distance(fixed, move(moving, found, symmetry)) < 1e-6


def llama(layers=2, width=12, heads=2, queries=2, units=4, hidden=10):
  """Grouped queries, rotary positions, a gated layer, norms without gains."""
  angles = np.arange(3)[:, None] * 10.0 ** -np.arange(units // 2)
  cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

  def rotary(x):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

  def apply(p, tokens):
    x = p['e'][tokens]
    for i in range(layers):
      h = models.rms(x)
      q = rotary((h @ p[f'q{i}']).reshape(3, heads * queries, units))
      k = rotary((h @ p[f'k{i}']).reshape(3, heads, units))
      v = (h @ p[f'v{i}']).reshape(3, heads, units)
      q = q.reshape(3, heads, queries, units)
      a = jax.nn.softmax(jnp.einsum('thqd,shd->hqts', q, k), -1)
      o = jnp.einsum('hqts,shd->thqd', a, v).reshape(3, -1)
      x = x + o @ p[f'o{i}']
      h = models.rms(x)
      x = x + (jax.nn.silu(h @ p[f'w{i}']) * (h @ p[f'u{i}'])) @ p[f'd{i}']
    return models.rms(x) @ p['head']

  sizes = {'e': (7, width), 'head': (width, 2)}
  for i in range(layers):
    inner = heads * units
    sizes |= {f'q{i}': (width, queries * inner), f'k{i}': (width, inner)}
    sizes |= {f'v{i}': (width, inner), f'o{i}': (queries * inner, width)}
    sizes |= {f'w{i}': (width, hidden), f'u{i}': (width, hidden)}
    sizes |= {f'd{i}': (hidden, width)}
  return apply, models.shapes(**sizes), jnp.asarray([3, 1, 6])


@pytest.mark.parametrize('seed', [1, 2])
def test_all_gauges_of_a_transformer_are_undone(seed):
  apply, params, tokens = llama()
  symmetry = align.find_symmetry(apply, params, tokens)
  kinds = {action.kind for action in symmetry.actions}
  assert kinds == {'sign', 'scale', 'rotation', 'phase', 'linear'}
  fixed = host(params)
  moving = move(fixed, element(symmetry, seed), symmetry)
  found = align.weight_matching(
    fixed, moving, symmetry=symmetry, key=KEY, gauges=align.GAUGES
  )
  assert distance(fixed, moving) > 1
  # The rotation is not determined by the 7 tokens and 2 outputs alone: it
  # converges with the maps of the heads and the units.
  assert distance(fixed, move(moving, found, symmetry)) < 1e-12


@pytest.mark.parametrize('gauges', [align.GAUGES, ('sign',)])
def test_signed_permutations_of_recurrent_units_are_undone(gauges):
  def apply(p, xs):
    step = lambda h, x: (jnp.tanh(h @ p['w'] + x @ p['i'] + p['b']), None)
    return jax.lax.scan(step, jnp.zeros(9), xs)[0] @ p['o']

  params = models.shapes(w=(9, 9), i=(3, 9), b=(9,), o=(9, 2))
  symmetry = align.find_symmetry(apply, params, models.X)
  fixed = host(params)
  moving = move(fixed, element(symmetry, 1, gauges), symmetry)
  found = align.weight_matching(
    fixed, moving, symmetry=symmetry, key=KEY, gauges=gauges
  )
  assert distance(fixed, moving) > 1
  assert distance(fixed, move(moving, found, symmetry)) == 0


def test_dependent_units_are_matched_by_rotations_only():
  (apply, params, *inputs), *_ = models.BY_HAND['identity']
  symmetry = align.find_symmetry(apply, params, *inputs)
  fixed = host(params)
  g = element(symmetry, 1)
  rotation = np.linalg.qr(g['linear a:1'])[0]
  moving = move(fixed, g | {'linear a:1': rotation}, symmetry)
  message = "'linear a:1' is matched by rotations only: .* in 'c' of"
  with pytest.warns(UserWarning, match=message):
    found = align.weight_matching(
      fixed, moving, symmetry=symmetry, key=KEY, gauges=align.GAUGES
    )
  assert distance(fixed, move(moving, found, symmetry)) < 1e-12


def test_the_result_does_not_depend_on_the_gauge_of_either_model():
  # Two unrelated models; each is replaced by another one of its function.
  (apply, params, *inputs), *_ = models.BY_HAND['attention']
  symmetry = align.find_symmetry(apply, params, *inputs)
  a, b = (
    {n: np.asarray(x) for n, x in models.values(params, seed).items()}
    for seed in (1, 2)
  )

  def objective(a, b):
    visits = []
    align.weight_matching(
      a,
      b,
      symmetry=symmetry,
      key=KEY,
      gauges=align.GAUGES,
      progress=visits.append,
      starts=4,
    )
    return max(visit.objective for visit in visits)

  other = move(a, element(symmetry, 5), symmetry)
  np.testing.assert_allclose(objective(other, b), objective(a, b), 1e-6)


def test_balanced_scales_are_geometric_means():
  (apply, params, x), *_ = models.BY_HAND['relu']
  symmetry = align.find_symmetry(apply, params, x)
  model = host(params)
  found = align.balance(model, symmetry=symmetry)
  into = np.square(model['a']).sum(0) + np.square(model['b'])
  out = np.square(model['c']).sum(1)
  (name,) = found.gauge
  np.testing.assert_allclose(found.gauge[name], (out / into) ** 0.25, 1e-13)
  a, b, c = (np.asarray(found.params[n]) for n in 'abc')
  np.testing.assert_allclose(
    np.square(a).sum(0) + np.square(b), np.square(c).sum(1), 1e-12
  )
  np.testing.assert_allclose(
    apply(found.params, x), apply(models.values(params), x), 1e-12
  )


@pytest.mark.parametrize(
  'name',
  ['attention', 'embedding', 'stream without norm', 'convolutions', 'reglu',
   'batch norm', 'rms stream with gains'],
)  # fmt: skip
def test_the_balanced_model_is_a_minimum(name):
  (apply, params, *inputs), *_ = models.BY_HAND[name]
  symmetry = align.find_symmetry(apply, params, *inputs)
  model = host(params)
  found = align.balance(model, symmetry=symmetry)
  assert not found.kept
  assert {symmetry.action[n].kind for n in found.gauge} <= {'scale', 'linear'}
  whole = align.identity(symmetry) | found.gauge
  balanced = move(model, whole, symmetry)
  again = align.balance(balanced, symmetry=symmetry)
  for table in again.gauge.values():
    one = np.ones(()) if table.ndim < 2 or name == 'convolutions' else None
    if one is None:
      one = np.eye(table.shape[-1])
    np.testing.assert_allclose(
      table, np.broadcast_to(one, table.shape), 0, 1e-9
    )
  # No element near the identity has a smaller norm, and the quadratic increase
  # is that of a minimum: of second order in the size of the element.
  if name in ('batch norm', 'rms stream with gains'):
    return  # scales with a constraint in place of a minimum
  norm = lambda p: sum(np.square(x).sum() for x in p.values())
  rng = np.random.default_rng(0)
  for size in (1e-1, 1e-3):
    near = {
      n: np.exp(size * rng.normal(size=x.shape))
      if symmetry.action[n].kind == 'scale'
      else np.eye(x.shape[-1]) + size * rng.normal(size=x.shape)
      for n, x in found.gauge.items()
    }
    moved = move(balanced, align.identity(symmetry) | near, symmetry)
    increase = norm(moved) - norm(balanced)
    assert 0 < increase < 300 * size**2 * norm(balanced)


def test_dead_units_are_balanced():
  (apply, params, x), *_ = models.BY_HAND['relu']
  symmetry = align.find_symmetry(apply, params, x)
  model = {n: x.copy() for n, x in host(params).items()}
  model['c'][1] = 0  # no minimum: the ingoing norm becomes 1
  model['a'][:, 2] = model['b'][2] = 0
  model['c'][2] = 0  # nothing to balance
  found = align.balance(model, symmetry=symmetry)
  (table,) = found.gauge.values()
  into = np.square(model['a']).sum(0) + np.square(model['b'])
  np.testing.assert_allclose(table[1], into[1] ** -0.5, 1e-12)
  assert table[2] == 1


def test_scales_that_share_a_factor_are_balanced():
  """Without phases, RoPE leaves scales of heads and of frequencies.

  Inverse numbers on all of both cancel: the Hessian of the norm is singular.
  """
  net = language.LanguageModel(5, width=8, depth=1, heads=2, hidden=4)
  tokens = jax.ShapeDtypeStruct((1, 3), np.int32)
  shapes = jax.eval_shape(net.init, KEY, tokens)
  kinds = ('scale',)
  symmetry = align.find_symmetry(net.apply, shapes, tokens, gauges=kinds)
  draw = np.random.default_rng(3).normal
  params = {n: draw(size=x.shape) for n, x in tree.named(shapes).items()}
  moved = move(params, element(symmetry, 1, kinds), symmetry)
  flat = symmetry.actions[0].powers[0].leaf
  assert sum(flat == p.leaf for a in symmetry.actions for p in a.powers) > 4
  first, second = (
    align.balance(x, symmetry=symmetry, gauges=kinds) for x in (params, moved)
  )
  assert not first.kept
  assert distance(host(first.params), host(second.params)) < 1e-12
  assert distance(params, host(second.params)) > 0.1
