"""Outputs of the official implementations, run once and stored.

Each file in tests/golden carries its inputs, its outputs and, under
`provenance`, which code at which commit gave them. Matrices of torch code are
weights [out, in]: a kernel [in, out] is the transpose.
"""

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from wsl import deltas, merge, scale, tree, types

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden'


def golden(name: str) -> dict[str, np.ndarray]:
  with np.load(GOLDEN / f'{name}.npz') as file:
    return {key: file[key] for key in file.files}


def under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
  """Returns the arrays of one case as a tree."""
  return {
    key.removeprefix(f'{prefix}/'): jnp.asarray(value)
    for key, value in arrays.items()
    if key.startswith(f'{prefix}/')
  }


def same(found: Any, wanted: Any, atol: float = 1e-12) -> None:
  assert set(tree.named(found)) == set(wanted)
  for name, x in tree.named(found).items():
    np.testing.assert_allclose(x, wanted[name], rtol=0, atol=atol, err_msg=name)


def transposed(x: Any) -> Any:
  flip = lambda v: jnp.asarray(np.swapaxes(v, -1, -2))
  return {k: flip(v) if k in ('tall', 'wide') else v for k, v in x.items()}


@pytest.mark.parametrize('name', sorted(p.stem for p in GOLDEN.glob('*.npz')))
def test_golden_files_are_small_and_name_their_source(name: str) -> None:
  assert (GOLDEN / f'{name}.npz').stat().st_size < 50_000
  assert '/' in str(golden(name)['provenance']) or name == 'mergekit'


TIES = golden('ties')


@pytest.mark.parametrize(
  'case', sorted({k.rsplit('/', 1)[0] for k in TIES if k.count('/') == 3})
)
def test_ties(case: str) -> None:
  name, density, reduce = case.split('/')
  merged = merge.ties(
    under(TIES, f'{name}/in'),
    density=float(density),
    reduce=reduce,
    dialect='official',
  )
  same(merged, under(TIES, case), atol=1e-15)


SVD = golden('svd')


@pytest.mark.parametrize('models', [1, 2, 3])
def test_svd_methods_take_either_orientation(models: int) -> None:
  x = under(SVD, f'{models}/in')
  for method in (merge.tsv, merge.iso_c):
    wanted = under(SVD, f'{models}/{method.__name__}')
    same(method(x, otherwise='mean'), wanted, 1e-13)
    if models == 3:
      turned = method(transposed(x), otherwise='mean')
      same(turned, transposed(wanted), 1e-13)


@pytest.mark.parametrize(
  'case',
  sorted({k.rsplit('/', 1)[0] for k in SVD if k[0] > '1' and 'iso_cts' in k}),
)
def test_iso_cts_takes_kernels(case: str) -> None:
  models, _, common = case.split('/')
  x, wanted = under(SVD, f'{models}/in'), under(SVD, case)
  matrices = ('tall', 'wide', 'bias')
  x, wanted = ({k: v[k] for k in matrices} for v in (x, wanted))
  merged = merge.iso_cts(transposed(x), common=float(common), otherwise='mean')
  same(merged, transposed(wanted), 1e-12)


TALL = golden('tall')


@pytest.mark.parametrize('case', [k for k in TALL if k.startswith('mask/')])
def test_tall_masks_and_consensus(case: str) -> None:
  _, name, threshold = case.split('/')
  x = {'w': jnp.asarray(TALL['tasks'])}
  merged = None if name == 'sum' else {'w': jnp.asarray(TALL['merged/ties'])}
  family = merge.tall_masks(x, threshold=float(threshold), merged=merged)
  np.testing.assert_array_equal(family.masks['w'], TALL[case])
  for k in (0, 1, 2, 5):
    y = merge.consensus(
      x, threshold=float(threshold), min_tasks=k, merged=merged
    )
    np.testing.assert_array_equal(
      y['w'], TALL[f'consensus/{name}/{threshold}/{k}']
    )


def test_the_multi_task_vector_of_tall_masks_may_be_ties() -> None:
  x = {'w': jnp.asarray(TALL['tasks'])}
  merged = merge.ties(x, density=0.2, reduce='sum', dialect='official')
  np.testing.assert_array_equal(merged['w'], TALL['merged/ties'])


@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('favour', [False, True])
def test_fisher(normalize: bool, favour: bool) -> None:
  arrays = golden('fisher')
  merged = merge.fisher(
    under(arrays, 'in'),
    fishers=under(arrays, 'fisher'),
    floor=[1e-6, 0.0, 0.0] if favour else 1e-6,
    normalize=normalize,
    coefs=arrays['coefs'],
  )
  same(merged, under(arrays, f'out/{int(normalize)}/{int(favour)}'))


REGMEAN = golden('regmean')


@pytest.mark.parametrize('case', [k for k in REGMEAN if k[:2] == 'W/'])
def test_regmean(case: str) -> None:
  _, shrink, with_coefs = case.split('/')
  weight, bias = jnp.asarray(REGMEAN['W']), jnp.asarray(REGMEAN['b'])
  coefs = REGMEAN['coefs'] if with_coefs == '1' else 1.0
  matrix = jnp.asarray(REGMEAN['G'])[:, None]
  for axes, x in [((1,), weight), ((0,), jnp.swapaxes(weight, 1, 2))]:
    grams = {'w': types.Gram(matrix, jnp.full(3, 30), axes), 'b': None}
    y = merge.regmean(
      {'w': x, 'b': bias}, grams=grams, shrink=float(shrink), coefs=coefs
    )
    wanted = REGMEAN[case] if axes == (1,) else REGMEAN[case].T
    np.testing.assert_allclose(y['w'], wanted, rtol=0, atol=1e-12)
    # That code rounds the coefficients of a bias to float32.
    wanted = REGMEAN[case.replace('W/', 'b/')]
    atol = 1e-7 if with_coefs == '1' else 1e-12
    np.testing.assert_allclose(y['b'], wanted, rtol=0, atol=atol)


LINES = golden('lines')


@pytest.mark.parametrize('case', ['0.1/0.9', '0.25/0.0', '1.0/-0.5'])
def test_by_depth(case: str) -> None:
  start, slope = map(float, case.split('/'))
  y = scale.by_depth(
    under(LINES, 'in'),
    depth=r'\.resblocks\.(\d+)\.',
    start=start,
    end=start + slope,
  )
  same(y, under(LINES, case))


MERGEKIT = golden('mergekit')


def mergekit(name: str) -> tuple[Any, Any, list[Any]]:
  base = {'w': jnp.asarray(MERGEKIT['base'])}
  models = [{'w': base['w'] + x} for x in jnp.asarray(MERGEKIT[name])]
  return base, deltas.stack(base, models), models


@pytest.mark.parametrize('case', [k for k in MERGEKIT if k[:5] == 'ties/'])
def test_mergekit_ties(case: str) -> None:
  _, name, density, normalize = case.split('/')
  base, x, _ = mergekit(name)
  merged = merge.ties(
    x,
    density=float(density),
    scope='leaf',
    reduce='mean' if normalize == '1' else 'sum',
    dialect='mergekit',
  )
  if name == 'generic' or density == '1.0':
    same(deltas.apply(base, merged), {'w': MERGEKIT[case]})
    return
  # Equal magnitudes at the cut: all are kept here, some of them there, so the
  # two may differ only where such an entry is.
  cut = tree.kth_magnitude(x, max(int(float(density) * 42), 1))
  tied = (jnp.abs(x['w']) == cut[:, None, None]).any(0)
  differ = deltas.apply(base, merged)['w'] != MERGEKIT[case]
  assert not bool((differ & ~tied).any())


@pytest.mark.parametrize('name', ['generic', 'quantised'])
def test_mergekit_linear_and_task_arithmetic(name: str) -> None:
  base, x, _ = mergekit(name)
  merged = deltas.apply(base, merge.sum(x), coef=0.4)
  same(merged, {'w': MERGEKIT[f'task_arithmetic/{name}']})
  merged = deltas.apply(base, merge.weighted_mean(x, [0.2, 1.0, 0.5]))
  same(merged, {'w': MERGEKIT[f'linear/{name}']})


@pytest.mark.parametrize('case', [k for k in MERGEKIT if k[:6] == 'slerp/'])
def test_mergekit_slerp(case: str) -> None:
  _, name, t = case.split('/')
  if name in ('near', 'opposite'):
    a = jnp.asarray(MERGEKIT['generic'][0])
    b = jnp.asarray(MERGEKIT['near']) if name == 'near' else -a
  else:
    a, b = (model['w'] for model in mergekit(name)[2][:2])
  y = merge.slerp({'w': a}, {'w': b}, t=float(t), lerp_above=0.9995)
  same(y, {'w': MERGEKIT[case]})


def test_mergekit_dare_given_its_mask() -> None:
  """Its L1 factor is that of rescale='l1'; the kept entries are its draw."""
  x = MERGEKIT['generic'][0]
  kept, factored = MERGEKIT['dare/0'], MERGEKIT['dare/1']
  mask = kept != 0
  assert 0.2 < mask.mean() < 0.8
  np.testing.assert_allclose(kept, x * mask, atol=1e-12)
  # That code draws in float32, so its factor has float32 precision.
  factor = np.abs(x).sum() / np.abs(x * mask).sum()
  np.testing.assert_allclose(factored, x * mask * factor, atol=2e-6)
