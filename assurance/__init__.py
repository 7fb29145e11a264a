"""What the reading of mammograms is put through, and the record of what came of it."""
