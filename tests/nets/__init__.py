"""Generated U-Net-like modules: a `Plan` says what one is made of, `plans` draws them."""

from .plan import Plan, plans
from .unet import GeneratedUNet

__all__ = ["GeneratedUNet", "Plan", "plans"]
