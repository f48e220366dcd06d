"""Rules by leaf path; shard, gather and like."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, mesh, tree

P = jax.P
PARAMS = {
  'embed': np.arange(24 * 6, dtype=np.float32).reshape(24, 6),
  'blocks': [{'w': np.ones((2, 8, 8), np.float32), 'b': np.ones(8, np.int32)}],
  'odd': np.ones((3, 5), np.float32),
  'scale': np.float32(2),
}
pytestmark = pytest.mark.needs_devices(8)


def specs(rules: Any, m: Any) -> dict[str, tuple[Any, ...]]:
  found = tree.named(mesh.shardings(PARAMS, rules, m))
  assert all(s.mesh == m for s in found.values())
  return {name: tuple(s.spec) for name, s in found.items()}


def test_the_default_is_the_largest_divisible_axis() -> None:
  m = mesh.make('candidates:2,model:4')
  wanted = {
    'embed': ('model',),
    'blocks/0/w': (None, None, 'model'),
    'blocks/0/b': ('model',),
    'odd': (),
    'scale': (),
  }
  assert specs(None, m) == wanted == specs('model', m)
  both = mesh.make('data:2,model:4')
  assert specs(None, both)['embed'] == (('data', 'model'),)
  assert specs('data, model', both) == specs(None, both)
  assert set(specs(None, mesh.make('candidates:8')).values()) == {()}


def test_the_first_rule_counts() -> None:
  m = mesh.make('candidates:2,model:4')
  rules = [('odd|scale', P()), ('blocks/.*/w', P(None, 'model')), ('', 'model')]
  found = specs(rules, m)
  assert specs(dict(rules), m) == found
  assert found['blocks/0/w'] == (None, 'model')
  assert found['embed'] == ('model',)


def test_explain_tells_what_each_leaf_got() -> None:
  m = mesh.make('candidates:2,model:4')
  text = mesh.explain(PARAMS, [('w$', P(None, 'model')), ('', None)], m)
  lines = [' '.join(line.split()) for line in text.splitlines()]
  assert lines == [
    'mesh candidates:2,model:4',
    "blocks/0/b (8,) ('model',) 8 of 32 default",
    "blocks/0/w (2, 8, 8) (None, 'model') 128 of 512 'w$': P(None, 'model')",
    "embed (24, 6) ('model',) 144 of 576 default",
    'odd (3, 5) replicated 60 of 60 default, divides no axis',
    'scale () replicated 4 of 4 default, divides no axis',
    'each device has 344 of 1184 bytes',
  ]
  assert mesh.explain({}, None, m).endswith('each device has 0 of 0 bytes')


@pytest.mark.parametrize(
  ('rules', 'message'),
  [
    ([('w', 'model')], "no rule covers leaf 'blocks/0/b': add one"),
    ([('', None), ('w', None)], "rule 'w' covers no leaf that an earlier rule"),
    ([('blocks(', None)], 'is no regular expression'),
    ('modle', r"the mesh has no axis 'modle' \(did you mean 'model'\?\)"),
    ('x', r"the mesh has no axis 'x': it has \['candidates', 'model'\]"),
    ([('', P('x'))], "leaf 'blocks/0/b' of shape .* the mesh has no axis 'x'"),
    (
      [('odd', P('model')), ('', None)],
      "leaf 'odd' of shape .*: axis 0 of 3 is not divisible by 4, the size of "
      'model: shard another axis, or none',
    ),
    ([('scale', P('model')), ('', None)], "leaf 'scale' .* has 1 entries"),
    (['w'], "^shard: 'w' is no rule: give pairs of a regular expression"),
    ([('w', 'model', 1)], 'is no rule: give pairs'),
    ({'w': 3}, 'is no rule: give pairs'),
    ([(None, 'model')], 'is no rule: give pairs'),
    (3, "^shard: '3' is no rule"),
    ('model,model', "a mesh axis is given twice in .'model', 'model'"),
    ({'': P(P.UNCONSTRAINED)}, 'axis 0 is unconstrained: give None'),
  ],
)
def test_bad_rules(rules: Any, message: str) -> None:
  with pytest.raises(ValueError, match=message) as raised:
    mesh.shard(PARAMS, rules, mesh.make('candidates:2,model:4'))
  assert len(str(raised.value)) <= 200


def test_leaves_that_are_no_numbers_are_refused() -> None:
  m = mesh.make('model:8')
  for leaf in ('text', object(), np.asarray(['a'])):
    with pytest.raises(ValueError, match=r"^shard: leaf 'a' is a .* only"):
      mesh.shard({'a': leaf, 'b': np.ones(8)}, None, m)


def test_shard_and_gather_are_inverse() -> None:
  m = mesh.make('candidates:2,model:4')
  sharded = mesh.shard(PARAMS, None, m)
  assert sharded['embed'].addressable_shards[0].data.shape == (6, 6)
  back = mesh.gather(sharded)
  assert jax.tree.structure(back) == jax.tree.structure(PARAMS)
  for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(PARAMS)):
    assert isinstance(x, np.ndarray)
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)
  moved = mesh.shard(sharded, 'candidates', m)
  assert tuple(moved['embed'].sharding.spec) == ('candidates',)
  lazy = tree.Stored(lambda: PARAMS['embed'], (24, 6), np.dtype('float32'))
  assert mesh.shard(lazy, None, m).sharding == sharded['embed'].sharding
  assert mesh.gather(mesh.shard({'step': 3}, None, m)) == {'step': 3}
  keys = mesh.shard(jax.random.split(jax.random.key(0), 8), None, m)
  assert tuple(keys.sharding.spec) == ('model',)


def test_wide_leaves_are_not_narrowed() -> None:
  found = mesh.shard({'w': np.ones(8)}, None, mesh.make('model:8'))['w']
  assert found.dtype == np.float64
  assert isinstance(
    found, jax.Array if jax.config.jax_enable_x64 else np.ndarray
  )


def test_like_shards_a_stack_as_one_model() -> None:
  m = mesh.make('candidates:2,model:4')
  base = mesh.shard(PARAMS, None, m)
  base['odd'] = PARAMS['odd']
  stack = jax.tree.map(lambda x: np.stack([x] * 3), PARAMS)
  found = mesh.like(stack, base)
  assert tuple(found['embed'].sharding.spec) == (None, 'model')
  assert found['embed'].sharding.mesh == m
  assert isinstance(found['odd'], np.ndarray)
  assert mesh.like(PARAMS, base)['embed'].sharding == base['embed'].sharding
  with pytest.raises(ValueError, match="like: leaf 'odd' has shape"):
    mesh.like({**PARAMS, 'odd': np.ones((5, 3))}, base)
  with pytest.raises(
    ValueError, match="like: other: no leaf 'odd' as in params"
  ):
    mesh.like(PARAMS, {k: v for k, v in base.items() if k != 'odd'})


def test_task_vectors_of_sharded_models_are_sharded_alike() -> None:
  m = mesh.make('candidates:2,model:4')
  base = {'w': PARAMS['embed']}
  models = [{'w': PARAMS['embed'] + i} for i in (1, 2)]
  put = lambda params: mesh.shard(params, None, m)
  found = deltas.stack(put(base), [put(x) for x in models])
  assert tuple(found['w'].sharding.spec) == (None, 'model')
  np.testing.assert_array_equal(found['w'], deltas.stack(base, models)['w'])
  merged = deltas.apply(put(base), jax.tree.map(lambda x: jnp.sum(x, 0), found))
  assert tuple(merged['w'].sharding.spec) == ('model',)
