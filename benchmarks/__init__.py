"""What the software costs and how well it scores, measured side by side within one run."""
