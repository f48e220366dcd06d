"""Recipes whose result under mergekit 0.1.5 is stored."""

from typing import Any

THREE = ('base', 'one', 'two')


def _models(**each: Any) -> list[dict[str, Any]]:
  """Returns two models with parameters given as pairs."""
  return [
    {'model': name, 'parameters': {k: v[i] for k, v in each.items()}}
    for i, name in enumerate(THREE[1:])
  ]


def _based(method: str, shared: Any = None, **each: Any) -> dict[str, Any]:
  return {
    'merge_method': method,
    'base_model': 'base',
    'models': _models(**each),
    'parameters': shared or {},
  }


CASES: dict[str, dict[str, Any]] = {
  'linear': {'merge_method': 'linear', 'models': _models(weight=(0.3, 0.9))},
  'linear_sum': {
    'merge_method': 'linear',
    'models': _models(weight=(0.3, -0.9)),
    'parameters': {'normalize': False},
  },
  'linear_base': {
    'merge_method': 'linear',
    'base_model': 'base',
    'models': _models(weight=(0.3, 0.9)),
    'parameters': {'weight': 0.25},
  },
  'slerp': {
    'merge_method': 'slerp',
    'base_model': 'base',
    'models': [{'model': 'one'}],
    'parameters': {'t': 0.3},
  },
  'slerp_gradient': {
    'merge_method': 'slerp',
    'base_model': 'base',
    'slices': [
      {
        'sources': [
          {'model': 'base', 'layer_range': [0, 3]},
          {'model': 'one', 'layer_range': [0, 3]},
        ]
      }
    ],
    'parameters': {
      't': [
        {'filter': 'self_attn', 'value': [0, 0.5, 0.3, 1]},
        {'filter': 'mlp', 'value': [1, 0.2]},
        {'value': 0.5},
      ]
    },
  },
  'task_arithmetic': _based('task_arithmetic', weight=(0.4, 0.7)),
  'task_arithmetic_lambda': _based(
    'task_arithmetic', {'lambda': 0.6, 'normalize': True}, weight=(0.4, 0.7)
  ),
  'ties': _based('ties', weight=(0.4, 0.7), density=(0.5, 0.3)),
  'ties_signed': _based(
    'ties', {'lambda': 1.5}, weight=(1.0, -0.5), density=(0.8, 1.0)
  ),
  'ties_sum': _based(
    'ties', {'normalize': False}, weight=(0.4, 0.7), density=(0.5, 0.3)
  ),
  'ties_gradient': _based(
    'ties',
    {'density': [0.9, 0.2]},
    weight=([0.1, 0.9], [{'filter': 'mlp', 'value': 0.2}, {'value': 0.6}]),
  ),
  'breadcrumbs': _based(
    'breadcrumbs',
    {'gamma': 0.1},
    weight=(0.4, 0.7),
    density=(0.5, 0.8),
  ),
  'breadcrumbs_ties': _based(
    'breadcrumbs_ties', weight=(0.4, 0.7), density=(0.5, 0.8)
  ),
  'nuslerp': {
    'merge_method': 'nuslerp',
    'models': _models(weight=(0.6, 0.9)),
    'parameters': {'nuslerp_flatten': False},
  },
  'nuslerp_based': _based('nuslerp', weight=(0.6, 0.9)),
  'multislerp': _based('multislerp', weight=(0.6, 0.9)),
  'karcher': {'merge_method': 'karcher', 'models': _models()},
  'nearswap': {
    'merge_method': 'nearswap',
    'base_model': 'base',
    'models': [{'model': 'one'}],
    'parameters': {'t': 0.1},
  },
  'model_stock': _based('model_stock', {'filter_wise': True}),
  'sce': _based('sce', {'select_topk': 0.6}),
  'ram': _based('ram', {'epsilon': 0.2}),
  'ramplus_tl': _based('ramplus_tl', {'epsilon': 0.2, 'r': 0.5}),
  'ties_rescale': _based(
    'ties', {'rescale': True}, weight=(0.4, 0.7), density=(0.5, 0.3)
  ),
  'passthrough': {
    'merge_method': 'passthrough',
    'slices': [
      {'sources': [{'model': 'base', 'layer_range': [0, 2]}]},
      {
        'sources': [
          {
            'model': 'one',
            'layer_range': [1, 3],
            'parameters': {
              'scale': [{'filter': 'o_proj', 'value': 0.5}, {'value': 1.0}]
            },
          }
        ]
      },
    ],
  },
}
# Architectures other than Llama, which runs all cases.
OTHERS = ('linear', 'task_arithmetic', 'ties_gradient')
