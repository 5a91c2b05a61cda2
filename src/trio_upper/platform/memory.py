"""Large blocks of memory that come and go: one for each read of bulk."""


def reuse_large_blocks(size: int) -> None:
    """Have the C library use freed blocks of up to `size` bytes again, from now on.

    That of GNU maps each block from 128 KiB on, and returns what is free at the end of the heap, to
    be given pages anew the next time: a fifth of the time of a bulk transfer. It does so no longer
    up to the size of a mapped block that was freed once (mallopt(3), M_MMAP_THRESHOLD), and then
    keeps twice as much. At most 32 MiB; other C libraries may do nothing.
    """
    bytes(size)
