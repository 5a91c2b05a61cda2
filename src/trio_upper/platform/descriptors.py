"""How many descriptors a process may have open: a connection is one."""

import resource


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one; return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
