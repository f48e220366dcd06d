"""How similar are pretrained networks of different depths?

  python -m experiments.stitch_zoo --config=configs/stitch_zoo.py:VARIANT

tiny: seconds, a test.

digits: some minutes (on shared cores). Three networks of widths 8, 16 and 32
are trained on scikit-learn's digits, 98.4 % each, and stitched at the ends of
their stages. Expect (test %):

                         3     6     9 ninths
  8 on 20   affine     49.4  73.9  98.2
    + moments reset    70.8  84.9  98.2
            orthogonal 46.5  70.4  98.0
    + moments reset    59.9  80.4  98.0
            trained    60.8  84.2  98.2
            random     25.8  37.6  49.4
            itself     98.4  98.4  98.4
  20 on 8   affine     56.3  82.6  98.4
    + moments reset    81.7  82.4  98.4
            orthogonal 72.6  85.5  98.7
    + moments reset    71.7  88.0  98.7
            trained    74.2  92.2  98.4
            random     22.0  21.6  38.5
            itself     98.4  98.4  98.4

cifar: ten minutes on two free cores (estimated from CPU time). Pretrained
ResNet-20, 32, 44 and 56, from a folder of yours with cifar_resnet20.npz and so
on (arrays by PyTorch's names), and CIFAR-10:

  --config.weights=FOLDER --config.data=FOLDER_OR_FILE

with a task 'cifar10_rgb' (see wsl.data.folder). On 2000 test images they reach
91.15, 92.15, 93.05 and 92.55 % (published, on all test images: 91.7, 92.6, 93.1
and 93.4). Adapters are fitted to 300 training images without labels; stitches
are tested on 1000 images. Expect (test %, by ninths of depth at the stitch):

                         2     4     6     8
  20 on 56  affine     90.1  88.5  87.8  62.3
    + moments reset    91.2  90.2  89.2  85.3
            orthogonal 79.0  70.7  78.6  74.2
    + moments reset    89.2  89.6  88.1  84.3
            trained    90.9  90.1  88.9  85.4
            random     14.7  11.9  15.4   9.9
            itself     93.3  93.3  93.3  93.3
  56 on 20  affine     87.6  85.1  87.3  74.3
    + moments reset    87.7  88.3  88.6  88.9
            orthogonal 82.8  73.4  80.5  87.8
    + moments reset    86.8  88.2  87.5  89.9
            trained    89.7  88.2  88.3  89.3
            random     13.9  15.0  10.0   9.1
            itself     91.1  91.1  91.1  91.1

trained: two epochs on 1000 images with labels, from the affine maps, without a
reset of the moments. All twelve pairs have 73 .. 91 % with affine maps at 2, 4
and 6 and 62 .. 76 % at 8, where the moments of the top do not fit. No stitch is
clearly above ResNet-20, the cheapest of the zoo (91.1 % on these images):
stitches measure the similarity of networks, they do not improve on them.
"""

import ml_collections

from configs import _variants


def digits() -> ml_collections.ConfigDict:
  """Small networks, trained here on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'digits',  # in that folder
      'weights': '',  # folder of cifar_resnetDEPTH.npz; if empty, train
      'seed': 0,
      'depths': (8, 14, 20),
      'widths': (8, 16, 32),
      'outputs': 10,
      # Normalisation of pixels: (x / range - mean) / std.
      'pixels': {'range': 1, 'mean': (0.3,), 'std': (0.37,)},
      'training': _variants.sgd(epochs=12, at_once=1, decay=5e-4),
      'cuts': (3, 6, 9),  # ninths of the depth
      # Training images that adapters are fitted to, without labels.
      'fit': {'examples': 300, 'batch_size': 150},
      # Of adapters: the first for all pairs, all for close pairs.
      'kinds': ('affine', 'orthogonal'),
      'close': ((8, 20), (20, 8)),  # (bottom, top) with controls and training
      'adapters': {
        'learning_rate': 1e-3,
        'epochs': 3,
        'examples': 1000,
        'batch_size': 50,
      },
      'evaluation': {'examples': 449, 'batch_size': 150},
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.depths, config.widths = (8, 14), (2, 3, 4)
  config.training.epochs = 1
  config.cuts, config.close = (6,), ((14, 8),)
  config.kinds = ('affine',)
  config.fit = {'examples': 60, 'batch_size': 60}
  config.adapters.update({'epochs': 1, 'examples': 100})
  config.evaluation = {'examples': 150, 'batch_size': 150}
  return config


def cifar() -> ml_collections.ConfigDict:
  """Pretrained networks; weights and images are the user's."""
  config = digits()
  config.data, config.task = 'data', 'cifar10_rgb'
  config.weights = 'data/weights'
  config.depths, config.widths = (20, 32, 44, 56), (16, 32, 64)
  config.pixels = {
    'range': 255,
    'mean': (0.485, 0.456, 0.406),
    'std': (0.229, 0.224, 0.225),
  }
  config.cuts = (2, 4, 6, 8)
  config.fit.batch_size = 100
  config.close = ((20, 56), (56, 20))
  config.adapters.epochs = 2
  config.evaluation = {'examples': 1000, 'batch_size': 100}
  return config


def sweep() -> list[dict[str, object]]:
  """Returns the changed fields of each run of ``--sweep``."""
  return [{'fit.examples': count} for count in (50, 100, 300)]


get_config = _variants.chooser(tiny, digits, cifar)
