"""From a checkpoint to a bundle: folding, ONNX, parity, manifest."""
