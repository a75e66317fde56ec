"""python -m backbones [NAME …]: writes the fixtures of these families, default all."""

import importlib
import sys

FAMILIES = ["swin", "focalnet", "convnext", "vitdet", "dinov2", "dinov3", "eva02", "clip"]

for family in sys.argv[1:] or FAMILIES:
    importlib.import_module(f"backbones.{family}").main()
