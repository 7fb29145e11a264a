"""From phantom exams to a trained Mammo-CLIP checkpoint; needs torch and open_clip."""

import os

# Before anything imports open_clip's hub client, which reads it once: nothing is looked for on a
# network that a workstation may not have. Whoever wants that sets it to 0.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
