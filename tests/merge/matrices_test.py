"""Merges of stacked and many-axis kernels, matrix by matrix, in float64."""

from collections.abc import Iterator
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.merge import svd_test
from wsl import merge, tree, types

Matrix = tree.Matrix
T = 2
draw = svd_test.draw
METHODS = {
  'tsv': (merge.tsv, svd_test.oracle_tsv),
  'iso_c': (merge.iso_c, svd_test.oracle_iso_c),
  'iso_cts': (
    lambda x, **how: merge.iso_cts(x, common=0.0, **how),
    lambda x: svd_test.oracle_iso_cts(x, each=min(x.shape[1:]) // T),
  ),
}
# Name, shape, view by hand: scanned layers, attention, experts, convolutions.
KERNELS = {
  'dense': ((4, 6), Matrix(rows=(0,), columns=(1,))),
  'torch': ((6, 4), Matrix(rows=(1,), columns=(0,))),
  'scanned': ((3, 4, 6), Matrix(batch=(0,), rows=(1,), columns=(2,))),
  'query': ((6, 2, 3), Matrix(rows=(0,), columns=(1, 2))),
  'out': ((2, 3, 6), Matrix(rows=(0, 1), columns=(2,))),
  'scanned query': (
    (3, 6, 2, 3),
    Matrix(batch=(0,), rows=(1,), columns=(2, 3)),
  ),
  'scanned out': ((3, 2, 3, 6), Matrix(batch=(0,), rows=(1, 2), columns=(3,))),
  'scanned experts': ((2, 3, 4, 6), Matrix((2,), (3,), (0, 1))),
  'flax conv': ((2, 3, 4, 5), Matrix(rows=(0, 1, 2), columns=(3,))),
  'torch conv': ((5, 4, 2, 3), Matrix(rows=(1, 2, 3), columns=(0,))),
  'scanned conv': ((2, 3, 1, 4, 5), Matrix((1, 2, 3), (4,), (0,))),
  'grouped conv': ((3, 1, 2, 8), Matrix((0, 1, 2), (3,), groups=2)),
  'scanned grouped': ((2, 3, 2, 8), Matrix((1, 2), (3,), (0,), groups=2)),
  'last axis batch': ((4, 6, 3), Matrix((0,), (1,), (-1,))),
  'turned': ((2, 3, 4), Matrix(rows=(2, 0), columns=(1,))),
}


def close(found: Any, wanted: Any) -> None:
  """Compares in float64, or in float32 under JAX's defaults."""
  atol = 1e-11 if jax.config.jax_enable_x64 else 1e-4
  np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


def blocks(
  view: Matrix, shape: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, ...]]:
  """Yields for each matrix the positions of its entries, ``[m, n]``."""
  positions = np.arange(int(np.prod(shape))).reshape(shape)
  for index in itertools.product(*(range(shape[a]) for a in view.batch)):
    part = positions
    order = sorted(zip((a % len(shape) for a in view.batch), index))
    for axis, i in reversed(order):
      part = np.take(part, i, axis)
    rest = [a for a in range(len(shape)) if a not in [b for b, _ in order]]
    axes = [rest.index(a) for a in (*view.rows, *view.columns)]
    m = int(np.prod([shape[a] for a in view.rows]))
    matrix = part.transpose(axes).reshape(m, -1)
    yield from np.split(matrix, view.groups, axis=1)


def layer_by_layer(view: Matrix, x: np.ndarray, oracle: Any) -> np.ndarray:
  """Merges ``[T, ...]`` by an oracle of ``[T, m, n]``, one matrix at a time."""
  flat, merged = x.reshape(len(x), -1), np.zeros(x[0].size)
  for at in blocks(view, x.shape[1:]):
    merged[at.ravel()] = oracle(
      flat[:, at.ravel()].reshape(-1, *at.shape)
    ).ravel()
  return merged.reshape(x.shape[1:])


# Whatever the dtype, a view has the axes that it names: the run with JAX's
# defaults computes some of them in float32.
SOME = ('scanned out', 'grouped conv')
BLIND = pytest.mark.same_under_defaults('the axes do not depend on the dtype')


@pytest.mark.parametrize(
  'kernel',
  [pytest.param(k, marks=() if k in SOME else (BLIND,)) for k in KERNELS],
)
@pytest.mark.parametrize('name', METHODS)
def test_a_view_is_merged_matrix_by_matrix(name: str, kernel: str) -> None:
  (method, oracle), (shape, view) = METHODS[name], KERNELS[kernel]
  x = draw(len(kernel), T, *shape)
  b = draw(1, T, 5)
  y = {'w': jnp.asarray(x), 'b': jnp.asarray(b)}
  merged = method(y, matrices={'w': view})
  close(merged['w'], layer_by_layer(view, x, oracle))
  close(merged['b'], b.mean(0))
  jitted = jax.jit(lambda y: method(y, matrices={'w': view}))(y)
  close(jitted['w'], merged['w'])
  lazy = tree.read(method(tree.defer(y), matrices={'w': view}))
  close(lazy['w'], merged['w'])


@BLIND
@pytest.mark.parametrize('kernel', KERNELS)
def test_split_and_join_are_inverse(kernel: str) -> None:
  shape, view = KERNELS[kernel]
  x = np.arange(np.prod(shape)).reshape(shape)
  split = view.split(jnp.asarray(x))
  wanted = np.stack(list(blocks(view, shape)))
  assert split.tolist() == wanted.tolist()
  assert view.join(split, shape).tolist() == x.tolist()
  assert split.shape == view.fit(shape).sizes(shape)


REFUSED = {
  'many axes': ({'q': (2, 3, 4)}, None, "leaf 'q' of shape (2, 3, 4) has more"),
  'three axes by choice': ({'q': (2, 3, 4)}, 'q', 'has three axes: say'),
  'an axis left out': (
    {'w': (2, 3)},
    {'w': Matrix((0,))},
    'each of the 2 axes',
  ),
  'groups': (
    {'w': (2, 3)},
    {'w': Matrix((0,), (1,), groups=2)},
    'do not divide',
  ),
  'no leaf': (
    {'w': (2, 3)},
    {'k': None, 'w': None},
    "matrices: rule 'k' matches no leaf that an earlier rule leaves: the names "
    "are ['w']",
  ),
  'no view': (
    {'w': (2, 3)},
    {'w': (0, 1)},
    "rule of leaf 'w' is (0, 1): expect",
  ),
  'one view': ({'w': (2, 3)}, Matrix((0,), (1,)), 'matrices=Matrix(rows=(0,'),
  'preset': ({'x/kernel': (2, 3, 4)}, tree.flax, "flax: leaf 'x/kernel' of sh"),
  'torch': ({'experts.up': (2, 3, 4)}, tree.torch, "torch: leaf 'experts.up'"),
}


@pytest.mark.parametrize('case', REFUSED)
def test_a_kernel_is_never_averaged_silently(case: str) -> None:
  shapes, matrices, message = REFUSED[case]
  x = {k: jnp.ones((T, *shape)) for k, shape in shapes.items()}
  for method, _ in METHODS.values():
    with pytest.raises(ValueError) as error:
      method(x, matrices=matrices)
    assert message in str(error.value)
    assert '\n' not in str(error.value)
  with pytest.raises(ValueError, match='otherwise'):
    merge.tsv(x, otherwise='skip')


@pytest.mark.parametrize(
  'name',
  [
    *('layers/norm/scale', 'layers.ln_1.weight', 'h.input_layernorm.weight'),
    *('query/bias', 'layers/LayerNorm_0/scale', 'bn1.running_var', 'ls1.gamma'),
  ],
)
def test_vectors_of_scanned_layers_are_averaged(name: str) -> None:
  x = draw(0, T, 3, 4)
  for method, _ in METHODS.values():
    close(method({name: jnp.asarray(x)})[name], x.mean(0))
  view = tree.scanned('.*')(name, (3, 4))
  assert view == Matrix(batch=(0,), rows=(1,))
  merged = merge.iso_c({name: jnp.asarray(x)}, matrices={'.*': view})
  close(merged[name], x.mean(0))


@pytest.mark.parametrize(
  'name',
  ['mlp/kernel', 'w', 'embedding', 'norm/mlp/kernel', 'lora_b', 'normal'],
)
def test_other_leaves_of_two_axes_are_matrices(name: str) -> None:
  x = draw(0, T, 3, 4)
  merged = merge.iso_c({name: jnp.asarray(x)})[name]
  close(merged, svd_test.oracle_iso_c(x))


PRESETS = [
  (tree.flax, 'Dense_0/kernel', (4, 6), KERNELS['dense'][1]),
  (tree.flax, 'attn/query/kernel', (6, 2, 3), KERNELS['query'][1]),
  (tree.flax, 'attn/v_proj/kernel', (6, 2, 3), KERNELS['query'][1]),
  (tree.flax, 'attn/out/kernel', (2, 3, 6), KERNELS['out'][1]),
  (tree.flax, 'Conv_0/kernel', (2, 3, 4, 5), KERNELS['flax conv'][1]),
  (tree.flax, 'Conv_0/kernel', (2, 4, 5), Matrix((0, 1), (2,))),
  (tree.flax, 'attn/query/bias', (2, 3), None),
  (tree.flax, 'pos_embedding', (1, 5, 6), None),
  (tree.flax, 'Embed_0/embedding', (5, 6), KERNELS['dense'][1]),
  (tree.torch, 'fc.weight', (6, 4), KERNELS['torch'][1]),
  (tree.torch, 'conv1.weight', (5, 4, 2, 3), KERNELS['torch conv'][1]),
  (tree.torch, 'attn.in_proj_weight', (12, 4), Matrix((1,), (0,), groups=3)),
  (tree.torch, 'embed_tokens.weight', (9, 4), KERNELS['dense'][1]),
  (tree.torch, 'cls_token', (1, 1, 4), None),
  (
    tree.scanned('^h/'),
    'h/query/kernel',
    (3, 6, 2, 3),
    KERNELS['scanned query'][1],
  ),
  (tree.scanned('^h/'), 'head/kernel', (4, 6), KERNELS['dense'][1]),
  (
    tree.scanned('^h', tree.torch),
    'h.c.weight',
    (3, 6, 4),
    Matrix((2,), (1,), (0,)),
  ),
]


@pytest.mark.parametrize(('preset', 'name', 'shape', 'view'), PRESETS)
def test_presets(
  preset: Any, name: str, shape: tuple[int, ...], view: Matrix | None
) -> None:
  assert preset(name, shape) == view
  x = {name: jnp.ones(shape)}
  assert tree.views(x, preset) == {name: view}
  assert tree.views(x, {'nothing|.*': preset}) == {name: view}


GRAMS = ['dense', 'torch', 'scanned', 'query', 'out', 'scanned query']
GRAMS += ['scanned out', 'scanned experts', 'flax conv', 'torch conv']
GRAMS += ['scanned conv', 'grouped conv', 'scanned grouped']


def test_a_leaf_beside_a_stack_of_as_many_matrices_needs_a_rule() -> None:
  x = {
    'layers': {'up': jnp.ones((T, 3, 4, 5)), 'gate': jnp.ones((T, 3, 4))},
    'head': jnp.ones((T, 3, 4)),
  }
  rules: dict[str, Any] = {'up': KERNELS['scanned'][1]}
  with pytest.raises(ValueError, match="iso_c: leaf 'layers/gate' of shape"):
    merge.iso_c(x, matrices=rules)
  rules['gate'] = Matrix(batch=(0,), rows=(1,))
  assert np.allclose(merge.iso_c(x, matrices=rules)['layers']['gate'], 1)
  rules['gate'] = Matrix(rows=(0,), columns=(1,))
  # The sum has rank one and keeps its only singular value.
  assert np.allclose(merge.iso_c(x, matrices=rules)['layers']['gate'], T)


def test_predicates_return_anything_true_or_false() -> None:
  x = {'w': jnp.asarray(draw(0, T, 3, 4)), 'v': jnp.asarray(draw(1, T, 3, 4))}
  wanted = merge.iso_c(x, matrices='w')
  for choice in (
    lambda name, shape: re.search('w', name),
    lambda name, shape: np.asarray(name == 'w').all(),
  ):
    found = merge.iso_c(x, matrices=choice)
    assert jax.tree.map(jnp.array_equal, found, wanted) == {
      'v': True,
      'w': True,
    }


def grams_of(view: Matrix, shape: tuple[int, ...]) -> types.Gram:
  count, d, _ = view.sizes(shape)
  rows = draw(7, T, count, 3 * d, d)
  gram = np.einsum('tgni,tgnj->tgij', rows, rows)
  return types.Gram(jnp.asarray(gram), jnp.ones(T), view.rows)


@pytest.mark.parametrize('kernel', GRAMS)
def test_regmean_solves_each_matrix_of_a_view(kernel: str) -> None:
  shape, view = KERNELS[kernel]
  x, gram = draw(len(kernel), T, *shape), grams_of(view, shape)
  merged = merge.regmean(
    {'w': jnp.asarray(x)},
    grams={'w': gram},
    shrink=1.0,
    matrices={'w': view},
  )
  flat, wanted = x.reshape(T, -1), np.zeros(x[0].size)
  for i, at in enumerate(blocks(view, shape)):
    g = np.asarray(gram.matrix[:, i])
    right = (g @ flat[:, at.ravel()].reshape(T, *at.shape)).sum(0)
    wanted[at.ravel()] = np.linalg.solve(g.sum(0), right).ravel()
  close(merged['w'], wanted.reshape(shape))
  plain = merge.regmean({'w': jnp.asarray(x)}, grams={'w': gram}, shrink=1.0)
  assert plain['w'].tolist() == merged['w'].tolist()


def test_regmean_names_kernels_without_their_gram() -> None:
  shape, view = KERNELS['scanned']
  x = {'w': jnp.ones((T, *shape)), 'b/bias': jnp.ones((T, 2, 3, 4))}
  grams = {'w': grams_of(view, shape), 'b/bias': None}
  bare = {'w': None, 'b/bias': None}
  how: dict[str, Any] = {'shrink': 0.9}
  ones = lambda y: all(np.allclose(v, 1) for v in jax.tree.leaves(y))
  assert ones(merge.regmean(x, grams=grams, **how))
  assert ones(merge.regmean(x, grams=bare, otherwise='mean', **how))
  leaves_out = {'.*': None}
  assert ones(merge.regmean(x, grams=bare, matrices=leaves_out, **how))
  with pytest.raises(ValueError, match=r"'w' of shape .* has no Gram matrix"):
    merge.regmean(x, grams=bare, **how)
  for wrong in (Matrix((2,), (1,), (0,)), Matrix((1,), (0, 2))):
    with pytest.raises(ValueError, match="the Gram matrix of leaf 'w' has the"):
      merge.regmean(x, grams=grams, matrices={'w': wrong, 'bias': None}, **how)


@pytest.mark.parametrize('kernel', KERNELS)
def test_slerp_has_an_angle_for_each_matrix_of_a_view(kernel: str) -> None:
  shape, view = KERNELS[kernel]
  a, b = draw(0, 2, *shape)
  models = [{'w': jnp.asarray(v), 'n': jnp.arange(3)} for v in (a, b)]
  found = merge.slerp(*models, t=0.3, matrices={'w': view})
  wanted = np.zeros(a.size)
  for at in blocks(view, shape):
    i = at.ravel()
    part = [{'w': jnp.asarray(v.ravel()[i])} for v in (a, b)]
    wanted[i] = merge.slerp(*part, t=0.3)['w']
  close(found['w'], wanted.reshape(shape))
  lazy = merge.slerp(*map(tree.defer, models), t=0.3, matrices={'w': view})
  close(tree.read(lazy)['w'], found['w'])
  if view.sizes(shape)[0] == 1:
    assert found['w'].tolist() == merge.slerp(*models, t=0.3)['w'].tolist()


@pytest.mark.parametrize('name', METHODS)
def test_matrices_without_entries_are_merged(name: str) -> None:
  x = {'w': jnp.zeros((T, 0, 4)), 'b': jnp.ones((T, 2))}
  merged = METHODS[name][0](x)
  assert merged['w'].shape == (0, 4)
  assert merged['b'].tolist() == [1.0, 1.0]


def test_slerp_of_scanned_norm_scales_and_its_errors() -> None:
  a, b = ({'h': {'scale': jnp.asarray(draw(s, 3, 4))}} for s in (0, 1))
  found = merge.slerp(a, b, t=0.5, matrices=tree.scanned('^h/'))['h']['scale']
  for i in range(3):
    pair = [{'w': m['h']['scale'][i]} for m in (a, b)]
    close(found[i], merge.slerp(*pair, t=0.5)['w'])
  with pytest.raises(ValueError, match="scope='global' has one angle"):
    merge.slerp(a, b, t=0.5, scope='global', matrices=tree.flax)
  with pytest.raises(ValueError, match="slerp: matrices: rule 'k' matches no"):
    merge.slerp(a, b, t=0.5, matrices={'k': None})
