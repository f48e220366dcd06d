"""stack and apply: values, dtypes and errors."""

import re
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, merge, tree

FLOAT = jnp.ones(()).dtype.name  # float32 where JAX has its defaults
FLOATS = ['bfloat16', 'float16', 'float32'] + ['float64'] * (FLOAT == 'float64')


def params(seed: float = 0.0, dtype: Any = FLOAT) -> dict[str, Any]:
  return {
    'dense': {'kernel': jnp.full((2, 3), 1 + seed, dtype)},
    'scale': jnp.asarray(seed, dtype),
    'steps': jnp.asarray([int(seed)]),
    'flag': jnp.asarray(seed > 0),
  }


def test_stack_subtracts_the_base() -> None:
  x = deltas.stack(params(), [params(2.0), params(-1.0)])
  assert x['dense']['kernel'].tolist() == [[[2.0] * 3] * 2, [[-1.0] * 3] * 2]
  assert x['scale'].tolist() == [2.0, -1.0]
  assert x['steps'] is None
  assert x['flag'] is None


@pytest.mark.parametrize('dtype', FLOATS)
def test_deltas_are_float32_or_wider_and_models_keep_their_dtype(
  dtype: str,
) -> None:
  base, model = params(1.0, dtype), params(2.0, dtype)
  x = deltas.stack(base, [model])
  wide = np.float64 if dtype == 'float64' else np.float32
  assert x['scale'].dtype == wide
  merged = deltas.apply(base, merge.sum(x))
  assert jax.tree.structure(merged) == jax.tree.structure(base)
  for name, leaf in tree.named(merged).items():
    assert leaf.dtype == tree.named(base)[name].dtype
  assert merged['dense']['kernel'].tolist() == [[3.0] * 3] * 2
  assert merged['steps'].tolist() == [1]


def test_a_difference_of_bfloat16_is_not_rounded() -> None:
  base = {'w': jnp.asarray([256.0], jnp.bfloat16)}
  x = deltas.stack(base, [{'w': jnp.asarray([1.0], jnp.bfloat16)}])
  assert x['w'].tolist() == [[-255.0]]


def test_apply_scales_and_keeps_the_base_where_the_delta_is_none() -> None:
  base = params(1.0)
  delta = {
    'dense': {'kernel': None},
    'scale': jnp.asarray(2.0),
    'steps': None,
    'flag': None,
  }
  merged = deltas.apply(base, delta, coef=0.25)
  assert float(merged['scale']) == 1.5
  assert merged['dense']['kernel'] is base['dense']['kernel']
  assert merged['flag'] is base['flag']
  same = deltas.apply(base, delta, coef=0.0)
  assert float(same['scale']) == 1.0


def test_a_coefficient_may_be_traced_and_mapped() -> None:
  base, x = {'w': jnp.ones(2)}, {'w': jnp.asarray([1.0, 2.0])}
  sweep = jax.jit(jax.vmap(lambda c: deltas.apply(base, x, coef=c)))
  found = sweep(jnp.asarray([0.0, 0.5, -1.0]))['w'].tolist()
  assert found == [[1.0, 1.0], [1.5, 2.0], [0.0, -1.0]]


def test_numpy_leaves_and_jit_are_accepted() -> None:
  base, model = {'w': np.ones(2)}, {'w': np.asarray([1.0, 3.0])}
  assert deltas.stack(base, [model])['w'].tolist() == [[0.0, 2.0]]
  stacked = jax.jit(lambda b, m: deltas.stack(b, [m]))(base, model)
  assert stacked['w'].tolist() == [[0.0, 2.0]]


def test_the_inputs_are_not_modified() -> None:
  base, model = params(), params(1.0)
  before = jax.tree.map(np.array, (base, model))
  deltas.apply(base, merge.mean(deltas.stack(base, [model])))
  jax.tree.map(np.testing.assert_array_equal, (base, model), before)


def test_scalars_of_numpy_are_leaves() -> None:
  base, model = {'w': np.float32(1.0)}, {'w': np.float32(3.0)}
  stacked = deltas.stack(base, [model])
  assert deltas.apply(base, merge.sum(stacked))['w'].item() == 3.0
  with pytest.raises(ValueError, match="model 0: leaf 'w' holds 1 NaN"):
    deltas.stack(base, [{'w': np.float32(np.nan)}])


W = {'w': jnp.ones(2), 'n': jnp.asarray([1])}
STACK: dict[str, tuple[Any, Any, str]] = {
  'no models': (W, [], 'stack: no models given, at least one is needed'),
  'a dict of models': (W, {'m': W}, 'the models are a dict, expected a list'),
  'a State of models': (
    W,
    nnx.State({'m': nnx.Param(jnp.ones(2))}),
    'the models are a State, expected a list',
  ),
  'a byte order that JAX does not read': (
    {'w': np.ones(2, '>f4')},
    [{'w': np.ones(2, '>f4')}],
    "base: leaf 'w' is >f4, of the other byte order: convert it",
  ),
  'a missing leaf': (
    {'kernel': W['w']},
    [{'kernel': W['w']}, {'kernal': W['w']}],
    "stack: model 1: no leaf 'kernel' as in base (did you mean 'kernal'?)",
  ),
  'a leaf more': (
    W,
    [W | {'head': W['w']}],
    "stack: model 0: a leaf 'head' that is not in base: take it out",
  ),
  'other containers': (
    {'w': [W['w']]},
    [{'w': (W['w'],)}],
    "'w' is a tuple, in base a list: convert it by tree.like(base, other)",
  ),
  'another shape': (
    W,
    [W, W | {'w': jnp.ones(3)}],
    "stack: model 1: leaf 'w' has shape (3,), base has (2,)",
  ),
  'a shape that would broadcast': (
    W,
    [W | {'w': jnp.ones(1)}],
    "leaf 'w' has shape (1,), base has (2,)",
  ),
  'another shape of an integer': (
    W,
    [W | {'n': jnp.asarray([1, 2])}],
    "leaf 'n' has shape (2,), base has (1,)",
  ),
  'another dtype': (
    W,
    [W | {'w': jnp.ones(2, jnp.bfloat16)}],
    f"stack: model 0: leaf 'w' has dtype bfloat16, base has {FLOAT}: cast it",
  ),
  'NaN': (
    W,
    [W, W | {'w': jnp.asarray([np.nan, 1.0])}],
    "stack: model 1: leaf 'w' holds 1 NaN or infinite value: repair",
  ),
  'infinity in the base': (
    W | {'w': jnp.asarray([np.inf, -np.inf])},
    [W],
    "stack: base: leaf 'w' holds 2 NaN or infinite values",
  ),
  'numbers': ({'w': 1.0}, [{'w': 2.0}], "leaf 'w' is a float, not an array"),
}


@pytest.mark.parametrize('case', STACK)
def test_stack_raises(case: str) -> None:
  base, models, message = STACK[case]
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    deltas.stack(base, models)
  assert '\n' not in str(error.value)


APPLY: dict[str, tuple[Any, str]] = {
  'an unmerged stack': (
    {'w': jnp.ones((4, 2)), 'n': None},
    "apply: delta leaf 'w' has shape (4, 2), the base (2,): merge the stack "
    'first',
  ),
  'another shape': (
    {'w': jnp.ones(3), 'n': None},
    "apply: delta leaf 'w' has shape (3,), the base (2,): it is of another "
    'model',
  ),
  'a missing leaf': (
    {'n': None, 'v': jnp.ones(2)},
    "apply: the delta: no leaf 'w' as in the base",
  ),
  'a delta of an integer': (
    {'w': jnp.ones(2), 'n': jnp.ones(1)},
    "apply: the base has no float leaf 'n', the delta has: make it None",
  ),
  'numbers': ({'w': 1.0, 'n': None}, "apply: the delta: leaf 'w' is a float"),
}


@pytest.mark.parametrize('case', APPLY)
def test_apply_raises(case: str) -> None:
  delta, message = APPLY[case]
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    deltas.apply(W, delta)
  assert '\n' not in str(error.value)


def test_shapes_are_checked_before_anything_is_read() -> None:
  def fetch() -> Any:
    raise AssertionError('read')

  leaf = tree.Stored(fetch, (2,), np.dtype('float64'))
  other = tree.Stored(fetch, (3,), np.dtype('float64'))
  with pytest.raises(ValueError, match='has shape'):
    deltas.stack({'w': leaf}, [{'w': leaf}, {'w': other}])
  with pytest.raises(ValueError, match='has shape'):
    deltas.apply({'w': leaf}, {'w': other})


def test_check() -> None:
  deltas.check('mix', {'a': W, 'b': W})
  with pytest.raises(ValueError, match=r"mix: b: leaf 'w' has shape \(3,\)"):
    deltas.check('mix', {'a': W, 'b': W | {'w': jnp.ones(3)}})


def test_constants_of_a_trace_are_checked_too() -> None:
  good = {'w': jnp.ones(2)}
  stack = lambda base: jax.jit(lambda m: deltas.stack(base, [m, good]))
  assert stack(good)({'w': jnp.zeros(2)})['w'].tolist() == [[-1, -1], [0, 0]]
  with pytest.raises(ValueError, match="base: leaf 'w' holds 1 NaN"):
    stack({'w': jnp.asarray([1.0, np.nan])})(good)


def _heads():
  """Returns a base and two models that differ in heads and vocabulary."""
  base = {
    'body': {'w': jnp.ones((2, 2)), 'n': jnp.arange(2)},
    'embed': jnp.ones((3, 2)),
    'head': jnp.ones(4),
    'old': jnp.ones(1),
  }
  dotted = {
    'body.w': jnp.full((2, 2), 3.0),
    'body.n': jnp.arange(2),
    'embed': jnp.full((5, 2), 2.0),
    'head': jnp.full(4, 2.0),
    'extra': jnp.ones(7),
  }
  nested = {
    'body': {'w': jnp.full((2, 2), 5.0), 'n': jnp.arange(2)},
    'embed': jnp.full((3, 2), 4.0),
    'head': jnp.full(6, 2.0),
  }
  return base, [dotted, nested]


def test_unmatched_leaves_are_listed() -> None:
  base, models = _heads()
  assert [tuple(x) for x in deltas.unmatched(base, models)] == [
    ('embed', 0, 'shape (5, 2), in the base (3, 2)'),
    ('old', 0, 'missing'),
    ('extra', 0, 'extra'),
    ('head', 1, 'shape (6,), in the base (4,)'),
    ('old', 1, 'missing'),
  ]
  assert deltas.unmatched(base, [base]) == []


def test_unmatched_leaves_are_an_error_by_default() -> None:
  base, models = _heads()
  with pytest.raises(ValueError, match='stack: model 0'):
    deltas.stack(base, models)
  with pytest.raises(ValueError, match=r"unmatched='skip'\): expected one of"):
    deltas.stack(base, models, unmatched='skip')


@pytest.mark.parametrize('lazy', [False, True])
def test_unmatched_leaves_are_the_base_or_zero(lazy: bool) -> None:
  base, models = _heads()
  wrap = tree.defer if lazy else lambda x: x
  kept = tree.read(
    deltas.stack(wrap(base), [wrap(m) for m in models], unmatched='base')
  )
  assert kept['embed'] is None
  assert kept['head'] is None
  assert kept['old'] is None
  assert kept['body']['n'] is None
  assert kept['body']['w'][:, 0, 0].tolist() == [2.0, 4.0]
  zero = tree.read(
    deltas.stack(wrap(base), [wrap(m) for m in models], unmatched='zero')
  )
  assert zero['old'] is None
  assert zero['embed'][:, 0, 0].tolist() == [0.0, 3.0]
  assert zero['head'][:, 0].tolist() == [1.0, 0.0]
  merged = deltas.apply(base, jax.tree.map(lambda x: x.sum(0), zero))
  assert merged['embed'].tolist() == models[1]['embed'].tolist()
  assert merged['old'] is base['old']


def test_models_of_other_dtypes_need_a_dtype() -> None:
  base = {'w': jnp.ones(3, jnp.bfloat16), 'n': jnp.arange(2)}
  model = {'w': jnp.asarray([1.5, 1.001, 3], jnp.float32), 'n': jnp.arange(2)}
  with pytest.raises(ValueError, match="leaf 'w' has dtype float32"):
    deltas.stack(base, [model])
  found = deltas.stack(base, [model], dtype=jnp.float32)['w']
  assert found.dtype == jnp.float32
  np.testing.assert_array_equal(found[0], model['w'] - 1)
  for odd in (jnp.ones(3, jnp.complex64), jnp.ones(3, jnp.int32)):
    with pytest.raises(ValueError, match="leaf 'w' has dtype"):
      deltas.stack(base, [model | {'w': odd}], dtype=jnp.float32)


@pytest.mark.parametrize(
  'name',
  [
    'base_model.model.q_proj.lora_A.weight',
    'q.lora_embedding_B',
    'layer/lora_a',
    'lora_B/kernel',
  ],
)
def test_factors_of_loras_are_refused(name: str) -> None:
  model = {name: jnp.ones((2, 2))}
  with pytest.raises(ValueError, match='is a factor of a LoRA') as caught:
    deltas.stack(model, [model, model])
  assert name in str(caught.value)
  assert len(str(caught.value)) <= 200
  with pytest.raises(ValueError, match=r'slerp: a: .* factor of a LoRA'):
    merge.slerp(model, model, t=0.5)
  fine = {'explora_A': jnp.ones(2), 'lora_alpha': jnp.ones(2)}
  assert deltas.stack(fine, [fine])['lora_alpha'].tolist() == [[0, 0]]
