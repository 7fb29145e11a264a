"""What `make check` and `make wheel` judge beside the linters."""
