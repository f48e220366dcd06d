"""Hyperparameters that are numbers refuse arrays, or take one per leaf."""

from collections import OrderedDict
import re
from typing import Any

from flax.core import freeze
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import (
  align,
  deltas,
  landscape,
  merge,
  scale,
  stats,
  stitch,
  tree,
  types,
)

KEY = jax.random.key(0)
FLOAT = jnp.result_type(float)
_ONES = {
  'layers_0': {'attn': np.ones(2), 'mlp': np.ones((3, 2))},
  'layers_1': {'attn': np.ones(2), 'mlp': np.ones((3, 2))},
  'head': np.ones((2, 2)),
}
_FIRST = lambda x: np.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1)) == 0
BASE = jax.tree.map(jnp.asarray, _ONES)
DELTA = jax.tree.map(lambda x: jnp.asarray(2 * x), _ONES)
OTHER = jax.tree.map(lambda x: jnp.asarray(np.where(_FIRST(x), 3, x)), _ONES)
STACK = jax.tree.map(lambda x: jnp.asarray(np.stack([x, 2 * x, -x])), _ONES)
GRAMS = jax.tree.map(lambda x: None, BASE)
SYMMETRY = align.Symmetry((), ())


def _moments() -> Any:
  x = jnp.arange(6.0).reshape(3, 2) ** 2
  return stats.cross_moments(lambda x: [x], lambda x: [x], [x])[0, 0]


# Function, argument, call.
SCALARS: list[tuple[str, str, Any]] = [
  ('apply', 'coef', lambda v: deltas.apply(BASE, DELTA, coef=v)),
  ('slerp', 't', lambda v: merge.slerp(BASE, OTHER, t=v)),
  (
    'slerp',
    'lerp_above',
    lambda v: merge.slerp(BASE, OTHER, t=0.5, lerp_above=v),
  ),
  ('interpolate', 't', lambda v: landscape.interpolate(BASE, OTHER, v)),
  ('dare', 'rate', lambda v: merge.dare(STACK, rate=v, key=KEY)),
  ('trim', 'density', lambda v: merge.trim(STACK, density=v)),
  ('doge', 'norm', lambda v: merge.doge(STACK, norm=v, steps=0)),
  ('ties', 'density', lambda v: merge.ties(STACK, density=v)),
  (
    'metric_weighted',
    'penalty',
    lambda v: merge.metric_weighted(STACK, metrics=[1.0, 2.0, 3.0], penalty=v),
  ),
  (
    'variance_corrected',
    'self_weight',
    lambda v: merge.variance_corrected(STACK, self_weight=v),
  ),
  (
    'breadcrumbs',
    'outliers',
    lambda v: merge.breadcrumbs(STACK, density=0.2, outliers=v),
  ),
  (
    'breadcrumbs',
    'density',
    lambda v: merge.breadcrumbs(STACK, density=v, outliers=0.1),
  ),
  ('tall_masks', 'threshold', lambda v: merge.tall_masks(STACK, threshold=v)),
  (
    'consensus',
    'threshold',
    lambda v: merge.consensus(STACK, threshold=v, min_tasks=2),
  ),
  (
    'consensus',
    'min_tasks',
    lambda v: merge.consensus(STACK, threshold=0.5, min_tasks=v),
  ),
  (
    'fisher',
    'floor',
    lambda v: merge.fisher(STACK, fishers=STACK, floor=v),
  ),
  (
    'fisher',
    'coefs',
    lambda v: merge.fisher(STACK, fishers=STACK, coefs=v),
  ),
  (
    'regmean',
    'shrink',
    lambda v: merge.regmean(STACK, grams=GRAMS, shrink=v),
  ),
  (
    'regmean',
    'coefs',
    lambda v: merge.regmean(STACK, grams=GRAMS, shrink=0.5, coefs=v),
  ),
  (
    'by_depth',
    'start',
    lambda v: scale.by_depth(DELTA, depth=r'layers_(\d)', start=v, end=1.0),
  ),
  (
    'by_depth',
    'end',
    lambda v: scale.by_depth(DELTA, depth=r'layers_(\d)', start=0.1, end=v),
  ),
  (
    'sinkhorn_project',
    'temperature',
    lambda v: align.sinkhorn_project(jnp.eye(3), temperature=v, iterations=2),
  ),
  ('box', 'high', lambda v: scale.box({'a': jnp.ones(2)}, high=v)),
  (
    'shrinkage',
    'weight',
    lambda v: scale.shrinkage({'a': jnp.ones(2)}, p=1, weight=v),
  ),
]
# Not traced: their values choose the program.
STATIC: list[tuple[str, str, Any]] = [
  ('iso_cts', 'common', lambda v: merge.iso_cts(STACK, common=v)),
  (
    'least_squares',
    'ridge',
    lambda v: stats.least_squares(_moments(), ridge=v),
  ),
  ('fit', 'alpha', lambda v: stitch.fit_moments(_moments(), alpha=v)),
]
FORMS = {
  'a list': lambda: [0.5, 0.25],
  'a tuple': lambda: (0.5,),
  'numpy': lambda: np.asarray([0.5, 0.25]),
  'one entry': lambda: jnp.asarray([0.5]),
  'two axes': lambda: np.full((2, 1), 0.5),
  'nested lists': lambda: [[0.5, 0.25, 0.125, 0.5]],
}
IDS = [f'{function}-{argument}' for function, argument, _ in SCALARS + STATIC]


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
  ('function', 'argument', 'call'), SCALARS + STATIC, ids=IDS
)
def test_an_array_is_refused(
  function: str, argument: str, call: Any, form: str
) -> None:
  value = FORMS[form]()
  message = f'{argument} has shape {np.shape(value)}'
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    call(value)
  text = str(error.value)
  assert text.startswith(f'{function}: ')
  assert '\n' not in text
  assert len(text) <= 200


@pytest.mark.parametrize(('function', 'argument', 'call'), SCALARS)
def test_a_traced_array_is_refused_and_a_number_is_not(
  function: str, argument: str, call: Any
) -> None:
  for bad in (jnp.asarray([0.5]), jnp.asarray([0.5, 0.25])):
    shape = re.escape(str(bad.shape))
    with pytest.raises(ValueError, match=f'{argument} has shape {shape}'):
      jax.eval_shape(call, bad)
    with pytest.raises(ValueError, match=f'{argument} has shape {shape}'):
      jax.eval_shape(jax.vmap(call), bad[None])
  one = jax.eval_shape(call, jnp.asarray(0.5))
  many = jax.eval_shape(jax.vmap(call), jnp.asarray([0.5, 0.25, 0.5]))
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(many)):
    assert y.shape == (3, *x.shape)


@pytest.mark.parametrize(
  ('function', 'argument', 'call'), SCALARS + STATIC, ids=IDS
)
def test_numbers_of_rank_0_are_alike(
  function: str, argument: str, call: Any
) -> None:
  wanted = call(0.5)
  for value in (np.float64(0.5), np.asarray(0.5), jnp.asarray(0.5)):
    found = call(value)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, wanted
    )


@pytest.mark.parametrize(('function', 'argument', 'call'), SCALARS[:4])
def test_other_types_are_refused(
  function: str, argument: str, call: Any
) -> None:
  for bad, message in ((1j, 'is complex'), ('0.5', 'is of type str')):
    with pytest.raises(ValueError, match=f'{argument} {message}'):
      call(bad)


@pytest.mark.parametrize(('function', 'argument', 'call'), SCALARS)
@pytest.mark.parametrize('nan', [float('nan'), np.float32('nan')])
def test_nan_is_refused(
  function: str, argument: str, call: Any, nan: Any
) -> None:
  with pytest.raises(ValueError, match=argument) as caught:
    call(nan)
  assert '\n' not in str(caught.value)


COEFS: dict[str, tuple[Any, dict[str, float]]] = {
  'rules': (
    {r'layers_(\d+)/attn': 0.3, '.*': 0.5},
    {'layers_0/attn': 0.3, 'layers_1/attn': 0.3},
  ),
  'rules in their order': (
    {'mlp': 1.0, 'layers_1': 2.0, '.*': 0.5},
    {
      **{'layers_0/mlp': 1.0, 'layers_1/mlp': 1.0, 'layers_1/attn': 2.0},
    },
  ),
  'a prefix': (
    {'layers_0': 1.0, 'layers_1': {'attn': 2.0, 'mlp': 3.0}, 'head': 0.5},
    {
      **{'layers_0/attn': 1.0, 'layers_0/mlp': 1.0},
      **{'layers_1/attn': 2.0, 'layers_1/mlp': 3.0},
    },
  ),
  'names of nodes': (
    {'layers_0': 1.0, 'layers_1': 2.0, 'head': 0.5},
    {
      **{'layers_0/attn': 1.0, 'layers_0/mlp': 1.0},
      **{'layers_1/attn': 2.0, 'layers_1/mlp': 2.0},
    },
  ),
  'names of leaves': (
    {name: 0.5 + (name == 'head') * 0.5 for name in tree.named(BASE)},
    {'head': 1.0},
  ),
  'another mapping': (
    freeze({'layers_0': 1.0, 'layers_1': 1.0, 'head': 0.5}),
    dict.fromkeys(set(tree.named(BASE)) - {'head'}, 1.0),
  ),
}


@pytest.mark.parametrize('case', COEFS)
def test_a_coefficient_for_each_leaf(case: str) -> None:
  coef, wanted = COEFS[case]
  found = tree.named(deltas.apply(BASE, DELTA, coef=coef))
  at_leaf = {name: wanted.get(name, 0.5) for name in found}
  for name, x in found.items():
    np.testing.assert_allclose(x, 1 + 2 * at_leaf[name], rtol=1e-6)
  slerped = tree.named(merge.slerp(BASE, OTHER, t=coef))
  for name, x in slerped.items():
    whole = tree.named(merge.slerp(BASE, OTHER, t=at_leaf[name]))
    np.testing.assert_allclose(x, whole[name], rtol=1e-6)
  b = tree.named(OTHER)
  for name, x in tree.named(landscape.interpolate(BASE, OTHER, coef)).items():
    t = at_leaf[name]
    np.testing.assert_allclose(x, 1 - t + t * b[name], rtol=1e-6)


def test_coefficients_may_be_traced_and_mapped() -> None:
  both = lambda a, b: deltas.apply(BASE, DELTA, coef={'head': a, '.*': b})
  mapped = jax.jit(jax.vmap(both))(jnp.arange(3.0), jnp.ones(3))
  np.testing.assert_allclose(mapped['head'][:, 0, 0], [1, 3, 5])
  np.testing.assert_allclose(mapped['layers_0']['attn'], np.full((3, 2), 3))
  line = lambda a: landscape.interpolate(BASE, OTHER, {'head': a, '.*': 0.0})
  mapped = jax.jit(jax.vmap(line))(jnp.arange(3.0))
  wanted = [1 + a * (OTHER['head'] - 1) for a in range(3)]
  np.testing.assert_allclose(mapped['head'], jnp.stack(wanted), rtol=1e-6)


def test_a_list_is_a_prefix_tree_of_a_list() -> None:
  base = [jnp.ones(2), jnp.ones(3)]
  found = deltas.apply(base, base, coef=[0.5, 2.0])
  assert [x[0].item() for x in found] == [1.5, 3.0]


BAD: dict[str, tuple[Any, str]] = {
  'no rule for a leaf': (
    {'attn': 0.3, 'head': 1.0},
    "apply: coef: no rule covers leaf 'layers_0/mlp': add one, or a last rule",
  ),
  'a rule without a leaf': (
    OrderedDict({'.*': 0.3, 'conv': 1.0}),
    "apply: coef: rule 'conv' covers no leaf",
  ),
  'a malformed rule': ({'(': 1.0, '.*': 2.0}, 'is no regular expression'),
  'a prefix that lacks a leaf': (
    {'layers_0': {'attn': 1.0}, 'head': 1.0},
    "apply: coef: no value stands for leaf 'layers_0/mlp'",
  ),
  'a list in a rule': (
    {'attn': [0.1, 0.2], '.*': 0.5},
    "apply: coef['attn'] has shape (2,), expected a number",
  ),
  'an array in a prefix': (
    {'layers_0': np.ones(1), 'layers_1': 1.0, 'head': 1.0},
    "apply: coef['layers_0'] has shape (1,), expected a number",
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_coefficients_are_named(case: str) -> None:
  coef, message = BAD[case]
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    deltas.apply(BASE, DELTA, coef=coef)
  assert '\n' not in str(error.value)
  message = message.replace('apply: coef', 'interpolate: t')
  with pytest.raises(ValueError, match=re.escape(message)):
    landscape.interpolate(BASE, OTHER, coef)


def test_two_readings_that_differ_are_refused() -> None:
  base = {'a': {'b': jnp.ones(1), 'c': jnp.ones(1)}, 'b': jnp.ones(1)}
  with pytest.raises(ValueError) as error:
    deltas.apply(base, base, coef={'b': 1.0, 'a': 2.0})
  assert str(error.value) == (
    "apply: coef: leaf 'a/b' is below the node 'a' and matches the rule 'b' "
    "first: write '^a/' for a rule"
  )
  # A rule without a leaf is an error: this is a prefix tree and nothing else.
  one = {'a': {'b': jnp.ones(1)}, 'b': jnp.ones(1)}
  assert deltas.apply(one, one, coef={'b': 1.0, 'a': 2.0})['a']['b'].item() == 3
  # In this order the rules say the same as the prefix tree.
  found = deltas.apply(base, base, coef={'a': 2.0, 'b': 1.0})
  assert (found['a']['b'].item(), found['b'].item()) == (3.0, 2.0)
  rules = deltas.apply(base, base, coef={'^b': 1.0, '^a/': 2.0})
  assert rules == found


@pytest.mark.parametrize(
  'call',
  [
    lambda v: merge.ties(STACK, density=v),
    lambda v: merge.dare(STACK, rate=v, key=KEY),
    lambda v: merge.tall_masks(STACK, threshold=v).merged,
    lambda v: merge.breadcrumbs(STACK, density=0.5, outliers=v),
    lambda v: merge.fisher(STACK, fishers=STACK, coefs=v),
  ],
)
def test_numbers_for_each_model_in_a_list_may_be_traced(call: Any) -> None:
  found = jax.jit(lambda a, b: call([a, b, 0.25]))(0.5, 0.25)
  wanted = call([0.5, 0.25, 0.25])
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, wanted
  )
  for bad in (None, 'a', [[0.5], 0.25], []):
    with pytest.raises(ValueError, match='expected a number, or a list') as e:
      call(bad)
    assert '\n' not in str(e.value)


def test_rates_for_each_model() -> None:
  whole = merge.dare(STACK, rate=0.5, key=KEY)
  each = merge.dare(STACK, rate=[0.5, 0.0, 1.0], key=KEY)
  for name, x in tree.named(each).items():
    np.testing.assert_array_equal(x[0], tree.named(whole)[name][0])
    np.testing.assert_array_equal(x[1], tree.named(STACK)[name][1])
    np.testing.assert_array_equal(x[2], np.zeros(x.shape[1:]))


def _drawn(seed: int) -> Any:
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), STACK)


DRAWN, FISHERS = _drawn(0), jax.tree.map(jnp.square, _drawn(1))


def _regmean(**hyper: Any) -> Any:
  x = np.random.default_rng(0).normal(size=(3, 1, 5, 2))
  gram = types.Gram(jnp.asarray(np.swapaxes(x, 2, 3) @ x), jnp.ones(3))
  given = {'shrink': 0.5} | hyper
  return merge.regmean(DRAWN, grams=GRAMS | {'head': gram}, **given)


# Function, argument, call, values at the head and elsewhere.
PER_LEAF: list[tuple[str, str, Any, tuple[float, float]]] = [
  (
    'trim',
    'density',
    lambda v: merge.trim(DRAWN, density=v, scope='leaf'),
    (0.3, 0.6),
  ),
  (
    'ties',
    'density',
    lambda v: merge.ties(DRAWN, density=v, scope='leaf'),
    (0.3, 0.6),
  ),
  (
    'breadcrumbs',
    'density',
    lambda v: merge.breadcrumbs(DRAWN, density=v, outliers=0.3, scope='leaf'),
    (0.3, 0.6),
  ),
  (
    'breadcrumbs',
    'outliers',
    lambda v: merge.breadcrumbs(DRAWN, density=0.3, outliers=v, scope='leaf'),
    (0.0, 0.4),
  ),
  (
    'dare',
    'rate',
    lambda v: merge.dare(DRAWN, rate=v, key=KEY),
    (0.2, 0.7),
  ),
  (
    'della',
    'density',
    lambda v: merge.della(DRAWN, density=v, epsilon=0.1, key=KEY),
    (0.3, 0.7),
  ),
  (
    'della',
    'epsilon',
    lambda v: merge.della(DRAWN, density=0.5, epsilon=v, key=KEY),
    (0.05, 0.4),
  ),
  ('sce', 'select', lambda v: merge.sce(DRAWN, select=v), (0.3, 0.8)),
  ('ram', 'threshold', lambda v: merge.ram(DRAWN, threshold=v), (0.5, 1.5)),
  (
    'ram_plus',
    'rate',
    lambda v: merge.ram_plus(DRAWN, rate=v, threshold=0.5, limit=0.9),
    (0.5, 0.1),
  ),
  (
    'ram_plus',
    'limit',
    lambda v: merge.ram_plus(DRAWN, rate=0.5, threshold=0.5, limit=v),
    (0.5, 0.1),
  ),
  (
    'ram_plus',
    'threshold',
    lambda v: merge.ram_plus(DRAWN, rate=0.5, threshold=v, limit=0.5),
    (0.5, 1.5),
  ),
  (
    'tall_masks',
    'threshold',
    lambda v: merge.tall_masks(DRAWN, threshold=v).masks,
    (0.4, 2.0),
  ),
  (
    'consensus',
    'threshold',
    lambda v: merge.consensus(DRAWN, threshold=v, min_tasks=2),
    (0.4, 2.0),
  ),
  (
    'consensus',
    'min_tasks',
    lambda v: merge.consensus(DRAWN, threshold=0.4, min_tasks=v),
    (1, 3),
  ),
  (
    'fisher',
    'floor',
    lambda v: merge.fisher(DRAWN, fishers=FISHERS, floor=v, normalize=True),
    (1e-6, 0.5),
  ),
  (
    'fisher',
    'coefs',
    lambda v: merge.fisher(DRAWN, fishers=FISHERS, coefs=v),
    (0.0, 1.0),
  ),
  ('regmean', 'shrink', lambda v: _regmean(shrink=v), (0.2, 0.9)),
  ('regmean', 'coefs', lambda v: _regmean(coefs=v), (0.0, 2.0)),
]


@pytest.mark.parametrize(('function', 'argument', 'call', 'values'), PER_LEAF)
def test_a_value_for_each_leaf_is_that_of_a_call_with_it(
  function: str, argument: str, call: Any, values: tuple[float, float]
) -> None:
  at_head, elsewhere = map(tree.named, map(call, values))
  assert not np.array_equal(at_head['head'], elsewhere['head'])
  forms = (
    {'head': values[0], '.*': values[1]},
    {'head': values[0], 'layers_0': values[1], 'layers_1': values[1]},
  )
  for form in forms:
    found = tree.named(call(form))
    for name, x in found.items():
      wanted = (at_head if name == 'head' else elsewhere)[name]
      np.testing.assert_array_equal(x, wanted)
  for bad, message in (
    ({'head': [0.5, 0.5], '.*': 0.5}, f"{argument}['head'] has shape (2,)"),
    ({'head': 0.5}, f'{argument}: no rule covers leaf'),
  ):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
      call(bad)
    assert str(error.value).startswith(f'{function}: ')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda v: merge.trim(STACK, density=v), 'trim: density has a value for'),
    (
      lambda v: merge.breadcrumbs(STACK, density=0.5, outliers=v),
      'breadcrumbs: outliers has a value for',
    ),
    (
      lambda v: merge.ram_plus(STACK, rate=v, scope='global'),
      'ram_plus: rate has a value for',
    ),
    (
      lambda v: merge.slerp(BASE, OTHER, t=0.5, lerp_above=v),
      'slerp: lerp_above is of type dict, expected a number: one for all',
    ),
    (
      lambda v: merge.iso_cts(STACK, common=v),
      'iso_cts: common is of type dict, expected a number: merge groups',
    ),
    (
      lambda v: merge.trim(
        STACK, density={'head': 2.0, '.*': 0.5}, scope='leaf'
      ),
      'trim(density=2.0): density is the fraction kept',
    ),
    (
      lambda v: merge.breadcrumbs(STACK, density=0.9, outliers=v, scope='leaf'),
      'breadcrumbs(density=0.9, outliers=',
    ),
  ],
)
def test_what_is_one_for_all_leaves_says_so(call: Any, message: str) -> None:
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    call({'head': 0.5, '.*': 0.25})
  assert '\n' not in str(error.value)
  assert len(str(error.value)) <= 200


def test_values_for_leaves_may_be_traced() -> None:
  ask = lambda v: merge.trim(
    STACK, density={'head': v, '.*': 0.5}, scope='leaf'
  )
  found = jax.jit(jax.vmap(ask))(jnp.asarray([0.3, 0.6]))
  wanted = tree.stack([ask(0.3), ask(0.6)])
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
