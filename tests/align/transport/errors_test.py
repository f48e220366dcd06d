"""Transport: mistakes in arguments are named."""

import numpy as np
import pytest

from tests.align.match import weight_matching_test as examples
from tests.align.transport.widths import (
  mlp,
  MLP_VIEWS,
  PAIR,
  SMALL,
  WIDE,
)
from wsl import align


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'regularisation': -1.0}, 'regularisation=-1.0, expected >= 0'),
    (
      {'unbalanced': 0.0, 'regularisation': 0.1},
      'unbalanced=0.0, expected > 0',
    ),
    ({'unbalanced': 1.0}, 'needs regularisation > 0'),
    ({'marginals': 'one'}, "marginals='one', expected one of"),
    ({'marginals': 'semi', 'regularisation': 0.1}, 'semi-permutations are'),
    ({'max_sweeps': 0}, 'max_sweeps=0, expected at least 1'),
    ({'masses': ({'h3': np.ones(3)}, {})}, "a group 'h3'"),
    ({'masses': ({'h2': np.ones(4)}, {})}, "masses of group 'h2' of shape"),
    ({'masses': ({'h2': -np.ones(3)}, {})}, "masses of group 'h2'"),
    ({'views': {}}, "leaf 'w0' has no rule in views="),
    ({'other': examples._mlp((5, 7, 6, 3))}, "moving: leaf 'b2' has shape"),
    ({'symmetry': examples._mlp((5, 4, 3, 2, 2))}, 'transport: fixed'),
  ],
)
def test_mistakes_are_named(settings, message):
  settings = {'views': MLP_VIEWS} | PAIR | settings
  with pytest.raises(ValueError, match=message) as error:
    align.transport(mlp(SMALL, 0), mlp(WIDE, 1), **settings)
  assert len(str(error.value)) <= 200


def test_models_of_different_inputs_or_architectures_are_refused():
  other = examples._mlp((6, 7, 6, 2))
  settings = {'symmetry': PAIR['symmetry'], 'views': MLP_VIEWS}
  with pytest.raises(ValueError, match="'in' has 5 entries in fixed and 6"):
    align.transport(
      mlp(SMALL, 0), mlp((6, 7, 6, 2), 1), other=other, **settings
    )
  wide = PAIR['other']
  pinned = tuple(
    f._replace(pinned='odd') if f.name == 'h1' else f for f in wide.factors
  )
  with pytest.raises(ValueError, match="factor 'h1' is a group, or depends on"):
    align.transport(
      mlp(SMALL, 0),
      mlp(WIDE, 1),
      other=align.Symmetry(pinned, wide.axes),
      **settings,
    )
  swapped = align.Symmetry(
    wide.factors,
    tuple((n, (a[0][::-1],) if n == 'b0' else a) for n, a in wide.axes),
  )
  fused = align.Symmetry(
    swapped.factors,
    tuple((n, ((('h1',),),)) if n == 'b1' else (n, a) for n, a in wide.axes),
  )
  moving = mlp(WIDE, 1) | {'b1': np.ones(7)}
  with pytest.raises(ValueError, match="axes of leaf 'b1' have other factors"):
    align.transport(mlp(SMALL, 0), moving, other=fused, **settings)
  broken = mlp(WIDE, 1)
  broken['w1'][0, 0] = np.nan
  with pytest.raises(ValueError, match="moving: leaf 'w1' has NaN"):
    align.transport(mlp(SMALL, 0), broken, other=wide, **settings)
