"""Can a new model search a gallery that an old model indexed?

  python -m experiments.compatible --config=configs/compatible.py:VARIANT

tiny: seconds, a test.

digits: two minutes on two free cores, most of them compilation. MLPs 64-128-32
(the third 64-512-32) on scikit-learn's digits, five seeds; 449 queries in a
gallery of 448 images. Expect (queries/gallery, %, +- over seeds; AC over three
models):

                 top-1                                mAP                  AC
                 old/old      new/old     new/new     old/old new/old new/new
  independent    91.5 +- 1.3  10.0 +- 5.7 98.4 +- 0.6 68.4    17.4    93.6 0.00
  BCT            91.5 +- 1.3  95.9 +- 1.4 97.9 +- 0.4 68.4    80.8    95.7 0.93
  BT^2           91.5 +- 1.3  95.1 +- 1.0 97.6 +- 0.7 68.4    78.1    94.3 0.93
  d-Simplex      90.0 +- 0.6  57.0 +- 2.9 97.3 +- 0.2 68.9    55.0    94.6 0.33
  with HOC       89.5 +- 1.0  89.5 +- 2.2 97.2 +- 0.5 68.4    69.7    82.8 0.80

With BCT and BT^2 the new model searches the old gallery better than the old
model does, in all seeds, without loss among its own features. BT^2 is meant to
avoid such a loss; here it is 1 to 3 points of mAP below BCT in all seeds, on
both galleries. A fixed classifier alone does not align classes that the old
model has not learned; with HOC it does, at the cost of 11 points of mAP among
its own features.

images: MLPs 784-256-32 (the third 784-512-32) on Fashion-MNIST, three seeds,
from a folder of yours: --config.data=FOLDER with a task 'fashion' (see
wsl.data.folder). On 4000 training images, with 1000 queries in a gallery of
1000, expect the same order: mAP of new/old and new/new 13.5 and 72.7 for the
independent one, 60.4 and 75.6 for BCT, 57.3 and 73.4 for BT^2, 37.3 and 73.7
for the d-Simplex, 51.1 and 60.9 with HOC; old/old 49.6 (+- 2.7 or less).

--sweep runs the variant with rotations by the Cayley map and by the
exponential.
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """Three models of the embedded digits, one after the other."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # the digits as they are, or a task in that folder
      'held_out': 448,  # training images in the gallery, for no training
      'seeds': 5,
      'seed': 0,
      'at_once': 5,  # models trained side by side by vmap
      'methods': ('independent', 'bct', 'bt2', 'simplex', 'simplex_hoc'),
      # How many classes the model of each stage learns; its hidden layer.
      'stages': {'classes': (5, 10, 10), 'hidden': (128, 128, 512)},
      'width': 32,  # of the features; the simplex has one vertex more
      'sharpness': 10.0,  # scale of the logits of normalised features
      'training': {'steps': 600, 'batch_size': 64, 'learning_rate': 2e-3},
      # Arguments of stitch.bct_loss, bt2_loss, hoc_loss and random_basis.
      'bct': {'weight': 10.0},
      'bt2': {'weights': (1.0, 10.0, 5.0)},
      'hoc': {'sharpness': 10.0, 'weight': 0.1},
      'basis': {'extra': 8, 'scale': 2.0, 'kind': 'cayley'},
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.seeds = 2
  config.methods = ('independent', 'bt2')
  config.stages = {'classes': (5, 10), 'hidden': (32, 32)}
  config.width = 12
  config.basis.extra = 4
  config.training.update({'steps': 80, 'learning_rate': 1e-2})
  return config


def images() -> ml_collections.ConfigDict:
  """Fashion-MNIST, from a folder of the user."""
  config = digits()
  config.data, config.task = 'data', 'fashion'
  config.held_out, config.seeds = 1000, 3
  config.stages = {'classes': (5, 10, 10), 'hidden': (256, 256, 512)}
  config.training.update({'steps': 1000, 'learning_rate': 1e-3})
  return config


def sweep() -> list[dict[str, object]]:
  """Returns the changed fields of each run of ``--sweep``."""
  return [{'basis.kind': 'cayley'}, {'basis.kind': 'exponential'}]


get_config = _variants.chooser(tiny, digits, images)
