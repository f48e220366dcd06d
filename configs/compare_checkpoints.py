r"""Where, and by how many ulps, do two checkpoints differ?

  python -m experiments.compare_checkpoints \
    --config.a=PATH --config.b=PATH --workdir=DIR

with FILE = configs/compare_checkpoints.py for --config=FILE:VARIANT.

pair (default): two checkpoints of yours, files or folders of any format. A part
of one is chosen by --config.options.a.item='unet' (a sub-folder, a key of a
PyTorch file, an item of Orbax), --config.options.a.step=100 (of Orbax) or
--config.options.a.variant='fp16'. Reading takes most of the time where they are
equal; about 20 ns for each entry where all differ.

tiny: seconds, a test. Two random models are written, shards of safetensors and
an Orbax checkpoint, which differ in most ways.
"""

import ml_collections
from ml_collections import config_dict

from configs import _variants


def pair() -> ml_collections.ConfigDict:
  """Two checkpoints of the user."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'a': '',  # the reference of relative norms
      'b': '',
      'options': {
        side: {
          'item': config_dict.placeholder(str),
          'step': config_dict.placeholder(int),
          'variant': config_dict.placeholder(str),
        }
        for side in 'ab'
      },
      'rows': 20,  # of the table
      'random': {'layers': 0, 'seed': 0},  # of the variant tiny
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = pair()
  config.random.layers = 3
  return config


get_config = _variants.chooser(tiny, pair, default='pair')
