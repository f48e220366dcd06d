"""PLeaS: models and arguments that are refused."""

import jax
import jax.numpy as jnp
import pytest

from tests.align.partial.networks import (
  close,
  draw,
  F,
  mlp,
  normal,
  one,
  SYMMETRY,
  X,
)
from wsl import align, stats, tree, types


def test_tables_must_be_named_and_tied_weights_are_refused():
  symmetry = align.Symmetry(
    (F('h', 4), F('v', 5, 'tokens'), F('y', 2, 'out')),
    (('e', one('v', 'h')), ('o', one('h', 'y'))),
  )
  net = lambda p, x: jax.nn.relu(p['e'][x]) @ p['o']
  a, b = ({'e': normal(s, 5, 4), 'o': normal(s + 1, 4, 2)} for s in (1, 5))
  x = jnp.asarray([0, 3, 1, 4, 2])
  options = {
    'symmetry': symmetry,
    'separate': 1.0,
    'grams': stats.joint_gram(net, [a, b], [x]),
  }
  found = align.pleas(a, b, tables='^e$', **options)
  close(net(found.params, x), (net(a, x) + net(b, x)) / 2)
  with pytest.raises(ValueError, match=r"'e' has no Gram .* name it in tables"):
    align.pleas(a, b, **options)
  with pytest.raises(ValueError, match="no leaf matches 'embed'"):
    align.pleas(a, b, tables='embed', **options)
  tied = lambda p, x: jnp.tanh(x @ p['w']) @ p['w'].T
  symmetry = align.Symmetry(
    (F('h', 4), F('x', 3, 'in and out')), (('w', one('x', 'h')),)
  )
  a, b = {'w': normal(1, 3, 4)}, {'w': normal(2, 3, 4)}
  grams = stats.joint_gram(tied, [a, b], [X])
  with pytest.raises(ValueError, match="leaf 'w' has no Gram matrix"):
    align.pleas(a, b, symmetry=symmetry, separate=0.5, grams=grams)


def test_gains_of_leaves_of_other_shapes_are_refused():
  a, b = draw(1), draw(2, (3, 6, 5, 7))
  with pytest.raises(ValueError, match=r"leaf 'b2' has shape \(4,\) in a and"):
    align.unit_gains(a, b, symmetry=SYMMETRY)
  trunk = align.unit_gains(a, b, symmetry=SYMMETRY, leaves='0|1')
  assert trunk['h0'].shape == (6,)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'separate': 1.5}, "separate=1.5 of group 'h0'"),
    ({'separate': {'hh0': 0.5}}, "no group 'hh0' \\(did you mean 'h0'"),
    ({'separate': {'y': 0.5}}, r"names 'y', which is pinned \(an output\)"),
    ({'outputs': ['h0']}, "outputs names 'h0', which is not a pinned factor"),
    ({'gains': {'h0': jnp.ones(6)}}, "gains of group 'h1' have shape none"),
    (
      {'gains': {'h0': jnp.ones(6), 'h1': jnp.full(5, jnp.nan)}},
      "gains of group 'h1' are not finite",
    ),
    ({'grams': {'w1': jnp.ones((1, 2, 2))}}, "grams holds .* at 'w1'"),
    (
      {'grams': stats.gram(mlp, draw(1), [X])},
      r"Gram matrix of 'w0' has shape \(1, 3, 3\), expected \[..., 6, 6\]",
    ),
    ({'grams': {}}, "'w0' has no Gram matrix, so its input axes are unknown"),
    ({'ridge': 0.0}, "least squares of 'w0' are singular with ridge=0.0"),
  ],
)
def test_bad_arguments_are_named(change, message):
  a, b = draw(1), draw(2)
  rows = X[:2]  # Too few for a regular system.
  options = {
    'symmetry': SYMMETRY,
    'separate': 0.5,
    'grams': stats.joint_gram(mlp, [a, b], [rows]),
  }
  with pytest.raises(ValueError, match=message):
    align.pleas(a, b, **(options | change))


def test_models_of_different_trees_are_named():
  a, b = draw(1), draw(2, (3, 7, 5, 4))
  options = {'symmetry': SYMMETRY, 'separate': 0.5, 'grams': {}}
  with pytest.raises(ValueError, match="pleas: b: leaf 'b0' has shape"):
    align.pleas(a, b, **options)
  del b['b0']
  with pytest.raises(ValueError, match="pleas: b: no leaf 'b0' as in a"):
    align.pleas(a, b, **options)


def test_names_of_grams_need_not_be_complete():
  a, b = draw(1), draw(2)
  grams = tree.named(
    stats.joint_gram(mlp, [a, b], [X]),
    is_leaf=lambda x: isinstance(x, types.Gram),
  )
  del grams['w2']
  found = align.pleas(a, b, symmetry=SYMMETRY, separate=0.0, grams=grams)
  close(found.params['w2'], (a['w2'] + b['w2']) / 2)
