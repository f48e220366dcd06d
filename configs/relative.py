"""Can a decoder read the latents of an encoder that it was not trained with?

  python -m experiments.relative --config=configs/relative.py:VARIANT

tiny: seconds, a test.

digits: two minutes on two free cores, most of them compilation. Three
replicates, each of four MLPs 64-128-w (two of w = 24, two of 48) with decoders
w-128-10 or w-128-64 on scikit-learn's digits, and its own anchors, drawn from
images that no network is trained on. Expect, over all pairs of an encoder of
24 and one of 48, zero-shot (test accuracy of classifiers, test variance
explained by autoencoders, %; +- over replicates):

  anchors                     10          30           100          300
  classifiers (own decoders 97.8 +- 0.3, own relative ones 97.4 +- 0.2)
  relative representations    87.9 +- 1.1  95.3 +- 0.6  96.4 +- 0.3  96.8 +- 0.2
  translated by a rotation    77.4 +- 5.6  95.4 +- 1.4  97.0 +- 0.2  97.0 +- 0.1
  translated by an affine map 76.6 +- 5.7  86.0 +- 1.8  96.0 +- 0.5  97.0 +- 0.2
  anchors in another order    16.7 +- 8.7  11.2 +- 5.6  15.1 +- 5.7   8.9 +- 1.7
  as they are                 11.6 +- 3.5
  autoencoders (own decoders 91.0 +- 0.0, own relative ones 88.4 +- 0.1)
  relative representations    45.8 +- 6.6  59.4 +- 1.0  64.2 +- 0.1  65.1 +- 1.2
  translated by a rotation    18.5 +- 6.5  72.7 +- 0.3  79.6 +- 0.5  80.9 +- 0.5
  translated by an affine map 38.8 +- 6.5  69.6 +- 3.2  86.0 +- 0.2  87.6 +- 0.2
  anchors in another order    below 0, as are the latents as they are (-152)

Pairs of one width differ by 6 points or less. Zero-shot stitching works: with
relative representations classifiers lose a point, and both controls fail. It is
the best of the three methods only with fewer anchors than dimensions; with more
anchors a fitted map is as good for classifiers and far better for autoencoders.

The choice of similarity matters. Autoencoders with 30 and 300 anchors, all
pairs: uncentred cosines 50.3 and 58.9, cosines 60.5 and 66.1,
inner products 57.6 and 64.2, distances 57.7 and 65.3, coefficients in the basis
of the anchors (relative.kind=basis) 51.1 and 78.5.

images: the same on 28x28 images, from a folder of yours: --config.data=FOLDER
with a task 'mnist' (see wsl.data.folder).

--sweep runs the variant with other similarities.
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """Classifiers and autoencoders of the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'upright',  # the digits as they are, or a task in that folder
      'held_out': 348,  # training images that are anchors, for no training
      'objectives': ('classes', 'images'),
      'replicates': 3,  # each with its own networks and anchors
      'seeds': 2,  # networks of each width in a replicate
      'widths': (24, 48),  # of the latents
      'hidden': 128,
      'seed': 0,
      'at_once': 12,  # networks trained side by side by vmap
      'training': {'steps': 600, 'batch_size': 64, 'learning_rate': 2e-3},
      'anchors': (10, 30, 100, 300),
      # Arguments of stitch.relative and of stitch.translate.
      'relative': {'kind': 'cosine', 'center': True, 'normalize': False},
      'translate': {'scale': 'none'},
      'shown': 8,  # images in the figure of reconstructions
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.objectives = ('images',)
  config.replicates, config.seeds = 2, 1
  config.widths, config.hidden = (8, 12), 32
  config.training.update({'steps': 60, 'learning_rate': 1e-2})
  config.anchors = (6, 40)
  return config


def images() -> ml_collections.ConfigDict:
  """28x28 images, from a folder of the user."""
  config = digits()
  config.data, config.task = 'data', 'mnist'
  config.held_out, config.hidden = 500, 256
  config.widths = (32, 64)
  config.training.update({'steps': 1500, 'learning_rate': 1e-3})
  return config


def sweep() -> list[dict[str, object]]:
  """Returns the changed fields of each run of ``--sweep``."""
  return [
    {'relative.kind': 'cosine', 'relative.center': False},
    {'relative.kind': 'cosine', 'relative.center': True},
    {'relative.kind': 'euclidean', 'relative.center': True},
    {'relative.kind': 'basis', 'relative.center': True},
  ]


get_config = _variants.chooser(tiny, digits, images)
