"""What `torchdcls train`, `eval`, `export` and `compare` need, with the train extra."""

from torchdcls._extras import require

# All at once: half of them would end a run in its middle.
require("torchdcls_train", "train")
