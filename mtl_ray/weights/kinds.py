"""Whose files ``import`` knows. Imports no torch."""

KINDS = ("pycls", "detectron", "detectron2", "swin", "mit", "torchvision", "timm", "efficientnet", "openmmlab")
"""pycls: RegNet. detectron, detectron2: ResNet. swin, mit: of their authors (MiT is SegFormer's). torchvision: ResNet, RegNet, Swin, ViT.
timm: ViT, also from the JAX files of its authors, and ResNet. efficientnet: of efficientnet_pytorch and efficientnet_lite_pytorch.
openmmlab: backbones of MMDetection, MMSegmentation and MMPretrain."""
