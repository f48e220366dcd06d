"""DOGE and OPCM of FusionBench, run once and stored; see ``official_test``."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from tests.merge import battery
from wsl import merge, tree

FILE = pathlib.Path(__file__).parents[2] / 'golden' / 'fusion_bench.npz'
with np.load(FILE) as file:
  STORED = {key: file[key] for key in file.files}
X = {
  k[3:]: x.astype(battery.FLOAT) for k, x in STORED.items() if k[:3] == 'in/'
}


def same(found: Any, case: str) -> None:
  near = 1e-10 if np.float64 == battery.FLOAT else 1e-4
  for name, y in found.items():
    want = STORED[f'{case}/{name}']
    np.testing.assert_allclose(y, want, rtol=0, atol=near, err_msg=name)


@pytest.mark.parametrize('case', ['doge/0.07/30/6', 'doge/0.5/60/2'])
def test_doge(case: str) -> None:
  _, norm, percent, subspace = case.split('/')
  found = merge.doge(
    X,
    norm=float(norm),
    density=float(percent) / 100,
    subspace=int(subspace),
    matrices=tree.torch,
    dialect='official',
  )
  same(found, case)


@pytest.mark.parametrize('case', ['opcm/0.3', 'opcm/0.5', 'opcm/0.9'])
def test_opcm(case: str) -> None:
  same(_opcm(float(case.split('/')[1]), X), case)


@jax.jit
def _opcm(alpha: float, x: Any) -> Any:
  return merge.fold(merge.opcm(alpha=alpha), x)
