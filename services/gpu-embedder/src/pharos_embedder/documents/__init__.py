"""Documents: bytes in, chunks out. `reading` and `splitting` do it, `pool` has it done."""
