from .torch_policy import TorchPolicy as TorchPolicy
