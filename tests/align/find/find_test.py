"""``find_symmetry``: names, inputs, user rules, certification, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align

F = align.Factor


def _shapes(**shapes):
  return {n: jax.ShapeDtypeStruct(s, jnp.float64) for n, s in shapes.items()}


def _mlp(p, x):
  return jnp.tanh(x @ p['a'] + p['b'][None]) @ p['c']


MLP = _shapes(a=(3, 5), b=(5,), c=(5, 2))
X = jax.ShapeDtypeStruct((4, 3), jnp.float64)


def test_a_literal_symmetry():
  symmetry = align.find_symmetry(_mlp, MLP, X)
  assert symmetry == align.Symmetry(
    factors=(
      F('a:0', 3, 'an axis of the input'),
      F('a:1', 5),
      F('c:1', 2, 'an axis of the output'),
    ),
    axes=(
      ('a', ((('a:0',),), (('a:1',),))),
      ('b', ((('a:1',),),)),
      ('c', ((('a:1',),), (('c:1',),))),
    ),
    actions=(
      align.Action(
        'sign a:1',
        'sign',
        'a:1',
        tuple(
          align.Power(n, i, 0, 0, 1.0)
          for n, i in (('a', 1), ('b', 0), ('c', 0))
        ),
      ),
    ),
    limits=(('a:1', 'tanh of its entries'),),
  )


def test_shapes_and_arrays_give_equal_symmetries():
  params = jax.tree.map(lambda x: jnp.ones(x.shape), MLP)
  symmetry = align.find_symmetry(_mlp, params, jnp.ones((4, 3)))
  assert symmetry == align.find_symmetry(_mlp, MLP, X)


def test_axes_of_size_one_and_scalars():
  apply = lambda p, x: jnp.tanh(x @ p['a']) @ p['b'] * p['s']
  params = _shapes(a=(3, 1), b=(1, 2), s=())
  symmetry = align.find_symmetry(apply, params, X)
  assert symmetry.leaf['b'] == (((),), (('b:1',),))
  assert symmetry.leaf['s'] == ()
  assert symmetry.groups == ()


def test_fused_queries_keys_and_values():
  def attention(p, x):
    qkv = (x @ p['qkv']).reshape(4, 3, 2, 5)
    q, k, v = (t.transpose(1, 0, 2) for t in jnp.unstack(qkv, axis=1))
    weights = jax.nn.softmax(jnp.einsum('hqd,hkd->hqk', q, k))
    mixed = jnp.einsum('hqk,hkd->qhd', weights, v)
    return mixed.reshape(4, 10) @ p['out']

  params = _shapes(qkv=(3, 30), out=(10, 2))
  symmetry = align.find_symmetry(attention, params, X)
  heads, queries, values = 'out:0.0', 'qkv:1.1', 'out:0.1'
  assert symmetry.leaf['qkv'][1] == (
    (heads, queries),
    (heads, queries),
    (heads, values),
  )
  assert symmetry.leaf['out'][0] == ((heads, values),)
  assert symmetry.factor[queries].outer == (heads,)
  assert symmetry.factor[values].outer == (heads,)


def test_a_pinned_block_is_written_index_by_index():
  # Positions are the major axis, then two kinds of channels: 2 x (4 + 6).
  def apply(p, x):
    y = jnp.concatenate([jnp.tanh(x @ p['a']), jnp.sin(x @ p['b'])], -1)
    return y.reshape(1, 20) @ p['c']

  params = _shapes(a=(3, 4), b=(3, 6), c=(20, 2))
  x = jax.ShapeDtypeStruct((1, 2, 3), jnp.float64)
  symmetry = align.find_symmetry(apply, params, x)
  assert symmetry.leaf['c'][0] == (('a:1',), ('b:1',)) * 2


def test_unused_leaves_are_pinned():
  params = MLP | _shapes(z=(7,))
  symmetry = align.find_symmetry(_mlp, params, X)
  assert symmetry.factor['z:0'].pinned == 'the function does not use it'
  # Dead code pins nothing.
  wasteful = lambda p, x: (jnp.cumsum(p['b']), _mlp(p, x))[1]
  assert align.find_symmetry(wasteful, MLP, X).groups == (F('a:1', 5),)


def test_results_of_any_structure():
  apply = lambda p, x: {'y': [_mlp(p, x), None], 'n': 3, 'z': x.sum()}
  assert align.find_symmetry(apply, MLP, X).groups == (F('a:1', 5),)


def test_inputs_that_are_not_arrays_are_passed_on():
  def apply(p, x, train, mode):
    assert train is True
    assert mode == 'mlp'
    return _mlp(p, x)

  found = align.find_symmetry(apply, MLP, X, True, 'mlp')
  assert found.groups == (F('a:1', 5),)


def test_a_user_rule_replaces_an_opaque_function():
  @jax.jit
  def opaque(x):
    return jax.lax.approx_max_k(x, 5)[0]

  apply = lambda p, x: opaque(jnp.tanh(x @ p['a'])) @ p['c']
  params = _shapes(a=(3, 5), c=(5, 2))
  pinned = align.find_symmetry(apply, params, X)
  assert pinned.factor['a:1'].pinned.startswith('no rule follows')
  found = align.find_symmetry(apply, params, X, rules={'opaque': jnp.sin})
  assert found.groups == (F('a:1', 5),)
  with pytest.raises(ValueError, match=r"rules\['opaque'\] returns"):
    align.find_symmetry(apply, params, X, rules={'opaque': jnp.sum})


def _experts(p, x):
  best, which = jax.lax.top_k(x @ p['router'], 2)
  gates = jnp.einsum(
    'bk,bke->be', jax.nn.softmax(best), jax.nn.one_hot(which, 4, dtype=x.dtype)
  )
  h = jnp.tanh(jnp.einsum('bd,edf->bef', x, p['up']))
  return jnp.einsum('be,bef,efd->bd', gates, h, p['down'])


def _clipped(p, x):
  """Clips scores at a bound that is never reached: tracing cannot show it."""
  best, which = jax.lax.top_k(jnp.clip(x @ p['router'], -1e3, 1e3), 2)
  gates = jnp.einsum(
    'bk,bke->be', jax.nn.softmax(best), jax.nn.one_hot(which, 4, dtype=x.dtype)
  )
  h = jnp.tanh(jnp.einsum('bd,edf->bef', x, p['up']))
  return jnp.einsum('be,bef,efd->bd', gates, h, p['down'])


MOE = _shapes(router=(3, 4), up=(4, 3, 5), down=(4, 5, 2))


def test_experts_are_freed_by_rule():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
  read = align.find_symmetry(_experts, MOE, x)
  assert [(g.name, g.size, g.outer) for g in read.groups] == [
    ('down:0', 4, ()),
    ('down:1', 5, ('down:0',)),
  ]
  key = jax.random.key(0)
  assert align.find_symmetry(_experts, MOE, x, certify=key) == read


def test_certification_frees_experts():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
  read = align.find_symmetry(_clipped, MOE, x)
  assert [(g.name, g.outer) for g in read.groups] == [('down:1', ('down:0',))]
  assert read.factor['down:0'].pinned == (
    'top_k along it breaks ties by position, and ties may be common'
  )
  found = align.find_symmetry(_clipped, MOE, x, certify=jax.random.key(0))
  assert [(g.name, g.size, g.outer) for g in found.groups] == [
    ('down:0', 4, ()),
    ('down:1', 5, ('down:0',)),
  ]
  assert found.leaf['router'][1] == (('down:0',),)
  report = align.check(found, _clipped, MOE, x, key=jax.random.key(1))
  assert report.error < 1e-12


def test_a_distinguished_expert_is_pinned_and_the_rest_is_not():
  apply = lambda p, x: _experts(p, x) * p['router'][0, 0]
  x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
  found = align.find_symmetry(apply, MOE, x)
  assert [(g.name, g.size) for g in found.groups] == [
    ('down:0', 3),
    ('down:1', 5),
  ]
  assert found.leaf['router'][1] == ((), ('down:0',))
  report = align.check(found, apply, MOE, x, key=jax.random.key(1))
  assert report.error < 1e-12


def test_certification_keeps_a_distinguished_expert_pinned():
  def apply(p, x):
    return _clipped(p, x) * p['router'][0, 0]  # the first expert is special

  x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
  found = align.find_symmetry(apply, MOE, x, certify=jax.random.key(0))
  assert [g.name for g in found.groups] == ['down:1']


def _if(p, x):
  return _mlp(p, x) if x.sum() > 0 else x


@pytest.mark.parametrize(
  ('apply', 'params', 'message'),
  [
    (lambda p, x: 'text', MLP, "returns '', a str: return arrays only"),
    (_if, MLP, 'needs the values of its arguments'),
    (lambda p, x: x[x > 0], MLP, 'needs the values of its arguments'),
    (lambda p, x: x[jnp.nonzero(x)], MLP, 'needs the values'),
    (_mlp, MLP | {'act': 'relu'}, "leaf 'act' of params is a str"),
    (functools.partial(_mlp), MLP | {'z': 1.0}, "leaf 'z' of params is a fl"),
  ],
)
def test_errors_are_one_line(apply, params, message):
  with pytest.raises(ValueError, match=message) as error:
    align.find_symmetry(apply, params, X)
  assert '\n' not in str(error.value)


def test_a_long_chain_of_ties_is_found():
  def deep(p, x):
    h = x @ p['a']
    for _ in range(300):
      h = jnp.tanh(h + p['b'][None])
    return h @ p['c']

  assert align.find_symmetry(deep, MLP, X).groups == (F('a:1', 5),)


def test_certification_frees_gathered_experts():
  # Arrays of gathered units have no axis of experts: tracing finds one order
  # of units for all of them.
  def apply(p, x):
    best, which = jax.lax.top_k(x @ p['router'], 2)
    h = jnp.tanh(jnp.einsum('bd,bkdf->bkf', x, p['up'][which]))
    y = jnp.einsum('bkf,bkfo->bko', h, p['down'][which])
    return jnp.einsum('bk,bko->bo', jax.nn.softmax(best), y)

  params = _shapes(router=(3, 4), up=(4, 3, 5), down=(4, 5, 2))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
  read = align.find_symmetry(apply, params, x)
  assert [(g.name, g.outer) for g in read.groups] == [
    ('down:0', ()),
    ('down:1', ()),
  ]
  found = align.find_symmetry(apply, params, x, certify=jax.random.key(0))
  assert [(g.name, g.size, g.outer) for g in found.groups] == [
    ('down:0', 4, ()),
    ('down:1', 5, ('down:0',)),
  ]
  report = align.check(found, apply, params, x, key=jax.random.key(1))
  assert report.error < 1e-12


def test_unused_rows_are_pinned():
  """Rows that this input does not use may be used by longer inputs."""

  def model(params, x):
    h = jax.nn.relu(x @ params['a'] + params['positions'][: len(x)])
    return h @ params['b']

  params = {
    'a': jnp.zeros((3, 5)),
    'b': jnp.zeros((5, 2)),
    'positions': jnp.zeros((7, 5)),
  }
  symmetry = align.find_symmetry(model, params, jnp.zeros((4, 3)))
  assert [group.size for group in symmetry.groups] == [5]
  rows = {f.pinned for s in symmetry.plan('positions')[0] for f in s}
  assert 'the function does not use it' in rows


def test_errors_of_certification_name_find_symmetry():
  shapes = _shapes(router=(3, 4), up=(4, 3, 5), down=(4, 5, 2))
  key, x = jax.random.key(0), jnp.ones((6, 3))
  nan = lambda p, x: jnp.log(-1.0 - jnp.square(_clipped(p, x)))
  with pytest.raises(ValueError, match=r'find_symmetry: .* returns NaN'):
    align.find_symmetry(nan, shapes, x, certify=key)
  steps = shapes | {'n': jax.ShapeDtypeStruct((), jnp.int32)}
  apply = lambda p, x: _clipped(p, x) * p['n'].astype(x.dtype)
  with pytest.raises(
    ValueError, match=r"find_symmetry: leaf 'n' .* its values"
  ):
    align.find_symmetry(apply, steps, x, certify=key)
