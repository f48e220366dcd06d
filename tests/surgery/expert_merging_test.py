"""M-SMoE: routing, groups, alignment, merges, drops, low-rank residuals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import align, models, surgery, tree

E, WIDTH, HIDDEN = 4, 3, 5
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
UNIT, INPUT = align.Factor('h', HIDDEN), align.Factor('x', WIDTH, 'an input')
UP, DOWN = ((('x',),), (('h',),)), ((('h',),), (('x',),))
SYMMETRY = align.Symmetry(
  (UNIT, INPUT),
  (('down/kernel', DOWN), ('gate/kernel', UP), ('up/kernel', UP)),
)


def draw(*shape):
  return jnp.asarray(RNG.normal(size=shape))


EXPERTS = {
  'down': {'kernel': draw(E, HIDDEN, WIDTH)},
  'gate': {'kernel': draw(E, WIDTH, HIDDEN)},
  'up': {'kernel': draw(E, WIDTH, HIDDEN)},
}
LAYER = {'experts': EXPERTS, 'router': {'kernel': draw(WIDTH, E)}}
X = draw(7, WIDTH)
APPLY = jax.jit(models.MoE(models.SwiGLU, HIDDEN, E, top_k=2).apply)


def apply(experts):
  return APPLY({'params': LAYER | {'experts': experts}}, X)


def permuted(experts, seed=0):
  """Permutes the units of each expert at random."""
  orders = [
    np.random.default_rng([seed, e]).permutation(HIDDEN) for e in range(E)
  ]
  take = lambda x, axis: jnp.stack(
    [jnp.take(x[e], orders[e], axis=axis) for e in range(E)]
  )
  axes = {'down': 0, 'gate': 1, 'up': 1}
  return {n: {'kernel': take(experts[n]['kernel'], a)} for n, a in axes.items()}


def aligned(experts):
  return surgery.align_experts(experts, symmetry=SYMMETRY, key=KEY)


def groups(*table):
  found, dominant = np.unique(table, return_index=True)
  return surgery.ExpertGroups(np.searchsorted(found, table), dominant)


def test_routing_is_that_of_all_tokens():
  logits = np.asarray(X @ LAYER['router']['kernel'])
  fn = lambda p, x: {'layer': x @ p}
  kernel = LAYER['router']['kernel']
  for k in (1, 2):
    found = surgery.routing(fn, kernel, [X[:3], (X[3:], 'y')], top_k=k)['layer']
    best = np.argsort(-logits, -1)[:, :k]
    usage = np.bincount(best.ravel(), minlength=E) / (k * len(X))
    np.testing.assert_allclose(found.usage, usage, rtol=1e-12)
    np.testing.assert_allclose(found.gram, logits.T @ logits / 7, rtol=1e-12)
    np.testing.assert_allclose(found.mass.sum(), 1, rtol=1e-12)
  cosine = np.corrcoef(logits.T)  # of centred columns: another matrix
  similarity = surgery.router_similarity(found)
  norms = np.linalg.norm(logits, axis=0)
  wanted = (1 + logits.T @ logits / norms / norms[:, None]) / 2
  np.testing.assert_allclose(similarity, wanted, rtol=1e-12)
  assert np.abs(2 * similarity - 1 - cosine).max() > 0.01


def test_groups_of_the_layers_share_one_threshold():
  usage = {f'layer_{i}': RNG.dirichlet(np.full(6, 0.4)) for i in range(4)}
  counts = surgery.group_counts(usage, average=2.5, exclude=['layer_0'])
  assert counts['layer_0'] == 6
  # The official threshold: a value of the pooled order.
  scaled = {n: f / f.max() for n, f in usage.items()} | {'layer_0': np.ones(6)}
  position = round(2.5 * 3) + 6
  threshold = np.sort(np.concatenate([*scaled.values()]))[::-1][position]
  assert counts == {n: int((f > threshold).sum()) for n, f in scaled.items()}
  even = surgery.group_counts({'a': np.ones(4), 'b': [1, 0, 0, 0]}, average=2)
  assert even == {'a': 3, 'b': 1}


def test_experts_join_the_most_similar_dominant_one():
  usage, s = RNG.dirichlet(np.ones(7)), RNG.uniform(size=(7, 7))
  found = surgery.group_experts(usage, s, count=3)
  dominant = np.argsort(-usage)[:3]
  assert found.dominant.tolist() == dominant.tolist()
  for e in range(7):
    wanted = np.argmax(s[e, dominant])
    if e in dominant:
      wanted = dominant.tolist().index(e)
    assert found.table[e] == wanted
  full = surgery.group_experts(usage, np.eye(7) + 1, count=3, capacity=3)
  assert np.bincount(full.table).max() == 3
  free = surgery.group_experts(usage, np.eye(7) + 1, count=3)
  assert np.bincount(free.table).max() == 5


def test_alignment_keeps_the_function_and_is_the_best_assignment():
  other = permuted(EXPERTS)
  np.testing.assert_allclose(apply(aligned(other)), apply(EXPERTS), rtol=1e-10)
  found = aligned(other)
  inner = lambda a, b: sum(
    (np.asarray(x) * np.asarray(y)).sum()
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
  )
  first, second = (jax.tree.map(lambda x, e=e: x[e], found) for e in (0, 1))
  best = max(
    inner(
      first,
      {
        'down': {'kernel': second['down']['kernel'][np.asarray(p)]},
        'gate': {'kernel': second['gate']['kernel'][:, np.asarray(p)]},
        'up': {'kernel': second['up']['kernel'][:, np.asarray(p)]},
      },
    )
    for p in itertools.permutations(range(HIDDEN))
  )
  np.testing.assert_allclose(inner(first, second), best, rtol=1e-12)


def test_experts_are_matched_to_each_other():
  joint = surgery.align_experts(
    EXPERTS, symmetry=SYMMETRY, key=KEY, reference=None
  )
  np.testing.assert_allclose(apply(joint), apply(EXPERTS), rtol=1e-10)
  square = lambda p: sum(
    np.square(np.asarray(x).sum(0)).sum() for x in jax.tree.leaves(p)
  )
  assert square(joint) > 1.02 * square(EXPERTS)


def test_a_merge_does_not_depend_on_the_order_of_units():
  usage, table = [0.4, 0.3, 0.2, 0.1], groups(0, 0, 1, 0)
  # The reference keeps its order: permute the others only.
  other = jax.tree.map(
    lambda x, y: jnp.concatenate([x[:1], y[1:]]), EXPERTS, permuted(EXPERTS)
  )
  merge = lambda p: surgery.merge_experts(p, table, usage=usage)
  tied = lambda p: apply(surgery.tie_experts(merge(p), table))
  wanted = tied(aligned(EXPERTS))
  np.testing.assert_allclose(tied(aligned(other)), wanted, rtol=1e-10)
  assert np.abs(tied(other) - wanted).max() > 1e-3  # not aligned


def test_merges_are_averages_by_usage():
  usage, table = np.asarray([0.4, 0.3, 0.0, 0.0]), groups(0, 0, 1, 1)
  merged = surgery.merge_experts(EXPERTS, table, usage=usage)
  x = np.asarray(EXPERTS['up']['kernel'])
  wanted = [(4 * x[0] + 3 * x[1]) / 7, (x[2] + x[3]) / 2]
  np.testing.assert_allclose(merged['up']['kernel'], wanted, rtol=1e-12)
  alone = groups(0, 1, 2, 3)
  same = surgery.merge_experts(EXPERTS, alone, usage=usage)
  np.testing.assert_array_equal(same['up']['kernel'], x)
  equal = jax.tree.map(lambda x: jnp.repeat(x[:1], E, 0), EXPERTS)
  one = surgery.merge_experts(equal, groups(0, 0, 0, 0), usage=usage)
  np.testing.assert_allclose(one['up']['kernel'][0], x[0], rtol=1e-15)
  assert apply(surgery.tie_experts(merged, table)).shape == X.shape


def test_stacked_separate_lazy_and_narrow_experts_agree():
  usage, table = [0.4, 0.3, 0.2, 0.1], groups(0, 0, 1, 1)
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), EXPERTS)
  stacked = surgery.merge_experts(aligned(narrow), table, usage=usage)
  separate = [jax.tree.map(lambda x, e=e: x[e], narrow) for e in range(E)]
  each = surgery.merge_experts(aligned(separate), table, usage=usage)
  lazy = surgery.merge_experts(tree.defer(aligned(narrow)), table, usage=usage)
  assert tree.on_demand(lazy)
  for other in (tree.stack(each), tree.read(lazy)):
    for x, y in zip(jax.tree.leaves(other), jax.tree.leaves(stacked)):
      assert x.dtype == jnp.bfloat16
      np.testing.assert_array_equal(x, y)


def test_a_dropped_expert_is_one_that_is_never_chosen():
  kept = surgery.drop_experts(LAYER, [0, 2, 3])
  small = models.MoE(models.SwiGLU, HIDDEN, E - 1, top_k=2)
  y = jax.jit(small.apply)({'params': kept}, X)
  # An expert with logits of -1e9 on all tokens.
  logits = np.array(X @ LAYER['router']['kernel'])
  logits[:, 1] = -1e9
  gates = models.top_k_gates(jnp.asarray(logits), top_k=2)
  none = jax.tree.map(lambda x: jnp.zeros_like(x[0]), EXPERTS)
  one = lambda p, x: models.SwiGLU(HIDDEN).apply({'params': p}, x)
  every = jax.jit(surgery.apply_experts, static_argnums=0)
  wanted = every(one, surgery.Experts(none, EXPERTS), gates, X)
  np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-14)


def test_low_rank_and_columns_add_up():
  x = np.asarray(EXPERTS['up']['kernel'])
  exact = surgery.compress_experts(EXPERTS, ratio=0.5, keep=1.0)
  assert exact.factors['up/kernel'].rank == 1
  back = surgery.restore_experts(exact)
  np.testing.assert_allclose(back['up']['kernel'], x, rtol=1e-12, atol=1e-12)
  part = surgery.compress_experts(EXPERTS, ratio=0.5, keep=0.4)
  lost = np.asarray(surgery.restore_experts(part)['up']['kernel']) - x
  u, s, vt = np.linalg.svd(x)
  low = s[:, :1, None] * u[:, :, :1] * vt[:, :1]
  norms = np.sort(np.square(x - low).sum(1))  # of columns, ascending
  np.testing.assert_allclose(
    np.square(lost).sum((1, 2)), norms[:, :3].sum(1), rtol=1e-10
  )


def test_bad_arguments_are_named():
  usage, s = np.full(4, 0.25), np.ones((4, 4))
  ten = jax.tree.map(lambda x: x[:3], EXPERTS)
  for call, message in (
    (
      lambda: surgery.group_counts({'a': usage}, average=5),
      r'expected 1 \.\. 4',
    ),
    (
      lambda: surgery.group_counts({'a': usage}, average=1, exclude=['b']),
      "exclude has 'b'",
    ),
    (lambda: surgery.group_experts(-usage, s, count=1), 'numbers >= 0'),
    (lambda: surgery.group_experts(usage, s[:3], count=1), r'shape \(3, 4\)'),
    (lambda: surgery.group_experts(usage, s, count=0), r'count=0\)'),
    (
      lambda: surgery.group_experts(usage, s, count=1, capacity=3),
      '1 groups do not hold 4 experts',
    ),
    (
      lambda: surgery.merge_experts(ten, groups(0, 0, 1, 1), usage=usage),
      'leaves of 3 experts',
    ),
    (
      lambda: surgery.tie_experts(EXPERTS, groups(0, 0, 1, 1)),
      'leaves of 4 experts, groups has 2',
    ),
    (
      lambda: surgery.align_experts(
        EXPERTS, symmetry=SYMMETRY, key=KEY, reference=4
      ),
      r'reference=4\): expected 0 \.\. 3',
    ),
    (
      lambda: surgery.tie_experts(
        {'w': jnp.ones(2)},
        surgery.ExpertGroups(np.asarray([0, 2]), np.arange(2)),
      ),
      r'name each of 0 \.\. 1 and no other',
    ),
    (lambda: surgery.drop_experts(LAYER, [4]), r'index is 4 \.\. 4'),
    (lambda: surgery.drop_experts(LAYER, []), 'keep one expert at least'),
    (
      lambda: surgery.compress_experts(EXPERTS, ratio=0.0, keep=0.5),
      r'ratio=0\.0, keep=0\.5\): expected ratio > 0',
    ),
  ):
    with pytest.raises(ValueError, match=message) as error:
      call()
    assert len(str(error.value)) <= 200
