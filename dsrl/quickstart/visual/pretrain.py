"""Train the visual quickstart's base model from scratch: `python -m dsrl.quickstart.visual.pretrain --out FOLDER`.

Writes a Hugging Face folder with its processor, with `pretraining.json` (recipe and validation) and
`pretraining_digests.txt` (one digest per training image) beside the weights. The folder appears whole or not at all.
"""

from dsrl.quickstart.pretrain import main
from dsrl.quickstart.visual.base import VisualPretrain

if __name__ == "__main__":
    main(VisualPretrain, __doc__)
