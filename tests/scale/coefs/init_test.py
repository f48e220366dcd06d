"""Blocks: names, rules, errors, saving and loading."""

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsl import checkpoint, scale

T = 2
DEPTH = r'block_(\d+)/'


def make_bank() -> scale.Bank:
  block = lambda: {'w': np.zeros((2, 4)), 'b': np.zeros(4)}
  base = {'embed': np.zeros(3), 'block_0': block(), 'block_2': block()}
  base['step'] = np.asarray(1)
  models = [jax.tree.map(lambda x: x + np.ones((), x.dtype), base)] * T
  return scale.bank(base, models)


BANK = make_bank()


@pytest.mark.parametrize(
  ('by', 'shapes'),
  [
    ('all', {'all': ()}),
    ('task', {'task': (T,)}),
    ('layer', {'layer_0': (T,), 'layer_2': (T,), 'rest': (T,)}),
    (
      'channel',
      {
        'block_0/b': (T, 4),
        'block_0/w': (T, 4),
        'block_2/b': (T, 4),
        'block_2/w': (T, 4),
        'embed': (T, 3),
      },
    ),
    (
      [
        (r'(block_\d)/w', r'\1 heads', ('head', 2)),
        (r'(block_\d)/b', r'\1 heads', ('head', 2, 0)),
        ('embed', None, 'entry'),
      ],
      {'block_0 heads': (T, 2), 'block_2 heads': (T, 2), 'embed': (T, 3)},
    ),
    (
      [('/b$', 'biases'), ('.*', 'all the rest', ('random', 7))],
      {'biases': (T,), 'all the rest': (T, 7)},
    ),
  ],
)
def test_names_and_shapes(by: Any, shapes: Any) -> None:
  coefs = scale.init(BANK, by=by, depth=DEPTH, key=jax.random.key(0))
  assert {k: x.shape for k, x in coefs.values.items()} == shapes


def test_a_block_may_span_leaves_and_runs() -> None:
  by = [('/w', 'heads', ('head', 2)), ('/b', 'heads', ('head', 2)), ('', 'x')]
  coefs = scale.init(BANK, by=by)
  coefs.values['heads'] = jnp.asarray([[1.0, 2.0], [0.0, 0.0]])
  delta = scale.combine(BANK, coefs)
  assert delta['block_0']['b'].tolist() == [1.0, 1.0, 2.0, 2.0]
  assert delta['block_2']['w'].tolist() == [[1.0, 1.0, 2.0, 2.0]] * 2
  assert delta['embed'].tolist() == [0.0] * 3


def test_random_cells_depend_on_key_and_name_and_fill_evenly() -> None:
  base = {'a': jnp.zeros(40000), 'b': jnp.zeros(40000)}
  bank = scale.bank(base, [{k: jnp.ones(40000) for k in base}])

  def cells(seed: int, number: int = 4) -> Any:
    coefs = scale.init(bank, by=('random', number), key=jax.random.key(seed))
    for name in coefs.values:
      coefs.values[name] = jnp.arange(float(number))[None]
    return scale.combine(bank, coefs)

  one, again, other = cells(0), cells(0), cells(1)
  assert np.array_equal(one['a'], again['a'])
  assert not np.array_equal(one['a'], other['a'])
  assert not np.array_equal(one['a'], one['b'])
  share = np.bincount(np.asarray(one['a'], int)) / 40000
  np.testing.assert_allclose(share, 0.25, atol=0.01)
  wide = np.asarray(cells(0, 300)['a'], int)
  assert set(wide.tolist()) == set(range(300))


def test_coefficients_are_float32_unless_the_base_is_wider() -> None:
  half = {'w': jnp.zeros(2, jnp.bfloat16)}
  bank = scale.bank(half, [{'w': jnp.ones(2, jnp.bfloat16)}])
  assert scale.init(bank, by='task')['task'].dtype == jnp.float32
  assert scale.init(BANK, by='task')['task'].dtype == jnp.float64


@pytest.mark.parametrize('by', ['all', 'layer', 'leaf', ('random', 3)])
def test_coefficients_survive_saving(by: Any, tmp_path: pathlib.Path) -> None:
  new = lambda: scale.init(BANK, by=by, depth=DEPTH, key=jax.random.key(0))
  flat = iter(range(100))
  coefs = jax.tree.map(lambda x: x + float(next(flat)), new())
  path = tmp_path / 'coefs.safetensors'
  checkpoint.save(path, coefs)
  plain = checkpoint.load(path)
  assert list(plain) == list(coefs.values)
  back = checkpoint.load(path, like=new())
  assert isinstance(back, scale.Coefs)
  assert jax.tree.structure(back) == jax.tree.structure(coefs)
  jax.tree.map(np.testing.assert_array_equal, back, coefs)
  with pytest.raises(ValueError, match='no leaf'):
    checkpoint.load(path, like=scale.init(BANK, by='task'))


def test_coefficients_survive_a_run(tmp_path: pathlib.Path) -> None:
  coefs = scale.init(BANK, by='leaf', value=0.3)
  checkpoint.save_run(tmp_path, {'coefs': coefs, 'step': 4}, step=4)
  like = {'coefs': scale.init(BANK, by='leaf'), 'step': 0}
  back = checkpoint.restore_run(tmp_path, like)['coefs']
  assert isinstance(back, scale.Coefs)
  jax.tree.map(np.testing.assert_array_equal, back, coefs)


@pytest.mark.parametrize(
  ('by', 'message'),
  [
    ('leave', "init(by='leave'): no such rule (did you mean 'leaf'?)"),
    (3, 'init(by=3): no such rule'),
    ('layer', "init(by='layer'): depth= is missing"),
    ('random', "'random' is written as ('random', K)"),
    (('random', 0), 'expected 1 or more'),
    ('head', "'head' is written as ('head', heads)"),
    (('head', 3), "axis -1 of leaf 'block_0/b' has 4 entries, not a multiple"),
    (('channel', 1), "leaf 'block_0/b' of shape (4,) has no axis 1"),
    (('random', 3), 'a random partition needs key='),
    ([('^block', 'x')], "init: no rule covers leaf 'embed'"),
    ([('.*', 'x'), ('embed', 'y')], "rule 'embed' covers no leaf"),
    ([('conv', 'x'), ('.*', 'y')], "rule 'conv' covers no leaf"),
    ([('.*', r'\1')], r"rule ('.*', '\1'): invalid group reference 1"),
    ([('(', 'x')], "'(' is no regular expression"),
    ([('.*',)], "rule ('.*',): expected (regex, block)"),
    ([('.*', 'x', 'chanel')], "'chanel' is no rule for the entries of a leaf"),
    ([('.*', 'x', 'channel')], "leaf 'embed' needs coefficients (2, 3)"),
  ],
)
def test_bad_rules_are_refused(by: Any, message: str) -> None:
  with pytest.raises(ValueError, match=re.escape(message)) as caught:
    scale.init(BANK, by=by)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('depth', 'message'),
  [
    ('layer_(.)', "init(depth='layer_(.)'): covers no leaf"),
    ('block_', 'expected one group'),
    ('(block)_', "captured 'block'"),
  ],
)
def test_bad_depths_are_refused(depth: str, message: str) -> None:
  with pytest.raises(ValueError, match=re.escape(message)):
    scale.init(BANK, by='layer', depth=depth)


def test_coefficients_of_another_bank_are_refused() -> None:
  base = {'w': jnp.zeros(2), 'b': jnp.zeros(1)}
  one = jax.tree.map(lambda x: x + 1, base)
  bank = scale.bank(base, [one] * 3)
  two = scale.init(scale.bank(base, [one] * 2), by='leaf')
  with pytest.raises(ValueError, match=r"block 'b' has shape \(2,\), leaf 'b'"):
    scale.compose(base, bank, two)
  part = scale.init(scale.bank({'w': base['w']}, [{'w': one['w']}]), by='all')
  with pytest.raises(ValueError, match="no coefficient for leaf 'b'"):
    scale.compose(base, bank, part)
  with pytest.raises(ValueError, match="coefficients for 'block_0/b'"):
    scale.compose(base, bank, scale.init(BANK, by='all'))
  with pytest.raises(ValueError, match=r"of 'b' has shape \(2,\), expected"):
    scale.compose(base, bank, jnp.ones(2))
  with pytest.raises(ValueError, match="no value stands for leaf 'b'"):
    scale.compose(base, bank, {'w': 0.5})


def test_prefixes_of_the_parameters_are_coefficients() -> None:
  c = {
    'embed': 2.0,
    'block_0': jnp.asarray([1.0, 0.0]),
    'block_2': 0,
    'step': 0,
  }
  base = jax.tree.unflatten(
    BANK.structure,
    [jnp.zeros(s, d) if s else jnp.asarray(1, d) for _, s, d in BANK.specs],
  )
  found = scale.compose(base, BANK, c)
  assert found['embed'].tolist() == [4.0] * 3
  assert found['block_0']['b'].tolist() == [1.0] * 4
  assert found['block_2']['b'].tolist() == [0.0] * 4
