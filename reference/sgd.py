"""Golden file of SGD with momentum: ten steps of torch.optim.SGD, in f64, of two groups under a schedule.

    python reference/sgd.py

Writes crates/richsem/tests/fixtures/optimizer/sgd.safetensors: for each parameter its values at the start, the
gradients of the steps and its values after each, and the factors on the learning rates.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

FILE = Path(__file__).parent.parent / "crates/richsem/tests/fixtures/optimizer/sgd.safetensors"
STEPS = 10

generator = torch.Generator().manual_seed(3)
normal = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64)
parameters = {"weight": normal(3, 4).requires_grad_(), "bias": normal(5).requires_grad_()}
rates = {"weight": 0.002, "bias": 0.02}
# A warm-up, then a drop.
factors = [0.001, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1]
groups = [{"params": [x], "lr": rates[name]} for name, x in parameters.items()]
optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-2)
out = {f"{name}.start": x.detach().clone() for name, x in parameters.items()}
grads = {name: normal(STEPS, *x.shape) for name, x in parameters.items()}
values = {name: [] for name in parameters}
for step, factor in enumerate(factors):
    for group, rate in zip(optimizer.param_groups, rates.values()):
        group["lr"] = rate * factor
    for name, x in parameters.items():
        x.grad = grads[name][step].clone()
    optimizer.step()
    for name, x in parameters.items():
        values[name].append(x.detach().clone())
for name in parameters:
    out[f"{name}.grads"] = grads[name]
    out[f"{name}.values"] = torch.stack(values[name])
out["factors"] = torch.tensor(factors, dtype=torch.float64)
FILE.parent.mkdir(exist_ok=True)
save_file(out, FILE)
FILE.chmod(0o644)
print(FILE.stat().st_size, "bytes")
