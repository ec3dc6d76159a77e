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
# # Convert and fine-tune
#
# Train a small network with 7x7 kernels on images that come with the package. Then convert it to 17x17 DCLS kernels
# that start from the 7x7 kernels, and fine-tune it.

# %% tags=["install"]
# %pip install --quiet "torchdcls[train]"

# %%
import torch
import torch.nn.functional as F
from torch import nn

from torchdcls import convert, fuse, param_groups
from torchdcls_train.data import load_data

torch.manual_seed(0)
data = load_data("embedded")  # a part of Fashion-MNIST
images, labels = data.train.images[:2000] / 255, data.train.labels[:2000]
test_images, test_labels = data.test.images / 255, data.test.labels


def block(channels):
    return nn.Sequential(
        nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
        nn.Conv2d(channels, channels, 1),
        nn.GroupNorm(1, channels),
        nn.ReLU(),
    )


model = nn.Sequential(
    nn.Conv2d(1, 24, 2, stride=2), block(24), block(24), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)
)


# %%
def train(model, epochs, lr):
    optimizer = torch.optim.AdamW(param_groups(model, lr=lr, weight_decay=0.05))
    for _epoch in range(epochs):
        model.train()
        for batch in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def accuracy(model):
    model.eval()
    with torch.no_grad():
        return 100 * (model(test_images).argmax(1) == test_labels).float().mean().item()


train(model, epochs=3, lr=1e-2)
before = accuracy(model)
print(f"7x7: {before:.1f} %")

# %% [markdown]
# A 7x7 kernel has 49 taps. With a bilinear element for each tap, the converted model computes what the old model
# computed.

# %%
print(convert(model, dilated_kernel_size=17, kernel_count=49, interpolation="bilinear", init="keep"))
kept = accuracy(model)
print(f"converted: {kept:.1f} %")

# %%
train(model, epochs=1, lr=2e-3)
print(f"fine-tuned: {accuracy(model):.1f} %")

# %% [markdown]
# For deployment, fuse the model: plain convolutions replace the DCLS layers.

# %%
print(fuse(model, example=test_images[:4]))
