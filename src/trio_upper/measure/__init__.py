"""Round trips and load, timed; every reply is compared."""
