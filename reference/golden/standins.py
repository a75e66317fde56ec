"""Stand-ins for what the official checkout imports and a small CPU machine lacks.

Nothing of the checkout is copied or changed: modules that are absent are answered by empty ones,
two operations (RoIAlign, deformable attention) by PyTorch's own, and a request for CUDA by the CPU.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

import torch
import torchvision

# Imported at the top of files of which we need something else.
ABSENT = [
    "MultiScaleDeformableAttention", "addict", "cv2", "detectron2", "ipdb", "lib2to3", "lvis",
    "matplotlib", "pandas", "panopticapi", "pkg_resources", "pycocotools", "seaborn",
    "termcolor", "timm", "tqdm", "yaml", "yapf",
]


class Nothing:
    """Whatever is imported from an empty module; of no use but to be named or subclassed."""

    def __init__(self, *args, **kwargs):
        raise RuntimeError("a stand-in was called: the harness lacks what this needs")


class EmptyModule(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Nothing,), {})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for ABSENT packages. Installed ones are not asked for: they could be of any version."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return EmptyModule(spec.name)

    def exec_module(self, module):
        pass


class RoIAlign:
    """detectron2's layer, on torchvision's operation."""

    def __init__(self, output_size, spatial_scale, sampling_ratio, aligned=True):
        self.settings = (output_size, spatial_scale, sampling_ratio, aligned)

    def forward(self, features, rois):
        size, scale, ratio, aligned = self.settings
        return torchvision.ops.roi_align(features, rois, size, scale, ratio, aligned)


def on_cpu():
    """`.cuda()` and `.to("cuda")` stay where they are."""
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self
    for owner in (torch.Tensor, torch.nn.Module):
        original = owner.to

        def to(self, *args, _original=original, **kwargs):
            if args and str(args[0]).startswith("cuda"):
                return self
            return _original(self, *args, **kwargs)

        owner.to = to


def deformable_attention():
    """The CUDA operation by the checkout's own composition of PyTorch's, with its gradient."""
    module = importlib.import_module("MultiScaleDeformableAttention")

    def composed(value, shapes, locations, weights):
        functions = importlib.import_module("models.richsem.ops.functions.ms_deform_attn_func")
        shapes = [(int(h), int(w)) for h, w in shapes]
        return functions.ms_deform_attn_core_pytorch(value, shapes, locations, weights)

    def forward(value, shapes, starts, locations, weights, step):
        return composed(value, shapes, locations.to(value.dtype), weights)

    def backward(value, shapes, starts, locations, weights, grad, step):
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x in (value, locations, weights)]
            output = composed(inputs[0], shapes, inputs[1].to(value.dtype), inputs[2])
            return torch.autograd.grad(output, inputs, grad)

    module.ms_deform_attn_forward = forward
    module.ms_deform_attn_backward = backward


class Release(tuple):
    """Just enough of `packaging.version`."""

    @classmethod
    def parse(cls, text):
        return cls(int(part) for part in text.split("+")[0].split(".")[:3])


def install(checkout):
    """Makes `import models`, `import clip`, … give the checkout's modules."""
    sys.meta_path.insert(0, Finder())
    sys.path.insert(0, str(checkout))
    on_cpu()
    importlib.import_module("detectron2.layers.roi_align").ROIAlign = RoIAlign
    packaging = types.SimpleNamespace(version=Release)
    importlib.import_module("pkg_resources").packaging = packaging
    importlib.import_module("tqdm").tqdm = lambda x, **_: x
    deformable_attention()


def serve_clip(make):
    """`clip.load(name)` gives `make(name)` in place of a download."""
    import clip

    clip.load = lambda name, *args, **kwargs: (make(name), None)
