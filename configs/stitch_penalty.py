"""How different are the representations of two seeds?

  python -m experiments.stitch_penalty \
    --config=configs/stitch_penalty.py:VARIANT

tiny: seconds, a test.

digits: three minutes on two free cores, half of them compilation. Three
residual networks of six blocks on scikit-learn's digits, each stitched on the
next; their error is 1.6 +- 0.3 %. Expect, by the block after which both are cut
(penalties in points of test error: closed form, trained; residual and CKA:
other seed, random):

                  other seed                 random          residual   CKA
  0    0.0 +- 0.0   0.0 +- 0.0    0.0 +- 0.0   0.0 +- 0.0  .00 .00 1.0 1.0
  1    1.0 +- 0.3   0.9 +- 0.6    1.2 +- 0.6   0.7 +- 0.5  .11 .12 .85 .83
  2    9.4 +- 2.7   3.2 +- 0.9   27.3 +- 5.9  10.0 +- 0.2  .59 .63 .44 .39
  3    8.8 +- 5.3   1.6 +- 0.8   56.9 +- 2.8  19.9 +- 2.1  .65 .75 .32 .22
  4    3.3 +- 2.1   0.4 +- 0.9   64.0 +- 13.3 29.0 +- 4.8  .58 .81 .37 .15
  5    0.4 +- 0.8   0.4 +- 0.9   69.1 +- 10.4 34.5 +- 5.6  .48 .85 .46 .10
  6    0.1 +- 0.8   0.1 +- 0.8   79.4 +- 5.3  44.2 +- 6.5  .38 .88 .54 .07

A network stitched to itself has no penalty (0.0 in closed form, at most 0.1
trained). With trained maps the known facts about larger networks hold: another
seed costs at most 3.2 points, a random bottom nothing early and 44 points late.
In closed form another seed costs up to 9.4 points: least squares minimises the
residual of the features, not the error of the network.

digits_vit: vision transformers of six blocks, with an error of 7.5 +- 0.8 %.
Expect:

                  other seed                 random          residual   CKA
  0    0.0 +- 0.0 -0.4 +- 0.2   0.4 +- 0.5  0.1 +- 0.3   .00  .00   .95  .95
  1   18.3 +- 0.4 11.9 +- 1.7  39.4 +- 4.1 32.1 +- 2.1   .14  .16   .85  .84
  2   19.1 +- 1.4  9.0 +- 0.9  47.0 +- 1.7 33.6 +- 3.0   .31  .33   .75  .77
  3   14.4 +- 1.1  5.5 +- 2.4  54.5 +- 3.4 41.7 +- 1.1   .41  .49   .57  .62
  4    5.4 +- 2.3  1.9 +- 0.7  50.5 +- 1.7 41.1 +- 2.9   .46  .62   .45  .34
  5    1.3 +- 1.4  0.6 +- 1.8  49.1 +- 2.0 42.9 +- 3.0   .40  .73   .54  .11
  6   -0.4 +- 1.3 -0.1 +- 1.3  46.1 +- 2.7 42.5 +- 2.2   .29  .77   .67  .04

Unlike convolutions, early blocks of another seed cost much, and those of a
random network more. CKA and residual do not separate the two before block 3;
the penalty does.

images: residual networks on larger images; the data folder is the user's:
--config.data=FOLDER with a task 'mnist' (see wsl.data.folder). Not measured.
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """Residual networks on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # of the digits, or in that folder
      'networks': 3,  # each stitched on the next, the last on the first
      'seed': 0,
      'model': {
        # A public model of wsl.models and its arguments.
        'module': 'ResNet',
        'arguments': {
          'outputs': 10,
          'widths': (32,),
          'depth': 5,
          'stem': 3,
          'dense': (),
          'pool': 'mean',
        },
      },
      'training': {
        'optimizer': 'adamw',
        'learning_rate': 3e-3,  # the peak: a rise, then a cosine to zero
        'weight_decay': 0.05,
        'epochs': 15,
        'batch_size': 64,
        'at_once': 3,  # networks trained side by side by vmap
      },
      'kind': 'affine',  # of adapter, see wsl.stitch.fit_moments
      # Training images for adapters only, without labels.
      'held_out': 300,
      'fit': {'batch_size': 150},
      # The adapters of the diagonal, trained further with labels.
      'adapters': {'learning_rate': 1e-3, 'steps': 200, 'batch_size': 64},
      'evaluation': {'batch_size': 150},
    }
  )


def digits_vit() -> ml_collections.ConfigDict:
  """Vision transformers on the embedded digits."""
  config = digits()
  with config.unlocked():
    config.model = {
      'module': 'ViT',
      'arguments': {
        'outputs': 10,
        'patch': 2,
        'width': 32,
        'depth': 6,
        'heads': 4,
        'pool': 'mean',
      },
    }
  config.training.epochs = 30
  return config


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.networks = 2
  with config.unlocked():
    config.model = {
      'module': 'MLP',
      'arguments': {'outputs': 10, 'widths': (16, 16)},
    }
  config.training.epochs = 3
  config.adapters.steps = 4
  return config


def images() -> ml_collections.ConfigDict:
  """The same on larger images, from a folder of the user."""
  config = digits()
  config.data, config.task = 'data', 'mnist'
  config.training.update({'epochs': 5, 'batch_size': 100, 'at_once': 1})
  config.evaluation.batch_size = 250
  return config


def sweep() -> list[dict[str, object]]:
  """Returns the changed fields of each run of ``--sweep``."""
  return [{'kind': kind} for kind in ('affine', 'orthogonal')]


get_config = _variants.chooser(tiny, digits, digits_vit, images)
