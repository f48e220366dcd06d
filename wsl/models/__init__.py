"""Small Flax models, readable as their papers, used purely.

``params = model.init(key, x)['params']`` and
``model.apply({'params': params}, x)``. Parameters are drawn in float32; a
model computes in the widest of float32, its input and its parameters, so a
cast of the parameters is a cast of the model.
"""

from wsl.models._cifar_resnet import CifarResNet as CifarResNet
from wsl.models._cifar_resnet_torch import (
  cifar_resnet_from_torch as cifar_resnet_from_torch,
)
from wsl.models._cifar_resnet_torch import (
  cifar_resnet_to_torch as cifar_resnet_to_torch,
)
from wsl.models._experts import MoE as MoE
from wsl.models._experts import router_logits as router_logits
from wsl.models._feed_forward import Perceptron as Perceptron
from wsl.models._feed_forward import SwiGLU as SwiGLU
from wsl.models._gates import load_balance as load_balance
from wsl.models._gates import top_k_gates as top_k_gates
from wsl.models._language import LanguageModel as LanguageModel
from wsl.models._mlp import MLP as MLP
from wsl.models._resnet import ResNet as ResNet
from wsl.models._segments import Segments as Segments
from wsl.models._segments import segments as segments
from wsl.models._vit import ViT as ViT
