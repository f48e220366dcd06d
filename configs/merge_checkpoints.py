r"""Merges folders of checkpoints, and reports what was merged and how.

  python -m experiments.merge_checkpoints \
    --config=configs/merge_checkpoints.py:VARIANT

tiny: seconds, a test. Writes four small random folders, an adapter among them,
and merges them by TIES with coefficients by layer and by regular expression.

folders: yours. Either a recipe in mergekit's YAML, as for wsl-merge,

  --config.recipe=recipe.yml

or a function of wsl.merge with a base and models. A model is a folder, a file,
FOLDER+ADAPTER, or the folder of a LoRA of the base:

  --config.method=ties --config.base=base \
  --config.models="('expert_1','expert_2','adapter')" \
  --config.arguments.ties.density=0.2 --config.coef=0.6 \
  --config.coef_by_regex="(('embed',0.0),('.*',1.0))" \
  --config.coef_by_layer.depth='layers\.(\d+)\.' --config.coef_by_layer.end=2.0

--dry_run prints the plan and stops.
"""

import ml_collections

from configs import _variants


def folders() -> ml_collections.ConfigDict:
  """Folders of the user."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'recipe': '',  # a file in mergekit's YAML; it names its models
      'at': (),  # NAME=FOLDER, for models that a recipe names otherwise
      # Or functions of wsl.merge, applied from left to right: 'dare+sum'.
      'method': 'ties',
      'base': '',
      'models': (),
      'arguments': {
        'ties': {'density': 0.2},
        'dare': {'rate': 0.8},
        'slerp': {'t': 0.5},
        'breadcrumbs': {'density': 0.9, 'outliers': 0.01},
      },
      # Of the merged task vector: the product of the three.
      'coef': 1.0,
      'coef_by_regex': (),  # pairs (regex, number), the first that matches
      'coef_by_layer': {
        'depth': '',  # a regex with one group that captures the layer's number
        'start': 1.0,  # of the first layer, and of tensors outside the layers
        'end': 1.0,  # of the last
      },
      'dtype': '',  # of the output; that of the base by default
      # Of tensors that some models lack: 'error', 'base' or 'zero'; for a
      # recipe 'error', 'copy' or 'drop'.
      'unmatched': 'error',
      'seed': 0,  # of random masks
      'shard_bytes': 5 * 10**9,
      'checksums': True,  # of each tensor, verified when it is loaded
      'hashes': True,  # of the inputs, which are read once more for it
      'ranks': True,  # effective ranks, most of the time of the statistics
      'random': {'layers': 0, 'seed': 0},  # of the variant tiny
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = folders()
  config.base = 'base'
  config.models = ('expert_1', 'expert_2', 'adapter')
  config.arguments.ties.density = 0.5
  config.coef = 0.8
  config.coef_by_regex = (('embed', 0.5), ('.*', 1.0))
  config.coef_by_layer = {'depth': r'layers\.(\d+)\.', 'start': 0.5, 'end': 1.0}
  config.random.layers = 4
  return config


def sweep() -> list[dict[str, object]]:
  """Returns the changed fields of each run of ``--sweep``."""
  return [{'arguments.ties.density': x} for x in (0.1, 0.2, 0.5)]


get_config = _variants.chooser(tiny, folders, default='folders')
