"""Named places where a test may make a process fail."""


def failpoint(name: str) -> None:
    """Do nothing."""
