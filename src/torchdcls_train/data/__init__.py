"""Images to train and to validate on: where they come from, in which order, and what is done to them."""

# The data sets that have a name: all others are paths.
NAMED = ("embedded", "fashion-mnist", "cifar10")
