"""How high is the barrier between two networks trained from different seeds?

  python -m experiments.align_barrier --config=configs/align_barrier.py:VARIANT

tiny: seconds, a test. Two pairs of small networks, briefly trained.

digits: half a minute on two free cores. Three pairs of MLPs 64-128-128-128-10
without normalisation, on scikit-learn's digits; the networks reach 98.3 +- 0.6
% on test images. Expect (test accuracy in the middle, %; barrier over the chord
in train and in test loss; L2 reduction, %; alignment R; +- over pairs):

  as it is              87.5 +- 1.8  1.167 +- 0.054   1.133 +- 0.061    0   0.00
    + REPAIR            94.1 +- 0.7  0.069 +- 0.009   0.144 +- 0.026
  weight matching       97.7 +- 0.3  0.020 +- 0.006   0.019 +- 0.011   17   0.27
    + REPAIR            97.9 +- 0.5  0.003 +- 0.001   0.017 +- 0.014
  activation matching   97.9 +- 0.7  0.018 +- 0.004   0.013 +- 0.011   11   0.17
    + REPAIR            98.1 +- 0.5  0.009 +- 0.003   0.014 +- 0.012
  permuted at random    83.7 +- 3.4  1.174 +- 0.005   1.153 +- 0.008    0   0.01
  planted, matched      98.1 +- 0.8  0               0                100   1.00

With AdamW at 1e-3 and otherwise the same training (97.7 +- 0.6 %) the barrier
in test loss is 1.138 without alignment, 0.376 +- 0.076 after weight matching,
0.090 +- 0.012 after activation matching, and 0.070 and 0.047 after REPAIR.

mnist_mlp: some minutes. MLPs 784-512-512-512-10 on MNIST, from a folder of
yours: --config.data=FOLDER with a task 'mnist' (see wsl.data.folder). On 5000
training images the networks reach 96.2 +- 0.5 %. Without alignment the middle
has 66.4 +- 4.4 % and the barrier in test loss is 1.378 +- 0.049; with weight
matching 95.6 +- 0.4 % and 0.000, in train loss 0.032 +- 0.002 (L2 reduction 8.6
%, R 0.19); with REPAIR 95.9 +- 0.3 % and 0.004 in train loss.

digits_resnet: minutes. Residual networks with batch normalisation on the
digits; instead of REPAIR, the running moments of each point are reset. The
networks reach 98.7 .. 99.1 %. The middle has 10 .. 15 % without alignment (91
.. 93 % with reset), 31 .. 48 % after weight matching (97.3 .. 97.8 %), and 49
.. 57 % after activation matching (97.3 .. 97.6 %).

cifar_resnet: the same, wider, on CIFAR-10 in colour: --config.data=FOLDER with
a task 'cifar10_rgb'. Slow without a GPU.

digits_vit: minutes. Vision transformers with layer normalisation on the digits
(97.5 +- 0.3 %), matched over more and more kinds of gauges. Expect (test
accuracy in the middle, %; barrier in test loss):

  as it is              10.4 +- 0.5   2.280 +- 0.068
  weight matching       12.5 +- 3.7   3.025 +- 0.405
  + signs               14.3 +- 6.9   2.931 +- 0.720
  + scales, linear maps 21.6 +- 4.7   2.544 +- 0.277
  + rotations           54.2 +- 23.7  1.380 +- 0.799
  learned, both         94.7 +- 0.3   0.137 +- 0.050

suite_vit: the same, on a task of 28x28 images, --config.data=FOLDER.

python_lm: minutes. Language models of bytes with RMSNorm, rotary positions and
SwiGLU, on texts of every Python installation; see experiments/README.md.

texts_lm: the same, on all texts of a folder, --config.data=FOLDER.

tiny_lm: a test. One pair of language models of width 8.

The barrier depends on the training: --sweep runs the variant with SGD and with
AdamW, at two learning rates each. The networks of both rates are trained by one
compiled call.
"""

import ml_collections

from configs import _variants

_TRANSFORMER: dict[str, object] = {
  'optimizer': 'adamw',
  'learning_rate': 5e-3,
  'weight_decay': 1.0,
  'batch_size': 64,
  'at_once': 1,
}


def digits() -> ml_collections.ConfigDict:
  """MLPs on the embedded digits."""
  return ml_collections.ConfigDict(
    {
      'variant': '',
      'data': 'digits',  # the embedded ones, or a path for wsl.data.folder
      'task': 'digits',  # in that folder
      'pairs': 3,
      'seed': 0,
      'model': {
        # A public model of wsl.models and its arguments.
        'module': 'MLP',
        'arguments': {'widths': (128, 128, 128), 'outputs': 10, 'norm': False},
      },
      'training': _variants.sgd(epochs=30, at_once=6, decay=1e-4),
      # Public functions of wsl.align that find a permutation, and arguments.
      'methods': ('weight_matching', 'activation_matching'),
      'arguments': {},
      'points': 25,  # on each path; odd, so that the middle is one of them
      'repair': {'points': 13},  # with corrected statistics; left out without
      'evaluation': {'batch_size': 500},
      # Unlabelled training images, for activations and their moments.
      'statistics': {'examples': 1000, 'batch_size': 250},
      'threshold': 0.3,  # of singular values, as a fraction of the largest
    }
  )


def tiny() -> ml_collections.ConfigDict:
  """A test, in seconds."""
  config = digits()
  config.pairs = 2
  config.model.arguments.widths = (32, 24)
  config.training.epochs = 4
  config.points = 5
  config.repair.points = 3
  config.statistics = {'examples': 256, 'batch_size': 128}
  return config


def tiny_lm() -> ml_collections.ConfigDict:
  """A test of gauges, in seconds: one pair of language models."""
  config = python_lm()
  config.update({'pairs': 1, 'length': 16, 'bytes': 20_000, 'points': 3})
  config.model.arguments.update(
    {'width': 8, 'depth': 1, 'heads': 2, 'hidden': 8}
  )
  config.training.epochs = 1
  config.evaluation = {'batch_size': 32, 'windows': 32, 'train': 64}
  config.statistics = {'examples': 64, 'batch_size': 64}
  config.methods = ('weight_matching',)
  config.ladder = (('sign', 'scale', 'linear', 'rotation', 'phase'),)
  config.learned.update({'epochs': 1, 'held_out': 1, 'learning_rate': 0.02})
  return config


def mnist_mlp() -> ml_collections.ConfigDict:
  """The MLP of the re-basin papers, from a folder of the user."""
  config = digits()
  config.data, config.task = 'data', 'mnist'
  config.model.arguments.widths = (512, 512, 512)
  config.training.batch_size = 100
  config.training.at_once = 1
  return config


def digits_resnet() -> ml_collections.ConfigDict:
  """Residual networks with batch normalisation on the embedded digits."""
  config = digits()
  with config.unlocked():
    config.model = {
      'module': 'ResNet',
      'arguments': {
        'outputs': 10,
        'widths': (64, 128),
        'depth': 1,
        'stem': 3,
        'dense': (),
        'pool': 'mean',
        'norm': 'batch',
      },
    }
  config.training.update({'weight_decay': 5e-4, 'epochs': 20})
  config.points, config.repair.points = 11, 5
  return config


def cifar_resnet() -> ml_collections.ConfigDict:
  """The same, wider, on CIFAR-10, from a folder of the user."""
  config = digits_resnet()
  config.data, config.task = 'data', 'cifar10_rgb'
  config.model.arguments.widths = (64, 128, 256)
  config.training.update({'epochs': 30, 'batch_size': 100, 'at_once': 1})
  config.repair.points = 11
  return config


def digits_vit() -> ml_collections.ConfigDict:
  """Vision transformers with layer normalisation on the embedded digits."""
  config = digits()
  with config.unlocked():
    config.model = {
      'module': 'ViT',
      'arguments': {
        'outputs': 10,
        'patch': 2,
        'width': 64,
        'depth': 2,
        'heads': 4,
        'pool': 'mean',
      },
    }
    config.training = _TRANSFORMER | {'epochs': 60}
    # Kinds of gauges that are matched beside permutations, in each row those of
    # the rows before and some more.
    config.ladder = (('sign',), ('scale', 'linear'), ('rotation',))
    # After the last row, gauge elements are learned by the loss on the path.
    config.learned = {
      'epochs': 20,
      'batch_size': 64,
      'held_out': 4,  # batches that select the step
      'learning_rate': 0.01,
      'path': (0.4, 0.6),
      'examples': 10_000,  # of the training at most
    }
  config.points, config.repair.points = 11, 5
  return config


def suite_vit() -> ml_collections.ConfigDict:
  """Larger ones, on a task of 28x28 images from a folder of the user."""
  config = digits_vit()
  config.data, config.task = 'data', 'fashion'
  config.model.arguments.patch = 4
  config.training.epochs = 10
  config.evaluation.train = 1000
  return config


def python_lm() -> ml_collections.ConfigDict:
  """Language models of bytes, on texts of every Python installation."""
  config = digits_vit()
  with config.unlocked():
    config.data = 'python'
    del config.task
    config.domains = ('code', 'manual')
    config.length = 64  # bytes of a window
    config.bytes = 400_000  # of each domain at most
    config.evaluation = {'batch_size': 64, 'windows': 128, 'train': 256}
    # RMSNorm, rotary positions and SwiGLU, without biases.
    config.model = {
      'module': 'LanguageModel',
      'arguments': {
        'vocabulary': 256,
        'width': 64,
        'depth': 2,
        'heads': 4,
        'hidden': 128,
        'tied': False,  # the gain of the last norm can be absorbed
      },
    }
    del config.repair  # it shifts biases
    config.ladder = (*config.ladder, ('phase',))
  config.training.update(
    {'learning_rate': 3e-3, 'weight_decay': 0.1, 'epochs': 3, 'batch_size': 32}
  )
  config.learned.update(
    {'epochs': 1, 'batch_size': 32, 'held_out': 8, 'examples': 4096}
  )
  config.points = 7
  config.statistics = {'examples': 256, 'batch_size': 64}
  return config


def texts_lm() -> ml_collections.ConfigDict:
  """The same, on all texts of a folder of the user."""
  config = python_lm()
  config.update({'data': 'data', 'domains': ()})
  return config


def sweep() -> list[dict[str, object]]:
  """Returns the changed fields of each run of ``--sweep``."""
  rates = {'sgd': (0.1, 0.03), 'adamw': (1e-3, 3e-3)}
  return [
    {'training.optimizer': optimizer, 'training.learning_rate': rate}
    for optimizer in rates
    for rate in rates[optimizer]
  ]


get_config = _variants.chooser(
  tiny,
  tiny_lm,
  digits,
  mnist_mlp,
  digits_resnet,
  cifar_resnet,
  digits_vit,
  suite_vit,
  python_lm,
  texts_lm,
)
