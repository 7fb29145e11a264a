"""From phantom exams to a trained Mammo-CLIP checkpoint; needs torch and open_clip."""
