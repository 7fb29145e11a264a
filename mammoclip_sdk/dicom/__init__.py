"""Bytes -> a header that may be believed: the gate, what it reads, and how names are coded."""
