"""Servers that upper-case what they read, each written as its own tutorial shows.

Each is run as ``python -m benchmarks.peers.NAME PORT``, with ``--text`` to upper-case UTF-8 text in
place of ASCII letters, and ``--uvloop`` for the two on asyncio.
"""
