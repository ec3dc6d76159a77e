# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # First picture
#
# A DCLS kernel is the sum of a few elements, whose weights and positions are learned. Here 16 elements for each channel
# find one place: 3 rows above and 5 columns to the right of each pixel.

# %% tags=["install"]
# %pip install --quiet "torchdcls[train]"

# %%
import matplotlib.pyplot as plt
import torch

from torchdcls import Dcls2d, param_groups
from torchdcls.plots import draw_kernel, draw_positions

torch.manual_seed(0)
layer = Dcls2d(8, 1, kernel_count=16, dilated_kernel_size=17, padding="same", position_init=("uniform", 8.0))
start = layer.position.detach().clone()

# %% [markdown]
# `param_groups` gives positions 5 times the learning rate and no weight decay.

# %%
optimizer = torch.optim.AdamW(param_groups(layer, lr=0.02, weight_decay=0.0))
for _step in range(100):
    images = torch.randn(4, 8, 32, 32)
    target = images.mean(1, keepdim=True).roll((3, -5), dims=(-2, -1))
    loss = (layer(images) - target).square().mean() / target.square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"relative error {loss.item():.2f}")

# %% [markdown]
# On the left is the kernel of one channel. On the right are the elements of all channels. A dot is an element, its area
# is the magnitude of its weight, and a line leads back to its start.

# %%
_figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
draw_kernel(left, layer.kernel()[0, 0].detach())
draw_positions(right, layer.position[:, 0].detach(), layer.weight[0].detach(), (17, 17), start=start[:, 0])
plt.show()

# %% [markdown]
# Next: [the idea in pictures](https://torchdcls.github.io/torchdcls/start/idea.html).
